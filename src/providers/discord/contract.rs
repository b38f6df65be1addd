//! The requests to Discord (<https://discord.com/developers/docs/resources/message>,
//! <https://discord.com/developers/docs/resources/webhook>).

use crate::providers::contract::{Body, Fact, Field, Shape, Vendor, Wanted};

const DISCORD: Vendor = Vendor {
    file: Some("discord.json"),
    base: Some("https://discord.com/api/v10"),
    setting: Some("discord_url"),
    below: &["/api/v10"],
};
/// The address of a webhook has no version.
const DISCORD_WEBHOOK: Vendor = Vendor {
    below: &["/api/v10", "/api"],
    ..DISCORD
};

/// The permitted mentions of a text: none.
const MENTIONS: Shape = Shape::Object(&[Field::must("parse", Shape::List(&Shape::STRING))]);
/// The body of a message; the parameter `wait` of a webhook is in the query.
const MESSAGE: Body = Body::json(&[
    Field::must("content", Shape::STRING),
    Field::must("allowed_mentions", MENTIONS),
    Field::must("flags", Shape::INTEGER),
]);

/// The rows of the bot.
pub(super) const OF_THE_BOT: &[Fact] = &[Fact {
    name: "message of a bot",
    method: "POST",
    path: "/channels/{channel_id}/messages",
    optional: "",
    query: &[],
    body: Some(Body::json(&[
        Field::must("content", Shape::STRING),
        Field::must("allowed_mentions", MENTIONS),
        Field::must("nonce", Shape::STRING),
        Field::must("enforce_nonce", Shape::BOOLEAN),
        Field::must("flags", Shape::INTEGER),
    ])),
    vendor: DISCORD,
}];

/// The rows of webhooks, whose paths the answers to clicks share.
pub(super) const OF_WEBHOOKS: &[Fact] = &[
    Fact {
        name: "message of a webhook, or follow-up of an interaction",
        method: "POST",
        path: "/webhooks/{webhook_id}/{webhook_token}",
        optional: "",
        query: &[("wait", Wanted::Perhaps), ("thread_id", Wanted::Perhaps)],
        body: Some(MESSAGE),
        vendor: DISCORD_WEBHOOK,
    },
    Fact {
        name: "edit of a message of an interaction",
        method: "PATCH",
        path: "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}",
        optional: "",
        query: &[("thread_id", Wanted::Perhaps)],
        body: Some(MESSAGE),
        vendor: DISCORD_WEBHOOK,
    },
    Fact {
        name: "edit of the original message of an interaction",
        method: "PATCH",
        path: "/webhooks/{webhook_id}/{webhook_token}/messages/@original",
        optional: "",
        query: &[],
        body: Some(MESSAGE),
        vendor: DISCORD_WEBHOOK,
    },
];
