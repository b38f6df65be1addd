//! Property test with random faults: each call of a job is made once, and once more for each
//! refusal that it meets and for a crash of its stage; and every job ends.
//!
//! `DISPATCH_TEST_SEED` repeats a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dispatch_worker::config;
use dispatch_worker::devkit::simulator::faults::FaultKind;
use dispatch_worker::devkit::simulator::state::{Options, State, work_item_key};
use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::plan::{self, FIRST, LINKED, Meets, Planned, TYPES, USERS_PAGE, plan, stage};
use super::tenant::{self, ANN, Tenant};
use crate::support::{ANY_ATTEMPT, Checks, TestWorld, WorkerOptions, WorkerProcess, wait_for};

const TENANTS: usize = 30;
/// One of so many tenants has a crash.
const ONE_CRASHES_OF: usize = 5;
/// The maximum delay of a job by faults, in milliseconds. With a crash, the delays before and
/// after it are limited separately: a hanging call must not reach its deadline before all other
/// calls that are to hang have been made.
const BUDGET: u64 = 18_000;
const BUDGETS_OF_A_CRASH: (u64, u64) = (4_000, 10_000);
/// The deadline of a call: no hanging call may time out before the worker is killed.
const CALL_SECONDS: u64 = 60;
const ALL_HANG_WITHIN: Duration = Duration::from_secs(60);
const ALL_DONE_WITHIN: Duration = Duration::from_secs(180);

/// A tenant and the plan of its calls.
struct Subject {
    tenant: Tenant,
    plan: Vec<Planned>,
}

impl Subject {
    fn crash(&self) -> Option<&Planned> {
        self.plan
            .iter()
            .find(|planned| planned.meets == Meets::Crash)
    }

    fn is_refused(&self) -> bool {
        self.plan
            .iter()
            .any(|planned| matches!(planned.meets, Meets::Refused(_)))
    }
}

/// An installed fault and the tenant it belongs to.
struct Fault {
    id: u64,
    tenant: String,
    meets: Meets,
    stage: &'static str,
}

/// The stages that were running when the worker was killed, by tenant.
type Crashed = BTreeMap<String, BTreeSet<String>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_made_once_per_cause_under_random_faults_and_every_job_ends() {
    let seed = config::test_seed().unwrap_or_else(rand::random);
    eprintln!("DISPATCH_TEST_SEED={seed}");
    let subjects = subjects(&mut StdRng::seed_from_u64(seed));
    let world = TestWorld::new().await;
    let tenants: Vec<&Tenant> = subjects.iter().map(|subject| &subject.tenant).collect();
    tenant::settle(&world, providers(), &tenants).await;
    let faults = set_faults(&world, &subjects).await;
    let options = WorkerOptions {
        call_seconds: Some(CALL_SECONDS),
        ..tenant::worker()
    };
    let first = world.worker(&options);
    first.ready().await;
    let began = Instant::now();
    for tenant in &tenants {
        // The assignment must be newer than the existing revisions, or it would have no effect.
        tenant.assign(&world, FIRST, ANN).await;
        let mut job = tenant.job(&tenant.name);
        job["search"] = json!({"text": "many", "limit": 1000});
        world.publish_job(&job).await;
    }
    let crashed = kill_where_all_hang(&world, first, &faults).await;
    let _second = world.worker(&options);
    all_succeed(&world).await;
    eprintln!(
        "{TENANTS} jobs in {:.1} s, {} calls",
        began.elapsed().as_secs_f64(),
        world.witness().len()
    );

    let mut wrong = not_met(&world, &faults).await;
    let witness = world.witness();
    wrong.extend(
        subjects
            .iter()
            .flat_map(|subject| differences(subject, &witness, &crashed)),
    );
    let assignees = world.simulator().await.client.assignees().await.unwrap();
    for tenant in &tenants {
        if assignees[&work_item_key(&tenant.account(), LINKED)].as_deref() != Some(ANN) {
            wrong.push(format!("{}: Ann is not written", tenant.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "with DISPATCH_TEST_SEED={seed}:\n{}",
        wrong.join("\n")
    );
    Checks {
        attempts: ANY_ATTEMPT,
    }
    .hold(&world)
    .await;
}

fn subjects(rng: &mut StdRng) -> Vec<Subject> {
    let mut subject = |number: usize| {
        let tenant = plan::tenant(&format!("t{number:02}"), rng);
        let crash = number.is_multiple_of(ONE_CRASHES_OF);
        let plan = plan(
            &tenant,
            crash,
            if crash {
                BUDGETS_OF_A_CRASH
            } else {
                (0, BUDGET)
            },
            rng,
        );
        Subject { tenant, plan }
    };
    (0..TENANTS).map(&mut subject).collect()
}

/// Returns a simulator state with several types of work items and small pages of users.
fn providers() -> State {
    let mut state = State::new();
    let states = state.work_item_types[TYPES[0]].clone();
    state
        .work_item_types
        .extend(TYPES.map(|kind| (kind.to_owned(), states.clone())));
    state.options = Options {
        graph_page_size: USERS_PAGE,
        ..Options::default()
    };
    state
}

async fn set_faults(world: &TestWorld, subjects: &[Subject]) -> Vec<Fault> {
    let client = &world.simulator().await.client;
    let mut faults = Vec::new();
    for Subject { tenant, plan } in subjects {
        for planned in plan {
            let Some(rule) = planned.rule() else { continue };
            let id = client.fault(&rule).await.unwrap();
            faults.push(Fault {
                id,
                tenant: tenant.name.clone(),
                meets: planned.meets,
                stage: planned.stage,
            });
        }
    }
    faults
}

/// Kills the worker once every planned call hangs; returns the stages that were running.
async fn kill_where_all_hang(
    world: &TestWorld,
    worker: WorkerProcess,
    faults: &[Fault],
) -> Crashed {
    let to_hang: BTreeSet<u64> = faults
        .iter()
        .filter(|fault| fault.meets == Meets::Crash)
        .map(|fault| fault.id)
        .collect();
    assert!(!to_hang.is_empty(), "the plan contains a crash");
    let client = &world.simulator().await.client;
    wait_for("every planned call to hang", ALL_HANG_WITHIN, async || {
        let reports = client.faults().await.unwrap();
        let hang = reports
            .iter()
            .filter(|report| to_hang.contains(&report.id) && report.hits > 0)
            .count();
        if hang == to_hang.len() {
            Ok(())
        } else {
            Err(format!("{hang} of {} hang", to_hang.len()))
        }
    })
    .await;
    let pid = worker.pid;
    worker.kill9().await;
    let in_hand = format!(
        "SELECT j.organization, j.stage FROM jobs j JOIN replicas r ON r.id = j.owner WHERE r.pid = {pid} AND j.state = 'running'"
    );
    let mut crashed = Crashed::new();
    for row in world.database.rows(&in_hand).await {
        crashed
            .entry(row[0].clone())
            .or_default()
            .insert(row[1].clone());
    }
    crashed
}

async fn all_succeed(world: &TestWorld) {
    const OPEN: &str = "
        SELECT organization, pipeline, stage, state, coalesce(wait_reason, error_code, '') FROM jobs WHERE state <> 'succeeded'
        ORDER BY 1 LIMIT 10";
    wait_for("every job to succeed", ALL_DONE_WITHIN, async || {
        let open = world.database.rows(OPEN).await;
        if open.is_empty() {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        }
    })
    .await;
    assert_eq!(
        world.database.one("SELECT count(*) FROM jobs").await,
        (2 * TENANTS).to_string(),
        "each has one follow-up"
    );
}

/// Returns the faults that no call has met.
async fn not_met(world: &TestWorld, faults: &[Fault]) -> Vec<String> {
    let reports = world.simulator().await.client.faults().await.unwrap();
    let hits: BTreeMap<u64, u64> = reports
        .iter()
        .map(|report| (report.id, report.hits))
        .collect();
    let missed = faults.iter().filter(|fault| hits[&fault.id] != 1);
    missed
        .map(
            |Fault {
                 tenant,
                 meets,
                 stage,
                 ..
             }| format!("{tenant}: no call of {stage} has met {meets:?}"),
        )
        .collect()
}

/// Returns the calls of a tenant that were made more often than they have causes.
fn differences(subject: &Subject, witness: &[Entry], crashed: &Crashed) -> Vec<String> {
    let name = &subject.tenant.name;
    let no_stages = BTreeSet::new();
    let stages = crashed.get(name).unwrap_or(&no_stages);
    let own: Vec<&Entry> = witness
        .iter()
        .filter(|entry| subject.tenant.made(entry))
        .collect();
    let mut wrong = Vec::new();
    if let Some(crash) = subject.crash()
        && !stages.contains(crash.stage)
    {
        wrong.push(format!(
            "{name}: it was to crash in {}, and crashed in {stages:?}",
            crash.stage
        ));
    }
    let mut calls: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for entry in own
        .iter()
        .filter(|entry| entry.provider == Provider::AzureDevops)
    {
        calls.entry(identity(entry)).or_default().push(entry);
    }
    for (call, made) in calls {
        let refusals = made.iter().filter(|entry| is_refusal(entry)).count();
        let crashes = usize::from(stages.contains(stage(made[0])));
        if made.len() > 1 + refusals + crashes {
            let met: Vec<_> = made
                .iter()
                .map(|entry| (entry.status, entry.fault))
                .collect();
            wrong.push(format!(
                "{name}: {} times {call}, {crashes} crashes: {met:?}",
                made.len()
            ));
        }
    }
    let refreshes = own
        .iter()
        .filter(|entry| entry.provider == Provider::Entra)
        .count();
    let right = usize::from(subject.is_refused());
    // A refresh that was in flight when the worker was killed is repeated.
    if refreshes < right || refreshes > right + stages.len().min(right) {
        wrong.push(format!(
            "{name}: {refreshes} refreshes, and the token was refused {right} times"
        ));
    }
    wrong
}

/// Returns the identity of a call; repetitions of one call have the same identity.
fn identity(entry: &Entry) -> String {
    match &entry.key {
        Some(page) if page.starts_with("search:") => page.clone(),
        _ => {
            let Entry {
                method,
                path,
                query,
                body_sha256,
                ..
            } = entry;
            format!(
                "{method} {path}?{} {}",
                query.as_deref().unwrap_or_default(),
                &body_sha256[..8]
            )
        }
    }
}

/// Returns whether the call was refused and must be repeated. A hanging call is counted as the
/// crash that ends it.
fn is_refusal(entry: &Entry) -> bool {
    matches!(entry.fault, Some(FaultKind::RateLimit | FaultKind::Answer))
}
