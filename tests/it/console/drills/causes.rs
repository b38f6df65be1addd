//! The codes of jobs that meet a cause outside of the workers: a vendor, a person, an account, a
//! version. All of them stand in one night, beside each other.

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::{State, WebhookMode};
use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::StuckCode;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::json;

use super::Night;
use crate::console::{SOON, waiting_job};
use crate::support::{ANY_ATTEMPT, Checks, TestWorld, WorkerOptions, acme, wait_for};
use crate::worker::newer_schema::left_by_an_older_worker;

/// A webhook whose receiver is down.
const LATE: &str = "late";
/// A destination that a person has disabled.
const CLOSED: &str = "closed";
const FRESH_TOKEN: &str = "canary-access-token-2";

/// The thresholds are in minutes and hours, so the real rows are made two hours older. The retry of
/// a vendor that has been down as long is an hour away.
const AGE: &str = "
    UPDATE jobs SET last_progress_at = last_progress_at - interval '2 hours', first_failed_at = first_failed_at - interval '2 hours',
        due_at = CASE WHEN state = 'ready' THEN now() + interval '1 hour' ELSE due_at END
    WHERE state NOT IN ('succeeded', 'cancelled')";

/// The jobs of the night.
struct Planted {
    held: JobId,
    closed: JobId,
    refused: JobId,
    unknown: JobId,
    late: JobId,
    choice: JobId,
    signed_out: JobId,
    disabled: JobId,
    newer: JobId,
}

/// Returns `acme` with the destinations of the night.
fn document(simulator: &str) -> TrackerDocument {
    let mut document = acme::document(simulator);
    let destinations = &mut document.organizations[0].destinations;
    let keyed = destinations.iter().find(|one| one.name == acme::KEYED);
    let keyed = keyed.expect("a destination of acme").clone();
    for (name, disabled) in [(LATE, None), (CLOSED, Some(true))] {
        let mut more = keyed.clone();
        name.clone_into(&mut more.name);
        more.config["url"] = json!(format!("{simulator}/webhook/{name}"));
        (more.default, more.disabled) = (false, disabled);
        destinations.push(more);
    }
    let blind = destinations.iter_mut().find(|one| one.name == acme::BLIND);
    "hold".clone_into(&mut blind.expect("a destination of acme").unknown_policy);
    document
}

/// Creates the world: a destination is held, one is disabled, one refuses, one loses its answer,
/// and one is down.
async fn night() -> Night {
    let world = TestWorld::acme().await;
    let simulator = world.simulator().await;
    let receivers = [LATE, CLOSED].iter().fold(State::new(), |state, name| {
        state.webhook(name, acme::WEBHOOK_SECRET, WebhookMode::Keyed)
    });
    simulator.client.merge_state(&receivers).await.unwrap();
    world.import(&document(&simulator.url)).await;
    let no_access = r#"{"message": "Missing Access", "code": 50001}"#;
    for fault in [
        FaultRule::answering(403, no_access).provider(Provider::Discord),
        FaultRule::new(FaultKind::LoseAnswer)
            .path_contains(&format!("/webhook/{}", acme::BLIND))
            .times(1),
        FaultRule::new(FaultKind::ServerError).path_contains(&format!("/webhook/{LATE}")),
    ] {
        simulator.client.fault(&fault).await.unwrap();
    }
    let night = Night::of(world).await;
    // A worker that starts knows every hold in force.
    let hold =
        json!({"scope": scope(&night).await, "minutes": 60, "reason": "their receiver moves"});
    let held = night
        .console
        .post(&night.token, "/controls/hold", &hold)
        .await;
    assert_eq!(held.status(), 200);
    night
}

/// Returns the scope of the destination that is held.
async fn scope(night: &Night) -> String {
    let sql = format!(
        "SELECT 'acme|webhook|' || id FROM destinations WHERE name = '{}'",
        acme::KEYED
    );
    night.world.database.one(&sql).await
}

/// Publishes a job about a new change of a work item, whose message is for one destination.
async fn publish(world: &TestWorld, key: &str, to: &str, destination: &str) {
    let event = world.assign(acme::LONE_ITEM, Some(to)).await;
    let mut message = acme::job(key, &event);
    message["notify"] = json!([destination]);
    world.publish_job(&message).await;
}

async fn planted(night: &Night) -> Planted {
    let world = &night.world;
    let in_state = |state: JobState| move |row: &dispatch_worker::store::JobRow| row.state == state;
    let choice = waiting_job(world, "choice").await.id;
    publish(world, "held", acme::BOB, acme::KEYED).await;
    let held = night.follow_up("held", in_state(JobState::Waiting)).await;
    publish(world, "closed", acme::ANN, CLOSED).await;
    let closed = night.follow_up("closed", in_state(JobState::Waiting)).await;
    publish(world, "refused", acme::BOB, acme::DISCORD).await;
    let refused = night.follow_up("refused", in_state(JobState::Parked)).await;
    publish(world, "unknown", acme::ANN, acme::BLIND).await;
    let unknown = night.follow_up("unknown", in_state(JobState::Parked)).await;
    publish(world, "late", acme::BOB, LATE).await;
    let late = night
        .follow_up("late", |row| {
            row.state == JobState::Ready && row.error_code.is_some()
        })
        .await;

    let ended = TokenChange {
        token: acme::TOKEN.to_owned(),
        expired: Some(true),
        ..TokenChange::default()
    };
    world.simulator().await.client.token(&ended).await.unwrap();
    publish(world, "signed out", acme::ANN, acme::BLIND).await;
    let signed_out = world.wait_job_state("signed out", JobState::Waiting, SOON);
    let signed_out = signed_out.await.id;
    world.switch_account("disable").done().await;
    publish(world, "disabled", acme::BOB, acme::BLIND).await;
    let disabled = world.wait_job_state("disabled", JobState::Waiting, SOON);
    let disabled = disabled.await.id;
    let mut newer = acme::job("-", &json!(null));
    (newer["events"], newer["notify"]) = (json!([]), json!([]));
    left_by_an_older_worker(world, "newer", &newer).await;
    let newer = world.job_by_key("newer").await.unwrap().id;
    world.database.rows(AGE).await;
    Planted {
        held,
        closed,
        refused,
        unknown,
        late,
        choice,
        signed_out,
        disabled,
        newer,
    }
}

#[tokio::test]
async fn jobs_that_meet_a_cause_finish_after_the_action_that_their_code_offers() {
    let night = night().await;
    let worker = night.world.worker(&WorkerOptions::default());
    let planted = planted(&night).await;
    a_hold_and_a_disabled_destination_end(&night, &planted).await;
    a_refusal_is_mended_and_an_outcome_found_out(&night, &planted).await;
    a_vendor_that_was_down_is_tried_now(&night, &planted).await;
    an_identity_signs_in_again_and_an_account_is_enabled_and_chosen(&night, &planted).await;

    let id = planted.newer;
    let code = StuckCode::WaitingVersion;
    night.finds(code, id, "dispatch worker").await;
    let fleet = night.world.dispatch(&["replicas"]).done().await;
    assert_eq!(fleet["running"][0]["pid"], worker.pid);
    // The older worker is replaced by one that knows the schema.
    worker.kill9().await;
    let _worker = night.world.worker(&WorkerOptions::default());
    night.succeeds("newer").await;
    night.are_gone(StuckCode::ALL).await;
    wait_for("an overview without stuck jobs", SOON, async || {
        let page = night.page("/").await;
        if page.contains("Nothing is stuck.") {
            Ok(())
        } else {
            Err(page)
        }
    })
    .await;
    let checks = Checks {
        attempts: ANY_ATTEMPT,
    };
    checks.hold(&night.world).await;
}

async fn a_hold_and_a_disabled_destination_end(night: &Night, planted: &Planted) {
    let held = StuckCode::Held;
    let page = night.finds(held, planted.held, "holds release").await;
    night
        .finds(held, planted.closed, "dispatch destinations enable")
        .await;
    assert!(page.contains("href=\"/controls\""), "{page}");
    let controls = night.page("/controls").await;
    night.submits(&controls, "/controls/release", &[]).await;
    let line = ["destinations", "enable", CLOSED, "--organization", "acme"];
    let line = [&line[..], &["--yes"]].concat();
    night.world.dispatch(&line).done().await;
    night.succeeds("held").await;
    night.succeeds("closed").await;
    night.are_gone(&[held]).await;
}

async fn a_refusal_is_mended_and_an_outcome_found_out(night: &Night, planted: &Planted) {
    let (refused, unknown) = (planted.refused, planted.unknown);
    let retry = "dispatch jobs retry";
    night.finds(StuckCode::Parked, unknown, retry).await;
    let page = night.finds(StuckCode::Parked, refused, retry).await;
    let code = StuckCode::UnknownOutcome;
    let of_effect = night.finds(code, unknown, "dispatch jobs effect").await;

    // The bot is let into the channel again.
    let simulator = &night.world.simulator().await.client;
    let faults = simulator.faults().await.unwrap();
    let fault = faults
        .iter()
        .find(|fault| fault.rule.provider == Some(Provider::Discord));
    simulator.clear_fault(fault.unwrap().id).await.unwrap();
    let confirm = format!("/jobs/{refused}/confirm/retry");
    night.presses(&page, &confirm, &[]).await;
    night.succeeds("refused").await;

    // The message is in the channel, as a person has seen.
    let link = format!("/jobs/{unknown}#effects");
    assert!(of_effect.contains(&format!("href=\"{link}\"")));
    let effects = night.page(&format!("/jobs/{unknown}")).await;
    let key = "SELECT key FROM effects WHERE state = 'unknown' AND class = 'K3'";
    let key = night.world.database.one(key).await;
    let confirm = format!("/jobs/{unknown}/confirm/effect?effect={key}&done=true");
    let made = [("provider_ref", "seen by olga")];
    night.presses(&effects, &confirm, &made).await;
    night.succeeds("unknown").await;
    night.are_gone(&[StuckCode::Parked, code]).await;
    let sent = night.world.witness();
    let path = format!("/webhook/{}", acme::BLIND);
    let sent = sent.iter().filter(|one| one.effect && one.path == path);
    assert_eq!(sent.count(), 1, "the message is not sent again");
}

async fn a_vendor_that_was_down_is_tried_now(night: &Night, planted: &Planted) {
    let code = StuckCode::RetryingLong;
    let page = night.finds(code, planted.late, "dispatch jobs retry").await;
    night
        .world
        .simulator()
        .await
        .client
        .clear_faults()
        .await
        .unwrap();
    let command = format!("dispatch jobs retry {}", planted.late);
    assert!(page.contains(&command), "{page}");
    night.retries(planted.late).await;
    night.succeeds("late").await;
    night.are_gone(&[code]).await;
}

async fn an_identity_signs_in_again_and_an_account_is_enabled_and_chosen(
    night: &Night,
    planted: &Planted,
) {
    let world = &night.world;
    let code = StuckCode::WaitingReauthentication;
    let next = "dispatch identities set-tokens";
    night.finds(code, planted.signed_out, next).await;
    let code = StuckCode::WaitingConfiguration;
    night
        .finds(code, planted.disabled, "dispatch integrations enable")
        .await;
    let next = "dispatch jobs configure";
    let page = night.finds(code, planted.choice, next).await;

    // The person learns the name of the identity from the list, and signs in with it.
    let identities = world.dispatch(&["identities", "list"]).done().await;
    let waits = identities
        .as_array()
        .and_then(|all| all.iter().find(|one| one["jobs_waiting"]["n"] == 1));
    let name = waits.unwrap_or_else(|| panic!("{identities}"))["name"].clone();
    let fresh = TokenChange {
        token: FRESH_TOKEN.to_owned(),
        user: Some(acme::BOT.to_owned()),
        ..TokenChange::default()
    };
    world.simulator().await.client.token(&fresh).await.unwrap();
    let name = name.as_str().expect("a name");
    let line = ["identities", "set-tokens", "--organization", "acme"];
    let line = [&line[..], &["--name", name, "--reason", "signed in"]].concat();
    let tokens = json!({"access_token": FRESH_TOKEN, "expires_in": 3600});
    let set = world.dispatch(&line).stdin(tokens.to_string());
    assert_eq!(set.done().await["jobs_released"], 1);
    world.switch_account("enable").done().await;
    night.succeeds("disabled").await;
    night.succeeds("signed out").await;
    let confirm = format!("/jobs/{}/confirm/configure", planted.choice);
    let account = acme::account_id();
    night
        .presses(&page, &confirm, &[("account", &account)])
        .await;
    night.succeeds("choice").await;
    let codes = [StuckCode::WaitingReauthentication, code];
    night.are_gone(&codes).await;
}
