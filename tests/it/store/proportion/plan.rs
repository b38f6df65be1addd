//! The rows that a statement has read, from its plan.

use serde_json::Value;

/// Tables that are never read whole: each has a row for every job, or may have very many.
const LARGE: [&str; 8] = [
    "jobs",
    "job_keys",
    "controls",
    "dead_letters",
    "announcements",
    "audit_log",
    "quota_grants",
    "campaign_items",
];

/// Tables whose partitions are never read whole either; a plan names the partition.
const PARTITIONED: [&str; 3] = ["checkpoints", "attempts", "effects"];

/// A statement as it was executed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows that it returned, or changed if it returns none.
    pub(super) returned: u64,
    /// Rows that its scans read, including those that were filtered out.
    pub(super) read: u64,
    /// Large tables that it read from end to end.
    pub(super) whole_tables: Vec<String>,
}

/// Parses the result of `EXPLAIN (ANALYZE, FORMAT JSON)`.
pub(super) fn read(explained: &str) -> Plan {
    let json: Value = serde_json::from_str(explained).expect("a plan in JSON");
    let top = &json[0]["Plan"];
    let mut plan = Plan {
        returned: rows(top),
        ..Plan::default()
    };
    add(&mut plan, top);
    if top["Node Type"] == "ModifyTable" && plan.returned == 0 {
        plan.returned = top["Plans"]
            .as_array()
            .and_then(|plans| plans.first())
            .map_or(0, rows);
    }
    plan
}

fn add(plan: &mut Plan, node: &Value) {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let table = node["Relation Name"].as_str().unwrap_or_default();
    let is_large = LARGE.contains(&table) || PARTITIONED.iter().any(|one| table.starts_with(one));
    if kind == "Seq Scan" && is_large {
        plan.whole_tables.push(table.to_owned());
    }
    if kind == "Bitmap Index Scan" || (kind.ends_with("Scan") && !table.is_empty()) {
        let loops = number(node, "Actual Loops");
        let thrown_away =
            number(node, "Rows Removed by Filter") + number(node, "Rows Removed by Index Recheck");
        plan.read += rows(node) + thrown_away * loops;
    }
    for below in node["Plans"].as_array().into_iter().flatten() {
        add(plan, below);
    }
}

/// Returns a node's rows in all its loops.
fn rows(node: &Value) -> u64 {
    number(node, "Actual Rows") * number(node, "Actual Loops")
}

/// Returns a number of a node, rounded up: Postgres 18 reports the average rows of a loop with a
/// fraction.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of rows is neither large nor negative"
)]
fn number(node: &Value, name: &str) -> u64 {
    node[name].as_f64().unwrap_or_default().ceil() as u64
}

#[test]
fn the_rows_that_scans_filter_out_count_as_read() {
    let plan = read(
        r#"[{"Plan": {"Node Type": "Limit", "Actual Rows": 2, "Actual Loops": 1, "Plans": [
            {"Node Type": "Index Scan", "Relation Name": "jobs", "Actual Rows": 3, "Actual Loops": 4, "Rows Removed by Filter": 5},
            {"Node Type": "Seq Scan", "Relation Name": "jobs", "Actual Rows": 1, "Actual Loops": 1},
            {"Node Type": "CTE Scan", "CTE Name": "x", "Actual Rows": 9, "Actual Loops": 9}]}}]"#,
    );
    assert_eq!(
        (plan.returned, plan.read, plan.whole_tables),
        (2, 3 * 4 + 5 * 4 + 1, vec!["jobs".to_owned()])
    );
}
