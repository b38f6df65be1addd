//! Dead letters: what was refused, whether it would be accepted now, and what people do with it.

use axum::http::Method;
use axum::response::Response;
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::jobs::Reason;
use crate::console::call::{ActFault, Call, Changed};
use crate::console::mask::{masked, masked_changes};
use crate::console::problem::Problem;
use crate::console::routes::{Access, JSON, Route, acts, handler, reads, schema};
use crate::console::{answer, pages, query};
use crate::message::{allowed_headers, read_body};
use crate::operations::{self, Acceptance, Candidate, LetterFix, OperationError, PathChange};
use crate::store::{Action, DeadLetter, DeadLetterRow, LetterFilter, NotReplayable, Role};

/// Roles are decided by the actions.
const ACTING: Access = Access::From {
    role: Role::Operator,
    is_scoped: false,
};

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!("list_dead_letters", "/dead-letters", "Lists dead letters, the newest first", [
        "all": "true: also resolved ones", "code": "refused with this code", "source": "of this source",
        "before": "the cursor of the page: `next` of the page before, with the same filter", "limit": "rows, 1 to 200"
    ], LetterPage, list, pages::dead_letters::list),
    reads!(
        "show_dead_letter",
        "/dead-letters/{number}",
        "Returns a dead letter, its body masked, and whether it would be accepted now",
        [],
        LetterView,
        show,
        pages::dead_letter::show
    ),
    acts!("replay_dead_letter", "/dead-letters/{number}/replay", "Has a worker publish a dead letter again", ReplayDeadLetter, false, Reason => Changed, replay, to_letter),
    acts!("discard_dead_letter", "/dead-letters/{number}/discard", "Discards a dead letter", DiscardDeadLetter, false, Reason => Changed, discard, to_letter),
    Route {
        name: "fix_dead_letter",
        method: Method::POST,
        path: "/dead-letters/{number}/fix",
        about: "Replaces the body of a dead letter by a corrected one, and has a worker publish it",
        access: ACTING,
        action: Some(Action::FixDeadLetter),
        parameters: &[],
        input: Some(schema::<Fix>),
        output: schema::<Fixed>,
        media_type: JSON,
        api: Some(|call| Box::pin(async move { answer::json(&fix(&call, &call.input()?).await?) })),
        page: Some(handler!(pages::dead_letter::fix)),
    },
    Route {
        name: "unmask_dead_letter",
        method: Method::POST,
        path: "/dead-letters/{number}/unmask",
        about: "Returns the body and the headers of a dead letter as they were received",
        access: ACTING,
        action: Some(Action::ShowRawDeadLetter),
        parameters: &[],
        input: Some(schema::<Reason>),
        output: schema::<UnmaskedLetter>,
        media_type: JSON,
        api: Some(|call| Box::pin(async move { answer::json(&unmask(&call).await?) })),
        page: Some(handler!(pages::dead_letter::unmask)),
    },
];

fn to_letter(call: &Call, _: &Changed) -> String {
    format!("/dead-letters/{}", call.path["number"])
}

/// Which dead letters to list.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::console) struct LetterQuery {
    pub(in crate::console) all: bool,
    pub(in crate::console) code: Option<String>,
    pub(in crate::console) source: Option<String>,
    pub(in crate::console) before: Option<String>,
    limit: Option<i64>,
}

/// A page of dead letters.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct LetterPage {
    /// The letters, newest first.
    pub(in crate::console) letters: Vec<DeadLetterRow>,
    /// The cursor of the next page: its `before`, with the same filter; `None` if this is the last
    /// one.
    pub(in crate::console) next: Option<String>,
    /// How many letters were read before reading stopped, although there are older ones and the
    /// page is not full.
    pub(in crate::console) looked: Option<i64>,
}

/// A corrected message.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::console) struct Fix {
    /// The body, as JSON text.
    pub(in crate::console) body: String,
    /// Whether only to check the body and to return what would change.
    #[serde(default)]
    pub(in crate::console) dry_run: bool,
    /// Why, for the audit log.
    pub(in crate::console) reason: String,
}

/// A corrected dead letter.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct Fixed {
    /// What has become of the letter.
    #[serde(flatten)]
    pub(in crate::console) result: Changed,
    /// What differs from the original, masked; empty in the answer that is kept for a repetition.
    pub(in crate::console) diff: Vec<PathChange>,
    /// Whether the original can be read; otherwise the difference is from nothing.
    pub(in crate::console) original_is_readable: Option<bool>,
}

/// One dead letter.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct LetterView {
    #[serde(flatten)]
    pub(in crate::console) row: DeadLetterRow,
    /// The trace context and the counts of the broker.
    pub(in crate::console) headers: Value,
    /// SHA-256 of the body, hex.
    pub(in crate::console) body_sha256: String,
    /// As received; empty if it had none.
    pub(in crate::console) content_type: Option<String>,
    /// As received.
    pub(in crate::console) content_encoding: Option<String>,
    /// Why the console's keyring does not open the letter, and what to do; `None` if it does.
    pub(in crate::console) sealed: Option<String>,
    /// The form of the body.
    pub(in crate::console) form: BodyForm,
    /// The body without what may name a person or is secret; `None` if it is not JSON or cannot be
    /// opened.
    pub(in crate::console) body: Option<Value>,
    /// The path of the field at fault: in today's refusal, otherwise in the one that was stored.
    pub(in crate::console) at_fault: Option<String>,
    /// Whether the message would be accepted now; `None` if the letter is resolved or its body is
    /// not stored as a whole.
    pub(in crate::console) acceptance: Option<Acceptance>,
    /// Why the letter cannot be replayed.
    pub(in crate::console) replay_obstacle: Option<String>,
}

/// What the stored body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::console) enum BodyForm {
    Json,
    /// UTF-8, but not JSON.
    Text,
    /// Not UTF-8.
    Bytes,
    /// It was not stored.
    None,
    /// The keyring does not open it; `sealed` says why and what to do.
    Sealed,
}

/// A dead letter as it was received.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct UnmaskedLetter {
    /// The body; what is not UTF-8 is replaced by U+FFFD.
    pub(in crate::console) body: String,
    /// Whether the body is UTF-8.
    pub(in crate::console) is_utf8: bool,
    /// All headers.
    pub(in crate::console) headers: Value,
}

async fn list(call: Call) -> Result<Response, Problem> {
    answer::json(&read_letters(&call, &call.query()?).await?)
}

/// Reads a page of dead letters.
///
/// # Errors
/// `invalid_filter`, `postgres_away`.
pub(in crate::console) async fn read_letters(
    call: &Call,
    query: &LetterQuery,
) -> Result<LetterPage, Problem> {
    let before = call.position(query.before.as_deref())?;
    let filter = LetterFilter {
        resolved_too: query.all,
        code: query.code.clone(),
        source: query.source.clone(),
        before: before.unwrap_or(i64::MAX),
        limit: query::limit(query.limit)?,
    };
    let listed = call.reads().list_letters(&filter).await?;
    Ok(LetterPage {
        letters: listed.letters,
        next: listed.next.map(|next| call.cursor(next)),
        looked: listed.looked,
    })
}

async fn show(call: Call) -> Result<Response, Problem> {
    answer::json(&read_letter(&call).await?)
}

/// Reads the dead letter of the path, masked.
///
/// # Errors
/// `not_found`, `postgres_away`.
pub(in crate::console) async fn read_letter(call: &Call) -> Result<LetterView, Problem> {
    let keyring = &*call.console.parts.keyring;
    let letter = letter(call).await?;
    let acceptance = match letter.whole_body() {
        Ok(body) if letter.row.resolved_at.is_none() => {
            let candidate = Candidate::of(&letter, body);
            Some(operations::would_accept(call.reads(), keyring, &candidate).await?)
        }
        _ => None,
    };
    let today = acceptance
        .as_ref()
        .and_then(|acceptance| acceptance.path.clone());
    let (form, body) = shown(&letter, |value| masked(value, keyring));
    Ok(LetterView {
        at_fault: today.or_else(|| stored_path(&letter.row.detail)),
        headers: allowed_headers(&letter.headers),
        replay_obstacle: operations::replay_obstacle(&letter),
        row: letter.row,
        body_sha256: letter.body_sha256,
        content_type: letter.content_type,
        content_encoding: letter.content_encoding,
        sealed: letter.sealed,
        form,
        body,
        acceptance,
    })
}

async fn letter(call: &Call) -> Result<DeadLetter, Problem> {
    let number: i64 = call.part("number")?;
    let keyring = &call.console.parts.keyring;
    let letter = call.reads().dead_letter(keyring, number).await?;
    letter.ok_or_else(|| Problem::not_found(NotReplayable::NoSuchLetter.to_string()))
}

fn shown(letter: &DeadLetter, mask: impl Fn(&Value) -> Value) -> (BodyForm, Option<Value>) {
    if letter.sealed.is_some() {
        return (BodyForm::Sealed, None);
    }
    let Some(body) = &letter.body else {
        return (BodyForm::None, None);
    };
    let body = body.expose_secret();
    match (read_body(body), str::from_utf8(body)) {
        (Some(json), _) => (BodyForm::Json, Some(mask(&json))),
        (None, Ok(_)) => (BodyForm::Text, None),
        (None, Err(_)) => (BodyForm::Bytes, None),
    }
}

/// Returns the path that the stored text of a refusal begins with.
fn stored_path(detail: &str) -> Option<String> {
    let (path, _) = detail.strip_prefix("at `")?.split_once("`: ")?;
    Some(path.to_owned())
}

async fn replay(call: &Call) -> Result<Changed, Problem> {
    let number: i64 = call.part("number")?;
    let Reason { reason } = call.input()?;
    let actor = call.actor(&reason)?;
    let keyring = &call.console.parts.keyring;
    call.once(&actor, async |store, actor| {
        let states = operations::ask_for_replay(store, keyring, actor, number).await?;
        Ok(states.map_or_else(|| Changed::plain(false), changed))
    })
    .await
}

async fn discard(call: &Call) -> Result<Changed, Problem> {
    let number: i64 = call.part("number")?;
    let Reason { reason } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        match operations::discard(store, actor, number).await {
            Ok(()) => Ok(Changed::plain(true)),
            Err(OperationError::Unknown(_)) => Err(ActFault::Problem(not_open(call).await?)),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Tells why a letter is not open.
async fn not_open(call: &Call) -> Result<Problem, Problem> {
    let how = letter(call).await?.row.resolution;
    let how = how.unwrap_or_else(|| "resolved".to_owned());
    Ok(Problem::not_possible(
        NotReplayable::Resolved(how).to_string(),
    ))
}

/// Corrects the letter of the path, or tells what a correction would change.
///
/// # Errors
/// `invalid_input`, `not_possible`, `not_found`.
pub(in crate::console) async fn fix(call: &Call, fix: &Fix) -> Result<Fixed, Problem> {
    let number: i64 = call.part("number")?;
    let actor = call.actor(&fix.reason)?;
    let keyring = &*call.console.parts.keyring;
    let answer = |result, done: Option<LetterFix>| Fixed {
        result,
        original_is_readable: done.as_ref().map(|fix| fix.original_is_readable),
        diff: done.map_or_else(Vec::new, |fix| masked_changes(fix.diff, keyring)),
    };
    if fix.dry_run {
        let preview =
            operations::preview_letter_fix(call.reads(), keyring, number, &fix.body).await?;
        return Ok(answer(Changed::plain(false), Some(preview)));
    }
    let mut done = None;
    let result = call.once(&actor, async |store, actor| {
        let fixed = operations::fix_dead_letter(store, keyring, actor, number, &fix.body).await?;
        let states = fixed.states.clone();
        done = Some(fixed);
        Ok(changed(states))
    });
    let result = result.await?;
    Ok(answer(result, done))
}

/// Returns the letter of the path as it was received. The audit row is committed first.
///
/// # Errors
/// `not_found`; `not_possible` if the body was not stored or cannot be opened.
pub(in crate::console) async fn unmask(call: &Call) -> Result<UnmaskedLetter, Problem> {
    let Reason { reason } = call.input()?;
    let mut actor = call.actor(&reason)?;
    // The answer is kept under no key: a repetition is audited again.
    if let Some(request) = &mut actor.request {
        request.key = None;
    }
    let letter = letter(call).await?;
    let body = letter.kept_body();
    let body = body.map_err(|why| Problem::not_possible(why.to_string()))?;
    operations::show_raw(call.acts(), &actor, letter.row.id).await?;
    let body = body.expose_secret();
    let headers = serde_json::from_str(letter.all_headers.expose_secret());
    Ok(UnmaskedLetter {
        body: String::from_utf8_lossy(body).into_owned(),
        is_utf8: str::from_utf8(body).is_ok(),
        headers: headers.unwrap_or_default(),
    })
}

fn changed((before, now): (Value, Value)) -> Changed {
    Changed {
        changed: true,
        before,
        now,
    }
}
