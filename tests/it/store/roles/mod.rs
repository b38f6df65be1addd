//! Roles in Postgres: a worker's login owns nothing, creates and drops only partitions that are
//! due, and cannot change the audit log; a reader sees no secret; an administrator of Postgres
//! creates the owner, which may be any role.

mod worker_login;

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::store::{self, Store};
use secrecy::ExposeSecret;
use tokio_postgres::{Client, NoTls};

use crate::support::{Checks, Dispatch, TestDatabase, TestWorld, WORKER, WorkerOptions, acme};

/// Opens a connection as a role. It lasts as long as the runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "its connection is driven beside the test, and ends with it"
)]
async fn connected(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn as_worker(database: &TestDatabase) -> Client {
    connected(database.worker_url.expose_secret())
        .await
        .expect("a worker may connect")
}

/// Returns Postgres' message for a statement that it refuses.
async fn refusal(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error
        .as_db_error()
        .unwrap_or_else(|| panic!("{sql}: {error}"))
        .message()
        .to_owned()
}

async fn said(client: &Client, sql: &str) -> String {
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .get(0)
}

/// Returns the exit code of `dispatch check --live`, and the state and detail of one check.
async fn checked(command: Dispatch, check: &str) -> (Option<i32>, String) {
    let (code, answer) = command.answer().await;
    let finding = answer["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap();
    (
        code,
        format!(
            "{} {}",
            finding["state"].as_str().unwrap(),
            finding["detail"].as_str().unwrap()
        ),
    )
}

#[tokio::test]
async fn a_worker_s_login_has_every_right_that_a_worker_needs_and_none_of_an_owner() {
    let database = TestDatabase::new().await;
    let store = Store::new(store::pool(&database.worker_url, 1).unwrap());
    assert_eq!(store.missing_rights().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.excess_of(WORKER).await.unwrap(), Vec::<String>::new());
    let worker = as_worker(&database).await;
    for (statement, refused) in [
        (
            "CREATE TABLE mine (id bigint)",
            "permission denied for schema public",
        ),
        (
            "CREATE FUNCTION mine() RETURNS void LANGUAGE sql AS ''",
            "permission denied for schema public",
        ),
        ("DROP TABLE attempts", "must be owner"),
        ("ALTER TABLE jobs DISABLE TRIGGER ALL", "must be owner"),
        (
            "ALTER TABLE audit_log DISABLE TRIGGER audit_log_stamped",
            "must be owner",
        ),
        (
            "TRUNCATE audit_log",
            "permission denied for table audit_log",
        ),
        (
            "DELETE FROM audit_log",
            "permission denied for table audit_log",
        ),
        (
            "UPDATE audit_log SET who = 'x'",
            "permission denied for table audit_log",
        ),
        ("TRUNCATE jobs", "permission denied for table jobs"),
        (
            "INSERT INTO organizations (slug, name) VALUES ('x', 'x')",
            "permission denied for table organizations",
        ),
        (
            "INSERT INTO identities (name) VALUES ('x')",
            "permission denied for table identities",
        ),
        (
            "UPDATE refinery_schema_history SET version = 1",
            "permission denied for table refinery_schema_history",
        ),
        (
            "SELECT * FROM checkpoints_default",
            "permission denied for table checkpoints_default",
        ),
        (
            "SELECT ensure_partitions(1)",
            "permission denied for function ensure_partitions",
        ),
        ("CREATE ROLE mine", "permission denied to create role"),
        ("SET ROLE postgres", "permission denied to set role"),
        (
            "SET session_replication_role = replica",
            "permission denied to set parameter",
        ),
    ] {
        let message = refusal(&worker, statement).await;
        assert!(message.contains(refused), "{statement}: {message}");
    }
}

#[tokio::test]
async fn every_table_and_every_function_of_the_owner_is_granted_only_to_the_roles_that_need_it() {
    let database = TestDatabase::new().await;
    let tables = "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
        AND NOT c.relispartition";
    let forgotten = format!(
        "{tables} AND NOT has_table_privilege('dispatch_worker', c.oid, 'SELECT') ORDER BY 1"
    );
    assert_eq!(
        database.rows(&forgotten).await.concat(),
        Vec::<String>::new(),
        "a table has no line in src/store/rights.rs"
    );
    let of_everybody = format!(
        "{tables} AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0) ORDER BY 1"
    );
    assert_eq!(
        database.rows(&of_everybody).await.concat(),
        Vec::<String>::new()
    );
    let functions = "SELECT p.proname, p.proconfig::text LIKE '%search_path=public, pg_temp%',
            has_function_privilege('dispatch_worker', p.oid, 'EXECUTE'), has_function_privilege('dispatch_reader', p.oid, 'EXECUTE')
        FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef ORDER BY 1";
    for function in database.rows(functions).await {
        let is_owner_s = ["ensure_partitions", "erase_from_audit"].contains(&function[0].as_str());
        let by_worker = if is_owner_s { "f" } else { "t" };
        assert_eq!(
            function[1..],
            ["t", by_worker, "f"],
            "search_path, a worker, a reader: {function:?}"
        );
    }
}

#[tokio::test]
async fn a_reader_sees_the_outcomes_of_jobs_but_no_payload_no_secret_and_no_person() {
    let database = TestDatabase::new().await;
    let columns =
        "SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT a.attisdropped
            AND has_column_privilege('dispatch_reader', c.oid, a.attnum, ";
    let secret = "payload|sealed|secret|token|^body$|headers|reply_to|output|config|email|partial|tracestate|detail|sha256|provider_ref";
    let secret = format!("{columns}'SELECT') AND a.attname ~ '{secret}' ORDER BY 1");
    let seen = database.rows(&secret).await.concat();
    let harmless = [
        "audit_log.token",
        "dead_letters.detail",
        "destinations.previous_secret_until",
        "identities.token_expires_at",
    ];
    assert_eq!(
        seen, harmless,
        "a token's name, a code's explanation, and two expiry times"
    );
    let people = format!("{columns}'SELECT') AND c.relname IN ('users', 'user_emails')");
    assert_eq!(database.rows(&people).await, Vec::<Vec<String>>::new());
    let written = format!("{columns}'INSERT,UPDATE,REFERENCES')");
    assert_eq!(database.rows(&written).await, Vec::<Vec<String>>::new());
    database.rows("BEGIN; SET LOCAL ROLE dispatch_reader; SELECT id, state, error_code FROM jobs; SELECT who, login FROM audit_log; COMMIT").await;
}

#[tokio::test]
async fn a_worker_can_create_and_drop_only_partitions_that_are_due() {
    let database = TestDatabase::new().await;
    let worker = as_worker(&database).await;
    let make =
        |month: &str| format!("SELECT make_partition('attempts', now() + interval '{month}')");
    for (month, answer) in [
        ("1 month", "there"),
        ("4 months", "made"),
        ("6 months", "refused"),
        ("-3 months", "refused"),
    ] {
        assert_eq!(said(&worker, &make(month)).await, answer, "{month}");
    }
    // A row of the month makes its partition due.
    let row =
        "INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch)
        SELECT first_job_id_of(now() - interval '3 months'), 1, 's', 1, 'retried', 'e', 'm', 1, 1, 1 FROM generate_series(1, 2)";
    worker.batch_execute(row).await.unwrap();
    assert_eq!(said(&worker, &make("-3 months")).await, "made");
    let of_months = |from: i32, to: i32| {
        format!(
            "SELECT string_agg(DISTINCT make_partition('effects', now() + make_interval(months => n)), ' ') FROM generate_series({from}, {to}) n"
        )
    };
    for from in (5..165).step_by(10) {
        assert_eq!(
            database.one(&of_months(from, from + 9)).await,
            "made",
            "the owner may create any partition"
        );
    }
    worker
        .batch_execute(
            "INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
             VALUES (first_job_id_of(now() - interval '2 months'), 'k', 1, 's', 't', 'K1', 'confirmed', '{}', 1, now())",
        )
        .await
        .unwrap();
    assert_eq!(
        said(
            &worker,
            "SELECT make_partition('effects', now() - interval '2 months')"
        )
        .await,
        "refused",
        "there are too many partitions"
    );
    let next = "SELECT drop_partition('attempts', 'attempts_' || to_char(now() + interval '1 month', 'YYYYMM'), now() + interval '1 year')";
    assert_eq!(said(&worker, next).await, "young");
    senseless_arguments_are_refused(&worker, &database).await;
}

async fn senseless_arguments_are_refused(worker: &Client, database: &TestDatabase) {
    for (statement, expected) in [
        (
            "SELECT make_partition(NULL, now())",
            "expected checkpoints, attempts or effects",
        ),
        (
            "SELECT make_partition('jobs', now())",
            "expected checkpoints, attempts or effects",
        ),
        (
            "SELECT missing_partitions(now(), 1000000)",
            "expected 0 to 24 months ahead",
        ),
    ] {
        let refused = refusal(worker, statement).await;
        assert!(refused.contains(expected), "{statement}: {refused}");
    }
    let owner = database.pool.get().await.unwrap();
    for months in ["0", "25", "NULL"] {
        let refused = refusal(&owner, &format!("SELECT ensure_partitions({months})")).await;
        assert!(
            refused.contains("expected 1 to 24 months"),
            "{months}: {refused}"
        );
    }
}

#[tokio::test]
async fn a_row_of_the_audit_log_records_the_real_login_and_address_whatever_its_writer_sets() {
    let database = TestDatabase::new().await;
    let worker = as_worker(&database).await;
    let forged = "INSERT INTO audit_log (who, role, action, login, address, at)
        VALUES ('ann', 'operator', 'a', 'postgres', '203.0.113.7', now() - interval '2 years')";
    worker.batch_execute(forged).await.unwrap();
    let row = "SELECT who, login, address, at > now() - interval '1 minute' FROM audit_log";
    assert_eq!(
        database.rows(row).await,
        [["ann", WORKER, "127.0.0.1", "t"]]
    );
    database.rows("INSERT INTO audit_log (who, role, action, at) VALUES ('old', 'r', 'a', now() - interval '400 days')").await;
    let pruned = "SELECT prune_audit(now() + interval '1 year', 1000000000)::text";
    assert_eq!(
        [said(&worker, pruned).await, said(&worker, pruned).await],
        ["1", "0"]
    );
    assert_eq!(
        database.rows("SELECT who FROM audit_log").await,
        [["ann"]],
        "younger rows stay, whatever is requested"
    );
}

#[tokio::test]
async fn a_worker_that_runs_as_the_owner_works_and_logs_a_warning() {
    let world = TestWorld::acme().await;
    let environment = BTreeMap::from([(
        "DISPATCH_DATABASE_URL".to_owned(),
        world.database.url.expose_secret().to_owned(),
    )]);
    let worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    world
        .wait_job_state("one", JobState::Succeeded, Duration::from_secs(30))
        .await;
    let warning =
        "can do more than a worker needs; use a login of `dispatch migrate --worker-login`";
    assert!(worker.log().contains(warning), "{}", worker.log());
    drop(worker);
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    assert!(!worker.log().contains(warning), "as a worker's login");
    Checks::default().hold(&world).await;
}
