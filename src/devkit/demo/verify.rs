//! Verifies the guarantees by comparing the witness log (the requests that the providers received)
//! with Postgres.

use std::collections::{BTreeMap, HashMap, HashSet};

use deadpool_postgres::Client;
use serde_json::Value;
use tokio_postgres::Row;

use super::traffic::{Fate, SOURCE};
use crate::devkit::simulator::witness::{Entry, Provider};
use crate::engine::Registry;
use crate::pipelines::{self, Dispatch};

/// A guarantee and the result of checking it.
pub(super) struct Check {
    /// The guarantee, as a sentence.
    pub(super) promise: &'static str,
    /// What was checked, or what does not hold.
    pub(super) outcome: Result<String, String>,
}

impl Check {
    pub(super) const fn new(promise: &'static str, outcome: Result<String, String>) -> Self {
        Self { promise, outcome }
    }

    /// Creates a check that holds if there are no `problems`. `seen` states what was checked.
    pub(super) fn of(promise: &'static str, problems: &[String], seen: String) -> Self {
        const SHOWN: usize = 5;
        if problems.is_empty() {
            return Self::new(promise, Ok(seen));
        }
        let mut text = problems
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ");
        if problems.len() > SHOWN {
            text.push_str(&format!("; and {} more", problems.len() - SHOWN));
        }
        Self::new(promise, Err(text))
    }
}

/// Checks that every confirmed message has a job's row or a dead letter. Also returns the number
/// of messages that have neither.
pub(super) async fn nothing_lost(
    client: &Client,
    confirmed: &[Fate],
) -> anyhow::Result<(Check, u64)> {
    const KEYS: &str = "SELECT k.dedupe_key AS id FROM job_keys k JOIN jobs j ON j.id = k.job_id WHERE k.source = $1";
    const LETTERS: &str = "SELECT message_id AS id FROM dead_letters WHERE message_id IS NOT NULL";
    let keys = texts(&client.query(KEYS, &[&SOURCE]).await?)?;
    let letters = texts(&client.query(LETTERS, &[]).await?)?;
    let is_there = |fate: &&Fate| match fate {
        Fate::Job(key) => keys.contains(key),
        Fate::DeadLetter(id) => letters.contains(id),
    };
    let lost: Vec<String> = confirmed
        .iter()
        .filter(|fate| !is_there(fate))
        .map(|fate| format!("{fate:?}"))
        .collect();
    let seen = format!(
        "{} confirmed messages: {} jobs, {} dead letters",
        confirmed.len(),
        keys.len(),
        letters.len()
    );
    let count = u64::try_from(lost.len())?;
    Ok((
        Check::of(
            "no message is lost: each confirmed one is a job or a dead letter",
            &lost,
            seen,
        ),
        count,
    ))
}

/// Checks that every finished job has each checkpoint once, in order and without a gap.
pub(super) async fn checkpoints(client: &Client) -> anyhow::Result<Check> {
    const SQL: &str = "
        SELECT j.id::text AS id, j.pipeline,
            coalesce(array_agg(c.stage ORDER BY c.finished_at, c.epoch) FILTER (WHERE c.stage IS NOT NULL), '{}') AS stages
        FROM jobs j LEFT JOIN checkpoints c ON c.job_id = j.id AND c.generation = j.generation
        WHERE j.state = 'succeeded' GROUP BY j.id, j.pipeline";
    let registry = pipelines::registry();
    let (mut problems, mut count) = (Vec::new(), 0);
    let rows = client.query(SQL, &[]).await?;
    for row in &rows {
        let (id, pipeline, stages): (String, String, Vec<String>) = (
            row.try_get("id")?,
            row.try_get("pipeline")?,
            row.try_get("stages")?,
        );
        count += stages.len();
        if !in_order(&registry, &pipeline, &stages) {
            problems.push(format!("{pipeline} job {id} has {stages:?}"));
        }
    }
    let seen = format!("{count} checkpoints of {} finished jobs", rows.len());
    Ok(Check::of(
        "each stage has one checkpoint, in order, none missing",
        &problems,
        seen,
    ))
}

/// Returns whether these are all stages of the pipeline, in order. `assignee_sync` may end early
/// if no work item has to be updated.
fn in_order(registry: &Registry<Dispatch>, pipeline: &str, stages: &[String]) -> bool {
    let Some(known) = registry.get(pipeline) else {
        return false;
    };
    let list: Vec<&str> = known
        .stages()
        .filter(|stage| !stage.off_path)
        .map(|stage| stage.name)
        .collect();
    let may_end_early = pipeline == pipelines::assignee_sync::NAME && stages.len() == 1;
    (may_end_early || stages.len() == list.len())
        && stages
            .iter()
            .zip(&list)
            .all(|(stage, expected)| stage == expected)
}

/// An effect in the ledger.
struct Ledgered {
    key: String,
    class: String,
    state: String,
    unknowns: u64,
    is_message: bool,
}

/// Compares the effects with the witness log: compare-and-set and keyed effects happen once,
/// at-least-once effects at most once more for each unknown outcome, and there are no requests
/// outside the ledger. Also returns the number of duplicates.
pub(super) async fn effects(
    client: &Client,
    witness: &[Entry],
) -> anyhow::Result<(Vec<Check>, u64)> {
    const SQL: &str = "
        SELECT e.key, e.class, e.state, e.unknowns, e.stage = 'deliver_message' AS is_message
        FROM effects e JOIN jobs j ON j.id = e.job_id";
    let ledger = client
        .query(SQL, &[])
        .await?
        .iter()
        .map(ledgered)
        .collect::<Result<Vec<_>, _>>()?;
    let sent = effective(witness, |entry| entry.provider != Provider::AzureDevops);
    let patched = effective(witness, |entry| {
        entry.provider == Provider::AzureDevops && entry.method == "PATCH"
    });
    let messages: Vec<&Ledgered> = ledger.iter().filter(|effect| effect.is_message).collect();
    let patches = ledger
        .iter()
        .filter(|effect| !effect.is_message && effect.state != "failed")
        .count();
    let (keyed, keyed_extra) = once(&messages, &sent, "K2");
    let (blind, blind_extra) = once(&messages, &sent, "K3");
    let guarded: Vec<String> = patched
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|(key, times)| format!("{key}: {times} times"))
        .collect();
    let mut guarded_problems = guarded.clone();
    if patched.len() > patches {
        guarded_problems.push(format!(
            "{} work items were patched, but there are {patches} follow-ups",
            patched.len()
        ));
    }
    let known: HashSet<&str> = messages
        .iter()
        .flat_map(|effect| names(&effect.key))
        .collect();
    let strangers: Vec<String> = sent
        .keys()
        .filter(|key| !known.contains(key.as_str()))
        .map(|key| format!("{key} is not in the ledger"))
        .collect();
    let checks = vec![
        Check::of(
            "no assignee is written twice (compare-and-set)",
            &guarded_problems,
            format!("{} patches", patched.len()),
        ),
        Check::of(
            "no message with an idempotency key is duplicated or missing",
            &keyed,
            of_class(&messages, "K2"),
        ),
        Check::of(
            "no at-least-once message is missing or repeated unrecorded",
            &blind,
            of_class(&messages, "K3"),
        ),
        Check::of(
            "every request sent is in the ledger",
            &strangers,
            format!("{} requests received", witness.len()),
        ),
    ];
    Ok((
        checks,
        keyed_extra + blind_extra + u64::try_from(guarded.len())?,
    ))
}

fn ledgered(row: &Row) -> anyhow::Result<Ledgered> {
    Ok(Ledgered {
        key: row.try_get("key")?,
        class: row.try_get("class")?,
        state: row.try_get("state")?,
        unknowns: u64::try_from(row.try_get::<_, i32>("unknowns")?)?,
        is_message: row.try_get("is_message")?,
    })
}

/// Returns how often requests with each key took effect.
fn effective(witness: &[Entry], wanted: impl Fn(&Entry) -> bool) -> BTreeMap<String, u64> {
    let mut times = BTreeMap::new();
    for entry in witness.iter().filter(|entry| entry.effect && wanted(entry)) {
        *times
            .entry(entry.key.clone().unwrap_or_else(|| "no key".to_owned()))
            .or_default() += 1;
    }
    times
}

/// Returns the forms of a key that receivers see: the whole key, or its beginning as Discord's
/// nonce.
fn names(key: &str) -> [&str; 2] {
    const NONCE: usize = 25;
    [key, key.get(..NONCE).unwrap_or(key)]
}

/// Returns the problems of a class's messages, and the number of excess effects.
fn once(messages: &[&Ledgered], sent: &BTreeMap<String, u64>, class: &str) -> (Vec<String>, u64) {
    let (mut problems, mut extra) = (Vec::new(), 0);
    for effect in messages.iter().filter(|effect| effect.class == class) {
        let times = names(&effect.key)
            .iter()
            .find_map(|name| sent.get(*name))
            .copied()
            .unwrap_or_default();
        let allowed = 1 + if class == "K3" { effect.unknowns } else { 0 };
        extra += times.saturating_sub(allowed);
        if times > allowed {
            problems.push(format!(
                "{}: sent {times} times, {allowed} allowed",
                effect.key
            ));
        }
        if effect.state == "confirmed" && times == 0 {
            problems.push(format!("{}: confirmed, but never received", effect.key));
        }
    }
    (problems, extra)
}

fn of_class(messages: &[&Ledgered], class: &str) -> String {
    let of_class = messages.iter().filter(|effect| effect.class == class);
    let (count, unknowns) = of_class.fold((0, 0), |(count, unknowns), effect| {
        (count + 1, unknowns + effect.unknowns)
    });
    if class == "K3" {
        format!("{count} messages, {unknowns} unknown outcomes recorded")
    } else {
        format!("{count} messages")
    }
}

/// Checks that each linked work item has the same assignee as its group, by e-mail address.
pub(super) async fn assignees(
    client: &Client,
    tracker: &BTreeMap<String, Option<String>>,
) -> anyhow::Result<Check> {
    const SQL: &str = "
        SELECT i.account_name || ':' || e.work_item_id AS item, o.slug || ' ' || g.short_id AS in_group, u.name,
            coalesce(array_agg(m.email) FILTER (WHERE m.verified), '{}') AS emails
        FROM group_links l
        JOIN external_issues e ON e.id = l.external_issue_id
        JOIN integrations i ON i.id = e.integration_id
        JOIN issue_groups g ON g.id = l.group_id
        JOIN projects p ON p.id = g.project_id
        JOIN organizations o ON o.id = p.organization_id
        LEFT JOIN group_assignees a ON a.group_id = g.id
        LEFT JOIN users u ON u.id = a.user_id
        LEFT JOIN user_emails m ON m.user_id = u.id
        GROUP BY 1, 2, 3 ORDER BY 2, 1";
    let rows = client.query(SQL, &[]).await?;
    let (mut problems, mut assigned) = (Vec::new(), 0);
    for row in &rows {
        let (item, group): (String, String) = (row.try_get("item")?, row.try_get("in_group")?);
        let (name, emails): (Option<String>, Vec<String>) =
            (row.try_get("name")?, row.try_get("emails")?);
        let there = tracker
            .get(&item)
            .and_then(Option::as_ref)
            .map(|address| address.to_lowercase());
        let is_equal = there
            .as_ref()
            .map_or(name.is_none(), |address| emails.contains(address));
        assigned += usize::from(name.is_some());
        if !is_equal {
            let nobody = || "nobody".to_owned();
            problems.push(format!(
                "{group} has {}, {item} has {}",
                name.unwrap_or_else(nobody),
                there.unwrap_or_else(nobody)
            ));
        }
    }
    let seen = format!("{} links, {assigned} of them assigned", rows.len());
    Ok(Check::of(
        "every linked work item has the same assignee as its group",
        &problems,
        seen,
    ))
}

/// Checks that no event without the right secret was accepted.
pub(super) async fn forgeries(client: &Client, keys: &[String]) -> anyhow::Result<Check> {
    const SQL: &str = "
        SELECT j.dedupe_key, c.output FROM jobs j JOIN checkpoints c ON c.job_id = j.id AND c.stage = 'handle_events'
        WHERE j.source = $1 AND j.dedupe_key = ANY ($2)";
    let rows = client.query(SQL, &[&SOURCE, &keys]).await?;
    let mut handled: HashMap<String, Value> = HashMap::new();
    for row in &rows {
        handled.insert(row.try_get("dedupe_key")?, row.try_get("output")?);
    }
    let is_ignored = |output: &Value| {
        output["accepted"] == serde_json::json!([])
            && output["ignored"][0]["reason"] == "bad_secret"
    };
    let taken: Vec<String> = keys
        .iter()
        .filter(|key| !handled.get(*key).is_some_and(is_ignored))
        .cloned()
        .collect();
    Ok(Check::of(
        "no event with a wrong secret was accepted",
        &taken,
        format!("{} forged events", keys.len()),
    ))
}

fn texts(rows: &[Row]) -> anyhow::Result<HashSet<String>> {
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, class: &str, unknowns: u64) -> Ledgered {
        Ledgered {
            key: key.into(),
            class: class.into(),
            state: "confirmed".into(),
            unknowns,
            is_message: true,
        }
    }

    #[test]
    fn a_keyed_message_that_took_effect_twice_is_found_and_a_recorded_blind_one_is_not() {
        let sent = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 2)]);
        let (keyed, blind) = (message("a", "K2", 5), message("b", "K3", 1));
        let (problems, extra) = once(&[&keyed, &blind], &sent, "K2");
        assert_eq!((problems.len(), extra), (1, 1));
        assert_eq!(once(&[&keyed, &blind], &sent, "K3"), (Vec::new(), 0));
        let silent = message("b", "K3", 0);
        assert_eq!(once(&[&silent], &sent, "K3").1, 1);
    }

    #[test]
    fn a_confirmed_message_that_nobody_received_is_found() {
        let (problems, extra) = once(&[&message("a", "K2", 0)], &BTreeMap::new(), "K2");
        assert_eq!((problems.len(), extra), (1, 0));
    }

    #[test]
    fn a_missing_or_displaced_checkpoint_is_found() {
        let registry = pipelines::registry();
        let stages = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(in_order(
            &registry,
            "messaging",
            &stages(&["render_message", "deliver_message"])
        ));
        assert!(!in_order(
            &registry,
            "messaging",
            &stages(&["deliver_message", "render_message"])
        ));
        assert!(!in_order(
            &registry,
            "messaging",
            &stages(&["render_message"])
        ));
        assert!(in_order(
            &registry,
            "assignee_sync",
            &stages(&["find_assignee"])
        ));
    }
}
