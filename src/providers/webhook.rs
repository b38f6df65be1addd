//! Webhooks, signed according to the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! **Proof of delivery**: any 2xx, as the specification states; the body of the answer is ignored.
//!
//! Keyed if the destination declares that the receiver honours `webhook-id`, which is the effect's
//! key; otherwise at-least-once.

use std::borrow::Cow;

use data_encoding::BASE64;
use futures_util::future::{BoxFuture, FutureExt};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use time::OffsetDateTime;

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered, decode,
};
#[cfg(feature = "devkit")]
use super::contract::{self, Fact, Field, Shape, Vendor};
use super::http::{HttpClient, HttpRequest};
use super::http_fault::{HttpFault, HttpFaultKind, Provider, provider};
use super::kind::ChannelKind;
use super::text::cut;
use crate::job::EffectClass;

static WEBHOOK: Provider = provider!("webhook", "webhook", 50 calls in 1 s);

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &WEBHOOK,
    api: None,
    without_place: &["honours_webhook_id"],
    make: |parts| Box::new(Webhook::new(parts.http.clone())),
    #[cfg(feature = "devkit")]
    requests: REQUESTS,
    #[cfg(feature = "devkit")]
    simulated: None,
};

/// The range of the specification for a secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const TITLE_CHARACTERS: usize = 256;
const LINES: usize = 50;
const LINE_CHARACTERS: usize = 500;
/// Longer details are omitted to keep the body small, as the specification advises.
const DETAILS_BYTES: usize = 16 << 10;
const RIGHT: &str = r#"{"url": "https://example.com/hook", "honours_webhook_id": false}"#;
const RIGHT_SECRET: &str = "the signing secret must be `whsec_` and 24 to 64 bytes in base64";

/// The address is its owner's.
#[cfg(feature = "devkit")]
const REQUESTS: &[Fact] = &[Fact {
    name: "webhook",
    method: "POST",
    path: "/webhook/{receiver}",
    optional: "",
    query: &[],
    body: Some(contract::Body::json(&[
        Field::must("type", Shape::STRING),
        Field::may("timestamp", Shape::STRING),
        Field::must("data", EVENT),
    ])),
    vendor: Vendor::ANYWHERE,
}];
/// The data of a message.
#[cfg(feature = "devkit")]
const EVENT: Shape = Shape::Object(&[
    Field::must("title", Shape::STRING),
    Field::must("lines", Shape::List(&Shape::STRING)),
    Field::must("details", Shape::ANYTHING),
]);

/// A channel that sends signed POST requests to the destination's address.
#[derive(Debug)]
pub struct Webhook {
    http: HttpClient,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(default)]
    honours_webhook_id: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    timestamp: Option<OffsetDateTime>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    title: String,
    lines: Vec<String>,
    details: Option<&'a Value>,
}

impl Webhook {
    /// Creates a channel that sends with `http`.
    #[must_use]
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// Returns the URL and the signing keys, the current one first.
    fn target(&self, config: &ChannelConfig) -> Result<(Url, Vec<SecretSlice<u8>>), BadConfig> {
        let settings: Settings<'_> = decode(&config.public, RIGHT)?;
        let url = self
            .http
            .parse_url(&settings.url)
            .map_err(|why| BadConfig(format!("`url` is invalid: {why}")))?;
        let present = config.needed_secret(RIGHT_SECRET)?;
        let keys = std::iter::once(present)
            .chain(&config.previous_secret)
            .map(signing_key)
            .collect::<Result<_, _>>()?;
        Ok((url, keys))
    }

    async fn post(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &WEBHOOK,
            problem,
        };
        let (url, keys) = self.target(delivery.config).map_err(bad)?;
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let body = delivery.rendered.0.as_bytes();
        let signatures: Vec<String> = keys
            .iter()
            .map(|key| sign(key, delivery.key, timestamp, body))
            .collect();
        let call = HttpRequest::new(&WEBHOOK, Method::POST, url, delivery.deadline)
            .body("application/json", body.to_vec())
            .header(HeaderName::from_static("webhook-id"), value(delivery.key)?)
            .header(
                HeaderName::from_static("webhook-timestamp"),
                HeaderValue::from(timestamp),
            )
            .header(
                HeaderName::from_static("webhook-signature"),
                value(&signatures.join(" "))?,
            )
            .status_only();
        self.http.send(call).await?.success()?;
        Ok(Delivered::whole(None))
    }
}

impl Channel for Webhook {
    fn kind(&self) -> &'static str {
        WEBHOOK.name
    }

    fn class(&self, config: &ChannelConfig) -> EffectClass {
        match decode::<Settings<'_>>(&config.public, RIGHT) {
            Ok(Settings {
                honours_webhook_id: true,
                ..
            }) => EffectClass::Keyed,
            _ => EffectClass::AtLeastOnce,
        }
    }

    fn render(&self, message: &Message) -> Rendered {
        let fits =
            |details: &&Value| !details.is_null() && details.to_string().len() <= DETAILS_BYTES;
        let data = Data {
            title: cut(&message.title, TITLE_CHARACTERS),
            lines: message
                .lines
                .iter()
                .take(LINES)
                .map(|line| cut(line, LINE_CHARACTERS))
                .collect(),
            details: Some(&message.details).filter(fits),
        };
        let body = Body {
            r#type: &message.event,
            timestamp: message.happened_at,
            data,
        };
        Rendered(
            serde_json::to_string(&body)
                .expect("text, a date within RFC 3339's years and JSON have a JSON form"),
        )
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.post(delivery).boxed()
    }
}

fn signing_key(secret: &SecretString) -> Result<SecretSlice<u8>, BadConfig> {
    let encoded = secret.expose_secret().strip_prefix("whsec_");
    let key = encoded
        .and_then(|text| BASE64.decode(text.as_bytes()).ok())
        .filter(|key| SECRET_BYTES.contains(&key.len()));
    key.map(SecretSlice::from)
        .ok_or_else(|| BadConfig(RIGHT_SECRET.to_owned()))
}

/// Returns `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
fn sign(key: &SecretSlice<u8>, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

fn value(text: &str) -> Result<HeaderValue, HttpFault> {
    let unsendable =
        |_| HttpFaultKind::Unsendable("a header cannot carry the effect's key".to_owned());
    HeaderValue::from_str(text)
        .map_err(unsendable)
        .map_err(|kind| HttpFault {
            provider: &WEBHOOK,
            kind,
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::fault::{Certainty, Class, Fault};
    use crate::providers::scripted::{Reply, Scripted, client, reply, soon};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OLD: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const KEY: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

    fn webhook() -> Webhook {
        Webhook::new(client())
    }

    fn config(public: Value, secrets: [Option<&str>; 2]) -> ChannelConfig {
        let [secret, previous_secret] = secrets.map(|secret| secret.map(SecretString::from));
        ChannelConfig {
            public,
            secret,
            previous_secret,
        }
    }

    fn message() -> Message {
        Message {
            event: "group.assignee_changed".into(),
            happened_at: Some(datetime!(2026-01-02 03:04:05 UTC)),
            title: "T".into(),
            lines: vec!["l".into()],
            details: json!({"work_item": 7, "group": "A-1"}),
        }
    }

    async fn deliver(
        answer: Reply,
        previous: Option<&str>,
    ) -> (Result<Delivered, ChannelFault>, Scripted) {
        let server = Scripted::start(vec![answer]);
        let config = config(
            json!({"url": format!("{}/hook", server.url)}),
            [Some(SECRET), previous],
        );
        let rendered = webhook().render(&message());
        let delivery = Delivery::first(&config, &rendered, KEY, EffectClass::AtLeastOnce, soon());
        let result = webhook().deliver(delivery).await;
        (result, server)
    }

    #[test]
    fn the_signature_matches_the_example_of_the_specification() {
        let key = signing_key(&SECRET.into()).unwrap();
        let signature = sign(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn a_delivery_is_signed_with_both_secrets_during_rotation() {
        let (delivered, server) = deliver(reply(204, "", ""), Some(OLD)).await;
        assert_eq!(delivered.unwrap(), Delivered::whole(None));
        let request = server.received().remove(0);
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/hook")
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("webhook-id"), Some(KEY));
        let timestamp: i64 = request
            .header("webhook-timestamp")
            .unwrap()
            .parse()
            .unwrap();
        let expected = [SECRET, OLD]
            .map(|s| {
                sign(
                    &signing_key(&s.into()).unwrap(),
                    KEY,
                    timestamp,
                    &request.body,
                )
            })
            .join(" ");
        assert_eq!(request.header("webhook-signature"), Some(expected.as_str()));
        let data =
            json!({"title": "T", "lines": ["l"], "details": {"work_item": 7, "group": "A-1"}});
        let body = json!({"type": "group.assignee_changed", "timestamp": "2026-01-02T03:04:05Z", "data": data});
        assert_eq!(request.json(), body);
    }

    #[tokio::test]
    async fn any_2xx_is_a_delivery_and_a_lost_answer_is_unknown() {
        assert!(
            deliver(reply(202, "content-type: text/html\r\n", "<p>thanks"), None)
                .await
                .0
                .is_ok()
        );
        let fault = deliver(Reply::Lose, None).await.0.unwrap_err();
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("webhook.connection_lost", Certainty::Unknown)
        );
        let fault = deliver(reply(410, "", "gone"), None).await.0.unwrap_err();
        assert_eq!(
            (fault.class(), fault.certainty()),
            (Class::Permanent, Certainty::NotDone)
        );
    }

    #[test]
    fn only_a_receiver_that_honours_the_id_is_keyed() {
        for (public, class) in [
            (
                json!({"url": "https://example.com", "honours_webhook_id": true}),
                EffectClass::Keyed,
            ),
            (
                json!({"url": "https://example.com", "honours_webhook_id": false}),
                EffectClass::AtLeastOnce,
            ),
            (
                json!({"url": "https://example.com"}),
                EffectClass::AtLeastOnce,
            ),
            (
                json!({"honours_webhook_id": true}),
                EffectClass::AtLeastOnce,
            ),
        ] {
            assert_eq!(webhook().class(&config(public, [None, None])), class);
        }
    }

    #[test]
    fn a_body_is_limited_in_size() {
        let mut big = message();
        big.title = "é".repeat(5000);
        big.lines = vec!["\"".repeat(5000); 500];
        big.details = json!("x".repeat(DETAILS_BYTES));
        let Rendered(body) = webhook().render(&big);
        assert!(body.len() < 64 << 10, "{}", body.len());
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap()["data"]["details"],
            Value::Null
        );
    }

    #[test]
    fn the_fault_of_bad_settings_states_what_is_expected_and_no_secret() {
        let good = json!({"url": "https://example.com/hook"});
        assert_eq!(
            webhook().check_config(&config(good.clone(), [Some(SECRET), Some(OLD)])),
            Ok(())
        );
        for (public, secrets, part) in [
            (json!({}), [Some(SECRET), None], "url"),
            (
                json!({"url": "http://example.com/hook"}),
                [Some(SECRET), None],
                "https://",
            ),
            (good.clone(), [None, None], "whsec_"),
            (good.clone(), [Some("canary"), None], "whsec_"),
            (good.clone(), [Some("whsec_canary"), None], "whsec_"),
            (good, [Some(SECRET), Some("whsec_Y2FuYXJ5")], "whsec_"),
        ] {
            let BadConfig(why) = webhook()
                .check_config(&config(public, secrets))
                .unwrap_err();
            assert!(why.contains(part) && !why.contains("canary"), "{why}");
        }
    }
}
