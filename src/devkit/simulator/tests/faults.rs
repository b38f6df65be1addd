use std::time::Duration;

use serde_json::json;

use super::{Bench, json_of, status_of};
use crate::devkit::simulator::admin::TokenChange;
use crate::devkit::simulator::faults::{FaultKind, FaultRule};
use crate::devkit::simulator::process::SimulatorProcess;
use crate::devkit::simulator::witness::Provider;

const ODON: &str = "odon@contoso.example";

async fn assignee(bench: &Bench) -> Option<String> {
    bench.client.assignees().await.unwrap()["contoso:17"].clone()
}

#[tokio::test]
async fn a_lost_answer_did_the_work() {
    let bench = Bench::furnished().await;
    bench
        .client
        .fault(
            &FaultRule::new(FaultKind::LoseAnswer)
                .method("PATCH")
                .times(1),
        )
        .await
        .unwrap();
    let error = bench.patch(1, ODON).send().await.unwrap_err();
    assert!(error.status().is_none(), "no status line came: {error}");
    assert_eq!(assignee(&bench).await.as_deref(), Some(ODON));
    let entry = bench.last_entry();
    assert_eq!(
        (entry.effect, entry.status, entry.fault),
        (true, None, Some(FaultKind::LoseAnswer))
    );
    assert_eq!(entry.detail["lost_status"], 200);
    assert_eq!(
        status_of(bench.patch(1, ODON)).await,
        412,
        "the fault is used up, and the revision moved on"
    );
}

#[tokio::test]
async fn a_refused_or_hanging_request_does_nothing_and_is_witnessed() {
    let bench = Bench::furnished().await;
    for kind in [FaultKind::Refuse, FaultKind::Hang] {
        bench
            .client
            .fault(&FaultRule::new(kind).times(1).millis(1))
            .await
            .unwrap();
        assert!(bench.patch(1, ODON).send().await.is_err());
        let entry = bench.last_entry();
        assert_eq!(
            (entry.effect, entry.status, entry.fault),
            (false, None, Some(kind))
        );
        assert_eq!(entry.key.as_deref(), Some("work_item:contoso:17@1"));
    }
    assert_eq!(assignee(&bench).await, None);
}

#[tokio::test]
async fn a_hanging_request_gets_no_answer() {
    let bench = Bench::furnished().await;
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Hang))
        .await
        .unwrap();
    let error = bench
        .patch(1, ODON)
        .timeout(Duration::from_millis(100))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[tokio::test]
async fn a_slow_request_is_carried_out_after_its_sender_gave_up() {
    let bench = Bench::furnished().await;
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Slow).millis(500))
        .await
        .unwrap();
    let received = async { while bench.client.faults().await.unwrap()[0].hits == 0 {} };
    tokio::select! {
        answer = bench.patch(1, ODON).send() => panic!("answered at once: {answer:?}"),
        () = received => {}
    }
    assert_eq!(assignee(&bench).await, None);
    let done = async { while assignee(&bench).await.is_none() {} };
    tokio::time::timeout(Duration::from_secs(10), done)
        .await
        .unwrap();
}

#[tokio::test]
async fn faults_that_answer_do_nothing_and_count_their_hits() {
    let bench = Bench::furnished().await;
    bench
        .client
        .fault(&FaultRule::new(FaultKind::RateLimit).times(1).retry_after(7))
        .await
        .unwrap();
    let limited = bench.patch(1, ODON).send().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    bench
        .client
        .fault(
            &FaultRule::new(FaultKind::ServerError)
                .times(1)
                .path_contains("/wit/"),
        )
        .await
        .unwrap();
    assert_eq!(status_of(bench.patch(1, ODON)).await, 503);
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Nonsense).provider(Provider::AzureDevops))
        .await
        .unwrap();
    let nonsense = bench.patch(1, ODON).send().await.unwrap();
    assert_eq!(nonsense.status().as_u16(), 200);
    assert!(nonsense.json::<serde_json::Value>().await.is_err());
    assert_eq!(assignee(&bench).await, None);

    let faults = bench.client.faults().await.unwrap();
    assert_eq!(
        faults
            .iter()
            .map(|fault| (fault.id, fault.hits))
            .collect::<Vec<_>>(),
        [(1, 1), (2, 1), (3, 1)]
    );
    bench.client.clear_fault(1).await.unwrap();
    assert!(bench.client.clear_fault(1).await.is_err());
    bench.client.clear_faults().await.unwrap();
    assert!(bench.client.faults().await.unwrap().is_empty());
    assert_eq!(json_of(bench.patch(1, ODON)).await.0, 200);
}

#[tokio::test]
async fn a_scripted_answer_goes_out_as_it_stands_and_nothing_is_done() {
    let bench = Bench::furnished().await;
    let refused = r#"{"typeKey": "WorkItemRevisionMismatchException", "message": "TF26071: changed by someone else"}"#;
    let rule = FaultRule::answering(409, refused)
        .header("X-TFS-ProcessId", "7")
        .method("PATCH")
        .times(1);
    bench.client.fault(&rule).await.unwrap();
    let answer = bench.patch(1, ODON).send().await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["x-tfs-processid"]
        ),
        (409, &"7".parse().unwrap())
    );
    assert_eq!(
        answer.headers()["content-type"],
        "application/json; charset=utf-8"
    );
    assert_eq!(answer.text().await.unwrap(), refused);
    assert_eq!(assignee(&bench).await, None);
    let entry = bench.last_entry();
    assert_eq!(
        (entry.effect, entry.status, entry.fault),
        (false, Some(409), Some(FaultKind::Answer))
    );
    assert_eq!(
        status_of(bench.patch(1, ODON)).await,
        200,
        "the fault is used up, and the revision did not move on"
    );

    for (body, headers, expected) in [
        (
            "<!DOCTYPE html><title>Sign In</title>",
            None,
            "text/html; charset=utf-8",
        ),
        (
            "Webhook message delivery failed",
            None,
            "text/plain; charset=utf-8",
        ),
        (
            "{}",
            Some("application/problem+json"),
            "application/problem+json",
        ),
    ] {
        let rule = FaultRule::answering(203, body).times(1);
        let rule = headers
            .into_iter()
            .fold(rule, |rule, given| rule.header("Content-Type", given));
        bench.client.fault(&rule).await.unwrap();
        let answer = bench.patch(1, ODON).send().await.unwrap();
        let types: Vec<_> = answer
            .headers()
            .get_all("content-type")
            .iter()
            .map(|one| one.to_str().unwrap())
            .collect();
        assert_eq!((answer.status().as_u16(), types), (203, vec![expected]));
    }
}

#[tokio::test]
async fn an_answer_can_be_replaced_and_decorated_while_the_request_is_carried_out() {
    let bench = Bench::furnished().await;
    let gone = FaultRule::answering(404, r#"{"code": 10008}"#)
        .method("PATCH")
        .times(1)
        .done();
    bench.client.fault(&gone).await.unwrap();
    assert_eq!(status_of(bench.patch(1, ODON)).await, 404);
    assert_eq!(assignee(&bench).await.as_deref(), Some(ODON));
    let entry = bench.last_entry();
    assert_eq!(
        (entry.effect, entry.status, &entry.detail["replaced_status"]),
        (true, Some(404), &200.into())
    );
    assert_eq!(entry.detail["rev_after"], 2, "the facts stay");

    bench
        .client
        .fault(&FaultRule::decorating().header("Retry-After", "4").times(1))
        .await
        .unwrap();
    let answer = bench.patch(2, "").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (200, &"4".parse().unwrap())
    );
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["rev"], 3);
    let entry = bench.last_entry();
    assert_eq!(
        (entry.effect, entry.status, entry.fault),
        (true, Some(200), Some(FaultKind::Decorate))
    );
}

#[tokio::test]
async fn a_fault_lets_the_first_requests_through_and_looks_into_query_and_body() {
    let bench = Bench::furnished().await;
    bench
        .client
        .fault(&FaultRule::new(FaultKind::ServerError).body_contains(r#""value":4"#))
        .await
        .unwrap();
    bench
        .client
        .fault(
            &FaultRule::answering(429, "")
                .query_contains("api-version=7.1")
                .after(2)
                .times(1),
        )
        .await
        .unwrap();
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Refuse).query_contains("fields="))
        .await
        .unwrap();
    let mut statuses = Vec::new();
    for rev in [1, 2, 3, 3, 4] {
        let to = if rev % 2 == 1 {
            ODON
        } else {
            "jane@contoso.example"
        };
        statuses.push(status_of(bench.patch(rev, to)).await);
    }
    assert_eq!(statuses, [200, 200, 429, 200, 503]);
    let faults = bench.client.faults().await.unwrap();
    assert_eq!(
        faults
            .iter()
            .map(|fault| (fault.hits, fault.passed))
            .collect::<Vec<_>>(),
        [(1, 0), (1, 2), (0, 0)]
    );
}

#[tokio::test]
async fn callers_pages_and_batches_are_told_apart_though_their_paths_are_the_same() {
    let bench = Bench::furnished().await;
    let odon = TokenChange {
        token: "odon-token".to_owned(),
        user: Some(ODON.to_owned()),
        ..TokenChange::default()
    };
    bench.client.token(&odon).await.unwrap();
    bench
        .client
        .fault(&FaultRule::answering(401, "{}").caller(ODON))
        .await
        .unwrap();
    let me = "/_apis/profile/profiles/me";
    for (token, status, caller) in [
        ("odon-token", 401, Some(ODON)),
        ("jane-token", 200, Some("jane@contoso.example")),
        ("nobody's", 401, None),
    ] {
        assert_eq!(
            status_of(bench.azure_as(token, reqwest::Method::GET, me)).await,
            status
        );
        assert_eq!(bench.last_entry().caller.as_deref(), caller);
    }
    let search = json!({"searchText": "printer", "$skip": 200, "$top": 200});
    bench
        .client
        .fault(
            &FaultRule::new(FaultKind::RateLimit)
                .body_contains(r#""$skip":200"#)
                .times(1),
        )
        .await
        .unwrap();
    for status in [429, 200] {
        let request = bench
            .azure(
                reqwest::Method::POST,
                "/contoso/_apis/search/workitemsearchresults",
            )
            .json(&search);
        assert_eq!(status_of(request).await, status);
        assert_eq!(
            bench.last_entry().key.as_deref(),
            Some("search:contoso@200")
        );
    }
    let batch = bench
        .azure(reqwest::Method::POST, "/contoso/_apis/wit/workitemsbatch")
        .json(&json!({"ids": [17]}));
    assert_eq!(status_of(batch).await, 200);
    assert_eq!(
        bench.last_entry().key.as_deref(),
        Some("work_items:contoso@17")
    );
}

#[tokio::test]
async fn a_rule_that_cannot_be_sent_is_refused_when_it_is_posted() {
    let bench = Bench::furnished().await;
    for (rule, says) in [
        (FaultRule::new(FaultKind::Answer), "expected `answer`"),
        (FaultRule::answering(99, ""), "from 200 to 599"),
        (
            FaultRule::answering(200, "").header("Retry After", "4"),
            "Retry After",
        ),
        (
            FaultRule::decorating().header("Retry-After", "4\n"),
            "visible ASCII",
        ),
    ] {
        let refused = bench.client.fault(&rule).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    assert!(bench.client.faults().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_fault_leaves_other_requests_alone() {
    let bench = Bench::furnished().await;
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Refuse).provider(Provider::Discord))
        .await
        .unwrap();
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Refuse).method("GET"))
        .await
        .unwrap();
    bench
        .client
        .fault(&FaultRule::new(FaultKind::Refuse).path_contains("/graph/"))
        .await
        .unwrap();
    assert_eq!(status_of(bench.patch(1, ODON)).await, 200);
    assert!(
        bench
            .client
            .faults()
            .await
            .unwrap()
            .iter()
            .all(|fault| fault.hits == 0)
    );
}

#[tokio::test]
async fn many_requests_at_once_are_witnessed_in_the_order_of_their_effects() {
    let bench = Bench::furnished().await;
    let patches = (0..50).map(|_| bench.patch(1, ODON).send());
    let answers = futures_util::future::join_all(patches).await;
    let done = answers
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().status().is_success());
    assert_eq!(
        done.count(),
        1,
        "one of those that test the same revision wins"
    );
    let entries = bench.entries();
    assert!(entries.iter().map(|entry| entry.seq).eq(1..=50));
    assert!(entries[0].effect && entries[1..].iter().all(|entry| !entry.effect));
}

#[tokio::test]
async fn a_process_is_started_by_its_announcement_and_stopped_by_the_end_of_its_stdin() {
    let script = std::env::temp_dir().join(format!("simulator-{}", uuid::Uuid::now_v7()));
    // Another process writes the file: if this process had it open for writing while another test
    // forks, it could not be executed.
    let said = r#"{\\"url\\":\\"http://127.0.0.1:9\\",\\"smtp\\":\\"smtp://127.0.0.1:9\\"}"#;
    let text = format!(r#"printf '#!/bin/sh\necho "{said}"\nexec cat\n' > "$0" && chmod +x "$0""#);
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &text])
            .arg(&script)
            .status()
            .unwrap()
            .success()
    );
    let process = SimulatorProcess::start(&script, std::path::Path::new("unused"))
        .await
        .unwrap();
    assert_eq!(
        (process.url.as_str(), process.smtp_url.as_str()),
        ("http://127.0.0.1:9", "smtp://127.0.0.1:9")
    );
    process.stop().await.unwrap();
    std::fs::remove_file(&script).unwrap();
}
