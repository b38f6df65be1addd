//! Actions of people on one job: parking, re-running, skipping a stage, marking an effect, editing
//! the input.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::{Epoch, Generation, JobId, JobState};
use dispatch_worker::operations::{self, Found, JobAction, OperationError, possible};
use dispatch_worker::store::{ActionResult, Actor, JobRow, Role, Target};
use serde_json::{Value, json};

use crate::support::{TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(30);

fn olga() -> Actor {
    Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: Some("it is the third time".to_owned()),
        request: None,
    }
}

fn at(row: &JobRow) -> Target {
    Target::Version {
        id: row.id,
        generation: Generation(row.generation),
        epoch: Epoch(row.epoch),
    }
}

fn now(result: &ActionResult) -> JobState {
    match result {
        ActionResult::Done { now, .. } => *now,
        other => panic!("expected an action that was carried out, got {other:?}"),
    }
}

/// Publishes a job that is due tomorrow, and returns its row.
async fn later(world: &TestWorld, key: &str) -> JobRow {
    let mut message = acme::job(key, &Value::Null);
    (message["events"], message["notify"]) = (json!([]), json!([]));
    message["not_before"] = acme::later();
    world.publish_job(&message).await;
    world.wait_job_state(key, JobState::Ready, SOON).await
}

async fn stages(world: &TestWorld, id: JobId, generation: i32) -> Vec<String> {
    let view = world.job_view(id).await;
    let of = view.checkpoints.into_iter();
    of.filter(|one| one.generation == generation)
        .map(|one| one.stage)
        .collect()
}

/// The parts of a job that no refused action may change.
async fn state_of(world: &TestWorld, id: JobId) -> String {
    let columns = "epoch, generation, state, stage, payload::text, attempt";
    world
        .database
        .one(&format!(
            "SELECT ({columns})::text FROM jobs WHERE id = '{id}'"
        ))
        .await
}

#[tokio::test]
async fn a_job_is_parked_in_the_middle_of_a_call_and_run_again_from_an_earlier_stage() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Slow).millis(1500))
        .await;
    let seen = world.job_by_key("one").await.unwrap();
    assert_eq!(seen.state, JobState::Running);
    let store = world.store();
    let parked = operations::park(&store, &olga(), &at(&seen)).await.unwrap();
    assert_eq!(now(&parked), JobState::Parked);
    let row = world.job_by_key("one").await.unwrap();
    assert_eq!(
        (row.error_code.as_deref(), row.error_message.as_deref()),
        (Some("operator.parked"), Some("it is the third time"))
    );
    // A second person acts on what they have seen before.
    let other = operations::rerun(&store, &olga(), &at(&seen), "check_account").await;
    let ActionResult::MovedOn { epoch, state, .. } = other.unwrap() else {
        panic!("the job has moved on")
    };
    assert_eq!((epoch, state), (Epoch(row.epoch), JobState::Parked));

    let ahead = operations::rerun(&store, &olga(), &at(&row), "update_assignments").await;
    assert!(
        matches!(ahead, Err(OperationError::Invalid(_))),
        "{ahead:?}"
    );
    let again = operations::rerun(&store, &olga(), &at(&row), "fetch_states").await;
    assert_eq!(now(&again.unwrap()), JobState::Ready);
    let done = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert_eq!(done.generation, 2);
    let first = stages(&world, done.id, 1).await;
    assert_eq!(first, ["check_account", "fetch_states"]);
    let second = stages(&world, done.id, 2).await;
    assert_eq!(
        (second.len(), second[0].as_str(), second[9].as_str()),
        (10, "check_account", "send_follow_ups")
    );
    let carried = format!(
        "SELECT count(DISTINCT epoch) FROM checkpoints WHERE job_id = '{}' AND stage = 'check_account'",
        done.id
    );
    assert_eq!(
        world.database.one(&carried).await,
        "1",
        "it did not run again"
    );
    let actions = "SELECT action, before ->> 'state', reason FROM audit_log ORDER BY id";
    assert_eq!(
        world.database.rows(actions).await,
        [
            ["park", "running", "it is the third time"],
            ["rerun", "parked", "it is the third time"]
        ]
    );
}

#[tokio::test]
async fn a_stage_is_skipped_with_an_output_that_names_what_the_input_names_and_nothing_else() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let row = later(&world, "skipped").await;
    let store = world.store();
    let found = "SELECT o.organization_id, i.id, i.account_id FROM organization_integrations o
        JOIN integrations i ON i.id = o.integration_id JOIN organizations g ON g.id = o.organization_id
        WHERE g.slug = 'acme' AND lower(i.account_id) = lower('";
    let rows = world
        .database
        .rows(&format!("{found}{}')", acme::account_id()))
        .await;
    let (organization, integration): (i64, i64) =
        (rows[0][0].parse().unwrap(), rows[0][1].parse().unwrap());
    let account = &rows[0][2];
    let output = |organization: i64, integration: i64, account: &str, acting: Value| {
        json!({"organization_id": organization, "account": {"found": {"integration_id": integration, "account_id": account}},
            "acting_as": acting})
        .to_string()
    };
    let installation = json!("installation");
    let wrong = [
        output(organization + 1, integration, account, installation.clone()),
        output(organization, integration + 1, account, installation.clone()),
        output(organization, integration, "elsewhere", installation.clone()),
        output(organization, integration, account, json!({"identity": 99})),
        json!({"organization_id": organization}).to_string(),
        "not JSON".to_owned(),
    ];
    let before = state_of(&world, row.id).await;
    for output in wrong {
        let answer = operations::skip(&store, &olga(), &at(&row), "check_account", &output).await;
        assert!(
            matches!(answer, Err(OperationError::Invalid(_))),
            "{output}: {answer:?}"
        );
    }
    let right = output(organization, integration, account, installation);
    let early = operations::skip(&store, &olga(), &at(&row), "fetch_states", &right).await;
    assert!(
        matches!(early, Err(OperationError::Invalid(_))),
        "{early:?}"
    );
    assert_eq!(state_of(&world, row.id).await, before);
    assert_eq!(
        world.database.one("SELECT count(*) FROM audit_log").await,
        "0"
    );

    let skipped = operations::skip(&store, &olga(), &at(&row), "check_account", &right).await;
    assert_eq!(now(&skipped.unwrap()), JobState::Ready);
    world
        .wait_job_state("skipped", JobState::Succeeded, SOON)
        .await;
    assert_eq!(stages(&world, row.id, 1).await.len(), 10);
    let by = format!(
        "SELECT replica FROM checkpoints WHERE job_id = '{}' AND stage = 'check_account'",
        row.id
    );
    assert_eq!(world.database.one(&by).await, "0", "a person's");
}

#[tokio::test]
async fn an_input_is_edited_and_restored_and_never_names_anything_else() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let row = later(&world, "edited").await;
    let store = world.store();
    let (_, shown) = operations::unmask(&store, &olga(), &at(&row))
        .await
        .unwrap();
    let input = shown.unwrap().input.unwrap();
    let with = |field: &str, value: Value| {
        let mut new = input.clone();
        new[field] = value;
        new
    };
    let before = state_of(&world, row.id).await;
    for (field, value) in [
        ("organization", json!("globex")),
        ("account", json!("elsewhere")),
        ("identity", json!("somebody")),
        ("notify", json!(["team"])),
        ("notify", Value::Null),
        ("interaction", json!({"application_id": "1"})),
        ("unknown", json!(1)),
        ("search", json!({"text": ""})),
    ] {
        let new = with(field, value);
        let answer = operations::edit_input(&store, &olga(), &at(&row), &new).await;
        assert!(
            matches!(answer, Err(OperationError::Invalid(_))),
            "{field}: {answer:?}"
        );
    }
    assert_eq!(state_of(&world, row.id).await, before);

    let new = with("deadline", json!("2999-01-01T00:00:00Z"));
    let edited = operations::edit_input(&store, &olga(), &at(&row), &new)
        .await
        .unwrap();
    assert_eq!(now(&edited.result), JobState::Ready);
    let paths: Vec<&str> = edited.diff.iter().map(|one| one.path.as_str()).collect();
    assert_eq!((paths, edited.kept_as), (vec!["deadline"], Some(1)));
    let kept = world.job_by_key("edited").await.unwrap();
    assert!(kept.generation == 2 && kept.deadline.is_some() && kept.due_at > kept.now);

    let back = operations::restore_input(&store, &olga(), &at(&kept), 1)
        .await
        .unwrap();
    assert_eq!(
        (now(&back.result), back.kept_as),
        (JobState::Ready, Some(2))
    );
    let none = operations::restore_input(&store, &olga(), &Target::Id(row.id), 9).await;
    assert!(matches!(none, Err(OperationError::Unknown(_))), "{none:?}");
    let same = operations::restore_input(&store, &olga(), &Target::Id(row.id), 1)
        .await
        .unwrap();
    assert!(matches!(same.result, ActionResult::Already(..)), "{same:?}");

    let soon = with("not_before", Value::Null);
    let edited = operations::edit_input(&store, &olga(), &Target::Id(row.id), &soon).await;
    assert_eq!(now(&edited.unwrap().result), JobState::Ready);
    let done = world
        .wait_job_state("edited", JobState::Succeeded, SOON)
        .await;
    assert_eq!(
        (done.generation, stages(&world, row.id, 4).await.len()),
        (4, 10)
    );
    drop(worker);
}

#[tokio::test]
async fn an_effect_that_a_person_has_found_done_passes_its_stage_and_ends_the_parent() {
    let world = TestWorld::acme().await;
    let store = world.store();
    for (found, expected) in [
        (
            Found::Done {
                provider_ref: Some("m-17".to_owned()),
            },
            ["succeeded", "succeeded", "0"],
        ),
        (Found::NotDone, ["ready", "waiting", "1"]),
    ] {
        let (parent, child) = (JobId::fresh(), JobId::fresh());
        let notice = json!({"destination_id": 3, "happened_at": null, "event": {"outcome": {"assignees": [], "statuses": []}}});
        world
            .database
            .rows(&format!(
                "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, wait_reason, wait_key,
                    open_children, parent_id, error_code)
                 VALUES ('{parent}', 'dispatch', 'tests', '{parent}', 'acme', 1, '{{}}', 'waiting', 'send_follow_ups', 'children', 'children', 1, NULL, NULL),
                    ('{child}', 'messaging', 'tests', '{child}', 'acme', 1, '{notice}', 'parked', 'deliver_message', NULL, NULL, 0, '{parent}', 'unknown_outcome');
                 INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
                 VALUES ('{child}', 'over', 1, 'deliver_message', 't', 'K3', 'unknown', '{{}}', 1, now()),
                    ('{child}', 'runs', 1, 'deliver_message', 'u', 'K3', 'in_flight', '{{}}', 1, now() + interval '1 hour')"
            ))
            .await;
        let target = Target::Id(child);
        let runs = operations::mark_effect(&store, &olga(), &target, "runs", &found).await;
        assert!(
            matches!(runs, Err(OperationError::NotPossible(_))),
            "{runs:?}"
        );
        let marked = operations::mark_effect(&store, &olga(), &target, "over", &found).await;
        assert_eq!(now(&marked.unwrap()).word(), expected[0]);
        let states = format!(
            "SELECT c.state, p.state, p.open_children FROM jobs c JOIN jobs p ON p.id = c.parent_id WHERE c.id = '{child}'"
        );
        assert_eq!(world.database.rows(&states).await, [expected]);
        let output =
            format!("SELECT output ->> 'message_id' FROM checkpoints WHERE job_id = '{child}'");
        let rows = world.database.rows(&output).await;
        assert_eq!(rows.is_empty(), found == Found::NotDone);
        let again = operations::mark_effect(&store, &olga(), &target, "over", &found).await;
        assert!(!matches!(again, Ok(ActionResult::Done { .. })), "{again:?}");
    }
}

/// The states of a job: state, reason, schema.
const STATES: &[(&str, &str, i64)] = &[
    ("ready", "", 1),
    ("running", "", 1),
    ("waiting", "hold", 1),
    ("waiting", "children", 1),
    ("waiting", "configuration", 1),
    ("waiting", "version", 2),
    ("parked", "", 1),
    ("succeeded", "", 1),
    ("cancelled", "", 1),
];

async fn planted(world: &TestWorld, (state, reason, schema): (&str, &str, i64)) -> JobRow {
    let id = JobId::fresh();
    let quoted = if reason.is_empty() {
        "NULL".to_owned()
    } else {
        format!("'{reason}'")
    };
    let (payload, sealed) = if schema == 1 {
        let request = json!({"schema": 1, "source": "tests", "dedupe_key": id, "organization": "acme", "events": [], "notify": [],
            "not_before": null, "deadline": null});
        (format!("'{request}'"), "NULL".to_owned())
    } else {
        ("NULL".to_owned(), "'v1.k.n.c'".to_owned())
    };
    world
        .database
        .rows(&format!(
            "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, sealed_payload, state, stage, wait_reason,
                wait_key, owner, finished_at, open_children)
             VALUES ('{id}', 'dispatch', 'tests', '{id}', 'acme', {schema}, {payload}, {sealed}, '{state}', 'check_account', {quoted},
                {quoted}, CASE WHEN '{state}' = 'running' THEN 7 END, CASE WHEN '{state}' IN ('succeeded', 'cancelled') THEN now() END,
                CASE WHEN '{reason}' = 'children' THEN 1 ELSE 0 END);
             INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
             VALUES ('{id}', 'unsure', 1, 'check_account', 't', 'K3', 'unknown', '{{}}', 1, now());
             INSERT INTO job_inputs (job_id, version, payload, replaced_by) VALUES ('{id}', 1,
                '{{\"schema\": 1, \"source\": \"tests\", \"dedupe_key\": \"{id}\", \"organization\": \"acme\", \"notify\": [],
                    \"events\": [], \"search\": {{\"text\": \"old\"}},
                    \"not_before\": null, \"deadline\": null}}', 'olga')"
        ))
        .await;
    world.store().job(id).await.unwrap().unwrap()
}

async fn act(world: &TestWorld, action: JobAction, row: &JobRow) -> ActionResult {
    let (store, olga, target) = (world.store(), olga(), at(row));
    let organization: i64 = world
        .database
        .one("SELECT id FROM organizations WHERE slug = 'acme'")
        .await
        .parse()
        .unwrap();
    match action {
        JobAction::Retry => operations::retry(&store, &olga, &target).await,
        JobAction::Cancel => operations::cancel(&store, &olga, &target).await,
        JobAction::Configure => operations::configure(&store, &olga, &target, "A-1").await,
        JobAction::Park => operations::park(&store, &olga, &target).await,
        JobAction::Rerun => operations::rerun(&store, &olga, &target, "check_account").await,
        JobAction::Skip => {
            let output = json!({"organization_id": organization, "account": {"missing": "no_account"}, "acting_as": "installation"});
            operations::skip(&store, &olga, &target, "check_account", &output.to_string()).await
        }
        JobAction::MarkEffect => {
            operations::mark_effect(&store, &olga, &target, "unsure", &Found::NotDone).await
        }
        JobAction::EditInput => {
            let new = json!({"schema": 1, "source": "tests", "dedupe_key": row.dedupe_key, "organization": "acme", "notify": [],
                "search": {"text": "new"}});
            let edited = operations::edit_input(&store, &olga, &target, &new).await;
            edited.map(|edited| edited.result)
        }
        JobAction::RestoreInput => {
            let edited = operations::restore_input(&store, &olga, &target, 1).await;
            edited.map(|edited| edited.result)
        }
        JobAction::Unmask => {
            let shown = operations::unmask(&store, &olga, &target).await;
            shown.map(|(result, _)| result)
        }
    }
    .unwrap()
}

#[tokio::test]
async fn an_action_is_carried_out_exactly_when_it_is_possible() {
    let world = TestWorld::acme().await;
    for state in STATES {
        for (number, action) in JobAction::ALL.iter().enumerate() {
            let row = planted(&world, *state).await;
            let said = &possible(&row)[number];
            assert_eq!(said.action, *action);
            let before = state_of(&world, row.id).await;
            let result = act(&world, *action, &row).await;
            let is_done = matches!(result, ActionResult::Done { .. });
            assert_eq!(
                is_done,
                said.obstacle.is_none(),
                "{state:?} {action:?}: {said:?}, {result:?}"
            );
            if let ActionResult::Refused(_, why) = &result {
                assert_eq!(Some(why), said.obstacle.as_ref(), "{state:?} {action:?}");
            }
            let audit = format!("SELECT count(*) FROM audit_log WHERE job_id = '{}'", row.id);
            assert_eq!(
                world.database.one(&audit).await,
                i32::from(is_done).to_string()
            );
            if !is_done || *action == JobAction::Unmask {
                assert_eq!(
                    state_of(&world, row.id).await,
                    before,
                    "{state:?} {action:?}"
                );
                continue;
            }
            let now = world.store().job(row.id).await.unwrap().unwrap();
            assert!(
                now.epoch > row.epoch && now.owner.is_none(),
                "{state:?} {action:?}: it is fenced"
            );
        }
    }
}
