//! The monthly partitions of the jobs' history are made ahead, filled from the default partitions
//! and dropped as a whole, and no other statement waits for that.

use std::time::Duration;

use dispatch_worker::store::{self, Store, StoreError};
use time::OffsetDateTime;

use crate::support::{TestDatabase, wait_for};

/// Returns the months at these distances from the current one, in the form in which names of
/// partitions end.
async fn months(database: &TestDatabase, ahead: std::ops::RangeInclusive<i32>) -> Vec<String> {
    let mut names = Vec::new();
    for month in ahead {
        let name = format!(
            "SELECT to_char((now() AT TIME ZONE 'UTC')::date + make_interval(months => {month}), 'YYYYMM')"
        );
        names.push(database.one(&name).await);
    }
    names
}

fn store_of(database: &TestDatabase) -> Store {
    Store::new(database.pool.clone())
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Inserts an attempt of a job whose id is from the month at this distance.
async fn attempt(database: &TestDatabase, months: i32, message: &str) {
    database
        .rows(&format!(
            "INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch)
             VALUES (first_job_id_of(month_of(now()) + make_interval(months => {months}, days => 9)), 1, 's', 1, 'retried', 'e',
                '{message}', 1, 1, 1)"
        ))
        .await;
}

/// Returns the partition of an attempt.
async fn place(database: &TestDatabase, message: &str) -> String {
    database
        .one(&format!(
            "SELECT tableoid::regclass FROM attempts WHERE message = '{message}'"
        ))
        .await
}

/// Inserts a job of the month at this distance.
async fn job(database: &TestDatabase, months: i32, state: &str) {
    database
        .rows(&format!(
            "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage)
             VALUES (first_job_id_of(month_of(now()) + make_interval(months => {months}, days => 9)), 'p', 's', '{months}', 'o', 1, '{{}}',
                '{state}', 's')"
        ))
        .await;
}

async fn partitions(database: &TestDatabase, parent: &str) -> Vec<String> {
    let names =
        format!("SELECT name FROM history_partitions() WHERE parent = '{parent}' ORDER BY name");
    database.rows(&names).await.concat()
}

#[tokio::test]
async fn a_migration_makes_the_partitions_of_this_month_and_of_the_next_three() {
    let database = TestDatabase::new().await;
    let months = months(&database, 0..=3).await;
    for parent in ["checkpoints", "attempts", "effects"] {
        let made: Vec<String> = months
            .iter()
            .map(|month| format!("{parent}_{month}"))
            .collect();
        assert_eq!(partitions(&database, parent).await, made);
    }
}

#[tokio::test]
async fn a_row_in_the_default_partition_stops_neither_a_migration_nor_a_worker_of_the_previous_version()
 {
    for way in ["migrate", "ensure_partitions", "keep_partitions"] {
        let database = TestDatabase::new().await;
        let months = months(&database, 1..=1).await;
        database
            .rows(&format!("DROP TABLE attempts_{}", months[0]))
            .await;
        attempt(&database, 1, "early").await;
        attempt(&database, 7, "far ahead").await;
        assert_eq!(place(&database, "early").await, "attempts_default");
        match way {
            "migrate" => drop(
                store::migrate(&database.url)
                    .await
                    .expect("a row in the default partition is no obstacle"),
            ),
            "ensure_partitions" => drop(database.one("SELECT ensure_partitions(3)").await),
            _ => assert!(!store_of(&database).keep_partitions(now()).await.unwrap()),
        }
        assert_eq!(
            place(&database, "early").await,
            format!("attempts_{}", months[0]),
            "{way}"
        );
        assert_eq!(
            place(&database, "far ahead").await,
            "attempts_default",
            "its partition is made when the month is nearer"
        );
        attempt(&database, 1, "in time").await;
        assert_eq!(
            place(&database, "in time").await,
            format!("attempts_{}", months[0])
        );
    }
}

#[tokio::test]
async fn more_rows_than_one_call_may_move_stay_in_the_default_partition() {
    let database = TestDatabase::new().await;
    let months = months(&database, 1..=1).await;
    database
        .rows(&format!("DROP TABLE attempts_{}", months[0]))
        .await;
    for message in ["one", "two"] {
        attempt(&database, 1, message).await;
    }
    let make = |most: u32| {
        format!("SELECT make_partition('attempts', month_of(now()) + interval '1 month', {most})")
    };
    assert_eq!(database.one(&make(1)).await, "crowded");
    assert_eq!(place(&database, "one").await, "attempts_default");
    assert_eq!(database.one(&make(2)).await, "made");
    assert_eq!(
        place(&database, "one").await,
        format!("attempts_{}", months[0])
    );
    assert_eq!(database.one(&make(2)).await, "there");
}

#[tokio::test]
async fn inserts_do_not_wait_while_maintenance_waits_for_a_dump_and_maintenance_succeeds_after_it()
{
    let database = TestDatabase::new().await;
    let store = store_of(&database);
    let month = months(&database, 1..=1).await.concat();
    database
        .rows("SELECT make_partition('attempts', now() - interval '3 months')")
        .await;
    database
        .rows(&format!("DROP TABLE checkpoints_{month}"))
        .await;
    let mut dump = database.pool.get().await.unwrap();
    let dump = dump.transaction().await.unwrap();
    let locks = "LOCK TABLE checkpoints, attempts, effects, jobs IN ACCESS SHARE MODE";
    dump.batch_execute(locks).await.unwrap();

    let before = partitions(&database, "attempts").await;
    let upkeep = async {
        for _ in 0..3 {
            assert!(
                !store
                    .keep_partitions(now())
                    .await
                    .expect("a lock that is not acquired is no error")
            );
        }
    };
    let inserts = async {
        let client = database.pool.get().await.unwrap();
        client
            .batch_execute("SET statement_timeout = '2s'")
            .await
            .unwrap();
        let sql = "INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
            VALUES (first_job_id_of(now()), 1, $1, 1, '{}', 1, 1, 1, now())";
        for n in 0..100 {
            client
                .execute(sql, &[&n.to_string()])
                .await
                .expect("the insert does not wait for long");
        }
        client
            .batch_execute("RESET statement_timeout")
            .await
            .unwrap();
    };
    tokio::join!(upkeep, inserts);
    assert_eq!(partitions(&database, "attempts").await, before);
    assert!(
        !partitions(&database, "checkpoints")
            .await
            .contains(&format!("checkpoints_{month}"))
    );
    assert_eq!(
        store::migrate(&database.url)
            .await
            .expect("it is no error for a migration either"),
        Vec::<String>::new()
    );

    dump.commit().await.unwrap();
    assert!(!store.keep_partitions(now()).await.unwrap());
    assert!(
        partitions(&database, "checkpoints")
            .await
            .contains(&format!("checkpoints_{month}"))
    );
    assert_eq!(
        partitions(&database, "attempts").await.len(),
        before.len() - 1,
        "the old one is dropped"
    );
}

#[tokio::test]
async fn a_partition_is_dropped_when_no_job_of_its_month_is_left_and_kept_while_one_is_parked() {
    let database = TestDatabase::new().await;
    let store = store_of(&database);
    for (months, message) in [(-4, "of nobody"), (-3, "of a parked job")] {
        database
            .rows(&format!(
                "SELECT make_partition('attempts', now() + make_interval(months => {months}))"
            ))
            .await;
        attempt(&database, months, message).await;
    }
    job(&database, -3, "parked").await;
    assert!(!store.keep_partitions(now()).await.unwrap());
    assert_eq!(
        database.rows("SELECT message FROM attempts").await,
        [["of a parked job"]]
    );
    assert_eq!(partitions(&database, "attempts").await.len(), 5);
    database.rows("DELETE FROM jobs").await;
    store.keep_partitions(now()).await.unwrap();
    assert_eq!(partitions(&database, "attempts").await, {
        let months = months(&database, 0..=3).await;
        months
            .iter()
            .map(|month| format!("attempts_{month}"))
            .collect::<Vec<_>>()
    });
}

#[tokio::test]
async fn a_worker_whose_clock_is_months_off_makes_and_drops_no_partition() {
    let database = TestDatabase::new().await;
    let store = store_of(&database);
    database
        .rows("SELECT make_partition('attempts', now() - interval '3 months')")
        .await;
    let before = partitions(&database, "attempts").await;
    for days in [180, -180] {
        let error = store
            .keep_partitions(now() + time::Duration::days(days))
            .await
            .expect_err("the clocks differ");
        assert!(
            matches!(error, StoreError::Clocks { .. }) && error.to_string().contains("use NTP"),
            "{error}"
        );
    }
    assert_eq!(partitions(&database, "attempts").await, before);
    assert!(
        !store
            .keep_partitions(now() + time::Duration::minutes(9))
            .await
            .unwrap(),
        "a difference of minutes is tolerated"
    );
    assert_eq!(
        partitions(&database, "attempts").await.len(),
        before.len() - 1
    );
}

#[tokio::test]
async fn one_replica_at_a_time_maintains_the_partitions() {
    let database = TestDatabase::new().await;
    let store = store_of(&database);
    database
        .rows("SELECT make_partition('attempts', now() - interval '3 months')")
        .await;
    let before = partitions(&database, "attempts").await;
    let mut other = database.pool.get().await.unwrap();
    let other = other.transaction().await.unwrap();
    other
        .batch_execute("SELECT pg_advisory_xact_lock(7264019, 2)")
        .await
        .unwrap();
    assert!(!store.keep_partitions(now()).await.unwrap());
    assert_eq!(partitions(&database, "attempts").await, before);
    other.rollback().await.unwrap();
    wait_for(
        "the lock to be free and the old partition to be dropped",
        Duration::from_secs(10),
        async || {
            store.keep_partitions(now()).await.unwrap();
            if partitions(&database, "attempts").await.len() < before.len() {
                Ok(())
            } else {
                Err("not yet")
            }
        },
    )
    .await;
}
