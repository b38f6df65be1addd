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

use std::time::SystemTime;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Refusal,
    Rendered, decode,
};
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{Patience, Provider, provider, retry_after};
use super::kind::ChannelKind;
use super::said::Said;
use super::text::{Capped, LINK_BREAK, cut, unlinked, visible};
use crate::fault::{Certainty, Class};
use crate::job::EffectClass;

/// One message a second in a space, shared by all its webhooks
/// (<https://developers.google.com/workspace/chat/limits>). Each destination has this rate for
/// itself; the destinations of a space share only the hold after a 429.
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
        let url = config.secret_address(&self.http, RIGHT_SECRET)?;
        Some(url)
            .filter(is_webhook)
            .ok_or_else(|| BadConfig(RIGHT_SECRET.to_owned()))
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
        let patience = Patience {
            retry_after: retry_after(&answer.headers, SystemTime::now()),
            with_all: answer.status == 429,
        };
        let answer = answer.success_or(patience)?;
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

    fn render(&self, message: &Message) -> Rendered {
        let mut text = Capped::new(TEXT_CHARACTERS);
        text.push_all(escape(&cut(&message.title, TITLE_CHARACTERS)));
        for line in &message.lines {
            text.push("\n");
            text.push_all(escape(line));
        }
        Rendered(text.finish())
    }

    fn shared_limit(&self, config: &ChannelConfig) -> Option<String> {
        let url = self.target(config).ok()?;
        // With the host: an address elsewhere must not hold other organizations' spaces.
        Some(format!("{}/spaces/{}", url.host_str()?, space(&url)?))
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
    let has = |wanted: &str| {
        url.query_pairs()
            .any(|(name, value)| name == wanted && !value.is_empty())
    };
    space(url).is_some()
        && has("key")
        && has("token")
        && url
            .query_pairs()
            .all(|(name, _)| PARAMETERS.contains(&name.as_ref()))
}

/// Returns the id of the space of `…/spaces/SPACE/messages`. It is part of a hold's scope, where `|`
/// separates the parts.
fn space(url: &Url) -> Option<&str> {
    let parts: Vec<&str> = url.path_segments()?.collect();
    let [.., "spaces", id, "messages"] = parts[..] else {
        return None;
    };
    let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (!id.is_empty() && id.chars().all(is_of_id)).then_some(id)
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

/// Returns one line of plain text as pieces in which Chat's own syntax finds no markup, list, link
/// (`<url|text>`) or mention (`<users/all>`)
/// (<https://developers.google.com/workspace/chat/format-messages>). The syntax has no escape, but a
/// sign formats only what it touches, and begins a list only before a space, so a hair space follows
/// each sign. The signs of Markdown's links, headings and quotations are treated in the same way;
/// the rest of Markdown, such as numbered lists, is not.
fn escape(line: &str) -> Vec<String> {
    let mut pieces = Vec::with_capacity(line.len());
    let mut at_start = true;
    for character in unlinked(line).chars() {
        pieces.push(match character {
            // Only at the start do they begin a list, a heading or a quotation.
            '*' | '-' | '+' | '#' | '>' if at_start => {
                format!("{LINK_BREAK}{character}{LINK_BREAK}")
            }
            '*' | '_' | '~' | '<' | ']' => format!("{character}{LINK_BREAK}"),
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
    //! the token; the key is the same for all. A repeated `requestId` creates another message, since
    //! the vendor does not document otherwise for webhooks.

    use reqwest::{Method, StatusCode};
    use serde_json::{Value, json};
    use time::OffsetDateTime;

    use crate::providers::contract::{Body, Fact, Field, Shape, Vendor, Wanted};
    use crate::providers::simulated::{
        Description, ReceivedCall, Rooms, SimulatedAnswer, SimulatedChannel,
    };

    const MESSAGE_BYTES: usize = 32_000;
    const KEY: &str = "simulated-key";

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
            let address = format!("{simulator}/{path}?key={KEY}&token={token}");
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
            return refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such path");
        };
        if call.query.get("key").is_none_or(|key| key != KEY) {
            let message = "API key not valid. Please pass a valid API key.";
            return refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
        }
        let Some(room) = rooms.get_mut(space).filter(|_| call.method == Method::POST) else {
            return refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such space");
        };
        if call.query.get("token") != Some(&room.secret) {
            let message = "the token is not right";
            return refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message);
        }
        let body = call.json::<Value>().unwrap_or_default();
        let has_text = body["text"].as_str().is_some_and(|text| !text.is_empty());
        if !has_text || call.body.len() > MESSAGE_BYTES {
            let message = "the text is missing or too long";
            return refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
        }
        let name = format!("spaces/{space}/messages/{}", room.received.len());
        let created = json!({"name": name, "text": body["text"]});
        room.received.push(body);
        SimulatedAnswer::ok(&created).effect()
    }

    fn refusal(status: StatusCode, word: &str, message: &str) -> SimulatedAnswer {
        let error = json!({"code": status.as_u16(), "message": message, "status": word});
        SimulatedAnswer::json(status, &json!({"error": error})).detail(json!({"refused": message}))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::Fault;
    use crate::providers::scripted::{
        Reply, Scripted, channel_config, client, json as ok, message, reply, soon,
    };

    fn chat() -> GoogleChat {
        GoogleChat::new(client())
    }

    fn config(address: &str) -> ChannelConfig {
        channel_config(json!({}), Some(address))
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
        let sent = (request.method.as_str(), request.target.as_str());
        assert_eq!(sent, ("POST", target));
        assert_eq!(request.json(), json!({"text": "Hello\nthere"}));
    }

    #[tokio::test]
    async fn a_failure_is_classified_and_does_not_show_the_address() {
        let (never, later) = (Class::Permanent, Class::Transient { retry_after: None });
        let limited = |retry_after| Class::RateLimited { retry_after };
        let seven = Some(Duration::from_secs(7));
        let (not_done, unknown) = (Certainty::NotDone, Certainty::Unknown);
        let slow_down = || reply(429, "retry-after: 7\r\n", "");
        let bad_key = r#"{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}"#;
        for (answer, code, class, certainty) in [
            (reply(400, "", bad_key), "unauthorized", &never, not_done),
            (reply(400, "", "{}"), "refused", &never, not_done),
            (reply(401, "", ""), "unauthorized", &never, not_done),
            (reply(403, "", ""), "forbidden", &never, not_done),
            (reply(404, "", ""), "not_found", &never, not_done),
            (reply(429, "", ""), "rate_limited", &limited(None), not_done),
            (slow_down(), "rate_limited", &limited(seven), not_done),
            (reply(503, "", ""), "server_error", &later, unknown),
            (reply(200, "", "{}"), "malformed_answer", &later, unknown),
            (Reply::Lose, "connection_lost", &later, unknown),
        ] {
            let fault = deliver(answer).await.0.unwrap_err();
            assert_eq!(fault.code(), format!("google_chat.{code}"));
            let got = (&fault.class(), fault.certainty());
            assert_eq!(got, (class, certainty), "{code}");
            assert_eq!(fault.limits_all(), code == "rate_limited", "{code}");
            assert!(!format!("{fault:?} {}", crate::fault::chain(&fault)).contains("canary"));
        }
        let hint = deliver(reply(404, "", "")).await.0.unwrap_err().hint();
        assert!(hint.contains("Create a webhook"), "{hint}");
    }

    #[test]
    fn webhooks_of_one_space_share_a_limit_whose_name_shows_no_credential() {
        for hook in ["key=canary&token=canary", "key=k&token=t&threadKey=x"] {
            let address = format!("https://chat.googleapis.com/v1/spaces/A-_1/messages?{hook}");
            let limit = chat().shared_limit(&config(&address));
            assert_eq!(limit.as_deref(), Some("chat.googleapis.com/spaces/A-_1"));
        }
    }

    #[cfg(feature = "devkit")]
    #[tokio::test]
    async fn a_simulated_space_checks_both_credentials_and_does_not_dedupe() {
        use crate::providers::simulated::{ReceivedCall, Room, Rooms};

        let mut rooms = Rooms::from([("AAAA".to_owned(), Room::default())]);
        let mut post = |query: &str| {
            let path = "/google_chat/v1/spaces/AAAA/messages";
            let none = reqwest::header::HeaderMap::new();
            let body = br#"{"text": "x"}"#.to_vec();
            let call = ReceivedCall::new(Method::POST, path, Some(query), none, body);
            let now = time::OffsetDateTime::UNIX_EPOCH;
            let answer = (simulation::SIMULATED.answer)(&mut rooms, &call, now);
            let body = str::from_utf8(&answer.body).unwrap();
            (answer.effect, reply(answer.status.as_u16(), "", body))
        };
        for (query, code) in [
            ("token=", "google_chat.unauthorized"),
            ("key=other&token=", "google_chat.unauthorized"),
            ("key=simulated-key&token=other", "google_chat.forbidden"),
        ] {
            let (effect, answer) = post(query);
            let fault = deliver(answer).await.0.unwrap_err();
            assert_eq!((effect, fault.code()), (false, code));
        }
        for _ in 0..2 {
            let (effect, answer) = post("key=simulated-key&token=&requestId=k1");
            assert!(effect && deliver(answer).await.0.is_ok());
        }
    }

    #[test]
    fn the_syntax_of_chat_finds_no_markup_lists_links_or_mentions() {
        // In the expected text, `|` stands for a break, except for the vendor's own before `click`.
        for (line, expected) in [
            ("<users/all> *b*", "<|users/all> *|b*|"),
            ("`c`", "\u{2cb}c\u{2cb}"),
            ("<https://x.example|click>", "<|https|://x|.example|click>"),
            ("[a](b)", "[a]|(b)"),
            ("> # quote", "|>| # quote"),
            ("a-b", "a-b"),
            ("* item", "|*| item"),
            (" - item", " |-| item"),
            ("1. item", "1. item"),
            ("===", "==="),
        ] {
            let Rendered(text) = chat().render(&message("_t_", &[line]));
            assert_eq!(text.replace(LINK_BREAK, "|"), format!("_|t_|\n{expected}"));
        }
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
        let check = |rest: &str| chat().check_config(&config(&format!("{space}{rest}")));
        for good in [
            "?key=k&token=t",
            "?key=k&token=t&threadKey=x&messageReplyOption=y",
        ] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in [
            "",
            "?key=canary",
            "?key=canary&token=",
            "?key=k&token=canary&requestId=1",
            "/7?key=canary&token=t",
            "/spaces/A|B/messages?key=canary&token=t",
        ] {
            let BadConfig(why) = check(bad).unwrap_err();
            let is_right = why.contains("the secret") && !why.contains("canary");
            assert!(is_right, "{why}");
        }
    }
}
