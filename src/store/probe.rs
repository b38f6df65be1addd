//! What `dispatch check --live` asks Postgres.

use time::OffsetDateTime;

use super::Store;
use super::error::StoreError;
use super::sql::{query, query_one};

/// A connection as Postgres sees it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The role.
    pub user: String,
    /// Whether rights mean nothing to it.
    pub superuser: bool,
    /// The version of TLS; none where the connection is plain.
    pub tls: Option<String>,
    /// Whether the server is on this machine.
    pub local: bool,
    /// Whether it is a standby, which takes no writes.
    pub standby: bool,
    /// Of the server.
    pub version: String,
}

const SESSION: &str = "
    SELECT current_user::text AS user, r.rolsuper, CASE WHEN s.ssl THEN s.version END AS tls, pg_is_in_recovery() AS standby,
        coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true) AS local,
        current_setting('server_version') AS version
    FROM pg_roles r LEFT JOIN pg_stat_ssl s ON s.pid = pg_backend_pid()
    WHERE r.rolname = current_user";

/// What a worker does with each table; to lock a row takes the right to update it, to take an id by hand one on its sequence.
const MISSING_RIGHTS: &str = "
    WITH wanted (name, rights) AS (VALUES
        ('refinery_schema_history', '{SELECT}'::text[]), ('replicas', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('job_keys', '{SELECT,INSERT,UPDATE,DELETE}'), ('jobs', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('checkpoints', '{SELECT,INSERT,DELETE}'), ('attempts', '{SELECT,INSERT,DELETE}'),
        ('effects', '{SELECT,INSERT,UPDATE,DELETE}'), ('dead_letters', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('announcements', '{SELECT,INSERT,UPDATE,DELETE}'), ('audit_log', '{SELECT,INSERT,DELETE}'),
        ('controls', '{SELECT,INSERT,UPDATE,DELETE}'), ('releases', '{SELECT,INSERT,UPDATE,DELETE}'),
        ('producers', '{SELECT}'), ('quota_grants', '{SELECT,INSERT,UPDATE,DELETE}'), ('organizations', '{SELECT}'), ('projects', '{SELECT}'), ('users', '{SELECT}'), ('user_emails', '{SELECT}'), ('project_members', '{SELECT}'),
        ('teams', '{SELECT}'), ('team_members', '{SELECT}'), ('integrations', '{SELECT}'), ('subscriptions', '{SELECT,DELETE}'),
        ('identities', '{SELECT,UPDATE}'), ('organization_integrations', '{SELECT,UPDATE}'), ('external_issues', '{SELECT}'),
        ('issue_groups', '{SELECT,UPDATE}'), ('group_links', '{SELECT,UPDATE}'), ('group_assignees', '{SELECT,INSERT,UPDATE}'),
        ('group_subscriptions', '{SELECT,INSERT,DELETE}'), ('activities', '{SELECT,INSERT,DELETE}'), ('group_history', '{SELECT,INSERT,DELETE}'),
        ('destinations', '{SELECT,UPDATE}'), ('seen_events', '{SELECT,INSERT,UPDATE,DELETE}'))
    SELECT name || ': ' || string_agg(wish, ', ' ORDER BY wish) AS missing FROM wanted CROSS JOIN unnest(rights) AS wish
    WHERE NOT coalesce(has_table_privilege(to_regclass(name), wish), false)
    GROUP BY name
    UNION ALL
    SELECT name || ': USAGE' FROM unnest('{dead_letters_id_seq,replicas_id_seq}'::text[]) AS name
    WHERE NOT coalesce(has_sequence_privilege(to_regclass(name), 'USAGE'), false)
    ORDER BY missing";

const CLOCK: &str = "SELECT clock_timestamp() AS now";

impl Store {
    /// How this store is connected.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self) -> Result<Session, StoreError> {
        let row = query_one(&self.client().await?, SESSION, &[]).await?;
        Ok(Session {
            user: row.try_get("user")?,
            superuser: row.try_get("rolsuper")?,
            tls: row.try_get("tls")?,
            local: row.try_get("local")?,
            standby: row.try_get("standby")?,
            version: row.try_get("version")?,
        })
    }

    /// The rights that a worker needs and this role does not have, a line for each table.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn missing_rights(&self) -> Result<Vec<String>, StoreError> {
        let rows = query(&self.client().await?, MISSING_RIGHTS, &[]).await?;
        Ok(rows.iter().map(|row| row.try_get("missing")).collect::<Result<_, _>>()?)
    }

    /// What time it is by Postgres' clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clock(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(query_one(&self.client().await?, CLOCK, &[]).await?.try_get("now")?)
    }
}
