//! The rows that a large campaign reads.

use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::Pool;
use dispatch_worker::operations;
use dispatch_worker::store::{self, Actor, BulkAction, CampaignFilter, NewCampaign, Role, Store};

use super::{SOON, parked_in, step_all};
use crate::support::{TestDatabase, wait_for};

/// Rows that connections which have ended have read from the tables of campaigns and from `jobs`.
const READ: &str =
    "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables
    WHERE relname IN ('jobs', 'campaigns', 'campaign_items')";

/// A pool of one session, whose reads Postgres counts when it ends at the latest.
struct Session {
    pool: Pool,
    pid: i32,
}

impl Session {
    async fn new(database: &TestDatabase) -> Self {
        let pool = store::pool(&database.url, 1).unwrap();
        let client = pool.get().await.unwrap();
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
        let pid = row.unwrap().get(0);
        drop(client);
        Self { pool, pid }
    }

    fn store(&self) -> Store {
        Store::new(self.pool.clone())
    }

    /// Ends the session, and returns the rows that were read so far.
    async fn end(self, database: &TestDatabase) -> u64 {
        drop(self.pool);
        let session = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {}",
            self.pid
        );
        wait_for("the end of the session", SOON, async || {
            match database.one(&session).await.as_str() {
                "0" => Ok(()),
                _ => Err("it is there"),
            }
        })
        .await;
        database.one(READ).await.parse().unwrap()
    }
}

#[tokio::test]
async fn a_campaign_of_a_hundred_thousand_jobs_reads_a_few_rows_for_each_step() {
    let database = TestDatabase::new().await;
    parked_in(&database, 100_001).await;
    database.rows("VACUUM ANALYZE jobs").await;
    let session = Session::new(&database).await;
    let olga = Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: Some("left".to_owned()),
        request: None,
    };
    let new = NewCampaign {
        action: BulkAction::Cancel,
        filter: CampaignFilter {
            group: Some("f-1".to_owned()),
            ..CampaignFilter::default()
        },
        per_second: 100,
        stop_at_percent: 20,
        duplicates: 0,
    };
    let started = operations::start_campaign(&session.store(), &olga, &new)
        .await
        .unwrap();
    assert_eq!((started.jobs, started.is_partial), (100_000, true));
    database.rows("UPDATE campaigns SET next_at = now()").await;
    let before = session.end(&database).await;
    let session = Session::new(&database).await;
    let steps = AtomicU64::new(0);
    wait_for("the third wave", SOON, async || {
        let done = step_all(&session.store()).await;
        steps.fetch_add(done, Ordering::Relaxed);
        let row = session.store().campaigns(None, 1).await.unwrap().remove(0);
        if row.wave >= 3 && row.good > 50 {
            Ok(())
        } else {
            Err(format!("{row:?}"))
        }
    })
    .await;
    let steps = steps.into_inner();
    let read = session.end(&database).await - before;
    assert!(steps > 50, "{steps}");
    assert!(read < steps * 40 + 2_000, "{read} rows in {steps} steps");
    let items = "SELECT count(*), count(DISTINCT job_id), max(n) FROM campaign_items";
    assert_eq!(database.rows(items).await, [["100000", "100000", "100000"]]);
}
