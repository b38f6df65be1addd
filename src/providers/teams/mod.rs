//! Microsoft Teams, through a workflow that posts what its webhook receives
//! (<https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>):
//! an adaptive card (<https://adaptivecards.io/explorer/TextBlock.html>) inside a message.
//!
//! `answer` decides what proves a delivery, `address` which addresses are retired. The
//! channel can know only that a workflow has accepted a card; the workflow's run history shows
//! what it did with it.
//!
//! The whole address is the secret: its query signs it. At-least-once: a workflow has no key, and
//! runs once for each request.

mod address;
mod answer;
#[cfg(feature = "devkit")]
mod contract;
#[cfg(feature = "devkit")]
mod simulator;
#[cfg(test)]
mod tests;

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::address::Retired;
use self::answer::{ANSWER_BYTES, proof};
use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered, decode,
};
use super::http::{HttpClient, HttpRequest};
use super::http_fault::{Provider, provider};
use super::kind::ChannelKind;
use super::text::{Capped, cut, unlinked, visible};
use crate::job::EffectClass;

/// Four requests a second
/// (<https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>).
static TEAMS: Provider = provider!("teams", "Microsoft Teams", 4 calls in 1 s);

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &TEAMS,
    api: None,
    without_place: &[],
    make: |parts| Box::new(Teams::new(parts.http.clone())),
    #[cfg(feature = "devkit")]
    requests: contract::REQUESTS,
    #[cfg(feature = "devkit")]
    simulated: Some(simulator::SIMULATED),
};

/// The vendor accepts about 28 KB, including the data that its own service adds.
const BODY_BYTES: usize = 24 << 10;
const TITLE_CHARACTERS: usize = 256;
/// The limit for one line, escapes included.
const LINE_CHARACTERS: usize = 2000;
/// Without the charset, the service counts every character as two bytes.
const MEDIA_TYPE: &str = "application/json; charset=utf-8";
const RIGHT: &str = "{}: the workflow's address is the secret";
const RIGHT_SECRET: &str = "the secret must be the address that the workflow shows, with its query";

/// A channel that posts cards to a Teams channel or chat through a workflow.
#[derive(Debug)]
pub struct Teams {
    http: HttpClient,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

#[derive(Serialize)]
struct TextBlock {
    r#type: &'static str,
    text: String,
    wrap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<&'static str>,
}

impl TextBlock {
    const fn line(text: String) -> Self {
        Self {
            r#type: "TextBlock",
            text,
            wrap: true,
            weight: None,
        }
    }
}

impl Teams {
    /// Creates a channel that sends with `http`.
    #[must_use]
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    fn target(&self, config: &ChannelConfig) -> Result<Url, BadConfig> {
        let Settings {} = decode(&config.public, RIGHT)?;
        config.secret_address(&self.http, RIGHT_SECRET)
    }

    /// Returns the address for registration, which must not be known as retired.
    fn new_target(&self, config: &ChannelConfig) -> Result<Url, BadConfig> {
        let url = self.target(config)?;
        Retired::of(&url).map_or(Ok(url), |retired| Err(BadConfig(retired.text().to_owned())))
    }

    /// Returns the address for a delivery. The address of a connector is not called, because no
    /// service answers there any more. An address on `logic.azure.com` that was registered earlier
    /// is called: another product uses that host, too, and the answer shows which one it is.
    fn present_target(&self, config: &ChannelConfig) -> Result<Url, BadConfig> {
        let url = self.target(config)?;
        match Retired::of(&url) {
            Some(retired @ Retired::Connector) => Err(BadConfig(retired.text().to_owned())),
            Some(Retired::MovedWorkflow) | None => Ok(url),
        }
    }

    async fn post(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &TEAMS,
            problem,
        };
        let url = self.present_target(delivery.config).map_err(bad)?;
        let body = delivery.rendered.0.as_bytes().to_vec();
        let call = HttpRequest::new(&TEAMS, Method::POST, url, delivery.deadline)
            .body(MEDIA_TYPE, body)
            .body_start(ANSWER_BYTES);
        let answer = self.http.send(call).await?.success()?;
        proof(&TEAMS, &answer)?;
        Ok(Delivered::whole(None))
    }
}

impl Channel for Teams {
    fn kind(&self) -> &'static str {
        TEAMS.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::AtLeastOnce
    }

    fn render(&self, message: &Message) -> Rendered {
        let title = escaped(&cut(&message.title, TITLE_CHARACTERS));
        let mut blocks = vec![TextBlock {
            weight: Some("Bolder"),
            ..TextBlock::line(title)
        }];
        // Each block after the title adds a comma.
        let mut room = BODY_BYTES
            - in_json(&body(&blocks)).len()
            - in_json(&TextBlock::line("…".to_owned())).len()
            - 1;
        for line in &message.lines {
            let block = TextBlock::line(escaped(line));
            let Some(left) = room.checked_sub(in_json(&block).len() + 1) else {
                blocks.push(TextBlock::line("…".to_owned()));
                break;
            };
            room = left;
            blocks.push(block);
        }
        Rendered(in_json(&body(&blocks)))
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.new_target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.post(delivery).boxed()
    }
}

fn body(blocks: &[TextBlock]) -> Value {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": blocks,
            },
        }],
    })
}

fn in_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers have a JSON form")
}

/// Returns one line of plain text in the Markdown of a card's text. Markup, links (also bare
/// ones), mentions (`<at>`) and functions of cards (`{{DATE(…)}}`) are escaped.
fn escaped(line: &str) -> String {
    let mut text = Capped::new(LINE_CHARACTERS);
    let mut at_start = true;
    for character in unlinked(line).chars() {
        match character {
            '\\' | '*' | '_' | '~' | '`' | '|' | '<' | '>' | '[' | ']' | '(' | ')' | '{' | '}'
            | '#' | '&' | '!' => {
                text.push(&format!("\\{character}"));
            }
            // Only at the start do they begin a list.
            '-' | '+' if at_start => text.push(&format!("\\{character}")),
            c => text.push(visible(c).encode_utf8(&mut [0; 4])),
        }
        at_start &= visible(character) == ' ';
    }
    text.finish()
}
