//! The roles of `rights` in Postgres: the group roles `dispatch_worker` and `dispatch_reader`, and
//! their privileges. Roles belong to the whole cluster, in which other databases may be migrated
//! at the same time; grants belong to this database.

use std::fmt::Write as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};

use super::error::StoreError;
use super::rights::{FUNCTIONS, READER, SEQUENCES, TABLES, WORKER};

const EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS known";

/// Prevents that a partition is created or dropped meanwhile, which would change the same rows of
/// Postgres' catalog.
const ALONE: &str = "SELECT pg_advisory_xact_lock(7264019, 1)";

/// Selects our functions that run with their owner's rights and that every role may call.
const OPEN_FUNCTIONS: &str = "
    SELECT p.oid::regprocedure::text AS name FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND pg_has_role(current_user, p.proowner, 'MEMBER')
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
        AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
    ORDER BY name";

/// Selects the statements that only the owner of the database and of the schema `public` can run;
/// before Postgres 15, every role may create tables there. Who may connect is left to the owner.
const AROUND: &str = "
    SELECT statement FROM (VALUES
        (1, has_database_privilege('dispatch_worker', current_database(), 'TEMPORARY'),
            format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, dispatch_worker, dispatch_reader', current_database())),
        (2, NOT has_schema_privilege('dispatch_worker', 'public', 'USAGE')
            OR NOT has_schema_privilege('dispatch_reader', 'public', 'USAGE'),
            'GRANT USAGE ON SCHEMA public TO dispatch_worker, dispatch_reader'),
        (3, has_schema_privilege('dispatch_worker', 'public', 'CREATE'),
            'REVOKE CREATE ON SCHEMA public FROM PUBLIC, dispatch_worker, dispatch_reader')
    ) AS wanted (number, is_due, statement) WHERE is_due ORDER BY number";

/// Creates the missing group roles.
///
/// # Errors
/// [`StoreError::Roles`] with the statements for an administrator, if this role may not create
/// roles.
pub(super) async fn make_groups(client: &Client) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for group in [WORKER, READER] {
        if is_known(client, group).await? {
            continue;
        }
        match client
            .batch_execute(&format!("CREATE ROLE {group} NOLOGIN"))
            .await
        {
            Ok(()) => {}
            // Another migration in the cluster has created it in between.
            Err(error) if is_elsewhere(&error) => {}
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                missing.push(group)
            }
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let statements: String = missing
        .iter()
        .map(|group| format!("CREATE ROLE {group} NOLOGIN; "))
        .collect();
    Err(StoreError::Roles(format!(
        "expected the roles {}, got none and no right to make them; an administrator runs: {statements}then repeat",
        missing.join(" and ")
    )))
}

/// Returns whether the role exists.
pub(super) async fn is_known<C: GenericClient>(on: &C, role: &str) -> Result<bool, StoreError> {
    Ok(on.query_one(EXISTS, &[&role]).await?.try_get("known")?)
}

/// Grants the privileges of `rights` to both groups, and revokes all others from them and from
/// `PUBLIC`. Returns the statements that only an administrator may run.
///
/// # Errors
/// [`StoreError`]; nothing is granted then.
pub(super) async fn grant(client: &mut Client) -> Result<Vec<String>, StoreError> {
    let tx = client.transaction().await?;
    tx.batch_execute(ALONE).await?;
    let mut statements = grants();
    for row in tx.query(OPEN_FUNCTIONS, &[]).await? {
        let name: String = row.try_get("name")?;
        statements += &format!("REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC;\n");
    }
    tx.batch_execute(&statements).await?;
    tx.commit().await?;
    for statement in around(client).await? {
        match client.batch_execute(&statement).await {
            Err(error) if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                return Err(error.into());
            }
            // Without the privilege, Postgres refuses or only warns; `around` then returns what is
            // left.
            _ => {}
        }
    }
    around(client).await
}

async fn around(client: &Client) -> Result<Vec<String>, StoreError> {
    let rows = client.query(AROUND, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("statement"))
        .collect::<Result<_, _>>()?)
}

/// Returns the statements for every table, sequence and function.
fn grants() -> String {
    let mut sql = String::new();
    let mut say = |statement: std::fmt::Arguments<'_>| {
        writeln!(sql, "{statement};").expect("a string takes all that is written")
    };
    for rights in TABLES {
        let table = rights.table;
        say(format_args!(
            "REVOKE ALL ON {table} FROM PUBLIC, {WORKER}, {READER}"
        ));
        if !rights.worker.is_empty() {
            say(format_args!(
                "GRANT {} ON {table} TO {WORKER}",
                rights.worker
            ));
        }
        if !rights.reader.is_empty() {
            say(format_args!(
                "GRANT SELECT ({}) ON {table} TO {READER}",
                rights.reader
            ));
        }
    }
    for sequence in SEQUENCES {
        say(format_args!(
            "REVOKE ALL ON SEQUENCE {sequence} FROM PUBLIC, {WORKER}, {READER}"
        ));
        say(format_args!(
            "GRANT USAGE ON SEQUENCE {sequence} TO {WORKER}"
        ));
    }
    for function in FUNCTIONS {
        say(format_args!(
            "REVOKE ALL ON FUNCTION {function} FROM PUBLIC, {WORKER}, {READER}"
        ));
        say(format_args!(
            "GRANT EXECUTE ON FUNCTION {function} TO {WORKER}"
        ));
    }
    sql
}

/// Returns whether another session changes the same role at this moment, or has just created it.
/// Postgres has no code of its own for the former: "tuple concurrently updated" is an internal
/// error.
pub(super) fn is_elsewhere(error: &tokio_postgres::Error) -> bool {
    let is_any = |states: [SqlState; 3]| error.code().is_some_and(|code| states.contains(code));
    is_any([
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNIQUE_VIOLATION,
        SqlState::INTERNAL_ERROR,
    ])
}
