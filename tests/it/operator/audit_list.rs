//! The audit log is read in pages, by job, actor, action and time.

use dispatch_worker::job::JobId;
use dispatch_worker::store::{AuditFilter, Store};
use time::OffsetDateTime;

use crate::support::{TestDatabase, TestWorld, WORKER};

/// Returns the ids and the cursor of a page.
async fn page(
    store: &Store,
    filter: &AuditFilter,
    cursor: Option<i64>,
    limit: i64,
) -> (Vec<i64>, Option<i64>) {
    let page = store.audit_rows(filter, cursor, limit).await.unwrap();
    (page.rows.iter().map(|row| row.id).collect(), page.next)
}

#[tokio::test]
async fn pages_are_newest_first_and_filters_narrow_them() {
    let database = TestDatabase::new().await;
    let store = Store::new(database.pool.clone());
    let (job, all) = (JobId::fresh(), AuditFilter::default());
    assert_eq!(page(&store, &all, None, 2).await, (Vec::new(), None));
    let fill = format!(
        "INSERT INTO audit_log (at, who, role, action, job_id, reason) VALUES
            (now() - interval '3 days', 'ann', 'operator', 'retry', '{job}', 'one'),
            (now() - interval '2 days', 'olga', 'operator', 'cancel', '{job}', 'two'),
            (now(), 'ann', 'operator', 'hold.place', NULL, 'three')"
    );
    database.rows(&fill).await;
    assert_eq!(page(&store, &all, None, 2).await, (vec![3, 2], Some(2)));
    assert_eq!(page(&store, &all, Some(2), 2).await, (vec![1], None));
    let of_job = AuditFilter {
        job: Some(job),
        ..AuditFilter::default()
    };
    assert_eq!(page(&store, &of_job, None, 50).await, (vec![2, 1], None));
    let by_ann = AuditFilter {
        who: Some("ann".to_owned()),
        ..of_job.clone()
    };
    assert_eq!(page(&store, &by_ann, None, 50).await, (vec![1], None));
    let cancels = AuditFilter {
        action: Some("cancel".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(page(&store, &cancels, None, 50).await, (vec![2], None));
    let recent = AuditFilter {
        since: Some(OffsetDateTime::now_utc() - time::Duration::DAY),
        ..AuditFilter::default()
    };
    assert_eq!(page(&store, &recent, None, 50).await, (vec![3], None));
}

#[tokio::test]
async fn a_filter_looks_at_one_window_at_a_time_and_says_where_it_goes_on() {
    let database = TestDatabase::new().await;
    let store = Store::new(database.pool.clone());
    database
        .rows(
            "INSERT INTO audit_log (at, who, role, action)
             SELECT now() - interval '1 day', CASE n WHEN 1 THEN 'ann' ELSE 'olga' END, 'operator', 'retry' FROM generate_series(1, 20010) n",
        )
        .await;
    let by_ann = AuditFilter {
        who: Some("ann".to_owned()),
        ..AuditFilter::default()
    };
    assert_eq!(
        page(&store, &by_ann, None, 50).await,
        (Vec::new(), Some(11))
    );
    assert_eq!(page(&store, &by_ann, Some(11), 50).await, (vec![1], None));
    let recent = AuditFilter {
        since: Some(OffsetDateTime::now_utc() - time::Duration::HOUR),
        ..AuditFilter::default()
    };
    assert_eq!(
        page(&store, &recent, None, 50).await,
        (Vec::new(), None),
        "no older row is recent enough"
    );
}

#[tokio::test]
async fn the_command_prints_who_placed_a_hold() {
    let world = TestWorld::acme().await;
    let place = [
        "holds",
        "place",
        "acme|slack|1",
        "--reason",
        "their outage",
        "--yes",
    ];
    world.dispatch(&place).done().await;
    let list = ["audit", "list", "--action", "hold.place", "--since", "1h"];
    let page = world.dispatch(&list).done().await;
    let row = &page["rows"][0];
    assert_eq!(
        (&row["who"], &row["reason"], &page["next"]),
        (
            &"olga".into(),
            &"their outage".into(),
            &serde_json::Value::Null
        ),
        "{page}"
    );
    assert_eq!(row["login"], WORKER, "{page}");
}
