//! Tests of calls to Azure DevOps against a scripted server.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json as value};
use time::macros::datetime;

use super::*;
use crate::fault::{Certainty, Class, Fault};
use crate::providers::governor::alone;
use crate::providers::http::BATCH_BODY_BYTES;
use crate::providers::scripted::{Received, Reply, Scripted, client, json, reply, soon};

static TOKEN: LazyLock<SecretString> = LazyLock::new(|| "canary-token".into());

fn caller() -> Caller<'static> {
    Caller {
        organization: "acme",
        token: &TOKEN,
        lane: CallLane::Dispatch,
    }
}

fn azure(replies: Vec<Reply>) -> (AzureDevOps, Scripted) {
    let server = Scripted::start(replies);
    let url = || server.url.clone();
    let hosts = Hosts {
        profile: url(),
        accounts: None,
        graph: url(),
        search: url(),
        core: url(),
    };
    (
        AzureDevOps::new(client(), alone(), &hosts, Duration::from_secs(10)).unwrap(),
        server,
    )
}

/// Runs a search to its end.
async fn search(
    azure: &AzureDevOps,
    query: &SearchQuery,
    limit: usize,
) -> Result<Vec<i64>, AzureDevOpsFault> {
    let mut search = WorkItemSearch::default();
    while let Some(page) = search.next("fabrikam", query, limit) {
        let page = page.send(azure, caller()).await?;
        search.take(page);
    }
    Ok(search.found(limit))
}

/// Searches the users to the end.
async fn find_user(azure: &AzureDevOps, emails: &[&str]) -> Result<FoundUser, AzureDevOpsFault> {
    let emails: Vec<String> = emails.iter().map(|&email| email.to_owned()).collect();
    let mut search = UsersSearch::new(&emails).expect("an address");
    while let Some(page) = search.next("fabrikam")? {
        let page = page.send(azure, caller()).await?;
        search.take(page);
    }
    Ok(search.found())
}

async fn work_items(azure: &AzureDevOps, ids: &[i64]) -> Result<WorkItems, AzureDevOpsFault> {
    WorkItemsBatch {
        account: "fabrikam",
        ids,
    }
    .send(azure, caller())
    .await
}

async fn states(
    azure: &AzureDevOps,
    project: &str,
    work_item_type: &str,
) -> Result<BTreeMap<String, StateCategory>, AzureDevOpsFault> {
    StateCategories {
        account: "fabrikam",
        project,
        work_item_type,
    }
    .send(azure, caller())
    .await
}

async fn assign(
    azure: &AzureDevOps,
    rev: i64,
    unique_name: Option<&str>,
) -> Result<i64, AzureDevOpsFault> {
    Assign {
        account: "fabrikam",
        id: 7,
        rev,
        unique_name,
        deadline: soon(),
    }
    .send(azure, caller())
    .await
}

fn paths(server: &Scripted) -> Vec<String> {
    server
        .received()
        .iter()
        .map(|Received { target, .. }| target.split('?').next().unwrap().to_owned())
        .collect()
}

fn targets(server: &Scripted) -> Vec<String> {
    server
        .received()
        .iter()
        .map(|Received { method, target, .. }| format!("{method} {target}"))
        .collect()
}

/// Starts one of the vendor's hosts, which answers every request with an empty result.
fn host() -> Scripted {
    let nothing = value!({"id": "m-1", "rev": 1, "value": [], "results": []});
    Scripted::start((0..10).map(|_| json(&nothing)).collect())
}

fn hits(ids: impl IntoIterator<Item = i64>, count: usize) -> Reply {
    let results: Vec<Value> = ids
        .into_iter()
        .map(|id| value!({"fields": {"system.id": id.to_string()}}))
        .collect();
    json(&value!({"count": count, "infoCode": 0, "results": results}))
}

fn item(id: i64) -> Value {
    value!({"id": id, "rev": 3, "fields": {
        "System.TeamProject": "Fabrikam", "System.WorkItemType": "Bug", "System.State": "Active",
        "System.AssignedTo": {"displayName": "Some One", "uniqueName": "someone@example.com"},
        "System.ChangedBy": {"displayName": "Other", "uniqueName": "CORP\\other"},
        "System.ChangedDate": "2026-01-02T03:04:05.67Z"}})
}

#[tokio::test]
async fn the_profile_and_the_accounts_of_a_token_are_read() {
    let profile =
        value!({"id": "m-1", "displayName": "Some One", "emailAddress": "someone@example.com"});
    let account = value!({"accountId": "a-1", "accountName": "fabrikam"});
    let (azure, server) = azure(vec![
        json(&profile),
        json(&value!({"count": 1, "value": [account]})),
        json(&value!([account])),
    ]);
    let me = ProfileMe.send(&azure, caller()).await.unwrap();
    assert_eq!(
        (me.id.as_str(), me.email.as_deref()),
        ("m-1", Some("someone@example.com"))
    );
    let wrapped = Accounts { member_id: &me.id }
        .send(&azure, caller())
        .await
        .unwrap();
    assert_eq!(
        wrapped,
        [Account {
            id: "a-1".into(),
            name: "fabrikam".into()
        }]
    );
    assert_eq!(
        Accounts { member_id: &me.id }
            .send(&azure, caller())
            .await
            .unwrap(),
        wrapped
    );
    let accounts = "GET /_apis/accounts?memberId=m-1&api-version=7.1";
    assert_eq!(
        targets(&server),
        [
            "GET /_apis/profile/profiles/me?api-version=7.1",
            accounts,
            accounts
        ]
    );
    assert_eq!(
        server.received()[0].header("authorization"),
        Some("Bearer canary-token")
    );
}

#[tokio::test]
async fn each_call_reaches_the_host_of_its_area_and_accounts_are_with_the_profiles_unless_set() {
    for own_accounts in [true, false] {
        let [profile, accounts, graph, search_host, core] = [(); 5].map(|()| host());
        let hosts = Hosts {
            profile: profile.url.clone(),
            accounts: own_accounts.then(|| accounts.url.clone()),
            graph: graph.url.clone(),
            search: search_host.url.clone(),
            core: core.url.clone(),
        };
        let azure = AzureDevOps::new(client(), alone(), &hosts, Duration::from_secs(10)).unwrap();
        ProfileMe.send(&azure, caller()).await.unwrap();
        Accounts { member_id: "m-1" }
            .send(&azure, caller())
            .await
            .unwrap();
        find_user(&azure, &["x@example.com"]).await.unwrap();
        search(&azure, &SearchQuery::default(), 10).await.unwrap();
        work_items(&azure, &[1]).await.unwrap();
        states(&azure, "p", "Bug").await.unwrap();
        assign(&azure, 1, None).await.unwrap();
        let (me, of_me) = ("/_apis/profile/profiles/me", "/_apis/accounts");
        let expected = if own_accounts {
            (vec![me], vec![of_me])
        } else {
            (vec![me, of_me], Vec::new())
        };
        assert_eq!(paths(&profile), expected.0);
        assert_eq!(paths(&accounts), expected.1);
        assert_eq!(paths(&graph), ["/fabrikam/_apis/graph/users"]);
        assert_eq!(
            paths(&search_host),
            ["/fabrikam/_apis/search/workitemsearchresults"]
        );
        let batch = "/fabrikam/_apis/wit/workitemsbatch";
        let of_type = "/fabrikam/p/_apis/wit/workitemtypes/Bug/states";
        assert_eq!(
            paths(&core),
            [batch, of_type, "/fabrikam/_apis/wit/workitems/7"]
        );
    }
}

#[tokio::test]
async fn a_503_with_a_retry_after_of_zero_counts_as_a_failure_and_opens_the_circuit() {
    let (azure, server) = azure(
        (0..5)
            .map(|_| reply(503, "retry-after: 0\r\n", "ill"))
            .collect(),
    );
    for _ in 0..5 {
        let fault = ProfileMe.send(&azure, caller()).await.unwrap_err();
        assert_eq!(
            (fault.code(), fault.class()),
            (
                "azure_devops.server_error",
                Class::Transient { retry_after: None }
            )
        );
    }
    let held = ProfileMe.send(&azure, caller()).await.unwrap_err();
    assert_eq!(
        held.to_string(),
        "acme's Azure DevOps failed 5 times in a row and is held"
    );
    assert_eq!(server.received().len(), 5);
}

#[tokio::test]
async fn every_kind_of_sign_in_page_is_unauthorized() {
    for answer in [
        reply(401, "", ""),
        reply(203, "content-type: text/html; charset=utf-8\r\n", "<html>"),
        reply(200, "content-type: text/html; charset=utf-8\r\n", "<html>"),
        reply(302, "location: https://example.com/_signin\r\n", ""),
    ] {
        let fault = ProfileMe
            .send(&azure(vec![answer]).0, caller())
            .await
            .unwrap_err();
        assert!(matches!(fault, AzureDevOpsFault::Unauthorized(_)));
        let seen = (fault.code(), fault.class(), fault.certainty());
        assert_eq!(
            seen,
            (
                "azure_devops.unauthorized",
                Class::Permanent,
                Certainty::NotDone
            )
        );
    }
    let fault = ProfileMe
        .send(
            &azure(vec![reply(500, "content-type: text/html\r\n", "")]).0,
            caller(),
        )
        .await
        .unwrap_err();
    assert_eq!(fault.code(), "azure_devops.server_error");
}

#[tokio::test]
async fn a_search_is_paged_and_returns_each_work_item_once_in_order() {
    let (azure, server) = azure(vec![hits((1..=200).rev(), 202), hits([1, 300], 202)]);
    let query = SearchQuery {
        text: "x".into(),
        states: vec!["New".into()],
        ..SearchQuery::default()
    };
    let ids = search(&azure, &query, 1000).await.unwrap();
    assert_eq!(ids, (1..=200).rev().chain([300]).collect::<Vec<_>>());
    let bodies: Vec<Value> = server.received().iter().map(Received::json).collect();
    let page = |skip| {
        let filters = value!({"System.State": ["New"]});
        value!({"searchText": "x", "$skip": skip, "$top": 200, "filters": filters, "includeFacets": false})
    };
    assert_eq!(bodies, [page(0), page(200)]);
    assert_eq!(
        targets(&server)[0],
        "POST /fabrikam/_apis/search/workitemsearchresults?api-version=7.1"
    );
}

#[tokio::test]
async fn a_search_stops_at_its_limit_and_keeps_a_project_one_segment() {
    let (azure, server) = azure(vec![hits([5, 6, 7], 900)]);
    let query = SearchQuery {
        text: "x".into(),
        project: Some("Ä b/c".into()),
        ..SearchQuery::default()
    };
    assert_eq!(search(&azure, &query, 2).await.unwrap(), [5, 6]);
    assert_eq!(server.received()[0].json()["$top"], 2);
    assert!(
        targets(&server)[0].starts_with("POST /fabrikam/%C3%84%20b%2Fc/_apis/search/"),
        "{:?}",
        targets(&server)
    );
}

#[tokio::test]
async fn a_search_that_is_still_indexing_is_transient() {
    let (azure, _server) = azure(vec![json(
        &value!({"count": 0, "infoCode": 2, "results": []}),
    )]);
    let fault = search(&azure, &SearchQuery::default(), 10)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.class()),
        (
            "azure_devops.search_not_ready",
            Class::Transient { retry_after: None }
        )
    );
}

#[tokio::test]
async fn missing_work_items_are_omitted_and_unreadable_ones_are_returned_separately() {
    let mut stateless = item(3);
    stateless["fields"]["System.State"] = Value::Null;
    let first =
        json(&value!({"count": 5, "value": [item(1), null, item(2), stateless, {"rev": 1}]}));
    let (azure, server) = azure(vec![first]);
    let WorkItems { items, unreadable } = work_items(&azure, &[1, 2, 3, 4, 5]).await.unwrap();
    assert_eq!(
        unreadable.iter().map(|one| one.id).collect::<Vec<_>>(),
        [Some(3), None]
    );
    assert!(
        unreadable[0].why.contains("expected a string"),
        "{unreadable:?}"
    );
    assert_eq!(items.iter().map(|item| item.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(items[0].assigned_to.email(), Some("someone@example.com"));
    assert_eq!(items[0].changed_by.as_deref(), Some("CORP\\other"));
    assert_eq!(items[0].changed_date, datetime!(2026-01-02 03:04:05.67 UTC));
    let body = server.received()[0].json();
    assert_eq!(
        (&body["ids"], &body["errorPolicy"]),
        (&value!([1, 2, 3, 4, 5]), &value!("omit"))
    );
    assert_eq!(
        targets(&server)[0],
        "POST /fabrikam/_apis/wit/workitemsbatch?api-version=7.1"
    );
}

#[tokio::test]
async fn a_refusal_has_the_vendor_s_explanation() {
    let body = r#"{"typeKey": "WorkItemTypeNotFoundException", "message": "VS402323: type does not exist in project"}"#;
    let (azure, _server) = azure(vec![
        reply(404, "", body),
        reply(403, "", ""),
        reply(503, "", body),
    ]);
    let fault = states(&azure, "Old", "Bug").await.unwrap_err();
    let said = "WorkItemTypeNotFoundException: VS402323: type does not exist in project";
    let refused = fault.refused().map(|refused| refused.to_string());
    assert_eq!(
        (fault.code(), refused),
        ("azure_devops.not_found", Some(format!("404 {said}")))
    );
    assert_eq!(
        fault.to_string(),
        format!("azure_devops: answered 404: {said}")
    );
    let refused = states(&azure, "Old", "Bug").await.unwrap_err();
    assert_eq!(
        refused.refused().map(|refused| refused.status),
        Some(Some(403))
    );
    assert_eq!(
        states(&azure, "Old", "Bug").await.unwrap_err().refused(),
        None,
        "it is transient"
    );
}

#[tokio::test]
async fn a_401_has_the_vendor_s_explanation_and_a_sign_in_page_has_none() {
    let said = r#"{"typeKey": "UnauthorizedRequestException", "message": "TF400813: The user is not authorized"}"#;
    let page = reply(203, "content-type: text/html\r\n", "<html>Sign In</html>");
    let (azure, _server) = azure(vec![reply(401, "", said), page]);
    let expected = [
        "the access token is not accepted: answered 401: UnauthorizedRequestException: TF400813: The user is not authorized",
        "the access token is not accepted: answered 203 with a sign-in page",
    ];
    for expected in expected {
        assert_eq!(
            work_items(&azure, &[1]).await.unwrap_err().to_string(),
            format!("azure_devops: {expected}")
        );
    }
}

#[tokio::test]
async fn states_have_categories_and_a_new_category_is_other() {
    let names = [
        "Proposed",
        "InProgress",
        "Resolved",
        "Completed",
        "Removed",
        "Paused",
    ];
    let list: Vec<Value> = names
        .iter()
        .map(|name| value!({"name": name, "color": "b2b2b2", "category": name}))
        .collect();
    let (azure, server) = azure(vec![json(&value!({"count": 6, "value": list}))]);
    let categories = states(&azure, "My Project", "User Story").await.unwrap();
    let done: Vec<&str> = names
        .into_iter()
        .filter(|name| categories[*name].is_done())
        .collect();
    assert_eq!(done, ["Resolved", "Completed"]);
    assert_eq!(categories["Paused"], StateCategory::Other);
    let target =
        "GET /fabrikam/My%20Project/_apis/wit/workitemtypes/User%20Story/states?api-version=7.1";
    assert_eq!(targets(&server), [target]);
}

#[tokio::test]
async fn an_assignment_tests_the_revision_first() {
    let (azure, server) = azure(vec![
        json(&value!({"id": 7, "rev": 5})),
        json(&value!({"id": 7, "rev": 6})),
    ]);
    assert_eq!(
        assign(&azure, 4, Some("someone@example.com"))
            .await
            .unwrap(),
        5
    );
    assert_eq!(assign(&azure, 5, None).await.unwrap(), 6);
    let patch = |rev, name| value!([{"op": "test", "path": "/rev", "value": rev}, {"op": "add", "path": "/fields/System.AssignedTo", "value": name}]);
    let received = server.received();
    assert_eq!(received[0].json(), patch(4, "someone@example.com"));
    assert_eq!(received[1].json(), patch(5, ""));
    assert_eq!(
        received[0].header("content-type"),
        Some("application/json-patch+json")
    );
    assert_eq!(
        targets(&server)[0],
        "PATCH /fabrikam/_apis/wit/workitems/7?api-version=7.1"
    );
}

#[tokio::test]
async fn every_answer_about_a_changed_revision_is_a_conflict_and_no_other_is() {
    let moved = r#"{"message": "VS403351: Test Operation for path /rev failed"}"#;
    let overtaken = r#"{"typeKey": "WorkItemRevisionMismatchException", "message": "TF26071: changed by someone else"}"#;
    for answer in [
        reply(412, "", ""),
        reply(400, "", moved),
        reply(409, "", moved),
        reply(409, "", overtaken),
        reply(400, "", overtaken),
        reply(409, "", r#"{"message": "another conflict"}"#),
    ] {
        let fault = assign(&azure(vec![answer]).0, 4, None).await.unwrap_err();
        assert!(matches!(fault, AzureDevOpsFault::RevisionMoved(_)));
        assert_eq!(
            (fault.class(), fault.certainty()),
            (Class::Conflict, Certainty::NotDone)
        );
    }
    for (answer, code, certainty) in [
        (
            reply(400, "", "TF401320: Rule Error"),
            "azure_devops.refused",
            Certainty::NotDone,
        ),
        (
            reply(404, "", "no such account"),
            "azure_devops.not_found",
            Certainty::NotDone,
        ),
        (
            reply(503, "", moved),
            "azure_devops.server_error",
            Certainty::Unknown,
        ),
        (
            Reply::Lose,
            "azure_devops.connection_lost",
            Certainty::Unknown,
        ),
        (
            json(&value!({"id": 7})),
            "azure_devops.malformed_answer",
            Certainty::Unknown,
        ),
    ] {
        let fault = assign(&azure(vec![answer]).0, 4, None).await.unwrap_err();
        assert_eq!((fault.code(), fault.certainty()), (code, certainty));
    }
}

#[tokio::test]
async fn a_work_item_that_is_gone_is_a_conflict() {
    let gone = r#"{"typeKey": "WorkItemUnauthorizedAccessException", "message": "TF401232: Work item 7 does not exist"}"#;
    let fault = assign(&azure(vec![reply(404, "", gone)]).0, 4, None)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.class()),
        ("azure_devops.work_item_gone", Class::Conflict)
    );
    assert_eq!(fault.certainty(), Certainty::NotDone);
}

#[tokio::test]
async fn a_user_is_found_on_a_later_page_regardless_of_case_and_remembered() {
    let other = value!({"descriptor": "aad.1", "principalName": "a@example.com", "mailAddress": null, "displayName": "A"});
    let user = value!({"descriptor": "aad.2", "principalName": "P@corp", "mailAddress": "Some.One@Example.com"});
    let nameless = value!({"descriptor": null});
    let first = reply(
        200,
        "x-ms-continuationtoken: n/2=\r\n",
        &value!({"count": 2, "value": [other, nameless]}).to_string(),
    );
    let (azure, server) = azure(vec![first, json(&value!({"count": 1, "value": [user]}))]);
    let found = find_user(&azure, &["x@example.com", "some.one@example.COM"])
        .await
        .unwrap();
    let FoundUser::One(one) = &found else {
        panic!("{found:?}")
    };
    assert_eq!(
        (one.descriptor.as_str(), one.principal_name.as_str()),
        ("aad.2", "P@corp")
    );
    let search = |emails: [&str; 2]| UsersSearch::new(&emails.map(str::to_owned)).unwrap();
    azure.remember_user(
        1,
        "fabrikam",
        &search(["x@example.com", "some.one@example.COM"]),
        &found,
    );
    let again = search(["some.one@example.com", "X@example.com "]);
    assert_eq!(azure.known_user(1, "Fabrikam", &again), Some(found));
    assert_eq!(azure.known_user(1, "contoso", &again), None);
    assert_eq!(
        azure.known_user(2, "Fabrikam", &again),
        None,
        "another tenant does not see it"
    );
    let page = "GET /fabrikam/_apis/graph/users?api-version=7.1-preview.1";
    assert_eq!(
        targets(&server),
        [
            page.to_owned(),
            format!("{page}&continuationToken=n%2F2%3D")
        ]
    );
}

#[tokio::test]
async fn the_number_of_pages_is_limited() {
    let page = || reply(200, "x-ms-continuationtoken: again\r\n", r#"{"value": []}"#);
    let (azure, server) = azure((0..=graph::PAGES).map(|_| page()).collect());
    let fault = find_user(&azure, &["x@example.com"]).await.unwrap_err();
    assert_eq!(fault.code(), "azure_devops.too_many_users");
    assert_eq!(server.received().len(), graph::PAGES);
}

#[test]
fn there_is_no_search_without_an_address() {
    assert_eq!(UsersSearch::new(&[" ".to_owned()]), None);
}

#[tokio::test]
async fn a_name_that_would_change_the_path_is_not_sent() {
    let (azure, server) = azure(Vec::new());
    for name in ["..", ".", "", " .. ", ".\t.", "\n", "a\r"] {
        let fault = WorkItemsBatch {
            account: name,
            ids: &[1],
        }
        .send(&azure, caller())
        .await
        .unwrap_err();
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("azure_devops.unsendable", Certainty::NotDone)
        );
    }
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_answer_to_a_batch_is_limited_in_size_and_unused_fields_are_skipped() {
    async fn read(body: &str) -> [Result<usize, AzureDevOpsFault>; 3] {
        let (azure, _server) = azure((0..3).map(|_| reply(200, "", body)).collect());
        [
            search(&azure, &SearchQuery::default(), 10)
                .await
                .map(|ids| ids.len()),
            work_items(&azure, &[1]).await.map(|read| read.items.len()),
            find_user(&azure, &["x@example.com"])
                .await
                .map(|found| usize::from(found != FoundUser::Nobody)),
        ]
    }
    let room = BATCH_BODY_BYTES - 100;
    for result in read(&format!(
        r#"{{"value": [], "results": [], "more": "{}"}}"#,
        "x".repeat(BATCH_BODY_BYTES)
    ))
    .await
    {
        let fault = result.unwrap_err();
        assert_eq!(
            (fault.code(), fault.class()),
            ("azure_devops.answer_too_large", Class::Permanent)
        );
    }
    let ignored = format!(
        r#"{{"more": [{}0], "value": [null], "results": []}}"#,
        "0,".repeat(room / 2)
    );
    for result in read(&ignored).await {
        assert_eq!(result.unwrap(), 0);
    }
    let nonsense = format!("[{}0]", "0,".repeat(1000));
    let [searched, items, users] = read(&nonsense).await;
    for result in [searched, users] {
        assert_eq!(result.unwrap_err().code(), "azure_devops.malformed_answer");
    }
    assert_eq!(items.unwrap(), 0, "each entry is skipped by itself");
}

#[tokio::test]
async fn a_search_result_may_have_its_id_as_text_or_number() {
    let results = value!([{"fields": {"system.id": "5", "system.title": ["x"]}, "hits": [{}]}, {"fields": {"System.Id": 6}}]);
    let (azure, _server) = azure(vec![
        json(&value!({"count": 2, "results": results})),
        json(&value!({"results": [{"fields": {}}]})),
    ]);
    assert_eq!(
        search(&azure, &SearchQuery::default(), 10).await.unwrap(),
        [5, 6]
    );
    let fault = search(&azure, &SearchQuery::default(), 10)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.to_string().contains("system.id")),
        ("azure_devops.malformed_answer", true)
    );
}
