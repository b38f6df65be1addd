use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sha2::Sha256;
use time::OffsetDateTime;

use super::{Bench, json_of, status_of};
use crate::devkit::simulator::state::Options;
use crate::devkit::simulator::witness::Provider;

fn post(bench: &Bench, body: &Value) -> RequestBuilder {
    let request = bench.http.post(format!(
        "{}/api/v10/channels/4711/messages",
        bench.client.url()
    ));
    request.header("authorization", "Bot bot-token").json(body)
}

/// Prepares a delivery signed at `seconds` since 1970.
fn deliver(bench: &Bench, receiver: &str, id: &str, seconds: i64, key: &[u8]) -> RequestBuilder {
    let body = r#"{"text":"hello"}"#;
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    let signature = data_encoding::BASE64.encode(&mac.finalize().into_bytes());
    let request = bench
        .http
        .post(format!("{}/webhook/{receiver}", bench.client.url()));
    let request = request
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds.to_string());
    request
        .header("webhook-signature", format!("v1a,x v1,{signature}"))
        .body(body)
}

#[tokio::test]
async fn an_enforced_nonce_gives_the_message_that_was_made_before() {
    let bench = Bench::furnished().await;
    let body = json!({ "content": "hello", "nonce": "n-1", "enforce_nonce": true, "allowed_mentions": { "parse": [] } });
    let (status, first) = json_of(post(&bench, &body)).await;
    assert_eq!((status, &first["nonce"]), (200, &json!("n-1")));
    assert!(bench.last_entry().effect);
    let (status, second) = json_of(post(&bench, &body)).await;
    assert_eq!((status, &second["id"]), (200, &first["id"]));
    let entry = bench.last_entry();
    assert_eq!(
        (entry.provider, entry.key.as_deref(), entry.effect),
        (Provider::Discord, Some("n-1"), false)
    );
    assert_eq!(entry.subject.as_deref(), Some("discord:4711"));

    let unenforced = json!({ "content": "hello", "nonce": "n-1" });
    assert_ne!(
        json_of(post(&bench, &unenforced)).await.1["id"],
        first["id"]
    );
    bench
        .client
        .options(&Options {
            nonce_seconds: -1,
            ..Options::default()
        })
        .await
        .unwrap();
    json_of(post(&bench, &body)).await;
    assert_eq!(
        bench.client.state().await.unwrap().discord.channels["4711"].len(),
        3,
        "forgotten nonces do not dedupe"
    );
    let list = bench.http.get(format!(
        "{}/api/v10/channels/4711/messages?limit=2",
        bench.client.url()
    ));
    let (_, newest) = json_of(list.header("authorization", "Bot bot-token")).await;
    assert_eq!(newest.as_array().unwrap().len(), 2);
    assert!(newest[0]["id"].as_str() > newest[1]["id"].as_str());
}

#[tokio::test]
async fn a_message_that_breaks_a_rule_of_discord_is_refused() {
    let bench = Bench::furnished().await;
    let long = json!({ "content": "ö".repeat(2001) });
    assert_eq!(json_of(post(&bench, &long)).await.1["code"], 50035);
    assert_eq!(
        status_of(post(&bench, &json!({ "content": "ö".repeat(2000) }))).await,
        200
    );
    assert_eq!(
        status_of(post(&bench, &json!({ "content": "" }))).await,
        400
    );
    assert_eq!(
        status_of(post(
            &bench,
            &json!({ "content": "x", "nonce": "n".repeat(26) })
        ))
        .await,
        400
    );
    let elsewhere = bench.http.post(format!(
        "{}/api/v10/channels/1/messages",
        bench.client.url()
    ));
    assert_eq!(
        status_of(elsewhere.header("authorization", "Bot bot-token")).await,
        404
    );
    let bearer = bench.http.post(format!(
        "{}/api/v10/channels/4711/messages",
        bench.client.url()
    ));
    assert_eq!(status_of(bearer.bearer_auth("bot-token")).await, 401);
}

#[tokio::test]
async fn a_keyed_receiver_dedupes_and_a_blind_one_does_not() {
    let bench = Bench::furnished().await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    for receiver in ["keyed", "blind"] {
        for _ in 0..2 {
            assert_eq!(
                status_of(deliver(&bench, receiver, "m-1", now, b"a signing secret")).await,
                200
            );
        }
    }
    let effects: Vec<bool> = bench.entries().iter().map(|entry| entry.effect).collect();
    assert_eq!(effects, [true, false, true, true]);
    let state = bench.client.state().await.unwrap();
    assert_eq!(state.webhooks["keyed"].received.len(), 1);
    assert_eq!(state.webhooks["blind"].received.len(), 2);
    assert_eq!(
        state.webhooks["blind"].received[0].body,
        r#"{"text":"hello"}"#
    );
}

#[tokio::test]
async fn a_webhook_message_that_is_badly_signed_or_old_is_refused() {
    let bench = Bench::furnished().await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert_eq!(
        status_of(deliver(&bench, "keyed", "m-1", now, b"another secret")).await,
        401
    );
    assert_eq!(
        status_of(deliver(
            &bench,
            "keyed",
            "m-1",
            now - 400,
            b"a signing secret"
        ))
        .await,
        401
    );
    assert_eq!(
        status_of(deliver(&bench, "absent", "m-1", now, b"a signing secret")).await,
        404
    );
    assert!(
        bench
            .entries()
            .iter()
            .all(|entry| !entry.effect && entry.key.as_deref() == Some("m-1"))
    );
}
