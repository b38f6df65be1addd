//! Data as Azure DevOps sends it, through the whole pipeline: every form of `System.AssignedTo`,
//! and the vendor's sample event.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::devkit::simulator::state::{Revision, State, work_item_key};
use dispatch_worker::job::JobState;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(30);
const ZOE: &str = "zoë@acme.example";
const MEMBERS: [&str; 3] = [acme::ANN, acme::BOB, ZOE];
const PROJECT: &str = "FabrikamCloud";

/// The final assignee of a group, which is first assigned to [`acme::BOB`].
enum End {
    To(&'static str),
    Nobody,
    /// Unchanged, for a reason that contains this text.
    Unresolved(&'static str),
}

/// Returns the forms of an assignee and their expected results.
fn forms() -> Vec<(Value, End)> {
    use End::{Nobody, To, Unresolved};
    let identity = |name: &str, unique_name: &str| json!({"displayName": name, "uniqueName": unique_name, "descriptor": "aad.x"});
    vec![
        (identity("Ann", acme::ANN), To(acme::ANN)),
        (identity("Ann", "ANN@Acme.Example"), To(acme::ANN)),
        (
            identity("Ann", "ACME\\ann"),
            Unresolved("ACME\\ann without an e-mail"),
        ),
        (
            identity("Somebody", "somebody@else.example"),
            Unresolved("somebody@else.example"),
        ),
        (
            json!({"displayName": "A team", "descriptor": "vssgp.x"}),
            Unresolved("A team without an e-mail"),
        ),
        (json!("Ann <ann@acme.example>"), To(acme::ANN)),
        (json!("ann@acme.example"), To(acme::ANN)),
        (json!("Ann"), Unresolved("Ann without an e-mail")),
        (
            json!("Ann <ACME\\ann>"),
            Unresolved("ACME\\ann without an e-mail"),
        ),
        (json!("Zoë Ångström 山田 <zoë@acme.example>"), To(ZOE)),
        (
            json!("山田 太郎"),
            Unresolved("山田 太郎 without an e-mail"),
        ),
        (
            json!("Ann <the first> of <many> <ann@acme.example>"),
            To(acme::ANN),
        ),
        (json!("a > b < c <ann@acme.example>"), To(acme::ANN)),
        (
            json!("Team <Blue>"),
            Unresolved("Team <Blue> without an e-mail"),
        ),
        (json!("> Ann <"), Unresolved("> Ann < without an e-mail")),
        (json!(""), Nobody),
        (Value::Null, Nobody),
        (json!(7), Unresolved("somebody without an e-mail")),
    ]
}

/// Returns the simulator state: the account, its project, a bug for each id, and an identity.
fn providers(bugs: impl Iterator<Item = i64>) -> State {
    let state = State::new()
        .user("Bot", acme::BOT)
        .user("Bob", acme::BOB)
        .token(acme::TOKEN, acme::BOT);
    let state = state.account(acme::ACCOUNT, PROJECT);
    bugs.fold(state, |state, id| {
        state.bug(
            acme::ACCOUNT,
            PROJECT,
            id,
            "Some great new idea!",
            Some(acme::BOB),
        )
    })
}

/// Returns a document with a group for each bug.
fn document(account_id: &str, bugs: impl Iterator<Item = i64>) -> TrackerDocument {
    let group = |id: i64| {
        let links = json!([{"account_id": account_id, "work_item_id": id}]);
        json!({"short_id": format!("WEB-{id}"), "title": "Some great new idea!", "links": links})
    };
    let groups: Vec<Value> = bugs.map(group).collect();
    let users = MEMBERS.map(|email| json!({"name": email, "emails": [email]}));
    let inbound =
        json!({"assignee_inbound": true, "assignee_outbound": false, "status_inbound": false});
    let document = json!({
        "users": users,
        "integrations": [{"account_id": account_id, "account_name": acme::ACCOUNT, "hook_secrets": [acme::HOOK_SECRET]}],
        "organizations": [{
            "slug": "acme", "name": "Acme",
            "identities": [{"name": "bot", "access_token": acme::TOKEN, "expires_at": "2099-01-01T00:00:00Z"}],
            "installations": [{"account_id": account_id, "identity": "bot", "settings": inbound}],
            "projects": [{"slug": "web", "name": "Web", "members": MEMBERS, "groups": groups}]
        }]
    });
    serde_json::from_value(document).expect("a tracker document")
}

/// Returns the e-mail address of each group's assignee.
async fn assignees(world: &TestWorld) -> BTreeMap<String, String> {
    const SQL: &str = "
        SELECT g.short_id, e.email FROM issue_groups g LEFT JOIN group_assignees a ON a.group_id = g.id
        LEFT JOIN user_emails e ON e.user_id = a.user_id";
    world
        .database
        .rows(SQL)
        .await
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect()
}

/// Runs a job to its end; returns the output of a stage.
async fn output(world: &TestWorld, message: &Value, stage: &str) -> Value {
    world.publish_job(message).await;
    let key = message["dedupe_key"].as_str().unwrap();
    let id = world
        .wait_job_state(key, JobState::Succeeded, SOON)
        .await
        .id;
    let view = world.job_view(id).await;
    view.checkpoints
        .into_iter()
        .find(|checkpoint| checkpoint.stage == stage)
        .expect("the stage has run")
        .output
}

#[tokio::test]
async fn every_form_of_an_assignee_is_assigned_or_reported_as_unresolved() {
    let forms: BTreeMap<i64, (Value, End)> = (101..).zip(forms()).collect();
    let world = TestWorld::new().await;
    let simulator = &world.simulator().await.client;
    let mut state = providers(forms.keys().copied());
    simulator.load_state(&state).await.unwrap();
    world
        .import(&document(&acme::account_id(), forms.keys().copied()))
        .await;
    let _worker = world.worker(&WorkerOptions::default());
    let search = |key: &str| {
        let mut message = acme::job(key, &Value::Null);
        message["events"] = json!([]);
        message["search"] = json!({"text": "great idea", "project": PROJECT, "work_item_types": ["Bug"], "states": ["New"]});
        message
    };
    output(&world, &search("before"), "sync_assignees").await;
    assert!(
        assignees(&world)
            .await
            .values()
            .all(|email| email == acme::BOB),
        "every group is assigned to Bob first"
    );

    for (id, (form, _)) in &forms {
        let item = state
            .work_items
            .get_mut(&work_item_key(acme::ACCOUNT, *id))
            .unwrap();
        let changed = item.current().changed_date + time::Duration::HOUR;
        let next = Revision {
            rev: 2,
            assigned_to: None,
            changed_date: changed,
            ..item.current().clone()
        };
        item.revisions.push(next);
        item.assigned_to_as_is = Some(form.clone()).filter(|form| !form.is_null());
    }
    simulator.load_state(&state).await.unwrap();
    let plan = output(&world, &search("after"), "sync_assignees").await;
    let links = plan["links"].as_array().unwrap();
    assert_eq!(links.len(), forms.len());
    let assignees = assignees(&world).await;
    for link in links {
        let id = link["work_item_id"].as_i64().unwrap();
        let ((form, end), is) = (&forms[&id], &assignees[&format!("WEB-{id}")]);
        let why = link["assignee"]["unresolved"].as_str();
        match end {
            End::To(email) => assert!(is == email && why.is_none(), "{form}: {is}, {link}"),
            End::Nobody => assert!(is == "-" && why.is_none(), "{form}: {is}, {link}"),
            End::Unresolved(says) => {
                assert!(
                    is == acme::BOB && why.is_some_and(|why| why.contains(says)),
                    "{form}: {is}, {link}"
                );
            }
        }
    }
    Checks::default().hold(&world).await;
}

/// The documented sample of `workitem.updated`, shortened
/// (<https://learn.microsoft.com/azure/devops/service-hooks/events#work-item-updated>): the work
/// item is 0, the number of the resource is the update's, the assignee is a bare name and there is
/// no base address anywhere.
const SAMPLE: &str = r##"{
  "id": "27646e0e-b520-4d2b-9411-bba7524947cd",
  "eventType": "workitem.updated",
  "publisherId": "tfs",
  "scope": "all",
  "message": { "text": "Bug #5 (Some great new idea!) updated by Jamal Hartnett.\r\n(http://dev.azure.com/fabrikam-fiber-inc/web/wi.aspx?pcguid=74e918bf-3376-436d-bd20-8e8c1287f465&id=5)" },
  "resource": {
    "id": 2,
    "workItemId": 0,
    "rev": 2,
    "revisedBy": null,
    "revisedDate": "0001-01-01T00:00:00",
    "fields": {
      "System.Rev": { "oldValue": "1", "newValue": "2" },
      "System.RevisedDate": { "oldValue": "2014-07-15T17:42:44.663Z", "newValue": "9999-01-01T00:00:00Z" },
      "System.State": { "oldValue": "New", "newValue": "Approved" },
      "System.AssignedTo": { "newValue": "Jamal Hartnet" },
      "System.ChangedDate": { "oldValue": "2014-07-15T16:48:44.663Z", "newValue": "2014-07-15T17:42:44.663Z" }
    },
    "_links": { "parent": { "href": "http://dev.azure.com/fabrikam-fiber-inc/DefaultCollection/_apis/wit/workItems/5" } },
    "revision": {
      "id": 5,
      "rev": 2,
      "fields": { "System.WorkItemType": "Bug", "System.State": "New", "System.CreatedBy": "Jamal Hartnett" },
      "url": "http://dev.azure.com/fabrikam-fiber-inc/DefaultCollection/_apis/wit/workItems/5/revisions/2"
    }
  },
  "resourceVersion": "1.0",
  "resourceContainers": {
    "collection": { "id": "c12d0eb8-e382-443b-9f9c-c52cba5014c2" },
    "account": { "id": "f844ec47-a9db-4511-8281-8b63f4eaf94e" },
    "project": { "id": "be9b3917-87e6-42a4-a549-2bc06a7a878f" }
  },
  "createdDate": "2016-09-19T13:03:30.6438544Z"
}"##;

#[tokio::test]
async fn the_vendor_s_sample_event_resolves_to_its_work_item() {
    let sample: Value = serde_json::from_str(SAMPLE).unwrap();
    let account_id = sample["resourceContainers"]["account"]["id"]
        .as_str()
        .unwrap();
    let world = TestWorld::new().await;
    let mut state = providers([2, 5].into_iter());
    state.accounts.get_mut(acme::ACCOUNT).unwrap().id = account_id.parse().unwrap();
    world
        .simulator()
        .await
        .client
        .load_state(&state)
        .await
        .unwrap();
    world
        .import(&document(account_id, [2, 5].into_iter()))
        .await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut message = acme::job("sample", &sample);
    message["account"] = json!(account_id);
    let handled = output(&world, &message, "handle_events").await;
    let accepted = json!([{"event_id": sample["id"], "work_item_id": 5, "rev": 2}]);
    assert_eq!(handled, json!({"accepted": accepted, "ignored": []}));
    // The assignee in the event is only a hint; the value in Azure DevOps counts.
    let assignees = assignees(&world).await;
    assert_eq!(
        (assignees["WEB-5"].as_str(), assignees["WEB-2"].as_str()),
        (acme::BOB, "-")
    );
    Checks::default().hold(&world).await;
}
