//! Tests of calls to Azure DevOps against a scripted server.

mod searches;
mod work_items;

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

#[test]
fn every_fuzzed_answer_is_read_or_a_fault_with_a_text() {
    let list = br#"{"count":2,"value":[{"accountId":"1","accountUri":"https://x","accountName":"acme"},null,{"id":7,"rev":3}]}"#;
    let refused = br#"{"$id":"1","message":"TF401232: Work item 7 does not exist","typeKey":"WorkItemNotFoundException","errorCode":0}"#;
    crate::providers::fuzz::answers(&AZURE_DEVOPS, &[list, refused], |answer| {
        if let Some(unauthorized) = fault::unauthorized(&answer) {
            return Some(unauthorized.to_string());
        }
        if let Some(fault) = fault::overtaken(&answer) {
            return Some(fault.to_string());
        }
        match answer.success() {
            Ok(answer) => {
                let list = answer.json::<list::List<'_, Value>>();
                list.err().map(|fault| fault.to_string())
            }
            Err(fault) => Some(fault.to_string()),
        }
    });
}
