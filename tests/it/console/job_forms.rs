//! The forms of a job's page, each from the page over its confirmation to the changed job.

use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::{JobRow, Role};
use reqwest::header::LOCATION;
use serde_json::{Value, json};

use crate::support::{ConsoleProcess, TestWorld};

/// A person in a browser, and a job.
struct Person<'a> {
    world: &'a TestWorld,
    console: &'a ConsoleProcess,
    cookie: String,
}

impl Person<'_> {
    /// Follows a link of the job's page to a confirmation, and submits its form. Returns the job.
    async fn act(&self, id: JobId, link: &str, post: &str, fields: &[(&str, &str)]) -> JobRow {
        let confirm = self.page(id, &format!("/confirm/{link}")).await;
        let mut all = vec![("reason", "it is the third time")];
        all.extend(fields);
        let action = format!("/jobs/{id}/{post}");
        let answer = self
            .console
            .submit(&self.cookie, &confirm, &action, &all)
            .await;
        assert_eq!(answer.status(), 303, "{link}: {:?}", answer.text().await);
        assert_eq!(answer.headers()[LOCATION], format!("/jobs/{id}").as_str());
        self.row(id).await
    }

    async fn page(&self, id: JobId, rest: &str) -> String {
        self.console
            .page(&self.cookie, &format!("/jobs/{id}{rest}"))
            .await
    }

    async fn row(&self, id: JobId) -> JobRow {
        self.world.store().job(id).await.unwrap().unwrap()
    }
}

/// Stores a job that no worker touches: none runs.
async fn stored(world: &TestWorld, state: &str, stage: &str) -> JobId {
    let id = JobId::fresh();
    let request = json!({"schema": 1, "source": "tests", "dedupe_key": id, "organization": "acme", "notify": [],
        "events": [], "search": {"text": "old"}, "not_before": null, "deadline": null});
    world
        .database
        .rows(&format!(
            "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, error_code)
                VALUES ('{id}', 'dispatch', 'tests', '{id}', 'acme', 1, '{request}', '{state}', '{stage}',
                    CASE WHEN '{state}' = 'parked' THEN 'unknown_outcome' END);
             INSERT INTO effects (job_id, key, generation, stage, target, class, state, detail, epoch, deadline_at)
                VALUES ('{id}', 'over', 1, '{stage}', 'the channel', 'K3', 'unknown', '{{}}', 1, now())"
        ))
        .await;
    id
}

#[tokio::test]
async fn every_form_of_the_page_leads_to_the_changed_job() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let admin = world.token(Role::Admin, "olga", &[]).await;
    let person = Person {
        world: &world,
        console: &console,
        cookie: console.sign_in(&admin).await,
    };

    let id = stored(&world, "ready", "check_account").await;
    let parked = person.act(id, "park", "park", &[]).await;
    assert_eq!(parked.state, JobState::Parked);
    let page = person.page(id, "").await;
    assert!(
        page.contains("it is parked already"),
        "why it is not possible: {page}"
    );
    let ready = person.act(id, "retry", "retry", &[]).await;
    assert_eq!(ready.state, JobState::Ready);

    let confirm = person.page(id, "/confirm/rerun?stage=check_account").await;
    assert!(
        confirm.contains("K3") && confirm.contains("may be duplicates"),
        "{confirm}"
    );
    let again = person
        .act(id, "rerun?stage=check_account", "rerun", &[])
        .await;
    assert_eq!((again.generation, again.state), (2, JobState::Ready));
    assert!(person.page(id, "/confirm/rerun").await.contains("<select"));

    let organization = world
        .database
        .one("SELECT id FROM organizations WHERE slug = 'acme'")
        .await;
    let output = format!(
        "{{\"organization_id\": {organization}, \"account\": {{\"missing\": \"no_account\"}}, \"acting_as\": \"installation\"}}"
    );
    let skipped = person.act(id, "skip", "skip", &[("output", &output)]).await;
    assert_ne!(skipped.stage, "check_account");
    marked(&world, &person).await;
    edited(&world, &person).await;
    let actions = "SELECT action FROM audit_log WHERE job_id IS NOT NULL ORDER BY id";
    assert_eq!(
        world.database.rows(actions).await.concat(),
        [
            "park",
            "retry",
            "rerun",
            "skip",
            "effect.mark",
            "unmask",
            "input.edit",
            "input.restore"
        ]
    );
}

async fn marked(world: &TestWorld, person: &Person<'_>) {
    let id = stored(world, "parked", "send_follow_ups").await;
    let page = person.page(id, "").await;
    assert!(page.contains("is a duplicate if it happened"), "{page}");
    let link = format!("/jobs/{id}/confirm/effect?effect=over&amp;done=false");
    assert!(page.contains(&link), "{page}");
    let row = person
        .act(id, "effect?effect=over&done=false", "effect", &[])
        .await;
    assert_eq!(row.state, JobState::Ready, "it is due");
    let state = format!("SELECT state FROM effects WHERE job_id = '{id}'");
    assert_eq!(world.database.one(&state).await, "failed");
}

/// Edits the input by way of the page that shows it in full, and restores the first one.
async fn edited(world: &TestWorld, person: &Person<'_>) {
    let id = stored(world, "ready", "check_account").await;
    let (console, cookie) = (person.console, &person.cookie);
    let confirm = person.page(id, "/confirm/edit").await;
    let reason = [("reason", "the text is wrong")];
    let path = format!("/jobs/{id}/unmask");
    let shown = console.submit(cookie, &confirm, &path, &reason).await;
    let shown = shown.text().await.unwrap();
    let input = json!({"schema": 1, "source": "tests", "dedupe_key": id, "organization": "acme", "notify": [],
        "search": {"text": "new <b>"}})
    .to_string();
    let path = format!("/jobs/{id}/input/preview");
    let refused = console
        .submit(cookie, &shown, &path, &[("input", "{\"schema\": 1}")])
        .await;
    assert_eq!(refused.status(), 422);
    let preview = console
        .submit(cookie, &shown, &path, &[("input", &input)])
        .await;
    assert_eq!(preview.status(), 200);
    let preview = preview.text().await.unwrap();
    assert!(
        preview.contains("search.text") && preview.contains("new &lt;b&gt;"),
        "{preview}"
    );
    assert!(
        !preview.contains("&quot;old&quot;</code>"),
        "the replaced value is masked: {preview}"
    );
    let path = format!("/jobs/{id}/input");
    let replaced = console.submit(cookie, &preview, &path, &reason).await;
    assert_eq!(replaced.status(), 303);
    assert_eq!(person.row(id).await.generation, 2);

    let page = person.page(id, "").await;
    assert!(
        page.contains("search.text"),
        "what the edit changed: {page}"
    );
    assert!(page.contains(&format!("/jobs/{id}/confirm/restore?version=1")));
    let confirm = person.page(id, "/confirm/restore?version=1").await;
    assert!(confirm.contains("search.text"), "{confirm}");
    let restored = person.act(id, "restore?version=1", "restore", &[]).await;
    assert_eq!(restored.generation, 3);
    let text = format!("SELECT payload -> 'search' ->> 'text' FROM jobs WHERE id = '{id}'");
    assert_eq!(world.database.one(&text).await, "old");
}

#[tokio::test]
async fn who_acts_on_a_job_that_has_moved_on_learns_what_has_happened_and_roles_see_their_forms() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let admin = world.token(Role::Admin, "olga", &[]).await;
    let operator = world.token(Role::Operator, "ann", &[]).await;
    let ann = console.sign_in(&operator).await;
    let id = stored(&world, "ready", "check_account").await;
    let path = format!("/jobs/{id}");
    let confirm = console.page(&ann, &format!("{path}/confirm/cancel")).await;
    let parked = console
        .post(
            &admin,
            &format!("{path}/park"),
            &json!({"reason": "<i>wait</i>"}),
        )
        .await;
    assert_eq!(parked.status(), 200);
    let reason = [("reason", "not needed")];
    let late = console
        .submit(&ann, &confirm, &format!("{path}/cancel"), &reason)
        .await;
    assert_eq!(late.status(), 412);
    let late = late.text().await.unwrap();
    for part in [
        "Now it is",
        "parked",
        "olga",
        "&lt;i&gt;wait&lt;/i&gt;",
        &path,
    ] {
        assert!(late.contains(part), "{part}: {late}");
    }
    let request = console.request(reqwest::Method::POST, &format!("/api/v1{path}/cancel"));
    let request = request.bearer_auth(&operator).header("if-match", "\"1.0\"");
    let late = request.json(&json!({"reason": "x"})).send().await.unwrap();
    assert_eq!(late.status(), 412);
    let late: Value = late.json().await.unwrap();
    assert_eq!(late["now"]["last_actions"][0]["who"], "olga", "{late}");
    assert_eq!(late["now"]["state"], "parked");
    assert_eq!(
        world.store().job(id).await.unwrap().unwrap().state,
        JobState::Parked
    );

    let page = console.page(&ann, &path).await;
    assert!(
        page.contains("/confirm/retry") && !page.contains("/confirm/skip"),
        "{page}"
    );
    assert!(
        page.contains("Your role, operator, does not permit"),
        "{page}"
    );
    let forbidden = console.request(reqwest::Method::GET, &format!("{path}/confirm/unmask"));
    let forbidden = forbidden.bearer_auth(&operator).send().await.unwrap();
    assert_eq!(forbidden.status(), 403);

    linked(&world, &console, &operator, id).await;
}

/// A failure group and a campaign that holds the job are linked, and texts for other tools shown.
async fn linked(world: &TestWorld, console: &ConsoleProcess, operator: &str, id: JobId) {
    let group = format!(
        "UPDATE jobs SET fingerprint = 'f-9', traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' WHERE id = '{id}'"
    );
    world.database.rows(&group).await;
    let campaign = json!({"action": "retry", "ids": [id], "duplicates": 1, "reason": "test"});
    let started = console.post(operator, "/campaigns", &campaign).await;
    assert_eq!(started.status(), 200);
    let cookie = console.sign_in(operator).await;
    let page = console.page(&cookie, &format!("/jobs/{id}")).await;
    for part in [
        "/groups/f-9",
        "/campaigns/1",
        "0af7651916cd43dd8448eb211c80319c",
        &format!("dispatch jobs show {id}"),
        &format!("/api/v1/jobs/{id}"),
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}
