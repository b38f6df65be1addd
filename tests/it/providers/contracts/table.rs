//! The rows of the table.

use super::shape::{Field, Shape};
use super::{Body, Fact, Vendor, Wanted};

const JSON: &str = "application/json";
/// The version parameter of every Azure DevOps area that is not in preview.
const VERSION: (&str, Wanted) = ("api-version", Wanted::Exactly("7.1"));
/// The host of most Azure DevOps areas, and its setting.
const CORE: (&str, &str) = ("https://dev.azure.com", "azure_devops_url");
/// The host of profiles and accounts, and its setting.
const PROFILE: (&str, &str) = (
    "https://app.vssps.visualstudio.com",
    "azure_devops_profile_url",
);
const GRAPH: (&str, &str) = ("https://vssps.dev.azure.com", "azure_devops_graph_url");
const SEARCH: (&str, &str) = ("https://almsearch.dev.azure.com", "azure_devops_search_url");

const fn azure_devops(file: &'static str, (base, setting): (&'static str, &'static str)) -> Vendor {
    Vendor {
        file: Some(file),
        base: Some(base),
        setting: Some(setting),
        below: &[""],
    }
}

const DISCORD: Vendor = Vendor {
    file: Some("discord.json"),
    base: Some("https://discord.com/api/v10"),
    setting: Some("discord_url"),
    below: &["/api/v10"],
};
/// The address of a Discord webhook has no version.
const DISCORD_WEBHOOK: Vendor = Vendor {
    below: &["/api/v10", "/api"],
    ..DISCORD
};
const SLACK: Vendor = Vendor {
    file: Some("slack.json"),
    base: Some("https://slack.com/api"),
    setting: Some("slack_url"),
    below: &["/slack/api"],
};
const ENTRA: Vendor = Vendor {
    file: None,
    base: Some("https://login.microsoftonline.com"),
    setting: Some("entra_token_url"),
    below: &[""],
};
/// The vendor of a row whose receiver chooses its address.
const ANYWHERE: Vendor = Vendor {
    file: None,
    base: None,
    setting: None,
    below: &[""],
};

pub(super) const STRING: Shape = Shape::Of(&["string"]);
const INTEGER: Shape = Shape::Of(&["integer"]);
const BOOLEAN: Shape = Shape::Of(&["boolean"]);
const ANYTHING: Shape = Shape::Of(&[
    "null", "boolean", "integer", "number", "string", "array", "object",
]);

const fn must(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        is_required: true,
    }
}

const fn may(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape,
        is_required: false,
    }
}

const fn object(fields: &'static [Field]) -> Option<Body> {
    Some(Body {
        media_type: JSON,
        shape: Shape::Object(fields),
    })
}

/// The permitted mentions of a text: none.
const MENTIONS: Shape = Shape::Object(&[must("parse", Shape::List(&STRING))]);
/// The body of a message to Discord; the parameter `wait` of a webhook is in the query.
const DISCORD_MESSAGE: &[Field] = &[
    must("content", STRING),
    must("allowed_mentions", MENTIONS),
    must("flags", INTEGER),
];

/// A card of Microsoft Teams.
const ATTACHMENT: Shape = Shape::Object(&[
    must("contentType", STRING),
    must("contentUrl", Shape::Of(&["null"])),
    must("content", Shape::Of(&["object"])),
]);
/// The data of a webhook message.
const EVENT: Shape = Shape::Object(&[
    must("title", STRING),
    must("lines", Shape::List(&STRING)),
    must("details", ANYTHING),
]);

pub(super) const TABLE: &[Fact] = &[
    Fact {
        name: "profile",
        method: "GET",
        path: "/_apis/profile/profiles/{id}",
        optional: "",
        query: &[VERSION],
        body: None,
        vendor: azure_devops("azure-devops-7.1/profile.json", PROFILE),
    },
    Fact {
        name: "accounts",
        method: "GET",
        path: "/_apis/accounts",
        optional: "",
        query: &[VERSION, ("memberId", Wanted::Something)],
        body: None,
        vendor: azure_devops("azure-devops-7.1/accounts.json", PROFILE),
    },
    Fact {
        name: "search",
        method: "POST",
        path: "/{organization}/{project}/_apis/search/workitemsearchresults",
        optional: "{project}",
        query: &[VERSION],
        body: object(&[
            must("searchText", STRING),
            must("$skip", INTEGER),
            must("$top", INTEGER),
            must("filters", Shape::Map(&Shape::List(&STRING))),
            must("includeFacets", BOOLEAN),
        ]),
        vendor: azure_devops("azure-devops-7.1/search.json", SEARCH),
    },
    Fact {
        name: "work items",
        method: "POST",
        path: "/{organization}/{project}/_apis/wit/workitemsbatch",
        optional: "{project}",
        query: &[VERSION],
        body: object(&[
            must("ids", Shape::List(&INTEGER)),
            must("fields", Shape::List(&STRING)),
            must("errorPolicy", STRING),
        ]),
        vendor: azure_devops("azure-devops-7.1/work-item-tracking.json", CORE),
    },
    Fact {
        name: "states of a type",
        method: "GET",
        path: "/{organization}/{project}/_apis/wit/workitemtypes/{type}/states",
        optional: "",
        query: &[VERSION],
        body: None,
        vendor: azure_devops("azure-devops-7.1/work-item-tracking.json", CORE),
    },
    Fact {
        name: "assignment",
        method: "PATCH",
        path: "/{organization}/{project}/_apis/wit/workitems/{id}",
        optional: "{project}",
        query: &[VERSION],
        body: Some(Body {
            media_type: "application/json-patch+json",
            // RFC 6902 allows any value, and so does the vendor, although its description states
            // an object.
            shape: Shape::List(&Shape::Object(&[
                must("op", STRING),
                must("path", STRING),
                must("value", Shape::Of(&["string", "integer"])),
            ])),
        }),
        vendor: azure_devops("azure-devops-7.1/work-item-tracking.json", CORE),
    },
    Fact {
        name: "users",
        method: "GET",
        path: "/{organization}/_apis/graph/users",
        optional: "",
        query: &[
            ("api-version", Wanted::Exactly("7.1-preview.1")),
            ("continuationToken", Wanted::Perhaps),
        ],
        body: None,
        vendor: azure_devops("azure-devops-7.1/graph.json", GRAPH),
    },
    Fact {
        name: "message of a bot",
        method: "POST",
        path: "/channels/{channel_id}/messages",
        optional: "",
        query: &[],
        body: object(&[
            must("content", STRING),
            must("allowed_mentions", MENTIONS),
            must("nonce", STRING),
            must("enforce_nonce", BOOLEAN),
            must("flags", INTEGER),
        ]),
        vendor: DISCORD,
    },
    Fact {
        name: "message of a webhook, or follow-up of an interaction",
        method: "POST",
        path: "/webhooks/{webhook_id}/{webhook_token}",
        optional: "",
        query: &[("wait", Wanted::Perhaps), ("thread_id", Wanted::Perhaps)],
        body: object(DISCORD_MESSAGE),
        vendor: DISCORD_WEBHOOK,
    },
    Fact {
        name: "edit of a message of an interaction",
        method: "PATCH",
        path: "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}",
        optional: "",
        query: &[("thread_id", Wanted::Perhaps)],
        body: object(DISCORD_MESSAGE),
        vendor: DISCORD_WEBHOOK,
    },
    Fact {
        name: "edit of the original message of an interaction",
        method: "PATCH",
        path: "/webhooks/{webhook_id}/{webhook_token}/messages/@original",
        optional: "",
        query: &[],
        body: object(DISCORD_MESSAGE),
        vendor: DISCORD_WEBHOOK,
    },
    Fact {
        name: "message in Slack",
        method: "POST",
        path: "/chat.postMessage",
        optional: "",
        query: &[],
        body: object(&[
            must("channel", STRING),
            must("text", STRING),
            must("mrkdwn", BOOLEAN),
            must("parse", STRING),
            must("link_names", BOOLEAN),
            must("unfurl_links", BOOLEAN),
            must("unfurl_media", BOOLEAN),
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
        body: Some(Body {
            media_type: "application/x-www-form-urlencoded",
            shape: Shape::Object(&[
                must("grant_type", STRING),
                must("client_id", STRING),
                must("client_secret", STRING),
                must("refresh_token", STRING),
                must("scope", STRING),
            ]),
        }),
        vendor: ENTRA,
    },
    // <https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>:
    // the address is its owner's.
    Fact {
        name: "workflow of Microsoft Teams",
        method: "POST",
        path: "/teams/{workflow}",
        optional: "",
        query: &[
            ("api-version", Wanted::Perhaps),
            ("sp", Wanted::Perhaps),
            ("sv", Wanted::Perhaps),
            ("sig", Wanted::Something),
        ],
        body: object(&[
            must("type", STRING),
            must("attachments", Shape::List(&ATTACHMENT)),
        ]),
        vendor: ANYWHERE,
    },
    // <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>:
    // the address is its owner's.
    Fact {
        name: "webhook",
        method: "POST",
        path: "/webhook/{receiver}",
        optional: "",
        query: &[],
        body: object(&[
            must("type", STRING),
            may("timestamp", STRING),
            must("data", EVENT),
        ]),
        vendor: ANYWHERE,
    },
];
