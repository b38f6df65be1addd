//! Isolation of hanging destinations and providers: the others keep their throughput.

use std::collections::BTreeMap;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::{State, WebhookMode};
use dispatch_worker::providers::teams;
use serde_json::json;
use time::OffsetDateTime;

use crate::providers::governor::{To, insert_messages, wait_sql, wait_until};
use crate::support::{TestWorld, WorkerOptions, acme};

/// The number of messages to each destination per round.
const EACH: usize = 100;
const ROUNDS: usize = 3;

/// Registers webhook receivers and Teams workflows in the simulator and in the tracker.
async fn register(world: &TestWorld, webhooks: &[&str], teams: &[&str]) -> (Vec<To>, Vec<To>) {
    let simulator = world.simulator().await;
    let mut state: State = simulator.client.state().await.unwrap();
    let secret = state.webhooks[acme::BLIND].secret.clone();
    let mut document = acme::document(&simulator.url);
    let destinations = &mut document.organizations[0].destinations;
    let model = destinations
        .iter()
        .find(|one| one.name == acme::BLIND)
        .cloned()
        .expect("a webhook");
    // The latency makes the permits, not this machine, limit the throughput.
    state.options.latency_millis = 100;
    for name in webhooks {
        state = state.webhook(name, &secret, WebhookMode::Blind);
        let mut destination = model.clone();
        (*name).clone_into(&mut destination.name);
        destination.config["url"] = format!("{}/webhook/{name}", simulator.url).into();
        destinations.push(destination);
    }
    for name in teams {
        state = state.room(&teams::KIND, name, "canary-signature");
        let mut destination = model.clone();
        (*name).clone_into(&mut destination.name);
        (destination.kind, destination.config) = ("teams".to_owned(), json!({}));
        destination.secret = Some(format!(
            "{}/teams/{name}?sig=canary-signature",
            simulator.url
        ));
        destinations.push(destination);
    }
    simulator.client.load_state(&state).await.unwrap();
    world.import(&document).await;
    let mut registered = (Vec::new(), Vec::new());
    for name in webhooks {
        registered.0.push(To::named(world, name).await);
    }
    for name in teams {
        registered.1.push(To::named(world, name).await);
    }
    registered
}

/// Returns the messages per second of the other destinations, from when all became due until the
/// last one was delivered.
async fn speed_of_others(world: &TestWorld, batch: &str, hang: &[To], others: &[To]) -> f64 {
    let all: Vec<&To> = others.iter().chain(hang).collect();
    insert_messages(world, batch, &all, EACH).await;
    let count = EACH * others.len();
    let ids: Vec<String> = others
        .iter()
        .map(|other| format!("'{}'", other.id))
        .collect();
    let of_others = format!(
        "dedupe_key LIKE '{batch}/%' AND split_part(dedupe_key, '/', 2) IN ({})",
        ids.join(", ")
    );
    let done = format!(
        "SELECT 1 FROM jobs WHERE {of_others} AND state = 'succeeded' HAVING count(*) = {count}"
    );
    wait_sql(world, &done).await;
    let took = format!(
        "SELECT extract(epoch FROM max(finished_at) - min(created_at)) FROM jobs WHERE {of_others}"
    );
    let seconds: f64 = world.database.one(&took).await.parse().unwrap();
    f64::from(u16::try_from(count).unwrap()) / seconds
}

/// Returns the share of their throughput that the others keep while some hang, as the median of
/// all rounds, and the number of hanging calls.
async fn kept_speed(
    world: &TestWorld,
    hang: &[To],
    others: &[To],
    fault: &FaultRule,
) -> (f64, usize) {
    speed_of_others(world, "warm", hang, others).await;
    let simulator = &world.simulator().await.client;
    let began = OffsetDateTime::now_utc();
    let mut rounds = Vec::new();
    // Healthy and hanging rounds alternate, so that both see the same load on this machine.
    for round in 0..ROUNDS {
        let well = speed_of_others(world, &format!("well-{round}"), hang, others).await;
        wait_until(
            world,
            &format!("well-{round}"),
            "succeeded",
            EACH * (hang.len() + others.len()),
        )
        .await;
        let fault = simulator.fault(fault).await.unwrap();
        let hanging = speed_of_others(world, &format!("hanging-{round}"), hang, others).await;
        simulator.clear_fault(fault).await.unwrap();
        wait_until(
            world,
            &format!("hanging-{round}"),
            "succeeded",
            EACH * (hang.len() + others.len()),
        )
        .await;
        rounds.push((hanging / well, well, hanging));
    }
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (ratio, well, hanging) = rounds[ROUNDS / 2];
    eprintln!(
        "messages per second of the others: {well:.0} without faults, {hanging:.0} while {} hang: {ratio:.2} ({rounds:.2?})",
        hang.len()
    );
    let hung = |to: &To| {
        to.requests(world)
            .iter()
            .filter(|entry| entry.at > began && entry.fault == Some(FaultKind::Hang))
            .count()
    };
    (ratio, hang.iter().map(hung).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_destination_leaves_the_others_at_least_four_fifths_of_their_throughput() {
    let world = TestWorld::acme_alone().await;
    let (mut others, _) = register(
        &world,
        &["other-1", "other-2", "other-3", "other-4", "hangs"],
        &[],
    )
    .await;
    let hangs = others.split_off(4);
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let fault = FaultRule::new(FaultKind::Hang).path_contains(&hangs[0].path);
    let (ratio, hung) = kept_speed(&world, &hangs, &others, &fault).await;
    assert!(hung >= 3, "only {hung} calls hung");
    assert!(ratio >= 0.8, "ratio {ratio:.2}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_provider_of_many_destinations_leaves_other_providers_at_least_four_fifths_of_their_throughput()
 {
    let world = TestWorld::acme_alone().await;
    let teams = ["t-1", "t-2", "t-3", "t-4", "t-5", "t-6", "t-7", "t-8"];
    let (others, hang) = register(
        &world,
        &["other-1", "other-2", "other-3", "other-4"],
        &teams,
    )
    .await;
    // The permits alone limit the throughput, and calls reach their deadlines several times per
    // round.
    let environment = BTreeMap::from([(
        "DISPATCH_RATES".to_owned(),
        "webhook=5000/1,teams=5000/1".to_owned(),
    )]);
    let worker = world.worker(&WorkerOptions {
        call_seconds: Some(3),
        environment,
        ..WorkerOptions::default()
    });
    worker.ready().await;
    let fault = FaultRule::new(FaultKind::Hang).path_contains("/teams/");
    let (ratio, hung) = kept_speed(&world, &hang, &others, &fault).await;
    assert!(hung >= hang.len(), "only {hung} calls hung");
    assert!(ratio >= 0.8, "ratio {ratio:.2}");
}
