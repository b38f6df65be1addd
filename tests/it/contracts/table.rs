//! The facts.

use super::{Body, Fact, Field, Kind, Vendor};

const JSON: &str = "application/json";
/// Of every request to Azure DevOps whose area is no preview.
const VERSION: (&str, Option<&str>) = ("api-version", Some("7.1"));

const fn azure_devops(file: &'static str) -> Vendor {
    Vendor { file: Some(file), below: &[""] }
}

/// A webhook's own address has no version.
const DISCORD: Vendor = Vendor { file: Some("discord.json"), below: &["/api/v10", "/api"] };
const SLACK: Vendor = Vendor { file: Some("slack.json"), below: &["/api", "/slack/api"] };

const fn must(name: &'static str, types: &'static [&'static str]) -> Field {
    Field { name, types, required: true }
}

const fn may(name: &'static str, types: &'static [&'static str]) -> Field {
    Field { name, types, required: false }
}

const fn object(fields: &'static [Field]) -> Option<Body> {
    Some(Body { media_type: JSON, kind: Kind::Object, fields })
}

/// What is sent to Discord as a message; `wait` of a webhook is in its query.
const DISCORD_MESSAGE: &[Field] =
    &[must("content", &["string"]), must("allowed_mentions", &["object"]), may("flags", &["integer"])];

pub(super) const TABLE: &[Fact] = &[
    Fact {
        name: "profile",
        method: "GET",
        path: "/_apis/profile/profiles/{id}",
        optional: "",
        query: &[VERSION],
        body: None,
        vendor: azure_devops("azure-devops-7.1/profile.json"),
    },
    Fact {
        name: "accounts",
        method: "GET",
        path: "/_apis/accounts",
        optional: "",
        query: &[VERSION, ("memberId", None)],
        body: None,
        vendor: azure_devops("azure-devops-7.1/accounts.json"),
    },
    Fact {
        name: "search",
        method: "POST",
        path: "/{organization}/{project}/_apis/search/workitemsearchresults",
        optional: "{project}",
        query: &[VERSION],
        body: object(&[
            must("searchText", &["string"]),
            must("$skip", &["integer"]),
            must("$top", &["integer"]),
            may("filters", &["object"]),
            may("includeFacets", &["boolean"]),
        ]),
        vendor: azure_devops("azure-devops-7.1/search.json"),
    },
    Fact {
        name: "work items",
        method: "POST",
        path: "/{organization}/{project}/_apis/wit/workitemsbatch",
        optional: "{project}",
        query: &[VERSION],
        body: object(&[must("ids", &["array"]), must("fields", &["array"]), must("errorPolicy", &["string"])]),
        vendor: azure_devops("azure-devops-7.1/work-item-tracking.json"),
    },
    Fact {
        name: "states of a type",
        method: "GET",
        path: "/{organization}/{project}/_apis/wit/workitemtypes/{type}/states",
        optional: "",
        query: &[VERSION],
        body: None,
        vendor: azure_devops("azure-devops-7.1/work-item-tracking.json"),
    },
    Fact {
        name: "assignment",
        method: "PATCH",
        path: "/{organization}/{project}/_apis/wit/workitems/{id}",
        optional: "{project}",
        query: &[VERSION],
        body: Some(Body {
            media_type: "application/json-patch+json",
            kind: Kind::List,
            // RFC 6902 lets a value be anything, and so does the vendor, who describes it as an object.
            fields: &[must("op", &["string"]), must("path", &["string"]), must("value", &["string", "integer"])],
        }),
        vendor: azure_devops("azure-devops-7.1/work-item-tracking.json"),
    },
    Fact {
        name: "users",
        method: "GET",
        path: "/{organization}/_apis/graph/users",
        optional: "",
        query: &[("api-version", Some("7.1-preview.1")), ("continuationToken", None)],
        body: None,
        vendor: azure_devops("azure-devops-7.1/graph.json"),
    },
    Fact {
        name: "message of a bot",
        method: "POST",
        path: "/channels/{channel_id}/messages",
        optional: "",
        query: &[],
        body: object(&[
            must("content", &["string"]),
            must("allowed_mentions", &["object"]),
            may("nonce", &["string"]),
            may("enforce_nonce", &["boolean"]),
            may("flags", &["integer"]),
        ]),
        vendor: DISCORD,
    },
    Fact {
        name: "message of a webhook, or follow-up of an interaction",
        method: "POST",
        path: "/webhooks/{webhook_id}/{webhook_token}",
        optional: "",
        query: &[("wait", None), ("thread_id", None)],
        body: object(DISCORD_MESSAGE),
        vendor: DISCORD,
    },
    Fact {
        name: "edit of a message of an interaction",
        method: "PATCH",
        path: "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}",
        optional: "",
        query: &[("thread_id", None)],
        body: object(DISCORD_MESSAGE),
        vendor: DISCORD,
    },
    Fact {
        name: "edit of the original message of an interaction",
        method: "PATCH",
        path: "/webhooks/{webhook_id}/{webhook_token}/messages/@original",
        optional: "",
        query: &[],
        body: object(DISCORD_MESSAGE),
        vendor: DISCORD,
    },
    Fact {
        name: "message in Slack",
        method: "POST",
        path: "/chat.postMessage",
        optional: "",
        query: &[],
        body: object(&[
            must("channel", &["string"]),
            must("text", &["string"]),
            may("mrkdwn", &["boolean"]),
            may("parse", &["string"]),
            may("link_names", &["boolean"]),
            may("unfurl_links", &["boolean"]),
            may("unfurl_media", &["boolean"]),
            may("thread_ts", &["string"]),
        ]),
        vendor: SLACK,
    },
    // <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow#refresh-the-access-token>
    Fact {
        name: "refresh of a token",
        method: "POST",
        path: "/{tenant}/oauth2/v2.0/token",
        optional: "",
        query: &[],
        body: Some(Body { media_type: "application/x-www-form-urlencoded", kind: Kind::Form, fields: &[] }),
        vendor: no_vendor(),
    },
    // <https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>: the address is its
    // owner's.
    Fact {
        name: "workflow of Microsoft Teams",
        method: "POST",
        path: "/teams/{workflow}",
        optional: "",
        query: &[("api-version", None), ("sp", None), ("sv", None), ("sig", None)],
        body: object(&[must("type", &["string"]), must("attachments", &["array"])]),
        vendor: no_vendor(),
    },
    // <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>: the address is its owner's.
    Fact {
        name: "webhook",
        method: "POST",
        path: "/webhook/{receiver}",
        optional: "",
        query: &[],
        body: object(&[must("type", &["string"]), may("timestamp", &["string"]), must("data", &["object"])]),
        vendor: no_vendor(),
    },
];

/// For a row that is no vendor's.
pub(super) const fn no_vendor() -> Vendor {
    Vendor { file: None, below: &[""] }
}
