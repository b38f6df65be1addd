//! One producer of one organization misbehaves in every way at once; the latency of the others'
//! jobs stays the same. Bodies of 100 MiB are tested in `worker/memory.rs`: they hold up RabbitMQ
//! itself unless it has a limit of its own.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dispatch_worker::broker::{KEY_CANCEL, KEY_CONFIGURE, Outgoing, Publisher};
use dispatch_worker::devkit::servers::PRODUCER_RIGHTS;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobId;
use dispatch_worker::message::MESSAGE_LIMIT;
use dispatch_worker::tracker::TrackerDocument;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::support::{TestWorld, WorkerOptions, acme, intake, wait_for};

/// The source of the misbehaving producer, whose organization is `initech`.
const MALLORY: &str = "mallory";
/// Jobs of the well-behaved producer in each phase, for `acme` and `globex` in turn.
const JOBS: usize = 60;
/// Pairs of phases, one without and one with misbehaviour. The median of their ratios counts, so
/// that what else the machine does for a while decides nothing.
const ROUNDS: usize = 3;
const EVERY: Duration = Duration::from_millis(100);
/// The latency of each call to Azure DevOps, similar to the real one.
const CALL_MILLIS: u64 = 40;
/// The goal: p99 during the misbehaviour, divided by p99 without it just before.
const AT_MOST: f64 = 1.5;
/// The interval at which one bad message of each kind is published.
const BAD_EVERY: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(60);

fn job(source: &str, organization: &str, key: &str) -> Value {
    json!({"schema": 1, "source": source, "dedupe_key": key, "organization": organization, "account": acme::account_id()})
}

/// Returns a document with two more organizations on the account of `acme`.
fn others(document: TrackerDocument) -> TrackerDocument {
    let named = |slug: &str| {
        let mut other = document.organizations[0].clone();
        other.slug = slug.to_owned();
        other.projects.clear();
        other.destinations.clear();
        other
    };
    TrackerDocument {
        organizations: vec![named("globex"), named("initech")],
        ..document.clone()
    }
}

/// Publishes the well-behaved producer's jobs at a steady rate. Returns how long each took, in
/// seconds, once all are done.
async fn well_behaved(world: &TestWorld, phase: &str) -> Vec<f64> {
    let mut published = BTreeMap::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..JOBS {
        ticks.tick().await;
        let (key, organization) = (format!("{phase}-{number}"), ["acme", "globex"][number % 2]);
        published.insert(
            key.clone(),
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("after 1970")
                .as_secs_f64(),
        );
        world
            .publish_job(&job(acme::SOURCE, organization, &key))
            .await;
    }
    let sql = format!(
        "SELECT dedupe_key, extract(epoch FROM finished_at) FROM jobs
         WHERE source = '{}' AND dedupe_key LIKE '{phase}-%' AND state = 'succeeded'",
        acme::SOURCE
    );
    let done = wait_for("every job of the phase to succeed", SOON, async || {
        let done = world.database.rows(&sql).await;
        if done.len() == JOBS {
            Ok(done)
        } else {
            Err(format!("{} are done", done.len()))
        }
    })
    .await;
    done.iter()
        .map(|row| row[1].parse::<f64>().expect("seconds") - published[&row[0]])
        .collect()
}

/// Returns the 99th percentile.
fn p99(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() * 99 / 100 - 1]
}

/// Returns one bad message of each kind, with keys of this round.
fn bad_round(round: usize, victim: JobId) -> Vec<Outgoing> {
    let own = |kind: &str| job(MALLORY, "initech", &format!("{kind}-{round}"));
    let with = |kind: &str, field: &str, value: Value| {
        let mut job = own(kind);
        job[field] = value;
        intake(job.to_string())
    };
    let control = |key: &str, body: Value| Outgoing {
        routing_key: key.to_owned(),
        ..intake(body.to_string())
    };
    let flood = (0..200)
        .map(|n| (format!("x-header-{n}"), Value::from("x".repeat(100))))
        .collect();
    vec![
        // Names of its own: jobs within the quota, then over it; jobs for later; cancels of jobs
        // that never arrive.
        intake(own("open").to_string()),
        with("later", "not_before", acme::later()),
        control(
            KEY_CANCEL,
            json!({"schema": 1, "source": MALLORY, "dedupe_key": format!("never-{round}")}),
        ),
        // Names of others.
        intake(job(acme::SOURCE, "initech", &format!("source-{round}")).to_string()),
        intake(job(MALLORY, "acme", &format!("organization-{round}")).to_string()),
        intake(job(MALLORY, "nobody", &format!("nobody-{round}")).to_string()),
        Outgoing {
            reply_to: Some("dispatch.jobs".to_owned()),
            ..intake(own("reply").to_string())
        },
        control(
            KEY_CANCEL,
            json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": format!("misbehaved-0-{round}")}),
        ),
        control(
            KEY_CONFIGURE,
            json!({"schema": 1, "job_id": victim, "account": "a"}),
        ),
        // Invalid messages.
        intake("no JSON"),
        with("far", "not_before", json!("2099-01-01T00:00:00Z")),
        with("schema", "schema", json!(9)),
        Outgoing {
            headers: flood,
            ..intake(own("headers").to_string())
        },
        intake(vec![b'x'; 3 * MESSAGE_LIMIT]),
    ]
}

/// Publishes bad messages until it is dropped. The kinds' keys begin with number `first`.
async fn misbehave(publisher: &Publisher, victim: JobId, first: usize) {
    let mut ticks = tokio::time::interval(BAD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in first.. {
        ticks.tick().await;
        let taken = publisher.publish_all(&bad_round(round, victim)).await;
        assert!(
            taken.iter().all(Result::is_ok),
            "RabbitMQ accepts every message: {taken:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_misbehaves_raises_the_p99_of_others_by_at_most_half() {
    let world = TestWorld::acme_alone().await;
    let simulator = &world.simulator().await.client;
    world
        .import(&others(acme::document(&world.simulator().await.url)))
        .await;
    simulator
        .fault(&FaultRule::new(FaultKind::Slow).millis(CALL_MILLIS))
        .await
        .expect("the simulator accepts the fault");
    let url = SecretString::from(world.amqp_user(&PRODUCER_RIGHTS).await);
    let user = world.database.name.clone();
    let register = [
        "producers",
        "register",
        &user,
        "--source",
        MALLORY,
        "--organization",
        "initech",
        "--organization",
        "nobody",
    ];
    world
        .dispatch(&[&register[..], &["--yes"]].concat())
        .done()
        .await;
    let quotas = "open=20,later=20,waiting=40,dead_letters=50/1MiB,keys=20".to_owned();
    let environment = BTreeMap::from([("DISPATCH_PRODUCER_QUOTAS".to_owned(), quotas)]);
    let worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    worker.ready().await;
    drop(well_behaved(&world, "warming").await);

    let victim = world
        .job_by_key("warming-0")
        .await
        .expect("the job exists")
        .id;
    let mallory = Publisher::connect(&url)
        .await
        .expect("RabbitMQ accepts the producer");
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut alone = well_behaved(&world, &format!("alone-{round}")).await;
        let phase = format!("misbehaved-{round}");
        let mut beside = tokio::select! {
            beside = well_behaved(&world, &phase) => beside,
            () = misbehave(&mallory, victim, round * JOBS) => unreachable!("it never returns"),
        };
        let (alone, beside) = (p99(&mut alone), p99(&mut beside));
        eprintln!("round {round}: p99 alone {alone:.3} s, beside the misbehaviour {beside:.3} s");
        ratios.push(beside / alone);
    }
    quotas_bound_what_is_stored(&world, &user).await;
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[ROUNDS / 2] <= AT_MOST, "times as long: {ratios:?}");
}

async fn quotas_bound_what_is_stored(world: &TestWorld, user: &str) {
    let mine = |table: &str| format!("SELECT count(*) FROM {table} WHERE producer = '{user}'");
    let letters: usize = world
        .database
        .one(&format!("{} AND resolved_at IS NULL", mine("dead_letters")))
        .await
        .parse()
        .unwrap();
    let jobs: usize = world
        .database
        .one(&format!("{} AND finished_at IS NULL", mine("jobs")))
        .await
        .parse()
        .unwrap();
    let keys: usize = world
        .database
        .one(&format!("{} AND job_id IS NULL", mine("job_keys")))
        .await
        .parse()
        .unwrap();
    assert!(
        letters <= 50 && jobs <= 40 && keys <= 20,
        "{letters} dead letters, {jobs} jobs, {keys} keys of its own"
    );
    let foreign = "SELECT count(*) FROM jobs WHERE source <> 'tests' AND organization <> 'initech'";
    assert_eq!(world.database.one(foreign).await, "0");
}
