//! A shared limit stops calls to all destinations that share it, of every organization and on
//! every replica, and to no others.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::FaultRule;
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::store::CappedCount;
use serde_json::json;

use crate::providers::governor::{To, insert_messages, wait_sql, wait_until};
use crate::support::{Checks, TestWorld, WorkerOptions, acme};

/// The Retry-After; long enough for all jobs to meet the hold on a slow machine.
const ASKED: Duration = Duration::from_secs(12);
const OTHER_BOT: &str = "canary-other-bot-token";
/// The channels of the first bot, each with the index of its organization.
const CHANNELS: [(&str, usize); 4] = [("5001", 0), ("5002", 0), ("5003", 0), ("5004", 1)];
const OTHER_CHANNEL: &str = "6001";

/// Registers the channels of one bot in two organizations, and one of another bot, in the
/// simulator and in the tracker.
async fn register(world: &TestWorld) -> (Vec<To>, To) {
    let simulator = world.simulator().await;
    let mut state: State = simulator.client.state().await.unwrap();
    let mut document = acme::document(&simulator.url);
    let model = document.organizations[0]
        .destinations
        .iter()
        .find(|one| one.name == acme::DISCORD);
    let model = model.cloned().expect("a channel");
    let bot = model.secret.clone().expect("a bot's token");
    let of_bot = CHANNELS.map(|(channel, organization)| (channel, organization, bot.as_str()));
    for (channel, organization, token) in of_bot.into_iter().chain([(OTHER_CHANNEL, 0, OTHER_BOT)])
    {
        state = state.channel(token, channel);
        let mut destination = model.clone();
        (destination.name, destination.secret) =
            (format!("channel-{channel}"), Some(token.to_owned()));
        destination.config["channel_id"] = json!(channel);
        document.organizations[organization]
            .destinations
            .push(destination);
    }
    simulator.client.load_state(&state).await.unwrap();
    world.import(&document).await;
    let mut registered = Vec::new();
    for channel in CHANNELS
        .map(|(channel, _)| channel)
        .into_iter()
        .chain([OTHER_CHANNEL])
    {
        let id = world
            .database
            .one(&format!(
                "SELECT id FROM destinations WHERE name = 'channel-{channel}'"
            ))
            .await;
        registered.push(To {
            id: id.parse().unwrap(),
            path: format!("/api/v10/channels/{channel}/messages"),
        });
    }
    let other = registered.pop().expect("the last one");
    (registered, other)
}

/// Makes the first of these channels answer with a global rate limit, and waits until every
/// replica knows the hold.
async fn limit(world: &TestWorld, channels: &[To], length: Duration) -> String {
    let said = json!({"message": "You are being rate limited.", "retry_after": length.as_secs_f64(), "global": true});
    let answer = FaultRule::answering(429, said.to_string()).header("X-RateLimit-Global", "true");
    world
        .simulator()
        .await
        .client
        .fault(&answer.path_contains(&channels[0].path).times(1))
        .await
        .unwrap();
    insert_messages(world, "first", &[&channels[0]], 1).await;
    // Every replica polls holds twice a second, so all know the hold after two seconds.
    let known = "SELECT 1 FROM controls WHERE scope LIKE '*|discord|bot-%' AND created_at < now() - interval '2 seconds'";
    wait_sql(world, known).await;
    world
        .database
        .one("SELECT scope FROM controls WHERE scope LIKE '*|discord|bot-%'")
        .await
}

#[tokio::test]
async fn a_global_limit_holds_every_destination_of_its_bot_on_every_replica_until_it_ends() {
    let world = TestWorld::acme().await;
    let (channels, other) = register(&world).await;
    let workers = [
        world.worker(&WorkerOptions::default()),
        world.worker(&WorkerOptions::default()),
    ];
    for worker in &workers {
        worker.ready().await;
    }
    let scope = limit(&world, &channels, ASKED).await;
    insert_messages(
        &world,
        "rest",
        &[&channels[1], &channels[2], &channels[3]],
        3,
    )
    .await;
    insert_messages(&world, "other", &[&other], 3).await;
    wait_until(&world, "rest", "waiting", 9).await;
    wait_until(&world, "other", "succeeded", 3).await;
    let in_force = world
        .store()
        .hold_of(&format!("hold:{scope}"))
        .await
        .unwrap()
        .expect("the hold is in force");
    assert_eq!(
        (in_force.kind.as_str(), in_force.waiting),
        ("hold", CappedCount::of(9))
    );
    assert!(
        in_force
            .reason
            .ends_with("answered 429 for everything that is sent this way"),
        "{}",
        in_force.reason
    );

    wait_until(&world, "first", "succeeded", 1).await;
    wait_until(&world, "rest", "succeeded", 9).await;
    let mut requests: Vec<_> = channels
        .iter()
        .flat_map(|channel| channel.requests(&world))
        .collect();
    requests.sort_by_key(|entry| entry.seq);
    let (refused, answered) = requests.split_first().expect("requests");
    assert_eq!((refused.status, answered.len()), (Some(429), 10));
    let early: Vec<_> = answered
        .iter()
        .filter(|entry| entry.at - refused.at < ASKED)
        .collect();
    assert!(early.is_empty(), "called during the hold: {early:?}");
    Checks {
        attempts: &[("deliver_message", "discord.rate_limited")],
    }
    .hold(&world)
    .await;
}

#[tokio::test]
async fn an_operator_lists_and_releases_a_shared_hold() {
    let world = TestWorld::acme().await;
    let (channels, _) = register(&world).await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let scope = limit(&world, &channels, Duration::from_secs(3600)).await;
    insert_messages(&world, "rest", &[&channels[1], &channels[3]], 1).await;
    wait_until(&world, "rest", "waiting", 2).await;
    let listed = world
        .dispatch(&["holds", "list", "--json"])
        .said()
        .await
        .stdout;
    assert!(
        listed.contains(&scope) && listed.contains("\"waiting\":{\"n\":2,"),
        "{listed}"
    );
    let released = world
        .dispatch(&[
            "holds",
            "release",
            &scope,
            "--reason",
            "they lifted it",
            "--yes",
        ])
        .said()
        .await;
    assert_eq!(released.code, Some(0), "{released:?}");
    wait_until(&world, "rest", "succeeded", 2).await;
}
