//! The queries of `dispatch check --live`.

use time::OffsetDateTime;
use tokio_postgres::GenericClient;

use super::error::StoreError;
use super::handle::Store;
use super::rights::{FUNCTIONS, SEQUENCES, of_worker};
use super::sql::{query, query_one};

/// Properties of a connection, as Postgres sees it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The current role.
    pub user: String,
    /// The version of TLS; `None` for a plaintext connection.
    pub tls: Option<String>,
    /// Whether the server is on this machine.
    pub local: bool,
    /// Whether the server is a standby, which accepts no writes.
    pub standby: bool,
    /// Version of the server.
    pub version: String,
}

const SESSION: &str = "
    SELECT current_user::text AS user, CASE WHEN s.ssl THEN s.version END AS tls, pg_is_in_recovery() AS standby,
        coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true) AS local,
        current_setting('server_version') AS version
    FROM (VALUES (pg_backend_pid())) AS own (pid) LEFT JOIN pg_stat_ssl s ON s.pid = own.pid";

/// Selects the privileges of `rights` that this role lacks. Locking a row requires `UPDATE`;
/// drawing an id requires `USAGE` on its sequence.
const MISSING_RIGHTS: &str = "
    SELECT name || ': ' || string_agg(wish, ', ' ORDER BY wish) AS missing
    FROM unnest($1::text[], $2::text[]) AS wanted (name, rights) CROSS JOIN unnest(string_to_array(rights, ',')) AS wish
    WHERE NOT coalesce(has_table_privilege(to_regclass(name), wish), false)
    GROUP BY name
    UNION ALL
    SELECT name || ': USAGE' FROM unnest($3::text[]) AS name
    WHERE NOT coalesce(has_sequence_privilege(to_regclass(name), 'USAGE'), false)
    UNION ALL
    SELECT name || ': EXECUTE' FROM unnest($4::text[]) AS name
    WHERE NOT coalesce(has_function_privilege(to_regprocedure(name), 'EXECUTE'), false)
    ORDER BY missing";

/// Selects what a role can do, by itself or through a role that it is a member of, although a
/// worker must not.
const TOO_MUCH: &str = "
    WITH me AS (SELECT oid, rolsuper FROM pg_roles WHERE rolname = $1),
    mine AS (
        SELECT r.oid, r.rolname, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication FROM me CROSS JOIN pg_roles r
        WHERE NOT me.rolsuper AND pg_has_role(me.oid, r.oid, 'MEMBER')
    ), tables AS (
        SELECT c.oid, c.relname, c.relowner FROM unnest($2::text[]) AS name JOIN pg_class c ON c.oid = to_regclass(name)
    )
    SELECT 'is a superuser' AS what FROM me WHERE rolsuper
    UNION SELECT 'may become the superuser ' || rolname FROM mine WHERE rolsuper
    UNION SELECT 'may create roles' FROM mine WHERE rolcreaterole
    UNION SELECT 'may create databases' FROM mine WHERE rolcreatedb
    UNION SELECT 'may copy the whole cluster (REPLICATION)' FROM mine WHERE rolreplication
    UNION SELECT 'is a member of ' || rolname FROM mine
        WHERE rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
    UNION SELECT 'owns the database' FROM pg_database d JOIN mine ON mine.oid = d.datdba WHERE d.datname = current_database()
    UNION SELECT 'owns the schema public' FROM pg_namespace n JOIN mine ON mine.oid = n.nspowner WHERE n.nspname = 'public'
    UNION SELECT 'owns ' || count(*) || ' tables, one of them ' || min(relname::text)
        FROM tables JOIN mine ON mine.oid = tables.relowner HAVING count(*) > 0
    UNION SELECT 'may create in the schema public' FROM me WHERE NOT rolsuper AND has_schema_privilege(me.oid, 'public', 'CREATE')
    UNION SELECT 'has ' || excess || ' on ' || count(*) || ' tables, one of them ' || min(relname::text)
        FROM me CROSS JOIN tables CROSS JOIN unnest('{TRUNCATE,TRIGGER}'::text[]) AS excess
        WHERE NOT rolsuper AND has_table_privilege(me.oid, tables.oid, excess) GROUP BY excess
    UNION SELECT 'has UPDATE on audit_log' FROM me CROSS JOIN tables
        WHERE NOT rolsuper AND relname = 'audit_log' AND has_any_column_privilege(me.oid, tables.oid, 'UPDATE')
    UNION SELECT 'has DELETE on audit_log' FROM me CROSS JOIN tables
        WHERE NOT rolsuper AND relname = 'audit_log' AND has_table_privilege(me.oid, tables.oid, 'DELETE')
    ORDER BY what";

const CLOCK: &str = "SELECT clock_timestamp() AS now";

impl Store {
    /// Returns the properties of this store's connection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self) -> Result<Session, StoreError> {
        let row = query_one(&self.client().await?, SESSION, &[]).await?;
        Ok(Session {
            user: row.try_get("user")?,
            tls: row.try_get("tls")?,
            local: row.try_get("local")?,
            standby: row.try_get("standby")?,
            version: row.try_get("version")?,
        })
    }

    /// Returns the privileges that a worker needs and this role lacks, one line per table,
    /// sequence and function.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing_rights(&self) -> Result<Vec<String>, StoreError> {
        let (tables, rights) = of_worker();
        let rows = query(
            &self.client().await?,
            MISSING_RIGHTS,
            &[&tables, &rights, &SEQUENCES, &FUNCTIONS],
        )
        .await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get("missing"))
            .collect::<Result<_, _>>()?)
    }

    /// Returns what a role can do although a worker must not, each as the predicate of a sentence:
    /// `owns the database`. Empty for a worker's login.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn excess_of(&self, role: &str) -> Result<Vec<String>, StoreError> {
        too_much(&**self.client().await?, role).await
    }

    /// Returns the time on Postgres' clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clock(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(query_one(&self.client().await?, CLOCK, &[])
            .await?
            .try_get("now")?)
    }
}

/// Returns the same as [`Store::excess_of`], on any connection; nothing for a role that does not
/// exist.
pub(super) async fn too_much<C: GenericClient>(
    on: &C,
    role: &str,
) -> Result<Vec<String>, StoreError> {
    let rows = on.query(TOO_MUCH, &[&role, &of_worker().0]).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("what"))
        .collect::<Result<_, _>>()?)
}
