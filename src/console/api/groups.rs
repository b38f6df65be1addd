//! Failure groups: which causes there are, whom they hit, and what is different about them.

use std::fmt;
use std::str::FromStr;

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::console::answer;
use crate::console::call::{Call, Changed};
use crate::console::pages;
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{Route, acts, reads};
use crate::operations::{self, GroupNote};
use crate::store::{
    FailureGroup, GroupCursor, GroupDifference, GroupFilter, GroupPage, GroupStatus, InvalidCode,
};

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!("list_groups", "/groups", "Lists failure groups, the last seen first", [
        "status": "new, ongoing, regressed, muted or resolved", "pipeline": "the pipeline", "stage": "the stage",
        "code": "the error code, or its beginning and `*`",
        "before": "the cursor of the page: `next` of the page before, with the same filter", "limit": "rows, 1 to 200"
    ], GroupList, list, pages::groups::list),
    reads!(
        "show_group",
        "/groups/{fingerprint}",
        "Returns a failure group",
        [],
        FailureGroup,
        show,
        pages::groups::show
    ),
    reads!(
        "group_difference",
        "/groups/{fingerprint}/difference",
        "Returns what a group's jobs have in common that others have not",
        [],
        GroupDifference,
        difference
    ),
    acts!(json PATCH; "note_group", "/groups/{fingerprint}", "Notes the owner of a group, a text, or that it is muted or resolved", NoteFailureGroup, false, Note => Changed, note),
    acts!(form; "note_group_by_form", "/groups/{fingerprint}/note", "Notes the owner of a group or a text", NoteFailureGroup, false, Note => Changed, note, |call, _| format!("/groups/{}", call.path["fingerprint"])),
];

/// Which groups to list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupQuery {
    #[serde(default)]
    status: Option<GroupStatus>,
    #[serde(default)]
    pipeline: Option<String>,
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    limit: Option<i64>,
}

/// A page of failure groups.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct GroupList {
    /// The last seen first.
    pub(in crate::console) groups: Vec<FailureGroup>,
    /// The cursor of the next page: its `before`, with the same filter; `None` if this is the last
    /// one.
    pub(in crate::console) next: Option<String>,
}

/// The position of a group, as a cursor has it: nanoseconds since 1970 and the fingerprint.
struct Position(GroupCursor);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GroupCursor {
            last_seen_at,
            fingerprint,
        } = &self.0;
        write!(f, "{}.{fingerprint}", last_seen_at.unix_timestamp_nanos())
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (nanos, fingerprint) = text.split_once('.').ok_or(())?;
        let nanos = nanos.parse().map_err(drop)?;
        let last_seen_at = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(drop)?;
        // Postgres has no year 0, and nobody has seen a group then.
        if !(1970..9999).contains(&last_seen_at.year()) {
            return Err(());
        }
        Ok(Self(GroupCursor {
            last_seen_at,
            fingerprint: fingerprint.to_owned(),
        }))
    }
}

/// What is known about a group.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Note {
    /// The person or team that deals with it; an empty text removes the owner.
    #[serde(default)]
    owner: Option<String>,
    /// An empty text removes the note.
    #[serde(default)]
    note: Option<String>,
    /// Until when it is muted.
    #[serde(default, deserialize_with = "crate::console::query::when")]
    #[schemars(with = "Option<String>")]
    muted_until: Option<OffsetDateTime>,
    /// Whether it is resolved.
    #[serde(default)]
    resolved: Option<bool>,
    /// Why, for the audit log.
    reason: String,
}

async fn list(call: Call) -> Result<Response, Problem> {
    answer::json(&read_groups(&call).await?)
}

/// Reads a page of groups.
///
/// # Errors
/// `invalid_filter`, `postgres_away`.
pub(in crate::console) async fn read_groups(call: &Call) -> Result<GroupList, Problem> {
    let asked: GroupQuery = call.query()?;
    let code = asked.code.as_deref().map(str::parse).transpose();
    let filter = GroupFilter {
        status: asked.status,
        pipeline: asked.pipeline,
        stage: asked.stage,
        error_code: code
            .map_err(|error: InvalidCode| Problem::invalid_filter(error.to_string()))?,
    };
    let after: Option<Position> = call.position(asked.before.as_deref())?;
    let page = GroupPage {
        after: after.map(|Position(after)| after),
        limit: query::limit(asked.limit)?,
    };
    let mut listed = call.reads().failure_groups(&filter, &page).await?;
    for group in &mut listed.groups {
        group.sample = call.shown_text(&group.sample);
    }
    Ok(GroupList {
        groups: listed.groups,
        next: listed.next.map(|next| call.cursor(Position(next))),
    })
}

async fn show(call: Call) -> Result<Response, Problem> {
    answer::json(&read_group(&call).await?)
}

/// Reads the group of the path.
///
/// # Errors
/// `not_found`, `postgres_away`.
pub(in crate::console) async fn read_group(call: &Call) -> Result<FailureGroup, Problem> {
    let fingerprint: String = call.part("fingerprint")?;
    let group = call.reads().failure_group(&fingerprint).await?;
    let mut group = group
        .ok_or_else(|| Problem::not_found(format!("there is no failure group {fingerprint}")))?;
    group.sample = call.shown_text(&group.sample);
    Ok(group)
}

async fn difference(call: Call) -> Result<Response, Problem> {
    let fingerprint: String = call.part("fingerprint")?;
    let difference = call.reads().group_difference(&fingerprint).await?;
    let unknown = || Problem::not_found(format!("there is no failure group {fingerprint}"));
    answer::json(&difference.ok_or_else(unknown)?)
}

async fn note(call: &Call) -> Result<Changed, Problem> {
    let fingerprint: String = call.part("fingerprint")?;
    let note: Note = call.input()?;
    let actor = call.actor(&note.reason)?;
    let changes = GroupNote {
        owner: note.owner,
        note: note.note,
        muted_until: note.muted_until,
        resolved: note.resolved,
    };
    call.once(&actor, async |store, actor| {
        let changed = operations::note_group(store, actor, &fingerprint, &changes).await?;
        Ok(Changed::plain(changed))
    })
    .await
}
