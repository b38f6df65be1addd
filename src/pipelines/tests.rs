//! Runs stages as the engine does, from their checkpoints, with services that cannot reach any
//! server: a stage that makes a call which the request does not require fails here.

use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::configuration_link::ConfigurationLinks;
use super::{Dispatch, Services, registry};
use crate::engine::{
    Checkpoint, Context, ErasedOutcome, ErasedPrepared, Kept, Outputs, Partial, Then,
};
use crate::fault::StageFault;
use crate::job::{Attempt, Epoch, Generation, Job, JobId};
use crate::providers::{ProviderSettings, Providers, governor};
use crate::secrets::Keyring;
use crate::tracker::{Changes, SealedTracker, Tracker};

fn services() -> Services {
    // Another test may have installed it before.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut nowhere = tokio_postgres::Config::new();
    nowhere
        .host_path("/nowhere")
        .connect_timeout(std::time::Duration::from_millis(1));
    let manager = deadpool_postgres::Manager::new(nowhere, tokio_postgres::NoTls);
    let pool = deadpool_postgres::Pool::builder(manager).build().unwrap();
    let keyring = Arc::new(Keyring::parse(&Keyring::fresh_setting()).unwrap());
    let providers = Providers::new(&ProviderSettings::default(), governor::alone()).unwrap();
    let spawn = Arc::new(|name, _| panic!("{name} is started"));
    let tracker = Tracker::new(pool);
    Services {
        links: ConfigurationLinks::new(Arc::clone(&keyring), None),
        sealed: SealedTracker::new(tracker.clone(), keyring),
        tracker,
        providers,
        spawn,
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn job(pipeline: &str, payload: &Value) -> Job {
    Job {
        id: JobId::fresh(),
        pipeline: pipeline.to_owned(),
        organization: "acme".to_owned(),
        account: None,
        source: "test".to_owned(),
        payload: raw(payload),
        parent: None,
        generation: Generation(1),
        epoch: Epoch(1),
        stage: String::new(),
        attempt: Attempt(1),
        deadline: None,
        traceparent: None,
    }
}

fn outputs(known: &[(&str, Value)]) -> Outputs {
    let checkpoint = |(stage, output): &(&str, Value)| Checkpoint {
        stage: (*stage).to_owned(),
        version: 1,
        output: raw(output),
    };
    Outputs::new(known.iter().map(checkpoint).collect())
}

/// Prepares and runs a stage as the worker does, without storing anything.
async fn run(
    job: &Job,
    stage: &str,
    outputs: &Outputs,
) -> Result<ErasedOutcome<Changes>, StageFault> {
    let (registry, services, payload) = (registry(), services(), OnceLock::new());
    let (info, code) = registry.get(&job.pipeline).unwrap().stage(stage).unwrap();
    let kept = Kept::new(info, job.generation, Partial::default(), &|| false);
    let cx: Context<'_, Dispatch> =
        Context::new(job, &services, outputs, info.needs, &payload, &kept);
    match code.prepare(&cx).await? {
        ErasedPrepared::Done(outcome) => Ok(outcome),
        ErasedPrepared::NoEffect | ErasedPrepared::Effect(_) => code.run(&cx).await,
    }
}

fn request() -> Value {
    json!({
        "schema": 1, "source": "test", "dedupe_key": "1", "organization": "acme", "account": "acc-1", "identity": null,
        "search": null, "events": [], "notify": [], "interaction": null, "not_before": null, "deadline": null,
    })
}

fn checked(account: &Value) -> Value {
    json!({ "organization_id": 1, "account": account, "acting_as": "installation" })
}

fn states() -> Value {
    let settings =
        json!({ "assignee_inbound": true, "assignee_outbound": true, "status_inbound": true });
    let account = json!({ "integration_id": 3, "account_id": "acc-1", "account_name": "contoso", "settings": settings });
    let identity = json!({ "id": 7, "name": "bot", "token_expires_at": "2099-01-01T00:00:00Z" });
    json!({ "account": account, "identity": identity })
}

#[tokio::test]
async fn a_request_that_asks_for_nothing_passes_every_stage_and_has_no_follow_ups() {
    let job = job("dispatch", &request());
    let found = json!({ "found": { "integration_id": 3, "account_id": "acc-1" } });
    let mut known = outputs(&[
        ("check_account", checked(&found)),
        ("fetch_states", states()),
    ]);
    let registry = registry();
    let mut due = Some("search_issues");
    while let Some(stage) = due {
        let outcome = run(&job, stage, &known)
            .await
            .unwrap_or_else(|fault| panic!("{stage}: {}", fault.message()));
        assert!(
            outcome.children.is_empty() && outcome.changes.is_none() && outcome.then == Then::Next,
            "{stage}"
        );
        known.push(Checkpoint {
            stage: stage.to_owned(),
            version: 1,
            output: outcome.output.unwrap(),
        });
        due = registry.get("dispatch").unwrap().after(stage);
    }
    assert_eq!(
        known.get("send_follow_ups").unwrap().output.get(),
        r#"{"targets":[]}"#
    );
}

#[tokio::test]
async fn configuration_is_asked_for_whether_or_not_the_stages_in_between_have_run() {
    let job = job("dispatch", &request());
    let missing = (
        "check_account",
        checked(&json!({ "missing": "no_account" })),
    );
    let accounts = (
        "get_accounts",
        json!({ "accounts": [{ "account_id": "a", "name": "A" }] }),
    );
    for (known, choices) in [
        (vec![missing.clone()], 0),
        (vec![missing, ("fetch_states", states()), accounts], 1),
    ] {
        let outcome = run(&job, "show_configuration", &outputs(&known))
            .await
            .unwrap();
        let shown: Value = serde_json::from_str(outcome.output.unwrap().get()).unwrap();
        assert_eq!(
            (
                shown["reason"].as_str(),
                shown["choices"].as_array().unwrap().len()
            ),
            (Some("no_account"), choices)
        );
        assert!(
            matches!(
                outcome.then,
                Then::Wait {
                    resume_at: "check_account",
                    ..
                }
            ) && outcome.children.is_empty()
        );
    }
}

#[tokio::test]
async fn a_click_is_answered_without_passing_the_token_on() {
    let mut request = request();
    request["interaction"] =
        json!({ "application_id": "99", "sealed_token": "v1.canary", "message_id": null });
    let job = job("dispatch", &request);
    let missing = (
        "check_account",
        checked(&json!({ "missing": "no_account" })),
    );
    let found = (
        "check_account",
        checked(&json!({ "found": { "integration_id": 3, "account_id": "acc-1" } })),
    );
    let plan = (
        "sync_assignees",
        json!({ "links": [], "organizations": {} }),
    );
    let applied = json!({ "assignees": [], "statuses": [], "behind": [], "old_news": 0, "unresolved": 0, "events_seen": 0 });
    for (stage, known, target) in [
        (
            "show_configuration",
            vec![missing],
            "messaging:interaction:configuration",
        ),
        (
            "send_follow_ups",
            vec![
                found,
                ("fetch_states", states()),
                plan,
                ("update_assignments", applied),
            ],
            "messaging:interaction:outcome",
        ),
    ] {
        let outcome = run(&job, stage, &outputs(&known)).await.unwrap();
        let [child] = &outcome.children[..] else {
            panic!("{stage}: {:?}", outcome.children)
        };
        assert_eq!(
            (child.pipeline, child.target.as_str()),
            ("messaging", target)
        );
        assert_eq!(child.payload["interaction"], json!(job.id));
        assert!(!child.payload.to_string().contains("canary"));
    }
}

#[tokio::test]
async fn the_plan_and_the_events_it_came_from_are_applied_together() {
    let job = job("dispatch", &request());
    let event = json!({ "event_id": "e", "work_item_id": 17, "rev": 4 });
    let known = outputs(&[
        ("fetch_states", states()),
        (
            "handle_events",
            json!({ "accepted": [event], "ignored": [] }),
        ),
        (
            "sync_assignees",
            json!({ "links": [], "organizations": {} }),
        ),
    ]);
    let outcome = run(&job, "update_assignments", &known).await.unwrap();
    let changes = Changes::Assignments {
        integration_id: 3,
        links: Vec::new(),
        seen_events: vec!["e".to_owned()],
    };
    assert_eq!(
        (outcome.output.is_none(), outcome.changes),
        (true, Some(changes))
    );
}

#[tokio::test]
async fn an_unavailable_database_uses_no_attempt() {
    let stages = [
        ("dispatch", "check_account"),
        ("assignee_sync", "find_assignee"),
        ("messaging", "render_message"),
    ];
    let payloads = [
        request(),
        json!({ "group_id": 1, "organization_id": 1, "integration_id": 3, "work_item_id": 17 }),
        json!({ "destination_id": 9, "happened_at": null, "event": { "status": {
            "group_id": 1, "organization_id": 1, "group_short_id": "WEB-1", "group_title": "T", "work_item_id": 17,
            "to": "resolved",
        } } }),
    ];
    for ((pipeline, stage), payload) in stages.into_iter().zip(payloads) {
        let fault = run(&job(pipeline, &payload), stage, &outputs(&[]))
            .await
            .unwrap_err();
        assert_eq!(
            fault.class(),
            crate::fault::Class::Infrastructure,
            "{stage}: {}",
            fault.message()
        );
    }
}

#[test]
fn the_first_stage_checks_the_account_and_only_the_configuration_is_off_the_path() {
    let registry = registry();
    let dispatch = registry.intake();
    let off_path: Vec<_> = dispatch
        .stages()
        .filter(|stage| stage.off_path)
        .map(|stage| stage.name)
        .collect();
    assert_eq!(
        (off_path.as_slice(), dispatch.first()),
        (&["show_configuration"][..], "check_account")
    );
}
