//! Jobs that waited for a cause go on until none is left, whoever has removed it and whoever dies meanwhile.

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::fault::StageFault;
use dispatch_worker::job::JobId;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::{self, CauseCursor, HoldCursor, JobFilter, Stopped, Store, Tables, Writer};
use dispatch_worker::tracker::{NewTokens, Tracker};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio_postgres::Transaction;

use crate::support::TestDatabase;

/// Jobs that go on at once, and in each step.
const PAGE: usize = 500;
const CAUSE: &str = "integration:1@1";

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::parse(&Keyring::fresh_setting()).expect("a fresh keyring is right"))
}

fn store(database: &TestDatabase) -> Store {
    Store::new(database.pool.clone(), keyring())
}

/// Makes jobs, of `state` and what follows it in the columns that are named.
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
    make(database, jobs, "state, wait_reason, wait_key, wait_observed", &values).await;
}

async fn count(database: &TestDatabase, rows: &str) -> usize {
    database.one(&format!("SELECT count(*) FROM {rows}")).await.parse().expect("a count")
}

async fn waiting(database: &TestDatabase) -> usize {
    count(database, "jobs WHERE state = 'waiting'").await
}

/// Every release's next second has come.
async fn next_second(database: &TestDatabase) {
    database.rows("UPDATE releases SET next_at = now()").await;
}

/// Steps until no release is left; how many steps it took.
async fn step_to_the_end(database: &TestDatabase, store: &Store, most: usize) -> usize {
    for steps in 0..=most {
        if count(database, "releases").await == 0 {
            return steps;
        }
        next_second(database).await;
        while store.step_releases().await.expect("a step") {}
    }
    panic!("a release goes on after {most} steps");
}

#[tokio::test]
async fn all_of_12_000_jobs_go_on_after_new_tokens_though_whoever_saved_them_is_gone() {
    let database = TestDatabase::new().await;
    let identity = "INSERT INTO identities (organization_id, name, access_token, token_expires_at, version)
        SELECT id, 'bot', '', now(), 2 FROM made RETURNING id";
    let organization = "INSERT INTO organizations (slug, name) VALUES ('acme', 'Acme') RETURNING id";
    let id: i64 = database.one(&format!("WITH made AS ({organization}) {identity}")).await.parse().expect("an id");
    wait_for_cause(&database, 12_000, "reauthentication", &format!("identity:{id}")).await;
    let tokens = NewTokens {
        access_token: SecretString::from("canary-access"),
        refresh_token: None,
        expires_in: Duration::from_secs(3600),
        after_refusal: false,
    };
    let tracker = Tracker::new(database.pool.clone(), keyring());
    assert!(tracker.save_tokens(id, 2, &tokens).await.expect("tokens are saved"));
    drop(tracker);
    assert_eq!(waiting(&database).await, 12_000 - PAGE, "a page goes on at once, and the rest is noted");

    let store = store(&database);
    next_second(&database).await;
    while store.step_releases().await.expect("a step") {}
    assert!(!store.step_releases().await.expect("a step"), "nothing is due in the same second");
    assert_eq!(waiting(&database).await, 12_000 - 2 * PAGE);
    step_to_the_end(&database, &store, 30).await;
    assert_eq!(waiting(&database).await, 0);
    assert_eq!(count(&database, "jobs WHERE state = 'ready' AND woken_at IS NULL AND due_at <= now()").await, 12_000);
}

#[tokio::test]
async fn jobs_that_saw_a_later_version_of_the_cause_stay() {
    let database = TestDatabase::new().await;
    wait_for_cause(&database, 2400, "reauthentication", "identity:1").await;
    let begun = database.one("SELECT begin_release('identity:1', 1)").await;
    assert_eq!(begun, PAGE.to_string());
    step_to_the_end(&database, &store(&database), 5).await;
    assert_eq!(waiting(&database).await, 1200);
    assert_eq!(count(&database, "jobs WHERE state = 'waiting' AND wait_observed = 1").await, 0);
}

#[tokio::test]
async fn a_job_that_waits_again_is_not_released_for_ever() {
    let database = TestDatabase::new().await;
    wait_for_cause(&database, 1200, "installation_disabled", CAUSE).await;
    let store = store(&database);
    assert_eq!(store.begin_release(CAUSE).await.expect("a release"), PAGE as u64);
    // The installation was disabled again: whatever goes on waits for it again.
    let again = format!(
        "UPDATE jobs SET state = 'waiting', wait_reason = 'installation_disabled', wait_key = '{CAUSE}', wait_observed = 1, attempt = 2
         WHERE state = 'ready'"
    );
    for _ in 0..6 {
        database.rows(&again).await;
        next_second(&database).await;
        while store.step_releases().await.expect("a step") {}
    }
    assert_eq!(count(&database, "releases").await, 0, "one pass over all that waited is enough");
}

#[tokio::test]
async fn a_job_that_somebody_else_has_locked_is_not_left_behind() {
    let database = TestDatabase::new().await;
    wait_for_cause(&database, 3, "installation_disabled", CAUSE).await;
    let store = store(&database);
    let mut other = database.pool.get().await.expect("a connection");
    let lock = other.transaction().await.expect("a transaction");
    lock.execute("SELECT FROM jobs WHERE dedupe_key = '2' FOR UPDATE", &[]).await.expect("a lock");
    assert_eq!(store.begin_release(CAUSE).await.expect("a release"), 2);
    next_second(&database).await;
    while store.step_releases().await.expect("a step") {}
    assert_eq!((waiting(&database).await, count(&database, "releases").await), (1, 1), "it is not waited for");
    lock.rollback().await.expect("the lock ends");
    step_to_the_end(&database, &store, 3).await;
    assert_eq!(waiting(&database).await, 0);
}

#[tokio::test]
async fn a_cause_that_nobody_waits_for_is_released_without_a_trace() {
    let database = TestDatabase::new().await;
    assert_eq!(store(&database).begin_release(CAUSE).await.expect("a release"), 0);
    assert_eq!(count(&database, "releases").await, 0);
}

/// Causes with an even number are gone; of `unknown:…` nobody can tell.
struct Even;

impl Tables for Even {
    type Changes = ();

    fn apply<'a>(&'a self, _: &'a Transaction<'_>, _: JobId, (): &'a ()) -> BoxFuture<'a, Result<Box<RawValue>, StageFault>> {
        std::future::ready(Ok(RawValue::NULL.to_owned())).boxed()
    }

    fn cause_present<'a>(
        &'a self,
        _: &'a Transaction<'_>,
        key: &'a str,
        _: i64,
    ) -> BoxFuture<'a, Result<Option<bool>, StageFault>> {
        let number = key.strip_prefix("cause:").and_then(|number| number.parse::<u32>().ok());
        std::future::ready(Ok(number.map(|number| number % 2 == 1))).boxed()
    }
}

#[tokio::test]
async fn a_pass_over_causes_meets_each_of_many_a_hundred_at_a_time_and_begins_again() {
    let database = TestDatabase::new().await;
    let values = "'waiting', 'installation_disabled', CASE WHEN n <= 250 THEN 'cause:' ELSE 'unknown:' END || n, 0";
    make(&database, 270, "state, wait_reason, wait_key, wait_observed", values).await;
    let writers = store::writers_pool(&database.url).expect("a pool");
    let writer = Writer::new(store(&database), writers, Even, [("dispatch", "check_account")].into());
    let mut cursor = CauseCursor::default();
    for more in [true, true, false] {
        assert_eq!(writer.retest_causes(&mut cursor).await.expect("causes are tested"), more);
    }
    assert_eq!(waiting(&database).await, 125 + 20, "of every other cause");
    database.rows("UPDATE jobs SET wait_key = 'cause:2' WHERE wait_key = 'cause:1'").await;
    assert!(writer.retest_causes(&mut cursor).await.expect("causes are tested"));
    assert_eq!(waiting(&database).await, 124 + 20, "the next pass begins with the first cause");
}

#[tokio::test]
async fn a_pass_over_holds_meets_each_of_many() {
    let database = TestDatabase::new().await;
    let values = "'waiting', 'hold', 'hold:acme|webhook|' || n % 150, 0";
    make(&database, 300, "state, wait_reason, wait_key, wait_observed", values).await;
    let (store, mut cursor) = (store(&database), HoldCursor::default());
    for more in [true, true, false] {
        assert_eq!(store.step_after_holds(&mut cursor).await.expect("a round"), more);
    }
    assert_eq!(waiting(&database).await, 0, "nobody remembers these holds");
}

#[tokio::test]
async fn a_list_for_a_rare_organization_says_how_far_it_has_looked() {
    let database = TestDatabase::new().await;
    make(&database, 100_010, "state, finished_at", "'succeeded', now()").await;
    let store = store(&database);
    let rare = JobFilter { organization: Some("rare".to_owned()), limit: 50, ..JobFilter::default() };
    let first = store.jobs(&rare).await.expect("a list");
    let Some(Stopped { looked, before, .. }) = first.stopped else { panic!("it has looked at all jobs: {first:?}") };
    assert_eq!((first.jobs.len(), looked), (0, 100_000));
    let older = store.jobs(&JobFilter { before: Some(before), ..rare.clone() }).await.expect("a list");
    assert_eq!(older.jobs.iter().map(|job| job.dedupe_key.as_str()).collect::<Vec<_>>(), ["3", "2", "1"]);
    assert_eq!(older.stopped, None, "there are no older ones");

    database.rows("UPDATE jobs SET state = 'parked' WHERE dedupe_key = '2'").await;
    let parked = JobFilter { state: Some("parked".parse().expect("a state")), ..rare };
    let parked = store.jobs(&parked).await.expect("a list");
    assert_eq!((parked.jobs.len(), parked.stopped), (1, None), "a parked job is found however old it is");
}
