//! The requests to Slack (<https://docs.slack.dev/reference/methods/chat.postMessage/>).

use crate::providers::contract::{Body, Fact, Field, Shape, Vendor};

/// The rows of Slack.
pub(super) const REQUESTS: &[Fact] = &[Fact {
    name: "message in Slack",
    method: "POST",
    path: "/chat.postMessage",
    optional: "",
    query: &[],
    body: Some(Body::json(&[
        Field::must("channel", Shape::STRING),
        Field::must("text", Shape::STRING),
        Field::must("mrkdwn", Shape::BOOLEAN),
        Field::must("parse", Shape::STRING),
        Field::must("link_names", Shape::BOOLEAN),
        Field::must("unfurl_links", Shape::BOOLEAN),
        Field::must("unfurl_media", Shape::BOOLEAN),
    ])),
    vendor: Vendor {
        file: Some("slack.json"),
        base: Some("https://slack.com/api"),
        setting: Some("slack_url"),
        below: &["/slack/api"],
    },
}];
