//! Statements in loops and behind commands read rows in proportion to what they return, however
//! large the tables are. The tests assert this from plans and from Postgres' counters, not from
//! times.
//!
//! `DISPATCH_TEST_SCALE=16` tests with a million jobs, 200,000 of them due.

mod cases;
mod dump;
mod job_cases;
mod letter_cases;
mod plan;

use std::collections::BTreeSet;

use deadpool_postgres::Client;
use dispatch_worker::config;
use dispatch_worker::devkit::many_rows;
use dispatch_worker::store::{BEHIND_COMMANDS, IN_LOOPS};
use tokio_postgres::SimpleQueryMessage;

use crate::support::TestDatabase;
use cases::{CASES, Case};
use job_cases::OF_ONE_JOB;
use letter_cases::OF_LETTERS;

/// The ways in which Postgres plans a prepared statement: for the given parameters, and once for
/// all parameters.
const MODES: [&str; 2] = ["force_custom_plan", "force_generic_plan"];

/// The number of rows that this connection has read and not reported yet, including those that
/// functions read.
const COUNTERS: &str = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables";

#[test]
fn every_statement_has_a_case_and_every_case_a_statement() {
    let statements: BTreeSet<&str> = statements().map(|(name, _)| *name).collect();
    let cases: BTreeSet<&str> = cases().map(|case| case.statement).collect();
    assert_eq!(statements, cases);
    assert_eq!(
        statements.len(),
        IN_LOOPS.len() + BEHIND_COMMANDS.len(),
        "a name is used twice"
    );
}

#[tokio::test]
async fn statements_read_rows_in_proportion_to_what_they_return() {
    let database = TestDatabase::new().await;
    let scale = config::test_scale().unwrap_or(1);
    filled(&database, scale).await;
    let client = database.pool.get().await.expect("a connection");
    let mut wrong = Vec::new();
    for case in cases() {
        for mode in MODES {
            let prepare = format!(
                "SET LOCAL plan_cache_mode = {mode}; PREPARE looked_at AS {}",
                sql_of(case)
            );
            wrong.extend(
                broken(&client, case, &prepare, "looked_at")
                    .await
                    .map(|why| format!("{} ({mode}) {why}", case.statement)),
            );
            client
                .batch_execute("DEALLOCATE looked_at")
                .await
                .expect("it was prepared");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A worker's connection lives long, and a cached plan with it.
#[tokio::test]
async fn statements_planned_while_the_tables_were_empty_read_no_more_rows() {
    let database = TestDatabase::new().await;
    many_rows::name_places(&database.url, 1)
        .await
        .expect("functions");
    let client = database.pool.get().await.expect("a connection");
    client
        .batch_execute("SET plan_cache_mode = force_generic_plan")
        .await
        .expect("a setting");
    for (number, case) in kept() {
        let prepare = format!("PREPARE case_{number} AS {}", sql_of(case));
        let plan = format!(
            "{prepare}; EXPLAIN EXECUTE case_{number} {}",
            arguments(case)
        );
        client
            .batch_execute(&plan)
            .await
            .unwrap_or_else(|error| panic!("{}: {error:?}", case.statement));
    }
    many_rows::fill(&database.url, 1).await.expect("rows");
    let mut wrong = Vec::new();
    for (number, case) in kept() {
        let broken = broken(
            &client,
            case,
            "SELECT WHERE false",
            &format!("case_{number}"),
        )
        .await;
        wrong.extend(broken.map(|why| format!("{} {why}", case.statement)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn filled(database: &TestDatabase, scale: u32) {
    let url = &database.url;
    many_rows::name_places(url, scale).await.expect("functions");
    many_rows::fill(url, scale).await.expect("rows");
    many_rows::vacuum(url).await.expect("statistics");
}

fn sql_of(case: &Case) -> &'static str {
    statement(case.statement)
}

fn statement(name: &str) -> &'static str {
    statements()
        .find(|(found, _)| *found == name)
        .expect("a statement of the sources")
        .1
}

fn statements() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    IN_LOOPS.iter().chain(BEHIND_COMMANDS)
}

fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(OF_ONE_JOB).chain(OF_LETTERS)
}

/// Returns the cases of statements whose plans are cached for long.
fn kept() -> impl Iterator<Item = (usize, &'static Case)> {
    let is_kept = |case: &Case| IN_LOOPS.iter().any(|(name, _)| *name == case.statement);
    cases().enumerate().filter(move |(_, case)| is_kept(case))
}

fn arguments(case: &Case) -> String {
    if case.arguments.is_empty() {
        String::new()
    } else {
        format!("({})", case.arguments)
    }
}

/// Returns what is wrong with a statement, if anything. It is rolled back, so that every statement
/// sees the same rows.
async fn broken(client: &Client, case: &Case, prepare: &str, name: &str) -> Option<String> {
    let explain = format!(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} {}",
        arguments(case)
    );
    let sql = format!("BEGIN; {prepare}; {COUNTERS}; {explain}; {COUNTERS}; ROLLBACK");
    let messages = client
        .simple_query(&sql)
        .await
        .unwrap_or_else(|error| panic!("{}: {error:?}", case.statement));
    let text = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    let rows: Vec<String> = messages.iter().filter_map(text).collect();
    let [before, explained, after] = rows.as_slice() else {
        panic!("{}: {rows:?}", case.statement)
    };
    let plan = plan::read(explained);
    // Plans do not show what functions read; counters do.
    let counted = |row: &String| row.parse::<u64>().expect("a count");
    let read = plan.read.max(counted(after) - counted(before));
    let allowed = case.at_most + case.for_each * plan.returned;
    if !plan.whole_tables.is_empty() {
        return Some(format!(
            "reads all of {}:\n{explained}",
            plan.whole_tables.join(", ")
        ));
    }
    if case.returns != (plan.returned > 0) {
        return Some(format!(
            "returns {} rows, so the case shows nothing",
            plan.returned
        ));
    }
    (read > allowed).then(|| {
        format!(
            "reads {read} rows for {}, at most {allowed} expected:\n{explained}",
            plan.returned
        )
    })
}
