//! A statement that runs in a loop or behind a command reads rows in proportion to what it returns, however large the tables are:
//! asserted from its plan and from Postgres' counters, not from time.
//!
//! `DISPATCH_TEST_SCALE=16` looks at a million jobs, 200,000 of them due.

mod cases;
mod plan;
mod tables;

use std::collections::BTreeSet;

use dispatch_worker::config;
use dispatch_worker::store::STATEMENTS;

use crate::support::TestDatabase;
use cases::{CASES, Case};

/// The ways in which Postgres plans a prepared statement: for parameters that it knows, and once for all.
const MODES: [&str; 2] = ["force_custom_plan", "force_generic_plan"];

/// Rows that this connection has read and not reported yet, also those that functions read.
const COUNTERS: &str = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables";

#[test]
fn every_statement_has_a_case_and_every_case_a_statement() {
    let statements: BTreeSet<&str> = STATEMENTS.iter().map(|(name, _)| *name).collect();
    let cases: BTreeSet<&str> = CASES.iter().map(|case| case.statement).collect();
    assert_eq!(statements, cases);
    assert_eq!(statements.len(), STATEMENTS.len(), "a name twice");
}

#[tokio::test]
async fn statements_read_rows_in_proportion_to_what_they_return() {
    let database = TestDatabase::new().await;
    tables::fill(&database, config::test_scale().unwrap_or(1)).await;
    let mut wrong = Vec::new();
    for case in CASES {
        for mode in MODES {
            wrong.extend(broken(&database, case, mode).await.map(|why| format!("{} ({mode}) {why}", case.statement)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with a statement, if anything is.
async fn broken(database: &TestDatabase, case: &Case, mode: &str) -> Option<String> {
    let (_, sql) = STATEMENTS.iter().find(|(name, _)| *name == case.statement).expect("a statement of the sources");
    let arguments = if case.arguments.is_empty() { String::new() } else { format!("({})", case.arguments) };
    // Rolled back, so that every statement meets the same rows.
    let rows = database
        .rows(&format!(
            "BEGIN; SET LOCAL plan_cache_mode = {mode}; PREPARE looked_at AS {sql}; {COUNTERS};
            EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE looked_at {arguments}; {COUNTERS}; ROLLBACK; DEALLOCATE looked_at"
        ))
        .await;
    let [before, explained, after] = rows.as_slice() else { panic!("{}: {rows:?}", case.statement) };
    let plan = plan::read(&explained[0]);
    // Plans do not show what functions read; counters do.
    let counted = |row: &[String]| row[0].parse::<u64>().expect("a count");
    let read = plan.read.max(counted(after) - counted(before));
    let allowed = case.at_most + case.for_each * plan.returned;
    if !plan.whole_tables.is_empty() {
        return Some(format!("reads all of {}:\n{}", plan.whole_tables.join(", "), explained[0]));
    }
    if case.returns != (plan.returned > 0) {
        return Some(format!("returns {} rows, so that nothing is seen of it", plan.returned));
    }
    (read > allowed).then(|| format!("reads {read} rows for {}, at most {allowed} expected:\n{}", plan.returned, explained[0]))
}
