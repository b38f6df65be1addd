//! Interactions: a job that comes from a click answers the person who clicked, and keeps the
//! interaction token secret.

use std::time::Duration;

use dispatch_worker::devkit::simulator::chats::Click;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use crate::support::{TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
const APPLICATION: &str = "9900";
const TOKEN: &str = "canary-interaction-token";
const ORIGINAL: &str = "7700";

/// Creates `acme` with a click; with `original`, the click already has a first message of this id.
async fn world(original: Option<&str>) -> TestWorld {
    let world = TestWorld::acme().await;
    let more = State::new().click(APPLICATION, TOKEN, original);
    world
        .simulator()
        .await
        .client
        .merge_state(&more)
        .await
        .unwrap();
    world
}

/// Returns a job of the click that assigns a work item and has no other destinations.
async fn clicked(world: &TestWorld, message_id: Option<&str>) -> Value {
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let mut job = acme::job("clicked", &event);
    job["notify"] = json!([]);
    job["interaction"] =
        json!({"application_id": APPLICATION, "token": TOKEN, "message_id": message_id});
    job
}

async fn click(world: &TestWorld) -> Click {
    world
        .simulator()
        .await
        .client
        .state()
        .await
        .unwrap()
        .discord
        .clicks
        .remove(TOKEN)
        .unwrap()
}

/// Asserts that no row contains the token in plaintext: the parent has it sealed, and the
/// follow-up does not have it.
async fn the_token_is_stored_nowhere(world: &TestWorld) {
    const ROWS: &str = "
        SELECT count(*) FROM (
            SELECT j::text AS row FROM jobs j UNION ALL SELECT c::text FROM checkpoints c UNION ALL SELECT e::text FROM effects e
            UNION ALL SELECT a::text FROM attempts a UNION ALL SELECT n::text FROM announcements n
        ) r WHERE row LIKE '%canary-%'";
    assert_eq!(world.database.one(ROWS).await, "0");
    let sealed = "SELECT count(*) FROM jobs WHERE payload::text LIKE '%sealed_token%' AND parent_id IS NOT NULL";
    assert_eq!(world.database.one(sealed).await, "0");
}

#[tokio::test]
async fn only_the_person_who_clicked_sees_what_changed() {
    let world = world(None).await;
    let worker = world.worker(&WorkerOptions::default());
    world.publish_job(&clicked(&world, None).await).await;
    world
        .wait_job_state("clicked", JobState::Succeeded, SOON)
        .await;
    let posted = click(&world).await.posted;
    let [message] = &posted[..] else {
        panic!("one answer: {posted:?}")
    };
    assert_eq!(
        message.content,
        "**1 change**\nWEB-2 is now assigned to Ann"
    );
    assert_eq!(
        (message.flags, &message.allowed_mentions),
        (4 | 64, &json!({"parse": []}))
    );
    let effect = world
        .database
        .rows("SELECT class, state, provider_ref FROM effects")
        .await;
    assert_eq!(effect, [["K3", "confirmed", message.id.as_str()]]);
    the_token_is_stored_nowhere(&world).await;
    assert!(!worker.log().contains("canary"), "the token is not logged");
}

#[tokio::test]
async fn an_edit_with_a_lost_answer_is_repeated_without_a_duplicate() {
    let world = world(Some(ORIGINAL)).await;
    let lost = FaultRule::new(FaultKind::LoseAnswer)
        .provider(Provider::Discord)
        .method("PATCH")
        .times(1);
    world.simulator().await.client.fault(&lost).await.unwrap();
    let _worker = world.worker(&WorkerOptions::default());
    world
        .publish_job(&clicked(&world, Some("@original")).await)
        .await;
    world
        .wait_job_state("clicked", JobState::Succeeded, SOON)
        .await;
    let posted = click(&world).await.posted;
    let [message] = &posted[..] else {
        panic!("one message: {posted:?}")
    };
    assert_eq!((message.id.as_str(), message.edits), (ORIGINAL, 2));
    assert!(
        message.content.contains("WEB-2 is now assigned to Ann"),
        "{}",
        message.content
    );
    assert_eq!(
        world
            .database
            .rows("SELECT class, state, unknowns FROM effects")
            .await,
        [["K1", "confirmed", "0"]]
    );
}

#[tokio::test]
async fn the_person_who_clicked_is_asked_for_an_account_and_then_sees_that_nothing_changed() {
    let world = world(None).await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut job = clicked(&world, None).await;
    job["account"] = Value::Null;
    job["identity"] = json!("bot");
    job["events"] = json!([]);
    world.publish_job(&job).await;
    let waiting = world
        .wait_job_state("clicked", JobState::Waiting, SOON)
        .await;
    assert_eq!(waiting.wait_reason.as_deref(), Some("configuration"));
    let question = wait_for("the question", SOON, async || {
        click(&world).await.posted.pop().ok_or("no question yet")
    })
    .await;
    assert!(
        question
            .content
            .starts_with("**Which Azure DevOps account?**"),
        "{}",
        question.content
    );
    assert!(
        question
            .content
            .contains(&format!("{}: {}", acme::ACCOUNT, acme::account_id())),
        "{}",
        question.content
    );
    world
        .publish_configure(waiting.id, &acme::account_id())
        .await;
    world
        .wait_job_state("clicked", JobState::Succeeded, SOON)
        .await;
    let posted = click(&world).await.posted;
    assert_eq!(posted.last().unwrap().content, "**Nothing changed**");
    assert_eq!(posted.len(), 2);
}

#[tokio::test]
async fn a_late_answer_to_a_click_is_parked_and_its_job_waits_with_its_work_done() {
    let world = world(None).await;
    let mut over = State::new().click(APPLICATION, TOKEN, None);
    over.discord.clicks.get_mut(TOKEN).unwrap().ended = true;
    world
        .simulator()
        .await
        .client
        .merge_state(&over)
        .await
        .unwrap();
    let _worker = world.worker(&WorkerOptions::default());
    world.publish_job(&clicked(&world, None).await).await;
    wait_for("the answer to be parked", SOON, async || {
        let Some(parent) = world.job_by_key("clicked").await else {
            return Err("there is no job yet".to_owned());
        };
        let children = world.job_view(parent.id).await.children;
        let is_parked = children
            .iter()
            .any(|child| child.error_code.as_deref() == Some("interaction_expired"));
        if is_parked {
            Ok(())
        } else {
            Err(format!("{children:?}"))
        }
    })
    .await;
    let parent = world.job_by_key("clicked").await.unwrap();
    assert_eq!(
        (parent.state, parent.wait_reason.as_deref()),
        (JobState::Waiting, Some("children"))
    );
    assert_eq!(
        world.database.one("SELECT state FROM effects").await,
        "failed",
        "nothing was posted"
    );
    let assigned = "SELECT count(*) FROM checkpoints WHERE stage = 'update_assignments'";
    assert_eq!(world.database.one(assigned).await, "1");
}
