//! The table against the vendors' published descriptions, Swagger 2.0 and OpenAPI 3.1. They are
//! not part of the repository.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use dispatch_worker::providers::contract::{Body, Fact, Field, Shape, Vendor, Wanted};

use super::description::Description;
use super::table::table;

/// Finds the folder of the descriptions, beside the crate or beside the folder of its worktrees.
fn specifications() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["..", "../..", "../../.."]
        .iter()
        .map(|up| root.join(up).join("shared/specs"))
        .find(|folder| folder.is_dir());
    if found.is_none() {
        // Written to stderr directly, since the harness hides the output of a passed test.
        let said = "the table of contracts is not compared with the vendors' descriptions: there is no ../shared/specs";
        drop(writeln!(std::io::stderr(), "{said}"));
    }
    found
}

#[test]
fn every_row_matches_its_vendor_s_description() {
    let Some(folder) = specifications() else {
        return;
    };
    let mut wrong = Vec::new();
    for fact in table() {
        let Some(file) = fact.vendor.file else {
            continue;
        };
        let description = Description::read(&folder, file);
        wrong.extend(
            description
                .differs(fact)
                .into_iter()
                .map(|why| format!("{} ({file}): {why}", fact.name)),
        );
    }
    assert!(
        wrong.is_empty(),
        "rows that differ from the vendor's description:\n{}",
        wrong.join("\n")
    );
}

/// A part of the expected report, and a row that differs from its description.
type Wrong = (&'static str, Fact);

fn row(name: &str) -> Fact {
    *table().find(|fact| fact.name == name).expect("a row")
}

#[test]
fn a_row_that_differs_from_the_description_is_reported() {
    let Some(folder) = specifications() else {
        return;
    };
    let all = [
        with_another_target(),
        with_another_body(),
        with_another_property(),
    ];
    for (part, fact) in all.concat() {
        let description = Description::read(&folder, fact.vendor.file.expect("a file"));
        let differences = description.differs(&fact);
        assert!(
            differences.iter().any(|why| why.contains(part)),
            "{part}: {differences:?}"
        );
    }
}

/// Rows with another path, method, query or host.
fn with_another_target() -> Vec<Wrong> {
    const VERSION: (&str, Wanted) = ("api-version", Wanted::Exactly("7.1"));
    const OLD: (&str, Wanted) = ("api-version", Wanted::Exactly("7.0"));
    const MAY: (&str, Wanted) = ("api-version", Wanted::Perhaps);
    let (items, slack) = (row("work items"), row("message in Slack"));
    let vendor = |base| Vendor {
        base: Some(base),
        ..items.vendor
    };
    vec![
        (
            "no such path",
            Fact {
                path: "/nowhere",
                ..items
            },
        ),
        (
            "no such method",
            Fact {
                method: "DELETE",
                ..items
            },
        ),
        (
            "is required",
            Fact {
                query: &[],
                ..items
            },
        ),
        (
            "is required",
            Fact {
                query: &[MAY],
                ..items
            },
        ),
        (
            "7.1",
            Fact {
                query: &[OLD],
                ..items
            },
        ),
        (
            "dryRun",
            Fact {
                query: &[VERSION, ("dryRun", Wanted::Perhaps)],
                ..items
            },
        ),
        (
            "served at https://dev.azure.com",
            Fact {
                vendor: vendor("https://almsearch.dev.azure.com"),
                ..items
            },
        ),
        (
            "served at https://slack.com/api",
            Fact {
                vendor: Vendor {
                    base: Some("https://slack.com"),
                    ..slack.vendor
                },
                ..slack
            },
        ),
    ]
}

/// Rows with a segment that may be left out, with a body or none, or with another media type.
fn with_another_body() -> Vec<Wrong> {
    let (items, states) = (row("work items"), row("states of a type"));
    vec![
        (
            "{project} cannot be left out",
            Fact {
                optional: "{project}",
                ..states
            },
        ),
        (
            "there is a body",
            Fact {
                body: None,
                ..items
            },
        ),
        (
            "there is no body",
            Fact {
                body: items.body,
                ..states
            },
        ),
        (
            "media type",
            Fact {
                body: Some(Body {
                    media_type: "text/plain",
                    shape: Shape::Object(&[]),
                }),
                ..items
            },
        ),
    ]
}

/// Rows with another property of the body.
fn with_another_property() -> Vec<Wrong> {
    let items = row("work items");
    let (search, slack) = (row("search"), row("message in Slack"));
    vec![
        ("`body.nobody`", with(items, "nobody", Shape::STRING, false)),
        (
            "`body.ids` is no string",
            with(items, "ids", Shape::STRING, false),
        ),
        (
            "`body.ids[]` is no string",
            with(items, "ids", Shape::List(&Shape::STRING), false),
        ),
        (
            "`body.errorPolicy` is no array",
            with(items, "errorPolicy", Shape::List(&Shape::STRING), false),
        ),
        (
            "`body.filters{}` is no string",
            with(search, "filters", Shape::Map(&Shape::STRING), false),
        ),
        (
            "`body.searchText` is no object",
            with(search, "searchText", Shape::Object(&[]), false),
        ),
        (
            "`body.channel` must be there",
            with(slack, "text", Shape::STRING, true),
        ),
        (
            "`body.channel` must be there",
            with(slack, "channel", Shape::STRING, false),
        ),
    ]
}

/// Returns the row with a body of this one property.
fn with(fact: Fact, name: &'static str, shape: Shape, is_required: bool) -> Fact {
    let fields = Box::leak(Box::new([Field {
        name,
        shape,
        is_required,
    }]));
    let media_type = fact.body.expect("a row with a body").media_type;
    Fact {
        body: Some(Body {
            media_type,
            shape: Shape::Object(fields),
        }),
        ..fact
    }
}
