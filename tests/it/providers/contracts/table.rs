//! The rows of the table that belong to no channel.

use dispatch_worker::providers::channel::CHANNELS;
use dispatch_worker::providers::contract::{Body, Fact, Field, Shape, Vendor, Wanted};

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

const ENTRA: Vendor = Vendor {
    file: None,
    base: Some("https://login.microsoftonline.com"),
    setting: Some("entra_token_url"),
    below: &[""],
};
/// Returns every row: those of Azure DevOps and Microsoft Entra, and those of the channels.
pub(super) fn table() -> impl Iterator<Item = &'static Fact> {
    let of_channels = CHANNELS.iter().flat_map(|kind| kind.requests);
    OTHERS.iter().chain(of_channels)
}

const OTHERS: &[Fact] = &[
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
        body: Some(Body::json(&[
            Field::must("searchText", Shape::STRING),
            Field::must("$skip", Shape::INTEGER),
            Field::must("$top", Shape::INTEGER),
            Field::must("filters", Shape::Map(&Shape::List(&Shape::STRING))),
            Field::must("includeFacets", Shape::BOOLEAN),
        ])),
        vendor: azure_devops("azure-devops-7.1/search.json", SEARCH),
    },
    Fact {
        name: "work items",
        method: "POST",
        path: "/{organization}/{project}/_apis/wit/workitemsbatch",
        optional: "{project}",
        query: &[VERSION],
        body: Some(Body::json(&[
            Field::must("ids", Shape::List(&Shape::INTEGER)),
            Field::must("fields", Shape::List(&Shape::STRING)),
            Field::must("errorPolicy", Shape::STRING),
        ])),
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
                Field::must("op", Shape::STRING),
                Field::must("path", Shape::STRING),
                Field::must("value", Shape::Of(&["string", "integer"])),
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
                Field::must("grant_type", Shape::STRING),
                Field::must("client_id", Shape::STRING),
                Field::must("client_secret", Shape::STRING),
                Field::must("refresh_token", Shape::STRING),
                Field::must("scope", Shape::STRING),
            ]),
        }),
        vendor: ENTRA,
    },
];
