//! A table of answers from the field: the jobs, the answers of the provider, and the expected
//! outcome. All cases run concurrently in one world, each for an organization of its own.

mod azure_devops;
mod channels;
mod expected;
mod messages;

use std::time::Duration;

use dispatch_worker::devkit::simulator::state::Options;
use serde_json::{Value, json};

use self::expected::{Addresses, Ask, Case, Ends, Expected, Seen, Wrong};
use super::tenant::{self, ANN, BOB, Tenant};
use crate::support::{ANY_ATTEMPT, Checks, Listener, TestWorld, acme, intake, wait_for};

/// The time limit until every case has ended, including every Retry-After.
const ENDED_WITHIN: Duration = Duration::from_secs(120);
const QUIET_WITHIN: Duration = Duration::from_secs(20);
/// A limit that is never reached: another limit ends the wait first, so that the differences of
/// all cases are reported.
const FOREVER: Duration = Duration::from_secs(3600);
/// The page size of users in every account: Ann, Bob and the identity.
const USERS_PAGE: usize = 3;

/// A job for the assignment of work item 17 to Ann.
const ONE_EVENT: &[Ask] = &[Ask::events(&[(17, ANN)])];
const TWO_EVENTS: &[Ask] = &[Ask::events(&[(17, ANN), (18, BOB)])];
const ANN_HAS_IT: &[(i64, Option<&str>)] = &[(17, Some(ANN))];
const BOTH_HAVE: &[(i64, Option<&str>)] = &[(17, Some(ANN)), (18, Some(BOB))];
const SUCCEEDED: Expected = Expected::to(Ends::Succeeded);

fn one_group(tenant: Tenant) -> Tenant {
    Tenant {
        groups: vec![vec![17]],
        ..tenant
    }
}

fn two_groups(tenant: Tenant) -> Tenant {
    Tenant {
        groups: vec![vec![17], vec![18]],
        ..tenant
    }
}

/// Gives the tenant one group of two work items, so that changes of 17 are written to 18.
fn linked(tenant: Tenant) -> Tenant {
    Tenant {
        groups: vec![vec![17, 18]],
        ..tenant
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_from_the_field_have_the_expected_outcomes() {
    let world = TestWorld::new().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.#")).await;
    let at = Addresses {
        simulator: world.simulator().await.url.clone(),
    };
    let cases: Vec<&Case> = [
        azure_devops::CASES,
        azure_devops::PATIENT,
        channels::CASES,
        messages::CASES,
    ]
    .into_iter()
    .flatten()
    .collect();
    let tenants: Vec<Tenant> = cases
        .iter()
        .map(|case| (case.has)(Tenant::new(case.name), &at))
        .collect();
    let mut state = channels::providers();
    state.options = Options {
        graph_page_size: USERS_PAGE,
        ..Options::default()
    };
    tenant::settle(&world, state, &tenants.iter().collect::<Vec<_>>()).await;
    let worker = world.worker(&tenant::worker());
    worker.ready().await;

    ask(&world, &cases, &tenants).await;
    rest(&world, cases.iter().map(|case| case.asks.len()).sum()).await;
    let mut events = Vec::new();
    while let Some((_, event)) = listener.try_next("watch").await {
        events.push(event);
    }
    let wrong = differences(&world, &cases, &tenants, &events).await;
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.concat().join("\n")
    );
    Checks {
        attempts: ANY_ATTEMPT,
    }
    .hold(&world)
    .await;
}

/// Sets the answers and publishes all jobs; the later jobs of a case follow once its answers have
/// been given.
async fn ask(world: &TestWorld, cases: &[&Case], tenants: &[Tenant]) {
    let mut answers = Vec::new();
    for (case, tenant) in cases.iter().zip(tenants) {
        let mut ids = Vec::new();
        for rule in (case.answers)(tenant) {
            ids.push(world.simulator().await.client.fault(&rule).await.unwrap());
        }
        answers.push(ids);
    }
    for (case, tenant) in cases.iter().zip(tenants) {
        publish(world, case, tenant, 0).await;
    }
    for ((case, tenant), ids) in cases.iter().zip(tenants).zip(answers) {
        for later in 1..case.asks.len() {
            for id in &ids {
                world.wait_fault_met(*id).await;
            }
            publish(world, case, tenant, later).await;
        }
    }
}

fn dedupe_key(case: &Case, number: usize) -> String {
    if number == 0 {
        case.name.to_owned()
    } else {
        format!("{}/{number}", case.name)
    }
}

async fn publish(world: &TestWorld, case: &Case, tenant: &Tenant, number: usize) {
    let asked = &case.asks[number];
    let mut events = Vec::new();
    for (at, (item, to)) in asked.assigned.iter().enumerate() {
        let event = (asked.text)(at, tenant.assign(world, *item, to).await);
        events.push(format!(
            r#"{{"shared_secret": "{}", "payload": {event}}}"#,
            acme::HOOK_SECRET
        ));
    }
    let mut job = tenant.job(&dedupe_key(case, number));
    job["notify"] = json!(asked.notify);
    if let Some(text) = asked.search {
        job["search"] = json!({"text": text, "limit": 1000});
    }
    // Inserted as text, since invalid JSON does not fit into a `Value`.
    let body = job.to_string().replace(
        r#""events":[]"#,
        &format!(r#""events":[{}]"#, events.join(",")),
    );
    world.publish_raw(&intake(body)).await;
}

/// Waits until every job has ended or waits for a person. After the limit, the test continues with
/// the state at that time.
async fn rest(world: &TestWorld, jobs: usize) {
    const ENDED: &str = "
        SELECT (SELECT count(*) FROM dead_letters) + count(*) FROM jobs j WHERE parent_id IS NULL AND (
            state IN ('succeeded', 'cancelled', 'parked')
            OR (state = 'waiting' AND wait_reason NOT IN ('hold', 'children'))
            OR (wait_reason = 'children' AND NOT EXISTS (
                SELECT FROM jobs c WHERE c.parent_id = j.id AND c.state NOT IN ('succeeded', 'cancelled', 'parked'))))";
    let ended = wait_for("every case to end", FOREVER, async || {
        match world.database.one(ENDED).await {
            count if count == jobs.to_string() => Ok(()),
            count => Err(count),
        }
    });
    let in_time = tokio::time::timeout(ENDED_WITHIN, ended).await.is_ok();
    if in_time {
        // A missing event is reported by its case below.
        drop(tokio::time::timeout(QUIET_WITHIN, world.wait_quiet(FOREVER)).await);
    }
}

/// Returns the differences of each case that has any.
async fn differences(
    world: &TestWorld,
    cases: &[&Case],
    tenants: &[Tenant],
    events: &[Value],
) -> Vec<Vec<String>> {
    let client = &world.simulator().await.client;
    let (providers, outside) = (
        client.state().await.unwrap(),
        client.assignees().await.unwrap(),
    );
    let (groups, witness) = (tenant::assignees(world).await, world.witness());
    let mut differences = Vec::new();
    for (case, tenant) in cases.iter().zip(tenants) {
        let mut wrong = Wrong::of(case.name);
        let keys: Vec<String> = (0..case.asks.len())
            .map(|number| dedupe_key(case, number))
            .collect();
        let is_own = |event: &&Value| keys.iter().any(|key| event["dedupe_key"] == *key);
        let mut seen = Seen {
            tenant,
            jobs: Vec::new(),
            follow_ups: Vec::new(),
            skipped: Vec::new(),
            events: events.iter().filter(is_own).collect(),
            calls: witness.iter().filter(|entry| tenant.made(entry)).collect(),
            providers: &providers,
            outside: &outside,
            groups: &groups,
        };
        for key in &keys {
            let Some(row) = world.job_by_key(key).await else {
                wrong.say(format_args!("there is no job {key}"));
                continue;
            };
            let job = world.job_view(row.id).await;
            for child in &job.children {
                seen.follow_ups.push(world.job_view(child.id).await);
            }
            let skipped = world
                .database
                .one(&format!(
                    "SELECT coalesce(skipped, 'null') FROM jobs WHERE id = '{}'",
                    row.id
                ))
                .await;
            seen.skipped.push(serde_json::from_str(&skipped).unwrap());
            seen.jobs.push(job);
        }
        seen.check(&case.expected, &mut wrong);
        differences.push(wrong.texts);
    }
    differences.retain(|texts| !texts.is_empty());
    differences
}
