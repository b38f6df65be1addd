//! The requests to workflows of Microsoft Teams
//! (<https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>).
//! The address is its owner's.

use crate::providers::contract::{Body, Fact, Field, Shape, Vendor, Wanted};

/// A card.
const ATTACHMENT: Shape = Shape::Object(&[
    Field::must("contentType", Shape::STRING),
    Field::must("contentUrl", Shape::Of(&["null"])),
    Field::must("content", Shape::Of(&["object"])),
]);

/// The rows of Microsoft Teams.
pub(super) const REQUESTS: &[Fact] = &[Fact {
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
    body: Some(Body::json(&[
        Field::must("type", Shape::STRING),
        Field::must("attachments", Shape::List(&ATTACHMENT)),
    ])),
    vendor: Vendor::ANYWHERE,
}];
