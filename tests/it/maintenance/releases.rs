//! When a cause is gone, all jobs that waited for it continue, even if the process that removed it
//! or that releases them dies.

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::fault::StageFault;
use dispatch_worker::job::JobId;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::{
    self, CauseCursor, HoldCursor, JobFilter, Stopped, Store, Tables, Writer,
};
use dispatch_worker::tracker::{NewTokens, SealedTracker, Tracker};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio_postgres::Transaction;

use crate::support::TestDatabase;

/// Jobs that are released at once, and in each further page.
const PAGE: usize = 500;
const CAUSE: &str = "integration:1@1";

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::parse(&Keyring::fresh_setting()).expect("a fresh keyring is valid"))
}

fn store(database: &TestDatabase) -> Store {
    Store::new(database.pool.clone())
}

/// Inserts jobs with these values in these columns.
async fn make(database: &TestDatabase, jobs: usize, columns: &str, values: &str) {
    let sql = format!(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, {columns})
         SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid, 'dispatch', 'shop', n,
             CASE WHEN n <= 3 THEN 'rare' ELSE 'acme' END, 1, '{{}}', 'check_account', {values} FROM generate_series(1, {jobs}) n"
    );
    database.rows(&sql).await;
}

async fn wait_for_cause(database: &TestDatabase, jobs: usize, reason: &str, cause: &str) {
    let values = format!("'waiting', '{reason}', '{cause}', n % 2 + 1");
    make(
        database,
        jobs,
        "state, wait_reason, wait_key, wait_observed",
        &values,
    )
    .await;
}

async fn count(database: &TestDatabase, rows: &str) -> usize {
    database
        .one(&format!("SELECT count(*) FROM {rows}"))
        .await
        .parse()
        .expect("a count")
}

async fn waiting(database: &TestDatabase) -> usize {
    count(database, "jobs WHERE state = 'waiting'").await
}

/// Makes the next page of every release due.
async fn next_second(database: &TestDatabase) {
    database.rows("UPDATE releases SET next_at = now()").await;
}

/// Releases pages until no release is left. Returns how many seconds' pages that took.
async fn step_to_the_end(database: &TestDatabase, store: &Store, most: usize) -> usize {
    for steps in 0..=most {
        if count(database, "releases").await == 0 {
            return steps;
        }
        next_second(database).await;
        while store.step_releases().await.expect("a step") {}
    }
    panic!("a release is left after the pages of {most} seconds");
}

#[tokio::test]
async fn all_of_12_000_jobs_continue_after_new_tokens_although_the_saving_process_is_gone() {
    let database = TestDatabase::new().await;
    let identity =
        "INSERT INTO identities (organization_id, name, access_token, token_expires_at, version)
        SELECT id, 'bot', '', now(), 2 FROM made RETURNING id";
    let organization =
        "INSERT INTO organizations (slug, name) VALUES ('acme', 'Acme') RETURNING id";
    let id: i64 = database
        .one(&format!("WITH made AS ({organization}) {identity}"))
        .await
        .parse()
        .expect("an id");
    wait_for_cause(
        &database,
        12_000,
        "reauthentication",
        &format!("identity:{id}"),
    )
    .await;
    let tokens = NewTokens {
        access_token: SecretString::from("canary-access"),
        refresh_token: None,
        expires_in: Duration::from_secs(3600),
        after_refusal: false,
    };
    let sealed = SealedTracker::new(Tracker::new(database.pool.clone()), keyring());
    assert!(
        sealed
            .save_tokens(id, 2, &tokens)
            .await
            .expect("tokens are saved")
    );
    drop(sealed);
    assert_eq!(
        waiting(&database).await,
        12_000 - PAGE,
        "one page is released at once, and the rest is recorded"
    );

    let store = store(&database);
    next_second(&database).await;
    while store.step_releases().await.expect("a step") {}
    assert!(
        !store.step_releases().await.expect("a step"),
        "nothing is due in the same second"
    );
    assert_eq!(waiting(&database).await, 12_000 - 2 * PAGE);
    step_to_the_end(&database, &store, 30).await;
    assert_eq!(waiting(&database).await, 0);
    assert_eq!(
        count(
            &database,
            "jobs WHERE state = 'ready' AND woken_at IS NULL AND due_at <= now()"
        )
        .await,
        12_000
    );
}

#[tokio::test]
async fn jobs_that_observed_a_later_version_of_the_cause_keep_waiting() {
    let database = TestDatabase::new().await;
    wait_for_cause(&database, 2400, "reauthentication", "identity:1").await;
    let begun = database.one("SELECT begin_release('identity:1', 1)").await;
    assert_eq!(begun, PAGE.to_string());
    step_to_the_end(&database, &store(&database), 5).await;
    assert_eq!(waiting(&database).await, 1200);
    assert_eq!(
        count(
            &database,
            "jobs WHERE state = 'waiting' AND wait_observed = 1"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn a_release_ends_although_its_jobs_wait_again() {
    let database = TestDatabase::new().await;
    wait_for_cause(&database, 1200, "installation_disabled", CAUSE).await;
    let store = store(&database);
    assert_eq!(
        store.begin_release(CAUSE).await.expect("a release"),
        PAGE as u64
    );
    // The installation was disabled again: every job that continues waits for it again.
    let again = format!(
        "UPDATE jobs SET state = 'waiting', wait_reason = 'installation_disabled', wait_key = '{CAUSE}', wait_observed = 1, attempt = 2
         WHERE state = 'ready'"
    );
    for _ in 0..6 {
        database.rows(&again).await;
        next_second(&database).await;
        while store.step_releases().await.expect("a step") {}
    }
    assert_eq!(
        count(&database, "releases").await,
        0,
        "one pass over all jobs that waited is enough"
    );
}

#[tokio::test]
async fn a_job_that_another_session_has_locked_is_released_later() {
    let database = TestDatabase::new().await;
    wait_for_cause(&database, 3, "installation_disabled", CAUSE).await;
    let store = store(&database);
    let mut other = database.pool.get().await.expect("a connection");
    let lock = other.transaction().await.expect("a transaction");
    lock.execute("SELECT FROM jobs WHERE dedupe_key = '2' FOR UPDATE", &[])
        .await
        .expect("a lock");
    assert_eq!(store.begin_release(CAUSE).await.expect("a release"), 2);
    next_second(&database).await;
    while store.step_releases().await.expect("a step") {}
    assert_eq!(
        (waiting(&database).await, count(&database, "releases").await),
        (1, 1),
        "the release does not wait for the lock"
    );
    lock.rollback().await.expect("the lock ends");
    step_to_the_end(&database, &store, 3).await;
    assert_eq!(waiting(&database).await, 0);
}

#[tokio::test]
async fn a_release_of_a_cause_without_waiting_jobs_leaves_no_row() {
    let database = TestDatabase::new().await;
    assert_eq!(
        store(&database)
            .begin_release(CAUSE)
            .await
            .expect("a release"),
        0
    );
    assert_eq!(count(&database, "releases").await, 0);
}

/// Tables in which causes with an even number are gone, and `unknown:…` is no known kind of cause.
struct Even;

impl Tables for Even {
    type Changes = ();

    fn apply<'a>(
        &'a self,
        _: &'a Transaction<'_>,
        _: JobId,
        (): &'a (),
    ) -> BoxFuture<'a, Result<Box<RawValue>, StageFault>> {
        std::future::ready(Ok(RawValue::NULL.to_owned())).boxed()
    }

    fn cause_present<'a>(
        &'a self,
        _: &'a Transaction<'_>,
        key: &'a str,
        _: i64,
    ) -> BoxFuture<'a, Result<Option<bool>, StageFault>> {
        let number = key
            .strip_prefix("cause:")
            .and_then(|number| number.parse::<u32>().ok());
        std::future::ready(Ok(number.map(|number| number % 2 == 1))).boxed()
    }
}

#[tokio::test]
async fn a_pass_over_causes_tests_each_one_a_hundred_at_a_time_and_then_begins_again() {
    let database = TestDatabase::new().await;
    let values = "'waiting', 'installation_disabled', CASE WHEN n <= 250 THEN 'cause:' ELSE 'unknown:' END || n, 0";
    make(
        &database,
        270,
        "state, wait_reason, wait_key, wait_observed",
        values,
    )
    .await;
    let writers = store::writers_pool(&database.url).expect("a pool");
    let writer = Writer::new(
        store(&database),
        writers,
        Even,
        [("dispatch", "check_account")].into(),
    );
    let mut cursor = CauseCursor::default();
    for more in [true, true, false] {
        assert_eq!(
            writer
                .retest_causes(&mut cursor)
                .await
                .expect("causes are tested"),
            more
        );
    }
    assert_eq!(
        waiting(&database).await,
        125 + 20,
        "every other cause is gone"
    );
    database
        .rows("UPDATE jobs SET wait_key = 'cause:2' WHERE wait_key = 'cause:1'")
        .await;
    assert!(
        writer
            .retest_causes(&mut cursor)
            .await
            .expect("causes are tested")
    );
    assert_eq!(
        waiting(&database).await,
        124 + 20,
        "the next pass begins with the first cause"
    );
}

#[tokio::test]
async fn a_pass_over_holds_reaches_every_hold() {
    let database = TestDatabase::new().await;
    let values = "'waiting', 'hold', 'hold:acme|webhook|' || n % 150, 0";
    make(
        &database,
        300,
        "state, wait_reason, wait_key, wait_observed",
        values,
    )
    .await;
    let (store, mut cursor) = (store(&database), HoldCursor::default());
    for more in [true, true, false] {
        assert_eq!(
            store.step_after_holds(&mut cursor).await.expect("a round"),
            more
        );
    }
    assert_eq!(waiting(&database).await, 0, "these holds have no row");
}

#[tokio::test]
async fn a_list_of_a_rare_organization_s_jobs_reports_how_far_it_has_looked() {
    let database = TestDatabase::new().await;
    make(
        &database,
        10_010,
        "state, finished_at",
        "'succeeded', now()",
    )
    .await;
    let store = store(&database);
    let rare = JobFilter {
        organizations: vec!["rare".to_owned()],
        limit: 50,
        ..JobFilter::default()
    };
    let first = store.jobs(&rare).await.expect("a list");
    let Some(Stopped { looked, before, .. }) = first.stopped else {
        panic!("it has looked at all jobs: {first:?}")
    };
    assert_eq!((first.jobs.len(), looked), (0, 10_000));
    let older = store
        .jobs(&JobFilter {
            before: Some(before),
            ..rare.clone()
        })
        .await
        .expect("a list");
    assert_eq!(
        older
            .jobs
            .iter()
            .map(|job| job.dedupe_key.as_str())
            .collect::<Vec<_>>(),
        ["3", "2", "1"]
    );
    assert_eq!(older.stopped, None, "there are no older ones");

    database
        .rows("UPDATE jobs SET state = 'parked', finished_at = NULL WHERE dedupe_key = '2'")
        .await;
    let parked = JobFilter {
        states: vec!["parked".parse().expect("a state")],
        ..rare
    };
    let parked = store.jobs(&parked).await.expect("a list");
    assert_eq!(
        (parked.jobs.len(), parked.stopped),
        (1, None),
        "a parked job is found however old it is"
    );
}
