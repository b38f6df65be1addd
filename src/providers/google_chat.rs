//! Google Chat, through the webhook of a space
//! (<https://developers.google.com/workspace/chat/quickstart/webhooks>), which is the method
//! `spaces.messages.create`
//! (<https://developers.google.com/workspace/chat/api/reference/rest/v1/spaces.messages/create>).
//!
//! **Proof of delivery**: a 2xx whose body has the message's `name`.
//!
//! The whole address is the secret: `key` and `token` in its query authorize the call. At-least-once:
//! the vendor documents that it creates one message for each `requestId`, which is the effect's key,
//! but not for how long, nor whether webhooks have it.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{Method, Url};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::json;

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Refusal,
    Rendered, decode,
};
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{Provider, provider};
use super::kind::ChannelKind;
use super::said::Said;
use super::text::{Capped, LINK_BREAK, cut, unlinked, visible};
use crate::fault::{Certainty, Class};
use crate::job::EffectClass;

/// One message a second in a space, shared by all its webhooks
/// (<https://developers.google.com/workspace/chat/limits>).
static GOOGLE_CHAT: Provider = provider!("google_chat", "Google Chat", 1 calls in 1 s);

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &GOOGLE_CHAT,
    api: None,
    without_place: &[],
    make: |parts| Box::new(GoogleChat::new(parts.http.clone())),
    #[cfg(feature = "devkit")]
    requests: simulation::REQUESTS,
    #[cfg(feature = "devkit")]
    simulated: Some(simulation::SIMULATED),
};

/// The vendor accepts 32,000 bytes, and a character has at most four.
const TEXT_CHARACTERS: usize = 4000;
const TITLE_CHARACTERS: usize = 256;
const RIGHT: &str = "{}: the webhook's address is the secret";
const RIGHT_SECRET: &str = "the secret must be the webhook's address as Google Chat shows it: \
                            https://chat.googleapis.com/v1/spaces/SPACE/messages?key=KEY&token=TOKEN";
/// The parameters that an address may have: its credentials, and the thread to reply to.
const PARAMETERS: [&str; 4] = ["key", "token", "threadKey", "messageReplyOption"];
const GONE: &str = "Create a webhook in the space (Apps & integrations, Webhooks), and register the destination again with its \
                    address; then retry.";

/// A channel that posts messages through the webhook of a space.
#[derive(Debug)]
pub struct GoogleChat {
    http: HttpClient,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

/// The part that is parsed of a created message.
#[derive(Deserialize)]
struct Created {
    name: String,
}

impl GoogleChat {
    /// Creates a channel that sends with `http`.
    #[must_use]
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    fn target(&self, config: &ChannelConfig) -> Result<Url, BadConfig> {
        let Settings {} = decode(&config.public, RIGHT)?;
        let wrong = || BadConfig(RIGHT_SECRET.to_owned());
        let secret = config.secret.as_ref().ok_or_else(wrong)?;
        let url = self
            .http
            .parse_url(secret.expose_secret())
            .map_err(|why| BadConfig(format!("{RIGHT_SECRET}: {why}")))?;
        Some(url).filter(is_webhook).ok_or_else(wrong)
    }

    async fn create(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &GOOGLE_CHAT,
            problem,
        };
        let mut url = self.target(delivery.config).map_err(bad)?;
        url.query_pairs_mut().append_pair("requestId", delivery.key);
        let body = json!({"text": delivery.rendered.0});
        let call = HttpRequest::new(&GOOGLE_CHAT, Method::POST, url, delivery.deadline)
            .json("application/json; charset=utf-8", &body)?;
        let answer = self.http.send(call).await?;
        if let Some(refusal) = refusal(&answer) {
            return Err(refusal.into());
        }
        let answer = answer.success()?;
        let created: Created = answer.json()?;
        Ok(Delivered::whole(Some(created.name)))
    }
}

impl Channel for GoogleChat {
    fn kind(&self) -> &'static str {
        GOOGLE_CHAT.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::AtLeastOnce
    }

    fn keyed_for(&self, _: &ChannelConfig) -> Option<Duration> {
        None
    }

    fn render(&self, message: &Message) -> Rendered {
        let mut text = Capped::new(TEXT_CHARACTERS);
        text.push_all(escape(&cut(&message.title, TITLE_CHARACTERS)));
        for line in &message.lines {
            text.push("\n");
            text.push_all(escape(line));
        }
        Rendered(text.finish())
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.create(delivery).boxed()
    }
}

/// Returns whether `url` is `…/spaces/SPACE/messages` with the two credentials. A `requestId` or
/// `messageId` of its own would make one message of all.
fn is_webhook(url: &Url) -> bool {
    let parts: Vec<&str> = url.path_segments().into_iter().flatten().collect();
    let has = |wanted: &str| {
        url.query_pairs()
            .any(|(name, value)| name == wanted && !value.is_empty())
    };
    matches!(parts[..], [.., "spaces", space, "messages"] if !space.is_empty())
        && has("key")
        && has("token")
        && url
            .query_pairs()
            .all(|(name, _)| PARAMETERS.contains(&name.as_ref()))
}

/// Returns the refusal of an address that is no longer valid, or `None` if the status decides. The
/// vendor answers a wrong key with 400, a wrong token with 401 or 403, and 404 after the webhook or
/// the space was deleted.
fn refusal(answer: &HttpResponse) -> Option<Refusal> {
    let said = Said::of(&answer.body);
    let code = match answer.status {
        400 if said.names("API key not valid") => GOOGLE_CHAT.codes.unauthorized,
        401 => GOOGLE_CHAT.codes.unauthorized,
        403 => GOOGLE_CHAT.codes.forbidden,
        404 => GOOGLE_CHAT.codes.not_found,
        _ => return None,
    };
    Some(Refusal {
        provider: &GOOGLE_CHAT,
        code,
        said: format!("{}: {said}", answer.status),
        class: Class::Permanent,
        certainty: Certainty::NotDone,
        hint: GONE.into(),
    })
}

/// Returns one line of plain text as pieces. Neither syntax of the vendor, Chat's own and Markdown,
/// finds markup, a link (`<url|text>`, `[text](url)`) or a mention (`<users/all>`) in them
/// (<https://developers.google.com/workspace/chat/format-messages>): the two have no escape in
/// common, but both require a sign to touch the text that it formats, and a hair space parts them.
fn escape(line: &str) -> Vec<String> {
    let mut pieces = Vec::with_capacity(line.len());
    let mut at_start = true;
    for character in unlinked(line).chars() {
        pieces.push(match character {
            '*' | '_' | '~' | '<' | ']' => format!("{character}{LINK_BREAK}"),
            // Only at the start do they begin a list, a heading or a quotation.
            '-' | '+' | '#' | '>' if at_start => format!("{LINK_BREAK}{character}{LINK_BREAK}"),
            // Code may begin and end with a space, so a similar sign stands for it.
            '`' => "\u{2cb}".to_owned(),
            c => visible(c).to_string(),
        });
        at_start &= visible(character) == ' ';
    }
    pieces
}

#[cfg(feature = "devkit")]
mod simulation {
    //! The requests, and the simulated webhooks at
    //! `/google_chat/v1/spaces/SPACE/messages?key=KEY&token=TOKEN`. A room is a space, and its secret
    //! the token.

    use reqwest::{Method, StatusCode};
    use serde_json::{Value, json};
    use time::OffsetDateTime;

    use crate::providers::contract::{Body, Fact, Field, Shape, Vendor, Wanted};
    use crate::providers::simulated::{
        Description, ReceivedCall, Rooms, SimulatedAnswer, SimulatedChannel,
    };

    const MESSAGE_BYTES: usize = 32_000;

    pub(super) const REQUESTS: &[Fact] = &[Fact {
        name: "message of a webhook of Google Chat",
        method: "POST",
        path: "/v1/spaces/{space}/messages",
        optional: "",
        query: &[
            ("key", Wanted::Something),
            ("token", Wanted::Something),
            ("threadKey", Wanted::Perhaps),
            ("messageReplyOption", Wanted::Perhaps),
            ("requestId", Wanted::Something),
        ],
        body: Some(Body::json(&[Field::must("text", Shape::STRING)])),
        vendor: Vendor {
            below: &["", "/google_chat"],
            ..Vendor::ANYWHERE
        },
    }];

    pub(super) const SIMULATED: SimulatedChannel = SimulatedChannel {
        room: "AAAA",
        destination: |simulator, token| {
            let path = format!("google_chat/v1/spaces/{}/messages", SIMULATED.room);
            let address = format!("{simulator}/{path}?key=key&token={token}");
            (json!({}), address)
        },
        api: "",
        secrets_in_query: &["key", "token"],
        is_keyed: true,
        describe,
        answer,
    };

    fn describe(call: &ReceivedCall) -> Description {
        let space = call.segments.get(3);
        Description {
            key: call.query.get("requestId").cloned(),
            subject: space.map(|space| format!("google_chat:{space}")),
        }
    }

    fn answer(rooms: &mut Rooms, call: &ReceivedCall, _: OffsetDateTime) -> SimulatedAnswer {
        let ["google_chat", "v1", "spaces", space, "messages"] = call.parts()[..] else {
            return refusal(StatusCode::NOT_FOUND, "NOT_FOUND");
        };
        let Some(room) = rooms.get_mut(space).filter(|_| call.method == Method::POST) else {
            return refusal(StatusCode::NOT_FOUND, "NOT_FOUND");
        };
        if call.query.get("token") != Some(&room.secret) {
            return refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED");
        }
        let body = call.json::<Value>().unwrap_or_default();
        let has_text = body["text"].as_str().is_some_and(|text| !text.is_empty());
        if !has_text || call.body.len() > MESSAGE_BYTES {
            return refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT");
        }
        let known = call
            .query
            .get("requestId")
            .and_then(|key| room.keys.get(key));
        let created = |place: usize, text: &Value| {
            let name = format!("spaces/{space}/messages/{place}");
            SimulatedAnswer::ok(&json!({"name": name, "text": text}))
        };
        if let Some(place) = known {
            return created(*place, &body["text"]).detail(json!({"deduped": true}));
        }
        let place = room.received.len();
        if let Some(key) = call.query.get("requestId") {
            room.keys.insert(key.clone(), place);
        }
        let answer = created(place, &body["text"]).effect();
        room.received.push(body);
        answer
    }

    fn refusal(status: StatusCode, word: &str) -> SimulatedAnswer {
        let error = json!({"code": status.as_u16(), "message": "refused", "status": word});
        SimulatedAnswer::json(status, &json!({"error": error})).detail(json!({"refused": word}))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fault::Fault;
    use crate::providers::scripted::{Reply, Scripted, client, json as ok, reply, soon};

    fn chat() -> GoogleChat {
        GoogleChat::new(client())
    }

    fn message(title: &str, lines: &[&str]) -> Message {
        Message {
            event: "x".into(),
            happened_at: None,
            title: title.into(),
            lines: lines.iter().map(|&line| line.to_owned()).collect(),
            details: Value::Null,
        }
    }

    fn config(address: &str) -> ChannelConfig {
        ChannelConfig {
            public: json!({}),
            secret: Some(address.to_owned().into()),
            previous_secret: None,
        }
    }

    async fn deliver(answer: Reply) -> (Result<Delivered, ChannelFault>, Scripted) {
        let server = Scripted::start(vec![answer]);
        let path = "v1/spaces/AAA/messages?key=canary-key&token=canary-token&threadKey=t";
        let config = config(&format!("{}/{path}", server.url));
        let rendered = chat().render(&message("Hello", &["there"]));
        let delivery = Delivery::first(&config, &rendered, "k1", EffectClass::AtLeastOnce, soon());
        let result = chat().deliver(delivery).await;
        (result, server)
    }

    #[tokio::test]
    async fn a_message_is_created_with_the_key_as_request_id() {
        let name = "spaces/AAA/messages/B.B";
        let (delivered, server) = deliver(ok(&json!({"name": name}))).await;
        assert_eq!(delivered.unwrap().provider_ref.as_deref(), Some(name));
        let request = server.received().remove(0);
        let target =
            "/v1/spaces/AAA/messages?key=canary-key&token=canary-token&threadKey=t&requestId=k1";
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", target)
        );
        assert_eq!(request.json(), json!({"text": "Hello\nthere"}));
    }

    #[tokio::test]
    async fn a_failure_is_classified_and_does_not_show_the_address() {
        let bad_key = r#"{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}"#;
        for (answer, code, certainty) in [
            (
                reply(400, "", bad_key),
                "google_chat.unauthorized",
                Certainty::NotDone,
            ),
            (
                reply(400, "", "{}"),
                "google_chat.refused",
                Certainty::NotDone,
            ),
            (
                reply(403, "", ""),
                "google_chat.forbidden",
                Certainty::NotDone,
            ),
            (
                reply(404, "", ""),
                "google_chat.not_found",
                Certainty::NotDone,
            ),
            (
                reply(429, "", ""),
                "google_chat.rate_limited",
                Certainty::NotDone,
            ),
            (
                reply(503, "", ""),
                "google_chat.server_error",
                Certainty::Unknown,
            ),
            (
                reply(200, "", "{}"),
                "google_chat.malformed_answer",
                Certainty::Unknown,
            ),
            (
                Reply::Lose,
                "google_chat.connection_lost",
                Certainty::Unknown,
            ),
        ] {
            let fault = deliver(answer).await.0.unwrap_err();
            assert_eq!((fault.code(), fault.certainty()), (code, certainty));
            assert!(!format!("{fault:?} {}", crate::fault::chain(&fault)).contains("canary"));
        }
        let fault = deliver(reply(404, "", "")).await.0.unwrap_err();
        assert!(
            fault.hint().contains("Create a webhook"),
            "{}",
            fault.hint()
        );
    }

    #[test]
    fn neither_syntax_finds_markup_links_or_mentions() {
        let lines = [
            "<users/all> *b* `c`",
            "<https://x.example|click>",
            "[a](b)",
            "> # quote",
            "a-b",
        ];
        let Rendered(text) = chat().render(&message("_t_", &lines));
        let expected = [
            "_|t_|",
            "<|users/all> *|b*| \u{2cb}c\u{2cb}",
            "<|https|://x|.example|click>",
            "[a]|(b)",
            "|>| # quote",
            "a-b",
        ];
        // The sign `|` of the third line is the vendor's own; everywhere else it stands for a break.
        let told: Vec<String> = text
            .lines()
            .map(|line| line.replace(LINK_BREAK, "|"))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_long_message_fits() {
        let Rendered(text) = chat().render(&message("T", &["🦀*".repeat(30_000).as_str()]));
        assert!(text.chars().count() <= TEXT_CHARACTERS && text.ends_with('…'));
        assert!(json!({"text": text}).to_string().len() < 32_000);
    }

    #[test]
    fn only_a_webhook_s_address_is_accepted_and_it_is_not_shown() {
        let space = "https://chat.googleapis.com/v1/spaces/AAA/messages";
        for good in [
            "?key=k&token=t",
            "?key=k&token=t&threadKey=x&messageReplyOption=y",
        ] {
            assert_eq!(
                chat().check_config(&config(&format!("{space}{good}"))),
                Ok(())
            );
        }
        for bad in [
            "",
            "?key=canary",
            "?key=canary&token=",
            "?key=k&token=canary&requestId=1",
            "/7?key=canary&token=t",
        ] {
            let BadConfig(why) = chat()
                .check_config(&config(&format!("{space}{bad}")))
                .unwrap_err();
            assert!(
                why.contains("the secret") && !why.contains("canary"),
                "{why}"
            );
        }
    }
}
