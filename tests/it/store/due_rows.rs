//! The order in which due rows are woken, and the removal of stamps; directly on the store.

use std::collections::BTreeSet;
use std::time::Duration;

use dispatch_worker::job::ReplicaId;
use dispatch_worker::store::{Circle, Store};

use crate::store::group_commit::Bench;

/// Inserts rows of the pipeline `p` that are due now, all with the same `due_at`.
async fn due(bench: &Bench, organization: &str, number: usize) {
    let sql = format!(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, due_at)
         SELECT gen_random_uuid(), 'p', 's', {organization} || '/' || n, {organization}, 1, '{{}}', 'ready', 'first', now() - interval '1 second'
         FROM generate_series(1, {number}) n"
    );
    bench.database.rows(&sql).await;
}

async fn organizations_of(bench: &Bench, jobs: &[dispatch_worker::job::JobId]) -> Vec<String> {
    let ids: Vec<String> = jobs.iter().map(|job| format!("'{job}'")).collect();
    let sql = format!(
        "SELECT organization, count(*) FROM jobs WHERE id IN ({}) GROUP BY 1 ORDER BY 1",
        ids.join(", ")
    );
    bench
        .database
        .rows(&sql)
        .await
        .into_iter()
        .map(|row| row.join(" "))
        .collect()
}

async fn take(
    store: &Store,
    limit: i64,
    me: ReplicaId,
    circle: &mut Circle,
) -> (Vec<dispatch_worker::job::JobId>, bool) {
    let page = store.take_due("p", limit, me, circle).await.unwrap();
    (page.jobs, page.ends_circle)
}

#[tokio::test]
async fn due_rows_are_woken_in_equal_shares_by_organization_and_later_rows_are_left() {
    let bench = Bench::new().await;
    let (store, mut circle) = (bench.writer.store(), Circle::default());
    due(&bench, "'a'", 50).await;
    due(&bench, "'b'", 3).await;
    due(&bench, "'c'", 1).await;
    bench
        .database
        .rows("UPDATE jobs SET due_at = now() + interval '1 hour' WHERE organization = 'c'")
        .await;
    let (jobs, ends) = take(store, 6, bench.replica, &mut circle).await;
    assert_eq!(
        (organizations_of(&bench, &jobs).await, ends),
        (vec!["a 3".to_owned(), "b 3".to_owned()], true)
    );
    let (jobs, _) = take(store, 10, bench.replica, &mut circle).await;
    assert_eq!(
        organizations_of(&bench, &jobs).await,
        ["a 10"],
        "no other organization has due rows"
    );
    assert_eq!(
        bench
            .database
            .one("SELECT count(*) FROM jobs WHERE woken_by IS NULL")
            .await,
        "38"
    );
}

#[tokio::test]
async fn successive_pages_cover_a_thousand_organizations_once() {
    let bench = Bench::new().await;
    let (store, mut circle) = (bench.writer.store(), Circle::default());
    due(&bench, "'org-' || lpad(n::text, 5, '0')", 1200).await;
    let mut seen = BTreeSet::new();
    for look in 0..12 {
        let (jobs, ends) = take(store, 100, bench.replica, &mut circle).await;
        assert_eq!((jobs.len(), ends), (100, false), "page {look}");
        seen.extend(organizations_of(&bench, &jobs).await);
    }
    assert_eq!(seen.len(), 1200, "every organization was covered");
    assert_eq!(
        take(store, 100, bench.replica, &mut circle).await,
        (Vec::new(), true)
    );
    assert!(circle.begins());
    bench
        .database
        .rows("UPDATE jobs SET due_at = now() + interval '1 hour', woken_at = NULL")
        .await;
    let (jobs, ends) = take(store, 100, bench.replica, &mut circle).await;
    assert_eq!(
        (jobs.len(), ends),
        (0, false),
        "one page skips a bounded number of organizations without due rows"
    );
}

#[tokio::test]
async fn stamps_are_removed_by_replica_and_age_and_for_ended_replicas_at_any_age() {
    let bench = Bench::new().await;
    let (store, mut circle) = (bench.writer.store(), Circle::default());
    due(&bench, "'a'", 9).await;
    let sql = "INSERT INTO replicas (version, host, pid, alive_until, lanes) VALUES ('1', 'h', 1, now() + interval '1 hour', '{}') RETURNING id";
    let [other, ended] = [bench.database.one(sql).await, bench.database.one(sql).await]
        .map(|id| ReplicaId(id.parse().unwrap()));
    for replica in [bench.replica, other, ended] {
        assert_eq!(take(store, 3, replica, &mut circle).await.0.len(), 3);
    }
    bench
        .database
        .rows("UPDATE jobs SET woken_at = now() - interval '1 day'")
        .await;
    let stamped = "SELECT string_agg(DISTINCT woken_by::text, ',' ORDER BY woken_by::text) FROM jobs WHERE woken_at IS NOT NULL";
    assert!(
        !store.unstamp_ended().await.unwrap(),
        "all replicas are live"
    );
    bench
        .database
        .rows(&format!(
            "UPDATE replicas SET ended_at = now() WHERE id = {}",
            ended.0
        ))
        .await;
    store.unstamp_ended().await.unwrap();
    assert_eq!(
        bench.database.one(stamped).await,
        format!("{},{}", bench.replica.0, other.0)
    );
    store
        .unstamp(bench.replica, Duration::from_hours(25))
        .await
        .unwrap();
    assert_eq!(
        bench.database.one(stamped).await,
        format!("{},{}", bench.replica.0, other.0),
        "the stamps are younger"
    );
    store
        .unstamp(bench.replica, Duration::from_hours(23))
        .await
        .unwrap();
    assert_eq!(bench.database.one(stamped).await, other.0.to_string());
}

#[tokio::test]
async fn a_backlog_is_counted_page_by_page_up_to_its_limit() {
    let bench = Bench::new().await;
    due(&bench, "'a'", 4500).await;
    due(&bench, "'b'", 1).await;
    let store = bench.writer.store();
    assert_eq!(store.backlog(100_000).await.unwrap().jobs, 4501);
    assert_eq!(
        store.backlog(1500).await.unwrap().jobs,
        2000,
        "the count stops at the page that exceeds the limit"
    );
    let mut circle = Circle::default();
    take(store, 501, bench.replica, &mut circle).await;
    assert_eq!(
        store.backlog(100_000).await.unwrap().jobs,
        4501 - 252,
        "251 rows of one organization and 1 of the other"
    );
}
