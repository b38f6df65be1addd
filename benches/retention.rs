//! Measures whether retention keeps pace with intake: jobs accepted per second through the group
//! writer, and jobs deleted per second by the retention, in one run on the same server. Quote the
//! ratio; the absolute figures depend on the machine.
//!
//! `cargo bench --bench retention`, with `-- JOBS` for a number other than 50,000. It starts
//! servers of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot continue panics"
)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use dispatch_worker::devkit::servers::Servers;
use dispatch_worker::fault::StageFault;
use dispatch_worker::job::JobId;
use dispatch_worker::maintenance::Retention;
use dispatch_worker::store::{
    self, Incoming, Intaken, Keep, NewJob, Store, Tables, WRITERS, Writer,
};
use dispatch_worker::tracker::Tracker;
use futures_util::StreamExt;
use secrecy::SecretString;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const IN_FLIGHT: usize = 256;
const GOAL: f64 = 2.0;
const DAY: u64 = 24;
const KEEP: Keep = Keep {
    jobs: Duration::from_hours(30 * DAY),
    parked: Duration::from_hours(180 * DAY),
    audit: Duration::from_hours(730 * DAY),
    history: Duration::from_hours(365 * DAY),
    replicas: Duration::from_hours(30 * DAY),
};

/// Inserts jobs that ended 120 to 60 days ago, each with its key, three checkpoints and a seen
/// event. Of the younger half, one in fifty is parked and stays, and so does the partition of its
/// month.
const OLD: &str = "
    SELECT make_partition(parent, now() - make_interval(months => n))
        FROM generate_series(1, 5) n, unnest(ARRAY['checkpoints', 'attempts', 'effects']) parent;
    INSERT INTO integrations (account_id, account_name) VALUES ('a', 'a');
    INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, stage, state, created_at, finished_at)
        SELECT (left(first_job_id_of(at)::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, 'p', 'old', n, 'o', 1, '{}', 's',
            CASE WHEN is_parked THEN 'parked' ELSE 'succeeded' END, at, CASE WHEN NOT is_parked THEN at + interval '1 minute' END
        FROM generate_series(1, {jobs}) n, LATERAL (
            SELECT now() - interval '120 days' + n * interval '60 days' / {jobs} AS at, n % 50 = 0 AND n > {jobs} / 2 AS is_parked) made;
    INSERT INTO job_keys (source, dedupe_key, job_id, digest, created_at)
        SELECT source, dedupe_key, id, sha256('x'), created_at FROM jobs;
    INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
        SELECT id, 1, number, 1, '{}', 1, 1, 1, now() FROM jobs, generate_series(1, 3) stages (number);
    INSERT INTO seen_events (integration_id, event_id, job_id, seen_at)
        SELECT 1, dedupe_key, id, created_at FROM jobs;";

struct NoTables;

type Boxed<'a, V> = Pin<Box<dyn Future<Output = Result<V, StageFault>> + Send + 'a>>;

impl Tables for NoTables {
    type Changes = ();

    fn apply<'a>(
        &'a self,
        _: &'a tokio_postgres::Transaction<'_>,
        _: JobId,
        (): &'a (),
    ) -> Boxed<'a, Box<RawValue>> {
        Box::pin(std::future::ready(Ok(RawValue::NULL.to_owned())))
    }

    fn cause_present<'a>(
        &'a self,
        _: &'a tokio_postgres::Transaction<'_>,
        _: &'a str,
        _: i64,
    ) -> Boxed<'a, Option<bool>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let jobs = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse::<u32>().ok())
        .unwrap_or(50_000);
    let servers = Servers::start(Path::new(env!("CARGO_BIN_EXE_dispatch")), |line| {
        eprintln!("{line}")
    })
    .await
    .unwrap();
    let url = SecretString::from(servers.create_database("retention", None).await.unwrap());
    store::migrate(&url).await.unwrap();
    let pool = store::pool(&url, 16).unwrap();
    pool.get()
        .await
        .unwrap()
        .batch_execute(&OLD.replace("{jobs}", &jobs.to_string()))
        .await
        .unwrap();
    let store = Store::new(pool.clone());

    let intake = per_second(jobs, take_in(&store, &url, jobs).await);
    let tracker = Tracker::new(pool.clone());
    let left = count(
        &pool,
        "SELECT count(*) FROM jobs WHERE source = 'old' AND state = 'parked'",
    )
    .await;
    let deleted = jobs - u32::try_from(left).unwrap();
    let retention = per_second(deleted, delete(&store, &tracker).await);
    assert_eq!(
        count(&pool, "SELECT count(*) FROM jobs WHERE source = 'old'").await,
        left
    );
    assert_eq!(
        count(&pool, "SELECT count(*) FROM job_keys").await,
        left + i64::from(jobs)
    );
    assert_eq!(count(&pool, "SELECT count(*) FROM seen_events").await, 0);
    println!(
        "{jobs} jobs: intake {intake:.0} jobs/s, retention {retention:.0} jobs/s, ratio {:.1} (goal: {GOAL})",
        retention / intake
    );
    assert!(
        retention >= GOAL * intake,
        "retention is slower than twice the intake"
    );
    servers.stop().await;
}

/// Returns how long the group writer takes to store this many messages as rows.
async fn take_in(store: &Store, url: &SecretString, jobs: u32) -> Duration {
    let writer = Arc::new(Writer::new(
        store.clone(),
        store::writers_pool(url).unwrap(),
        NoTables,
        [("p", "s")].into(),
    ));
    let (end, writing) = (CancellationToken::new(), TaskTracker::new());
    for _ in 0..WRITERS {
        let (writer, end) = (Arc::clone(&writer), end.clone());
        writing.spawn(async move { writer.write_groups(end).await });
    }
    let began = Instant::now();
    let taken = futures_util::stream::iter(0..jobs).map(|n| {
        let (writer, new) = (Arc::clone(&writer), Arc::new(message(n)));
        async move { writer.intake(&new).await.unwrap() }
    });
    let accepted = taken
        .buffer_unordered(IN_FLIGHT)
        .filter(|one| std::future::ready(matches!(one, Intaken::Accepted(_))));
    assert_eq!(accepted.count().await, jobs as usize);
    let took = began.elapsed();
    end.cancel();
    writing.close();
    writing.wait().await;
    took
}

fn message(n: u32) -> NewJob {
    NewJob {
        id: JobId::fresh(),
        pipeline: "p",
        stage: "s",
        producer: None,
        source: "bench".to_owned(),
        dedupe_key: n.to_string(),
        digest: [0; 32],
        organization: "o".to_owned(),
        schema: 1,
        bytes: 2,
        payload: Incoming::Known(RawValue::from_string("{}".to_owned()).unwrap()),
        not_before: None,
        deadline: None,
        reply_to: None,
        correlation_id: None,
        traceparent: None,
        tracestate: None,
        owner: None,
        known_schema: 1,
    }
}

/// Returns how long it takes to delete the old rows and to drop the partitions of the months that
/// are empty then.
async fn delete(store: &Store, tracker: &Tracker) -> Duration {
    let (retention, now, began) = (
        Retention::new(KEEP),
        OffsetDateTime::now_utc(),
        Instant::now(),
    );
    while retention.round(store, tracker, now).await.unwrap() {}
    while store.keep_partitions(now).await.unwrap() {}
    began.elapsed()
}

fn per_second(jobs: u32, took: Duration) -> f64 {
    f64::from(jobs) / took.as_secs_f64()
}

async fn count(pool: &Pool, sql: &str) -> i64 {
    pool.get()
        .await
        .unwrap()
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
}
