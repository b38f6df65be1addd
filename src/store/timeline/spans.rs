//! Makes spans from facts: every moment from the job's acceptance on belongs to a run of a stage or
//! to a gap with a name. Pure.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::facts::{Facts, Run, Span, SpanKind};
use super::marks::{ActionMark, EndMark};
use crate::job::{JobState, WaitReason};

/// Prefix of the wait key of a hold.
const HOLD: &str = "hold:";

/// Returns the spans in the order of time. Only runs may have no length.
pub(crate) fn spans(facts: &Facts) -> Vec<Span> {
    let end = facts.until();
    let runs = runs(facts);
    let mut spans = Vec::new();
    let (mut at, mut before) = (facts.row.created_at, None);
    for run in &runs {
        let until = run.until.clamp(at, end);
        let from = run.from.clamp(at, until);
        gap(
            facts,
            &Gap {
                from: at,
                until: from,
                before,
                next: Some(run),
            },
            &mut spans,
        );
        spans.push(ran(run, from, until));
        (at, before) = (until, Some(run));
    }
    let tail = Gap {
        from: at,
        until: end,
        before,
        next: None,
    };
    gap(facts, &tail, &mut spans);
    spans
}

/// Returns the runs in the order of time, each once: a re-run copies the checkpoints of earlier
/// stages into the new generation.
fn runs(facts: &Facts) -> Vec<Run> {
    let mut runs = facts.runs.clone();
    runs.sort_by(|a, b| {
        (a.until, a.epoch, a.generation, a.from).cmp(&(b.until, b.epoch, b.generation, b.from))
    });
    let mut seen = BTreeSet::new();
    runs.retain(|run| {
        let is_copied = matches!(run.kind, SpanKind::Stage | SpanKind::ByHand);
        !is_copied || seen.insert((run.stage.clone(), run.epoch, run.from))
    });
    runs
}

fn ran(run: &Run, from: OffsetDateTime, until: OffsetDateTime) -> Span {
    let text = match run.kind {
        SpanKind::ByHand => format!("{}, passed by a person", run.stage),
        SpanKind::Stage if run.attempt == 1 => run.stage.clone(),
        _ => format!("{}, attempt {}", run.stage, run.attempt),
    };
    Span {
        kind: run.kind,
        text,
        from,
        until,
        stage: Some(run.stage.clone()),
        generation: Some(run.generation),
        attempt: Some(run.attempt),
        replica: (run.replica != 0).then_some(run.replica),
        code: run.code.clone(),
    }
}

/// The time between two runs, before the first one, or after the last one.
struct Gap<'a> {
    from: OffsetDateTime,
    until: OffsetDateTime,
    before: Option<&'a Run>,
    next: Option<&'a Run>,
}

impl Gap<'_> {
    fn contains(&self, at: OffsetDateTime) -> bool {
        self.from <= at && at <= self.until
    }
}

/// The name of a part of a gap.
#[derive(Clone)]
struct Name {
    kind: SpanKind,
    text: String,
    replica: Option<i64>,
}

impl Name {
    fn of(kind: SpanKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            replica: None,
        }
    }

    fn queued() -> Self {
        Self::of(SpanKind::Queued, "queued")
    }
}

/// Adds the parts of a gap: it is split where a person acted and where an owner died.
fn gap(facts: &Facts, gap: &Gap<'_>, spans: &mut Vec<Span>) {
    if gap.until <= gap.from {
        return;
    }
    let mut name = first_name(facts, gap);
    let mut at = gap.from;
    for action in facts.actions.iter().filter(|one| gap.contains(one.at)) {
        let Some(then) = after_action(facts, gap, action) else {
            continue;
        };
        if action.action == "configure" && name.kind == SpanKind::Queued {
            name = Name::of(SpanKind::Waits, "waited for the choice of an account");
        }
        with_deaths(facts, gap, (at, action.at), &name, spans);
        (at, name) = (action.at, then);
    }
    if gap.next.is_some() {
        with_deaths(facts, gap, (at, gap.until), &name, spans);
    } else {
        last(facts, gap, at, &name, spans);
    }
}

/// Returns the name of a gap from how the run before it ended.
fn first_name(facts: &Facts, gap: &Gap<'_>) -> Name {
    let Some(run) = gap.before else {
        return if facts.is_cut {
            Name::of(SpanKind::NotShown, "earlier attempts are not shown")
        } else {
            Name::queued()
        };
    };
    let code = run.code.as_deref().unwrap_or("an unknown cause");
    match run.kind {
        SpanKind::Retried => Name::of(SpanKind::Backoff, "backoff, then queued"),
        SpanKind::Waited => Name::of(SpanKind::Waits, format!("waited after {code}")),
        SpanKind::Failed => Name::of(SpanKind::Parked, format!("parked: {code}")),
        _ if gap.next.is_some_and(|next| next.epoch == run.epoch) => {
            Name::of(SpanKind::Commit, "commit")
        }
        _ => lost_claims(facts, gap),
    }
}

/// A claim that leaves nothing raises the epoch: its owner died, or gave the job back.
fn lost_claims(facts: &Facts, gap: &Gap<'_>) -> Name {
    match unexplained(facts, gap) {
        0 | 1 => Name::queued(),
        _ if !deaths(facts, gap).is_empty() => Name::queued(),
        _ => Name::of(
            SpanKind::Queued,
            "queued; claimed without a result: an owner gave it back or died",
        ),
    }
}

/// Returns by how much the epoch rose in a gap for no recorded reason. A claim raises it by one, and
/// so does an action of a person; a takeover raises it by one, and the claim after it again.
fn unexplained(facts: &Facts, gap: &Gap<'_>) -> i64 {
    let before = gap.before.map_or(0, |run| run.epoch);
    let after = gap.next.map_or(facts.row.epoch, |run| run.epoch);
    let is_claimed = gap.next.is_some() && after > before;
    let actions = facts.actions.iter().filter(|one| gap.contains(one.at));
    let actions = actions.filter(|one| after_action(facts, gap, one).is_some());
    let actions = i64::try_from(actions.count()).unwrap_or(i64::MAX);
    (after - before)
        .saturating_sub(i64::from(is_claimed))
        .saturating_sub(actions)
        .max(0)
}

/// Returns what a job does after an action; `None` if the action leaves it as it is.
fn after_action(facts: &Facts, gap: &Gap<'_>, action: &ActionMark) -> Option<Name> {
    match action.action.as_str() {
        "retry" | "configure" | "rerun" | "skip" | "input.edit" | "input.restore" => {
            Some(Name::queued())
        }
        "effect.mark" if gap.next.is_some() || facts.row.state == JobState::Ready => {
            Some(Name::queued())
        }
        "park" => Some(Name::of(
            SpanKind::Parked,
            format!("parked by {}", action.who),
        )),
        _ => None,
    }
}

/// Returns the ends of owners in a gap that left nothing behind.
fn deaths<'a>(facts: &'a Facts, gap: &Gap<'_>) -> Vec<&'a EndMark> {
    let owned = |end: &&EndMark| {
        let had_it = gap.before.is_some_and(|run| run.replica == end.replica);
        end.was_blamed || (had_it && unexplained(facts, gap) > 0)
    };
    let ends = facts.ends.iter();
    ends.filter(|end| !end.ended_well && gap.contains(end.at))
        .filter(owned)
        .collect()
}

fn with_deaths(
    facts: &Facts,
    gap: &Gap<'_>,
    (from, until): (OffsetDateTime, OffsetDateTime),
    name: &Name,
    spans: &mut Vec<Span>,
) {
    let (mut at, mut name) = (from, name.clone());
    for end in deaths(facts, gap) {
        if end.at <= at || end.at > until {
            continue;
        }
        let died = Name {
            replica: Some(end.replica),
            ..Name::of(
                SpanKind::OwnerDied,
                format!("owner died: replica {}", end.replica),
            )
        };
        push(spans, (at, end.at), &died);
        (at, name) = (end.at, Name::queued());
    }
    push(spans, (at, until), &name);
}

/// Adds the end of the last gap, which the job's row names.
fn last(facts: &Facts, gap: &Gap<'_>, at: OffsetDateTime, name: &Name, spans: &mut Vec<Span>) {
    let row = &facts.row;
    let (from, end) = (at, gap.until);
    match row.state {
        JobState::Ready => {
            let due = row.due_at.clamp(from, end);
            let later = Name::of(SpanKind::Backoff, "not due yet");
            // The due time is known only for the last backoff.
            let name = match name.kind {
                SpanKind::NotShown | SpanKind::OwnerDied => name.clone(),
                _ => lost_claims(facts, gap),
            };
            push(spans, (from, due), &later);
            with_deaths(facts, gap, (due, end), &name, spans);
        }
        JobState::Running => running(facts, gap, (from, end), name, spans),
        JobState::Waiting => push(spans, (from, end), &waits(facts)),
        JobState::Parked => {
            let code = row.error_code.as_deref().unwrap_or("no recorded failure");
            let name = if name.kind == SpanKind::Parked {
                name.clone()
            } else {
                Name::of(SpanKind::Parked, format!("parked: {code}"))
            };
            with_deaths(facts, gap, (from, end), &name, spans);
        }
        JobState::Succeeded => push(spans, (from, end), &follow_ups()),
        JobState::Cancelled => push(spans, (from, end), name),
    }
}

fn running(
    facts: &Facts,
    gap: &Gap<'_>,
    (from, end): (OffsetDateTime, OffsetDateTime),
    name: &Name,
    spans: &mut Vec<Span>,
) {
    let row = &facts.row;
    let is_kept = gap.before.is_some_and(|run| run.epoch == row.epoch);
    let since = if is_kept {
        from
    } else {
        let died = deaths(facts, gap).iter().map(|end| end.at).max();
        let known = [Some(row.due_at), row.woken_at, died];
        known.into_iter().flatten().fold(from, Ord::max).min(end)
    };
    with_deaths(facts, gap, (from, since), name, spans);
    let (kind, text) = if row.owner_alive {
        let text = format!("{}, attempt {}, runs", row.stage, row.attempt);
        (SpanKind::Running, text)
    } else {
        let owner = row.owner.unwrap_or_default();
        (SpanKind::OwnerDied, format!("owner died: replica {owner}"))
    };
    push(
        spans,
        (since, end),
        &Name {
            replica: row.owner,
            ..Name::of(kind, text)
        },
    );
}

fn waits(facts: &Facts) -> Name {
    let row = &facts.row;
    let key = row.wait_key.as_deref().unwrap_or("an unknown cause");
    if row.wait_reason() == Some(WaitReason::Children) {
        return follow_ups();
    }
    match key.strip_prefix(HOLD) {
        Some("all") => Name::of(SpanKind::Held, "held by the pause of everything"),
        Some(scope) => Name::of(SpanKind::Held, format!("held by {scope}")),
        None => Name::of(SpanKind::Waits, format!("waits for {key}")),
    }
}

fn follow_ups() -> Name {
    Name::of(SpanKind::FollowUps, "its follow-ups")
}

fn push(spans: &mut Vec<Span>, (from, until): (OffsetDateTime, OffsetDateTime), name: &Name) {
    if until <= from {
        return;
    }
    spans.push(Span {
        kind: name.kind,
        text: name.text.clone(),
        from,
        until,
        stage: None,
        generation: None,
        attempt: None,
        replica: name.replica,
        code: None,
    });
}
