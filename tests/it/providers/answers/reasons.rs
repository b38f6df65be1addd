//! Reasons of refusals: the provider's own code and message are in the job's row, in the output of
//! commands, in the outcome event and in the log, with the refused name and without the secrets in
//! the same text.

use std::time::Duration;

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::devkit::simulator::faults::FaultRule;
use dispatch_worker::devkit::simulator::state::State;
use serde_json::{Value, json};

use super::refusal;
use super::tenant::{self, ANN, Tenant};
use crate::support::{ANY_ATTEMPT, Checks, Listener, TestWorld, WorkerProcess, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
const CHANNEL: &str = "6001";
const BOT_TOKEN: &str = "canary-reasons-bot-token";
const SEES_NOTHING: &str = "TF50309: The following account does not have sufficient permissions to complete the operation: Bot.";
const UNKNOWN: &str = "The identity value 'OIDCONFLICT_UpnReuse_4d7f2a101c2b4e5f8a9b0c1d2e3f4a5b_ann@field.example' for field \
    'Assigned To' is an unknown identity.";

/// A refusal and the expected reason.
struct Reason {
    name: &'static str,
    answers: fn(&Tenant) -> Vec<FaultRule>,
    /// The outcome event that contains the reason.
    event: &'static str,
    /// The provider's code and message.
    says: &'static [&'static str],
}

const REASONS: [Reason; 4] = [
    Reason {
        name: "forbidden",
        answers: |it| {
            let batch = it.path("/_apis/wit/workitemsbatch");
            vec![refusal(403, "AccessCheckException", SEES_NOTHING).path_contains(&batch)]
        },
        event: "job.parked",
        says: &["AccessCheckException", SEES_NOTHING],
    },
    // The refresh token is revoked, and the access token has expired.
    Reason {
        name: SIGNED_OUT,
        answers: |_| Vec::new(),
        event: "job.waiting.reauthentication",
        says: &[
            "invalid_grant",
            "AADSTS50173",
            "The provided grant has expired due to it being revoked",
        ],
    },
    Reason {
        name: "silent",
        answers: |_| {
            let refused = json!({"message": "Missing Permissions", "code": 50013}).to_string();
            vec![FaultRule::answering(403, refused).path_contains(CHANNEL)]
        },
        event: "job.waiting.follow_up",
        says: &["50013", "Missing Permissions"],
    },
    Reason {
        name: "stranger",
        answers: |it| {
            let repeated = format!(
                "{UNKNOWN} The request had authorization: Bearer {}",
                it.token()
            );
            let refused = refusal(400, "RuleValidationException", &repeated);
            vec![
                refused
                    .method("PATCH")
                    .path_contains(&it.path("/_apis/wit/workitems/18")),
            ]
        },
        event: "job.waiting.follow_up",
        says: &["RuleValidationException", UNKNOWN],
    },
];
const SIGNED_OUT: &str = "signed-out";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_s_code_and_message_are_in_the_row_the_event_the_log_and_the_output_of_commands()
 {
    let world = TestWorld::new().await;
    let listener = Listener::new(&world).await;
    let tenants: Vec<Tenant> = REASONS
        .iter()
        .map(|reason| with_channel(Tenant::new(reason.name)))
        .collect();
    set(&world, &tenants).await;
    let worker = world.worker(&tenant::worker());
    worker.ready().await;
    for (reason, tenant) in REASONS.iter().zip(&tenants) {
        listener.queue(reason.name, Some(reason.event)).await;
        for rule in (reason.answers)(tenant) {
            world.simulator().await.client.fault(&rule).await.unwrap();
        }
        let mut job = tenant.job(reason.name);
        let event = tenant.assign(&world, 17, ANN).await;
        job["events"] = json!([{"payload": event, "shared_secret": acme::HOOK_SECRET}]);
        job["notify"] = if reason.name == "silent" {
            json!(["discord-1"])
        } else {
            json!([])
        };
        world.publish_job(&job).await;
    }
    let mut wrong = Vec::new();
    for reason in &REASONS {
        let event = receive(&listener, reason).await;
        wrong.extend(missing(&world, &worker, reason, &event).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Checks {
        attempts: ANY_ATTEMPT,
    }
    .hold(&world)
    .await;
}

/// Adds a Discord channel; for `stranger`, changes of 17 are also written to 18.
fn with_channel(mut tenant: Tenant) -> Tenant {
    tenant.groups = vec![if tenant.name == "stranger" {
        vec![17, 18]
    } else {
        vec![17]
    }];
    tenant.destination("discord", &json!({"channel_id": CHANNEL}), BOT_TOKEN)
}

async fn set(world: &TestWorld, tenants: &[Tenant]) {
    let all: Vec<&Tenant> = tenants.iter().collect();
    tenant::settle(world, State::new().channel(BOT_TOKEN, CHANNEL), &all).await;
    let signed_out = tenants
        .iter()
        .find(|tenant| tenant.name == SIGNED_OUT)
        .expect("one of the tenants");
    let client = &world.simulator().await.client;
    let mut state = client.state().await.unwrap();
    state
        .entra
        .refresh_tokens
        .get_mut(&signed_out.refresh_token())
        .expect("the tenant has a refresh token")
        .revoked = true;
    client.load_state(&state).await.unwrap();
    let ended = TokenChange {
        token: signed_out.token(),
        expired: Some(true),
        ..TokenChange::default()
    };
    client.token(&ended).await.unwrap();
}

/// Waits for the event that contains the reason.
async fn receive(listener: &Listener, reason: &Reason) -> Value {
    wait_for(
        &format!("{} of {}", reason.event, reason.name),
        SOON,
        async || match listener.try_next(reason.name).await {
            Some((_, event)) if event["dedupe_key"] == reason.name => Ok(event),
            Some((_, other)) => Err(other.to_string()),
            None => Err("no event".to_owned()),
        },
    )
    .await
}

/// Returns the places where the reason is missing.
async fn missing(
    world: &TestWorld,
    worker: &WorkerProcess,
    reason: &Reason,
    event: &Value,
) -> Vec<String> {
    let job = world
        .job_by_key(reason.name)
        .await
        .expect("an announced job has a row");
    let is_of_follow_up = reason.event == "job.waiting.follow_up";
    let refused = if is_of_follow_up {
        let children = world.job_view(job.id).await.children;
        children
            .into_iter()
            .find(|child| child.error_code.is_some())
            .expect("a refused follow-up")
    } else {
        job
    };
    let said = if is_of_follow_up {
        &event["follow_up"]
    } else {
        &event["error"]
    };
    let shown = world
        .dispatch(&["jobs", "show", &refused.id.to_string()])
        .done()
        .await;
    let row = refused.error_message.clone().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let log = worker.log();
    let mut wrong = Vec::new();
    for part in reason.says {
        for (place, text) in [
            ("the row", &row),
            ("the event", &text(&said["message"])),
            ("what is shown", &text(&shown["error_message"])),
            ("the log", &log),
        ] {
            if !text.contains(part) {
                let text = if place == "the log" {
                    ""
                } else {
                    text.as_str()
                };
                wrong.push(format!(
                    "{}: {part:?} is not in {place}: {text}",
                    reason.name
                ));
            }
        }
    }
    if said["code"].as_str() != refused.error_code.as_deref()
        || said["hint"].as_str() != refused.error_hint.as_deref()
    {
        wrong.push(format!(
            "{}: the event has another code or hint than the row: {said}",
            reason.name
        ));
    }
    if is_of_follow_up {
        let (id, pipeline) = (refused.id.to_string(), refused.pipeline.as_str());
        if said["job_id"] != id || said["pipeline"] != pipeline {
            wrong.push(format!(
                "{}: the event does not name the follow-up {id}: {said}",
                reason.name
            ));
        }
    }
    wrong
}
