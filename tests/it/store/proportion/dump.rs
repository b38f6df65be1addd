//! While a dump holds its snapshot, Postgres keeps every row version and every index entry: the
//! query for due jobs must not read the jobs that were woken meanwhile each time again.

use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

use super::statement;
use crate::support::TestDatabase;

const JOBS: u32 = 20_000;
const TAKEN: u32 = 18_000;

/// Returns the number of pages that the query reads for 16 rows that are due since this time or
/// later.
async fn pages(database: &TestDatabase, since: &str) -> u64 {
    let client = database.pool.get().await.expect("a connection");
    let sql = format!(
        "BEGIN; PREPARE look AS {}; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE look('p', 16, '', 500, 1, {since}); ROLLBACK; DEALLOCATE look",
        statement("due::DUE")
    );
    let messages = client.simple_query(&sql).await.expect("a plan");
    let explained = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    let plan: Value = serde_json::from_str(&explained.expect("a row")).expect("a plan in JSON");
    let read = |name: &str| plan[0]["Plan"][name].as_u64().expect("a number of pages");
    read("Shared Hit Blocks") + read("Shared Read Blocks")
}

#[tokio::test]
async fn the_query_for_due_jobs_skips_the_jobs_that_were_woken_during_a_dump() {
    let database = TestDatabase::new().await;
    let fill = format!(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, due_at)
            SELECT gen_random_uuid(), 'p', 's', 'k' || n, 'a', 1, '{{}}', 'ready', 'first', now() - interval '1 hour' + n * interval '100 ms'
            FROM generate_series(1, {JOBS}) n"
    );
    database.rows(&fill).await;
    database.rows("VACUUM ANALYZE jobs").await;
    let dump = database.pool.get().await.expect("a connection");
    dump.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM jobs")
        .await
        .expect("a snapshot");
    let take = format!(
        "UPDATE jobs SET woken_at = now() WHERE id IN (SELECT id FROM jobs ORDER BY due_at LIMIT {TAKEN})"
    );
    database.rows(&take).await;
    let everything = pages(&database, "'1970-01-01'").await;
    let first_left =
        format!("now() - interval '1 hour' + {TAKEN} * interval '100 ms' - interval '5 seconds'");
    let from_the_first_left = pages(&database, &first_left).await;
    dump.batch_execute("ROLLBACK").await.expect("it ends");
    assert!(
        everything > 1_000,
        "the snapshot has kept nothing: {everything} pages"
    );
    assert!(
        from_the_first_left * 3 < everything,
        "{from_the_first_left} pages instead of {everything}"
    );
}
