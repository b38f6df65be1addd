//! Tests of the client against a scripted token endpoint.

use serde_json::json;

use super::super::scripted::{Reply, Scripted, client, json as ok, reply, soon};
use super::*;

const SECRET: &str = "canary/secret+1";
const REFRESH: &str = "canary-refresh";

fn settings(url: &str) -> EntraSettings {
    EntraSettings {
        token_url: format!("{url}/organizations/oauth2/v2.0/token"),
        client_id: Some("client-1".to_owned()),
        client_secret: Some(SecretString::from(SECRET)),
    }
}

async fn refresh(replies: Vec<Reply>) -> (Result<Tokens, EntraFault>, Scripted) {
    let server = Scripted::start(replies);
    let entra = Entra::new(client(), &settings(&server.url)).unwrap();
    (
        entra.refresh(&SecretString::from(REFRESH), soon()).await,
        server,
    )
}

async fn refused(status: u16, body: &str) -> EntraFault {
    refresh(vec![reply(
        status,
        "content-type: application/json\r\nretry-after: 7\r\n",
        body,
    )])
    .await
    .0
    .unwrap_err()
}

#[tokio::test]
async fn a_refresh_sends_a_form_and_returns_both_tokens() {
    let answer = json!({"token_type": "Bearer", "access_token": "a-2", "refresh_token": "r-2", "expires_in": 3599});
    let (tokens, server) = refresh(vec![ok(&answer)]).await;
    let tokens = tokens.unwrap();
    assert_eq!(
        (
            tokens.access_token.expose_secret(),
            tokens.expires_in.as_secs()
        ),
        ("a-2", 3599)
    );
    assert_eq!(tokens.refresh_token.unwrap().expose_secret(), "r-2");
    let sent = server.received().remove(0);
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/organizations/oauth2/v2.0/token")
    );
    assert_eq!(
        sent.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let form = "grant_type=refresh_token&client_id=client-1&client_secret=canary%2Fsecret%2B1&refresh_token=canary-refresh\
                &scope=499b84ac-1321-427f-aa17-267ca6975798%2F.default+offline_access";
    assert_eq!(String::from_utf8(sent.body).unwrap(), form);
}

#[tokio::test]
async fn a_lifetime_may_be_text_and_a_refresh_token_may_be_missing() {
    let (tokens, _) = refresh(vec![ok(
        &json!({"access_token": "a-2", "expires_in": "60"}),
    )])
    .await;
    let tokens = tokens.unwrap();
    assert!(tokens.refresh_token.is_none() && tokens.expires_in == Duration::from_secs(60));
}

/// Returns the body of a refusal with this error code.
fn error_body(error: &str) -> String {
    json!({"error": error, "error_description": "no", "error_codes": [70008]}).to_string()
}

#[tokio::test]
async fn each_error_is_classified() {
    let patient = Class::Transient { retry_after: None };
    let limited = Class::RateLimited {
        retry_after: Some(Duration::from_secs(7)),
    };
    let asked = Class::Transient {
        retry_after: Some(Duration::from_secs(7)),
    };
    for (status, body, code, class) in [
        (
            400,
            error_body("invalid_grant"),
            "entra.refresh_refused",
            Class::Permanent,
        ),
        (
            400,
            error_body("interaction_required"),
            "entra.refresh_refused",
            Class::Permanent,
        ),
        (
            401,
            error_body("invalid_client"),
            "entra.client_refused",
            Class::Permanent,
        ),
        (
            400,
            error_body("unauthorized_client"),
            "entra.client_refused",
            Class::Permanent,
        ),
        (
            400,
            error_body("temporarily_unavailable"),
            "entra.try_later",
            patient,
        ),
        (
            400,
            error_body("something_new"),
            "entra.unrecognized",
            Class::Unrecognized,
        ),
        (
            404,
            "<html>".to_owned(),
            "entra.not_found",
            Class::Permanent,
        ),
        (
            429,
            error_body("invalid_grant"),
            "entra.rate_limited",
            limited,
        ),
        (
            503,
            error_body("invalid_grant"),
            "entra.server_error",
            asked,
        ),
    ] {
        let fault = refused(status, &body).await;
        assert_eq!(
            (fault.code(), fault.class()),
            (code, class),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn the_hint_of_an_error_names_the_setting() {
    let hint = |error: &str| {
        EntraFault::Client {
            error: error.to_owned(),
            text: String::new(),
        }
        .hint()
    };
    assert!(hint("invalid_client").contains("DISPATCH_ENTRA_CLIENT_SECRET"));
    assert!(hint("unauthorized_client").contains("DISPATCH_ENTRA_CLIENT_ID"));
    assert!(hint("invalid_request").contains("DISPATCH_ENTRA_TOKEN_URL"));
    let unknown = refused(400, &error_body("something_new")).await;
    assert!(
        unknown.to_string().contains("something_new") && unknown.hint().contains("something_new"),
        "{unknown}"
    );
}

#[tokio::test]
async fn the_explanation_of_an_error_is_kept_without_secrets() {
    let description = format!(
        "AADSTS700082: The refresh token {REFRESH} has expired due to inactivity.\r\nTrace ID: 0000aaaa-11bb-cccc\r\n"
    );
    let body = json!({"error": "invalid_grant", "error_description": description, "error_codes": [700_082]});
    let fault = refused(400, &body.to_string()).await.to_string();
    assert!(
        fault.ends_with("invalid_grant (AADSTS700082): The refresh token [scrubbed] has expired due to inactivity."),
        "{fault}"
    );
    let fault = crate::fault::chain(&refused(500, &format!("proxy says {SECRET} {REFRESH}")).await);
    assert!(
        !fault.contains(SECRET) && !fault.contains(REFRESH) && fault.contains("proxy says"),
        "{fault}"
    );
}

#[tokio::test]
async fn an_answer_without_tokens_is_malformed_and_not_quoted() {
    for body in [
        json!({"access_token": "canary-a", "expires_in": "canary-b"}),
        json!({"access_token": ["canary-a"], "expires_in": 1}),
        json!("canary-a"),
        json!({"access_token": " ", "expires_in": 1}),
    ] {
        let fault = refresh(vec![ok(&body)]).await.0.unwrap_err();
        assert_eq!(fault.code(), "entra.malformed_answer");
        assert!(!crate::fault::chain(&fault).contains("canary"), "{fault}");
    }
}

#[tokio::test]
async fn an_expired_call_and_a_missing_client_send_nothing() {
    let server = Scripted::start(Vec::new());
    let good = settings(&server.url);
    let entra = Entra::new(client(), &good).unwrap();
    let fault = entra
        .refresh(&SecretString::from(REFRESH), Instant::now())
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("entra.timed_out", Certainty::NotDone)
    );
    let none = EntraSettings {
        client_id: None,
        client_secret: None,
        ..good.clone()
    };
    let entra = Entra::new(client(), &none).unwrap();
    assert!(!entra.has_client());
    assert_eq!(
        entra
            .refresh(&SecretString::from(REFRESH), soon())
            .await
            .unwrap_err()
            .code(),
        "entra.no_client"
    );
    let half = EntraSettings {
        client_secret: None,
        ..good
    };
    assert!(
        Entra::new(client(), &half)
            .unwrap_err()
            .to_string()
            .starts_with("DISPATCH_ENTRA_CLIENT_SECRET")
    );
    assert!(server.received().is_empty());
}

#[test]
fn every_fuzzed_answer_is_tokens_or_a_fault_with_a_text() {
    let good = br#"{"token_type":"Bearer","expires_in":"3599","access_token":"canary","refresh_token":"next"}"#;
    let bad = br#"{"error":"invalid_grant","error_description":"AADSTS70008: expired","error_codes":[70008],"claims":"{}"}"#;
    crate::providers::fuzz::answers(&ENTRA, &[good, bad], |answer| {
        if (200..300).contains(&answer.status) {
            let tokens = tokens(&answer);
            return tokens.err().map(|fault| fault.to_string());
        }
        Some(refusal(answer).to_string())
    });
}
