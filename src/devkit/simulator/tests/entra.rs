use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::{Bench, furnished, json_of, status_of};
use crate::devkit::simulator::state::{Options, State};
use crate::devkit::simulator::witness::Provider;

const PROFILE: &str = "/_apis/profile/profiles/me";

fn state() -> State {
    furnished()
        .entra_client("client-1", "canary-secret")
        .refresh_token("canary-refresh", "jane@contoso.example")
}

fn refresh(bench: &Bench, client: &str, secret: &str, token: &str) -> RequestBuilder {
    let scope = "499b84ac-1321-427f-aa17-267ca6975798%2F.default+offline_access";
    let form = format!(
        "grant_type=refresh_token&client_id={client}&client_secret={secret}&refresh_token={token}&scope={scope}"
    );
    let request = bench.http.post(format!(
        "{}/organizations/oauth2/v2.0/token",
        bench.client.url()
    ));
    request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
}

async fn refreshed(bench: &Bench, token: &str) -> (u16, Value) {
    json_of(refresh(bench, "client-1", "canary-secret", token)).await
}

#[tokio::test]
async fn issued_tokens_are_the_user_s_and_azure_devops_takes_them() {
    let bench = Bench::start(state()).await;
    let (status, tokens) = refreshed(&bench, "canary-refresh").await;
    assert_eq!((status, tokens["expires_in"].as_u64()), (200, Some(3600)));
    let is_canary = |name: &str| {
        tokens[name]
            .as_str()
            .is_some_and(|token| token.starts_with("canary-"))
    };
    assert!(
        is_canary("access_token") && is_canary("refresh_token"),
        "searches for secrets look for them: {tokens}"
    );
    let access = tokens["access_token"].as_str().unwrap();
    let (status, profile) = json_of(bench.azure_as(access, Method::GET, PROFILE)).await;
    assert_eq!(
        (status, profile["displayName"].as_str()),
        (200, Some("Jane Doe"))
    );
    assert_eq!(
        refreshed(&bench, tokens["refresh_token"].as_str().unwrap())
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_used_refresh_token_stays_good_unless_it_is_for_once() {
    let bench = Bench::start(state()).await;
    assert_eq!(
        [
            refreshed(&bench, "canary-refresh").await.0,
            refreshed(&bench, "canary-refresh").await.0
        ],
        [200, 200]
    );
    bench
        .client
        .options(&Options {
            refresh_tokens_once: true,
            ..Options::default()
        })
        .await
        .unwrap();
    let (status, refused) = refreshed(&bench, "canary-refresh").await;
    assert_eq!(
        (status, refused["error"].as_str()),
        (400, Some("invalid_grant"))
    );
    assert_eq!(refused["error_codes"][0], 50_173);
}

#[tokio::test]
async fn issued_tokens_may_be_refused() {
    let bench = Bench::start(state()).await;
    bench
        .client
        .options(&Options {
            issued_tokens_refused: true,
            ..Options::default()
        })
        .await
        .unwrap();
    let (_, tokens) = refreshed(&bench, "canary-refresh").await;
    assert_eq!(
        status_of(bench.azure_as(
            tokens["access_token"].as_str().unwrap(),
            Method::GET,
            PROFILE
        ))
        .await,
        401
    );
}

#[tokio::test]
async fn each_wrong_part_of_a_request_has_its_error() {
    let bench = Bench::start(state()).await;
    for (client, secret, token, status, error) in [
        (
            "client-2",
            "canary-secret",
            "canary-refresh",
            400,
            "unauthorized_client",
        ),
        ("client-1", "wrong", "canary-refresh", 401, "invalid_client"),
        ("client-1", "canary-secret", "unknown", 400, "invalid_grant"),
    ] {
        let (answered, body) = json_of(refresh(&bench, client, secret, token)).await;
        assert_eq!((answered, body["error"].as_str()), (status, Some(error)));
    }
    let wrong =
        refresh(&bench, "client-1", "canary-secret", "canary-refresh").body("grant_type=password");
    assert_eq!(json_of(wrong).await.1["error"], "unsupported_grant_type");
}

#[tokio::test]
async fn the_witness_tells_refreshes_apart_without_their_tokens() {
    let bench = Bench::start(state()).await;
    refreshed(&bench, "canary-refresh").await;
    let entry = bench.last_entry();
    assert_eq!(
        (entry.provider, entry.subject.as_deref(), entry.effect),
        (Provider::Entra, Some("entra:client-1"), true)
    );
    assert_eq!(entry.detail["issued_to"], "jane@contoso.example");
    refreshed(&bench, "unknown").await;
    let entries = bench.entries();
    assert!(entries[0].key.is_some() && entries[0].key != entries[1].key);
    assert_eq!(
        (entries[1].effect, &entries[1].detail["refused"]),
        (false, &"invalid_grant".into())
    );
    let log = std::fs::read_to_string(&bench.witness).unwrap();
    assert!(!log.contains("canary"), "{log}");
}
