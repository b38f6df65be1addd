use reqwest::Method;
use serde_json::{Value, json};

use super::{Bench, furnished, json_of, status_of};
use crate::devkit::simulator::admin::{Change, TokenChange};
use crate::devkit::simulator::state::{AssigneeFormat, Options, RevMismatch, State};

const ME: &str = "/_apis/profile/profiles/me";
const BATCH: &str = "/contoso/_apis/wit/workitemsbatch";
const SEARCH: &str = "/contoso/Fabrikam%20Fiber/_apis/search/workitemsearchresults";

#[tokio::test]
async fn a_token_that_expired_is_refused_or_shown_the_sign_in_page() {
    let bench = Bench::furnished().await;
    let (status, me) = json_of(bench.azure(Method::GET, ME)).await;
    assert_eq!(
        (status, &me["emailAddress"]),
        (200, &json!("jane@contoso.example"))
    );
    let accounts = bench
        .azure(Method::GET, "/_apis/accounts")
        .query(&[("memberId", me["id"].as_str().unwrap())]);
    assert_eq!(
        json_of(accounts).await.1["value"][0]["accountName"],
        "contoso"
    );

    let (status, refused) = json_of(bench.azure_as("nobody's", Method::GET, ME)).await;
    assert_eq!(
        (status, &refused["message"]),
        (
            401,
            &json!("TF400813: The user '' is not authorized to access this resource.")
        )
    );
    let mut change = TokenChange {
        token: "jane-token".into(),
        expired: Some(true),
        ..TokenChange::default()
    };
    bench.client.token(&change).await.unwrap();
    assert_eq!(status_of(bench.azure(Method::GET, ME)).await, 401);
    change.sign_in_page = Some(true);
    bench.client.token(&change).await.unwrap();
    let page = bench.azure(Method::GET, ME).send().await.unwrap();
    assert_eq!(page.status().as_u16(), 203);
    assert!(page.text().await.unwrap().contains("Sign In"));
    change = TokenChange {
        expired: Some(false),
        sign_in_page: Some(false),
        ..change
    };
    bench.client.token(&change).await.unwrap();
    assert_eq!(status_of(bench.azure(Method::GET, ME)).await, 200);
}

#[tokio::test]
async fn the_version_is_required_and_the_graph_is_a_preview() {
    let bench = Bench::furnished().await;
    let get = |path: &str| {
        bench
            .http
            .get(format!("{}{path}", bench.client.url()))
            .bearer_auth("jane-token")
    };
    assert_eq!(status_of(get(ME)).await, 400);
    assert_eq!(
        status_of(get("/_apis/profile/profiles/me?api-version=7.1")).await,
        200
    );
    assert_eq!(
        status_of(get("/contoso/_apis/graph/users?api-version=7.1")).await,
        400
    );
    assert_eq!(
        status_of(get("/contoso/_apis/graph/users?api-version=7.1-preview.1")).await,
        200
    );
    assert_eq!(
        status_of(get("/fabrikam/_apis/graph/users?api-version=7.1-preview.1")).await,
        404
    );
}

#[tokio::test]
async fn a_patch_makes_a_revision_only_where_the_tested_one_is_present() {
    let bench = Bench::furnished().await;
    let (status, item) = json_of(bench.patch(1, "Odon@contoso.example")).await;
    assert_eq!((status, &item["rev"]), (200, &json!(2)));
    assert_eq!(
        item["fields"]["System.AssignedTo"]["displayName"],
        "Ödön <von> Horváth"
    );
    assert_eq!(
        item["fields"]["System.ChangedBy"]["uniqueName"],
        "jane@contoso.example"
    );
    let entry = bench.last_entry();
    assert_eq!(entry.key.as_deref(), Some("work_item:contoso:17@1"));
    assert_eq!(
        (entry.effect, &entry.detail["rev_after"]),
        (true, &json!(2))
    );

    for (mismatch, expected) in [
        (RevMismatch::PreconditionFailed, 412),
        (RevMismatch::BadRequest, 400),
        (RevMismatch::Conflict, 409),
    ] {
        bench
            .client
            .options(&Options {
                rev_mismatch: mismatch,
                ..Options::default()
            })
            .await
            .unwrap();
        let (status, refused) = json_of(bench.patch(1, "jane@contoso.example")).await;
        assert_eq!(status, expected);
        assert!(
            refused["message"].as_str().unwrap().starts_with("VS403351"),
            "{refused}"
        );
        assert!(!bench.last_entry().effect);
    }
    let assignees = bench.client.assignees().await.unwrap();
    assert_eq!(
        assignees["contoso:17"].as_deref(),
        Some("odon@contoso.example")
    );

    assert_eq!(json_of(bench.patch(2, "")).await.1["rev"], 3);
    assert_eq!(bench.client.assignees().await.unwrap()["contoso:17"], None);
    let events = bench.client.events(1).await.unwrap();
    assert_eq!(events.len(), 1, "one event for each of the two revisions");
    assert!(
        events[0].body["resource"]["fields"]["System.AssignedTo"]
            .get("newValue")
            .is_none()
    );
}

#[tokio::test]
async fn a_patch_that_changes_nothing_makes_no_revision() {
    let bench = Bench::furnished().await;
    assert_eq!(json_of(bench.patch(1, "")).await.1["rev"], 1);
    assert!(!bench.last_entry().effect);
    assert!(bench.client.events(0).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_patch_is_refused_for_its_content_type_or_an_unknown_identity() {
    let bench = Bench::furnished().await;
    let as_json = bench
        .azure(Method::PATCH, "/contoso/_apis/wit/workitems/17")
        .json(&json!([]));
    assert_eq!(status_of(as_json).await, 415);
    let (status, refused) = json_of(bench.patch(1, "stranger@example.com")).await;
    assert_eq!(status, 400);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("unknown identity"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_batch_omits_what_is_missing_only_if_asked_to_and_takes_200_ids() {
    let bench = Bench::furnished().await;
    let post = |body: Value| bench.azure(Method::POST, BATCH).json(&body);
    let fields = ["System.AssignedTo", "System.State"];
    let (status, omitted) = json_of(post(
        json!({ "ids": [99, 17], "fields": fields, "errorPolicy": "omit" }),
    ))
    .await;
    assert_eq!((status, &omitted["value"][0]), (200, &Value::Null));
    assert_eq!(
        omitted["value"][1]["fields"],
        json!({ "System.State": "New" }),
        "nobody is assigned"
    );
    assert_eq!(status_of(post(json!({ "ids": [99, 17] }))).await, 404);
    let many =
        |count: i64| json!({ "ids": (1..=count).collect::<Vec<_>>(), "errorPolicy": "omit" });
    assert_eq!(status_of(post(many(200))).await, 200);
    assert_eq!(status_of(post(many(201))).await, 400);
    bench.client.delete_work_item("contoso", 17).await.unwrap();
    assert_eq!(
        status_of(bench.azure(Method::GET, "/contoso/_apis/wit/workitems/17")).await,
        404
    );
    assert!(bench.client.assignees().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_search_is_paged_and_filtered_and_ids_are_text() {
    let state = (1..=5).fold(furnished(), |state, id| {
        state.bug("contoso", "Fabrikam Fiber", id, "Fire drill", None)
    });
    let bench = Bench::start(state).await;
    let search = |body: Value| bench.azure(Method::POST, SEARCH).json(&body);
    let page = |skip: usize| {
        search(json!({ "searchText": "FIRE", "$skip": skip, "$top": 4, "filters": null }))
    };
    let ids = |body: &Value| -> Vec<Value> {
        body["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["fields"]["system.id"].clone())
            .collect()
    };
    let (_, first) = json_of(page(0)).await;
    assert_eq!(
        (&first["count"], &first["infoCode"]),
        (&json!(6), &json!(0))
    );
    assert_eq!(ids(&first), ["1", "2", "3", "4"]);
    assert_eq!(ids(&json_of(page(4)).await.1), ["5", "17"]);
    let closed =
        json!({ "searchText": "fire", "$top": 9, "filters": { "System.State": ["Closed"] } });
    assert_eq!(json_of(search(closed)).await.1["count"], 0);
    bench
        .client
        .options(&Options {
            search_info_code: 1,
            ..Options::default()
        })
        .await
        .unwrap();
    let (status, indexing) = json_of(page(0)).await;
    assert_eq!(
        (status, &indexing["infoCode"], ids(&indexing).len()),
        (200, &json!(1), 0)
    );
}

#[tokio::test]
async fn the_graph_is_paged_by_continuation_token() {
    let mut state = furnished();
    state.options.graph_page_size = 1;
    let bench = Bench::start(state).await;
    let get = || bench.azure(Method::GET, "/contoso/_apis/graph/users");
    let first = get().send().await.unwrap();
    let token = first.headers()["X-MS-ContinuationToken"]
        .to_str()
        .unwrap()
        .to_owned();
    let first: Value = first.json().await.unwrap();
    assert_eq!(first["value"][0]["principalName"], "jane@contoso.example");
    let second = get()
        .query(&[("continuationToken", token)])
        .send()
        .await
        .unwrap();
    assert!(
        second.headers().get("X-MS-ContinuationToken").is_none(),
        "the last page has no token"
    );
    let second: Value = second.json().await.unwrap();
    assert_eq!(second["value"][0]["mailAddress"], "odon@contoso.example");
    assert_eq!(
        status_of(get().query(&[("continuationToken", "!")])).await,
        400
    );
}

#[tokio::test]
async fn the_states_of_a_type_have_categories() {
    let bench = Bench::furnished().await;
    let path = "/contoso/Fabrikam%20Fiber/_apis/wit/workitemtypes/Bug/states";
    let (_, states) = json_of(bench.azure(Method::GET, path)).await;
    assert_eq!(
        states["value"][3],
        json!({ "name": "Closed", "color": "b2b2b2", "category": "Completed" })
    );
    assert_eq!(
        status_of(bench.azure(Method::GET, &path.replace("Bug", "Epic"))).await,
        404
    );
}

/// Members of the documented sample that consumers may rely on.
const DOCUMENTED: &[&str] = &[
    "/id",
    "/eventType",
    "/publisherId",
    "/scope",
    "/message/text",
    "/detailedMessage/text",
    "/resource/id",
    "/resource/workItemId",
    "/resource/rev",
    "/resource/revisedBy",
    "/resource/revisedDate",
    "/resource/fields/System.Rev/oldValue",
    "/resource/fields/System.AuthorizedDate/newValue",
    "/resource/fields/System.RevisedDate/newValue",
    "/resource/fields/System.State/oldValue",
    "/resource/fields/System.Reason/newValue",
    "/resource/fields/System.AssignedTo/newValue",
    "/resource/fields/System.ChangedDate/oldValue",
    "/resource/fields/System.Watermark/newValue",
    "/resource/_links/self/href",
    "/resource/_links/parent/href",
    "/resource/_links/workItemUpdates/href",
    "/resource/url",
    "/resource/revision/id",
    "/resource/revision/rev",
    "/resource/revision/fields/System.TeamProject",
    "/resource/revision/fields/System.ChangedDate",
    "/resource/revision/url",
    "/resourceVersion",
    "/resourceContainers/collection/id",
    "/resourceContainers/account/id",
    "/resourceContainers/project/id",
    "/createdDate",
];

fn change(assigned_to: Option<&str>, format: AssigneeFormat) -> Change {
    let assigned_to = Some(assigned_to.map(str::to_owned));
    Change {
        org: "contoso".into(),
        work_item: 17,
        assigned_to,
        format: Some(format),
        ..Change::default()
    }
}

#[tokio::test]
async fn a_change_by_a_person_gives_an_event_of_the_documented_shape() {
    let bench = Bench::furnished().await;
    let by = Some("odon@contoso.example".to_owned());
    let assign = Change {
        state: Some("Active".into()),
        by,
        ..change(Some("jane@contoso.example"), AssigneeFormat::Identity)
    };
    let event = bench.client.change(&assign).await.unwrap();
    for pointer in DOCUMENTED {
        assert!(
            event.pointer(pointer).is_some(),
            "{pointer} is missing in {event:#}"
        );
    }
    assert_eq!(event["eventType"], "workitem.updated");
    assert_eq!(event["resource"]["workItemId"], 17);
    assert_eq!(event["resource"]["id"], 2, "the update's number");
    assert_eq!(
        event["resource"]["fields"]["System.State"],
        json!({ "oldValue": "New", "newValue": "Active" })
    );
    assert!(
        event["resource"]["fields"]["System.AssignedTo"]
            .get("oldValue")
            .is_none(),
        "nobody was assigned"
    );
    assert_eq!(bench.client.events(0).await.unwrap()[0].body, event);
}

#[tokio::test]
async fn an_event_names_the_assignee_in_each_format_met_in_the_wild() {
    let bench = Bench::furnished().await;
    let odon = Some("odon@contoso.example");
    let formats = [
        (
            AssigneeFormat::NameAndMail,
            json!("Ödön <von> Horváth <odon@contoso.example>"),
        ),
        (AssigneeFormat::DisplayName, json!("Ödön <von> Horváth")),
        (
            AssigneeFormat::NameAndLogin,
            json!("Ödön <von> Horváth <FABRIKAM\\odon>"),
        ),
    ];
    for (format, expected) in formats {
        let assigned = bench.client.change(&change(odon, format)).await.unwrap();
        assert_eq!(
            assigned["resource"]["fields"]["System.AssignedTo"],
            json!({ "newValue": expected })
        );
        let unassigned = bench.client.change(&change(None, format)).await.unwrap();
        assert_eq!(
            unassigned["resource"]["fields"]["System.AssignedTo"],
            json!({ "oldValue": expected })
        );
    }
    let identity = bench
        .client
        .change(&change(odon, AssigneeFormat::Identity))
        .await
        .unwrap();
    let identity = &identity["resource"]["fields"]["System.AssignedTo"]["newValue"];
    assert_eq!(identity["uniqueName"], "odon@contoso.example");
    assert!(identity["descriptor"].is_string() && identity["id"].is_string());
}

#[tokio::test]
async fn a_revision_is_always_later_than_the_one_before() {
    let bench = Bench::furnished().await;
    let untouched = Change {
        org: "contoso".into(),
        work_item: 17,
        ..Change::default()
    };
    for _ in 0..20 {
        bench.client.change(&untouched).await.unwrap();
    }
    let state = bench.client.state().await.unwrap();
    let revisions = &state.work_items["contoso:17"].revisions;
    assert_eq!(revisions.len(), 21);
    assert!(
        revisions.is_sorted_by(
            |one, next| one.changed_date < next.changed_date && one.rev + 1 == next.rev
        )
    );
}

#[tokio::test]
async fn a_document_is_merged_or_refused_with_what_would_be_right() {
    let bench = Bench::furnished().await;
    bench
        .client
        .merge_state(&State::new().user("Max", "max@contoso.example"))
        .await
        .unwrap();
    assert_eq!(bench.client.state().await.unwrap().users.len(), 3);
    let homeless = State::new().bug("nowhere", "P", 1, "T", None);
    let error = bench
        .client
        .load_state(&homeless)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no account"), "{error}");
    let unknown = Change {
        org: "contoso".into(),
        work_item: 99,
        ..Change::default()
    };
    assert!(bench.client.change(&unknown).await.is_err());
}
