//! Explains why a job does not move, from the fields that the claim, the waker and the takeover
//! use. Pure.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::claim::CRASHES;
use super::controls::HoldRow;
use super::count::CappedCount;
use super::job_row::JobRow;
use super::stuck::StuckCode;
use crate::job::{JobState, WaitReason};
use crate::message::outcome::counted;

/// Facts about a job that its row does not contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Position of the current stage: the k-th of n, from 1. `None` for a stage that only a jump
    /// reaches, and for an unknown one.
    pub position: Option<(usize, usize)>,
    /// Maximum number of attempts of the current stage; `None` for an unknown stage.
    pub attempts: Option<i32>,
    /// Number of jobs that wait for the same cause, including this one.
    pub waiting_for_same: CappedCount,
    /// The hold or the pause that the job waits for, if it is in force. For a job that is ready, the
    /// pause, if one is in force.
    pub hold: Option<HoldRow>,
}

/// The kind of a [`HoldRow`] that is the pause.
const PAUSE: &str = "pause";

/// Where a job stands for the claim, the waker and the takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Ready and due, and its wake-up was published: the next free worker claims it.
    DueWoken,
    /// Ready and due, without a wake-up: the waker publishes one.
    DueNotWoken,
    /// Ready, but not due yet.
    Later,
    /// Owned by a replica whose lease is valid.
    Running,
    /// Owned by a replica whose lease has ended: the duty `takeover` frees it.
    OwnerDead,
    /// Waits for its follow-ups or for a named cause.
    Waiting,
    /// Needs a person.
    Parked,
    /// Succeeded or cancelled.
    Done,
}

/// Returns where `row` stands.
#[must_use]
pub fn standing(row: &JobRow) -> Standing {
    match row.state {
        JobState::Ready if row.due_at > row.now => Standing::Later,
        JobState::Ready if row.woken_at.is_some() => Standing::DueWoken,
        JobState::Ready => Standing::DueNotWoken,
        JobState::Running if row.owner_alive => Standing::Running,
        JobState::Running => Standing::OwnerDead,
        JobState::Waiting => Standing::Waiting,
        JobState::Parked => Standing::Parked,
        JobState::Succeeded | JobState::Cancelled => Standing::Done,
    }
}

/// Returns where the job stands, since when and why, and what happens next or which command to
/// run.
#[must_use]
pub fn explain(row: &JobRow, facts: &Facts) -> String {
    let stage = stage(row, facts);
    let at = Clock { now: row.now };
    match standing(row) {
        Standing::DueWoken | Standing::DueNotWoken | Standing::Later if facts.hold.is_some() => {
            paused(row, facts, &stage, &at)
        }
        Standing::DueWoken => {
            let woken = row.woken_at.map_or_else(String::new, |woken| {
                format!("; wake-up published {}", at.since(woken))
            });
            format!(
                "Ready at {stage} and due since {}{woken}. The next free worker claims it for {}.{}",
                at.time(row.due_at),
                attempt(row, facts),
                overdue(row, &at)
            )
        }
        Standing::DueNotWoken => format!(
            "Ready at {stage} and due since {}; its wake-up is not published yet. The waker of any running worker publishes it \
             in its organization's turn, and a free worker claims the job for {}.{}",
            at.time(row.due_at),
            attempt(row, facts),
            overdue(row, &at)
        ),
        Standing::Later => format!(
            "Ready at {stage}, not due before {} (in {}), for {}. `dispatch jobs retry {}` makes it due now.{}",
            at.time(row.due_at),
            span(row.due_at - row.now),
            attempt(row, facts),
            row.id,
            overdue(row, &at)
        ),
        Standing::Running => format!(
            "Running at {stage} on replica {}: {}, last progress {}.{}",
            owner(row),
            attempt(row, facts),
            at.since(row.last_progress_at),
            no_progress(row)
        ),
        Standing::OwnerDead => format!(
            "Running at {stage}, but the lease of its owner, replica {}, has ended. The duty `takeover` of any running worker \
             frees the job within about 200 ms (takeovers without progress so far: {} of {CRASHES}). If none does, no worker \
             runs: start one with `dispatch worker`.",
            owner(row),
            row.crash_count
        ),
        Standing::Waiting => waiting(row, facts, &stage, &at),
        Standing::Parked => format!(
            "Parked at {stage} after {}: {}.{} `dispatch jobs retry {id}` runs the stage again; `dispatch jobs cancel {id}` ends \
             the job.",
            attempt(row, facts),
            failure(row),
            hint(row),
            id = row.id
        ),
        Standing::Done => done(row, &at),
    }
}

/// Returns what to do about a job that runs as long as [`StuckCode::NoProgress`] counts.
fn no_progress(row: &JobRow) -> String {
    let since = row
        .woken_at
        .map_or(row.due_at, |woken| woken.max(row.due_at));
    let since = since.max(row.last_progress_at);
    if row.now - since <= StuckCode::NoProgress.after() {
        return String::new();
    }
    format!(
        " No stage takes this long: `dispatch jobs park {id}` takes the job from the replica, then `dispatch jobs retry {id}` \
         makes it due.",
        id = row.id
    )
}

fn waiting(row: &JobRow, facts: &Facts, stage: &str, at: &Clock) -> String {
    let reason = row
        .wait_reason
        .as_deref()
        .and_then(|word| word.parse::<WaitReason>().ok());
    let since = at.time(row.last_progress_at);
    let key = row.wait_key.as_deref().unwrap_or("no key");
    if key.starts_with("hold:") {
        return held(
            row,
            facts,
            &format!("Waiting at {stage} since {since}, {}", attempt(row, facts)),
            at,
        );
    }
    let (cause, next) = match reason {
        Some(WaitReason::Children) => {
            let jobs = if row.open_children == 1 { "follow-up is" } else { "follow-ups are" };
            return format!(
                "Waiting since {since} for its follow-ups: {} {jobs} not done. `dispatch jobs list --parent {}` lists them; \
                 retry or cancel those that are parked.",
                row.open_children, row.id
            );
        }
        Some(WaitReason::Configuration) => {
            ("the choice of an account", format!("`dispatch jobs configure {} --account ID` sets the account", row.id))
        }
        Some(WaitReason::Reauthentication) => {
            ("new tokens of an identity", "`dispatch identities set-tokens` stores them".to_owned())
        }
        Some(WaitReason::InstallationDisabled) => (
            "an account that is disabled for its organization",
            "Enable it with `dispatch integrations enable`, or with `dispatch tracker import` of a document that enables it"
                .to_owned(),
        ),
        Some(WaitReason::Hold) if key.starts_with("destination:") => (
            "a disabled destination",
            "The job does not continue by itself; `dispatch destinations enable` enables the destination".to_owned(),
        ),
        Some(WaitReason::Hold) => ("the end of a hold", "The job continues by itself".to_owned()),
        Some(WaitReason::Version) => {
            ("a worker of a newer version", "Start a worker that knows the job's schema, pipeline and stage".to_owned())
        }
        None => ("a cause that this version does not know", "Run the newest version of `dispatch`".to_owned()),
    };
    let failed = row
        .error_code
        .as_ref()
        .map_or_else(String::new, |_| format!(": {}", failure(row)));
    let (others, deadline) = (others(facts), overdue(row, at));
    format!(
        "Waiting at {stage} since {since} for {cause} (`{key}`){failed}. {next}.{others}{deadline}"
    )
}

/// Explains a wait for a hold of a destination, from the hold as it is now: the job's own error
/// may describe an earlier one.
fn held(row: &JobRow, facts: &Facts, begin: &str, at: &Clock) -> String {
    let cause = match &facts.hold {
        Some(pause) if pause.kind == PAUSE => format!(
            "{}. The jobs that wait for it then continue by themselves in small batches; `dispatch resume` ends it now.",
            pause_of(pause, at)
        ),
        Some(hold) => {
            format!(
                "{} holds `{}` until {} ({}). The jobs that wait for it then continue by themselves in small batches; \
                 `dispatch holds release` ends it now.",
                hold.who,
                hold.scope,
                at.time(hold.expires_at),
                hold.reason.trim_end_matches('.')
            )
        }
        None => "the hold has ended. The jobs that waited for it continue by themselves in small batches.".to_owned(),
    };
    format!("{begin}: {cause}{}{}", others(facts), overdue(row, at))
}

/// Explains a job that is ready while everything is paused: no worker starts its stage.
fn paused(row: &JobRow, facts: &Facts, stage: &str, at: &Clock) -> String {
    let pause = facts
        .hold
        .as_ref()
        .map_or_else(String::new, |pause| pause_of(pause, at));
    format!(
        "Ready at {stage}, due at {}, for {}; but {pause}, so no worker starts the stage before. `dispatch resume` ends the pause now.{}",
        at.time(row.due_at),
        attempt(row, facts),
        overdue(row, at)
    )
}

fn pause_of(pause: &HoldRow, at: &Clock) -> String {
    format!(
        "{} has paused all jobs until {} ({})",
        pause.who,
        at.time(pause.expires_at),
        pause.reason.trim_end_matches('.')
    )
}

/// Returns how many jobs wait for the same cause, if this one is not the only one.
fn others(facts: &Facts) -> String {
    match facts.waiting_for_same {
        jobs if jobs.at_least() <= 1 => String::new(),
        jobs => format!(" {jobs} jobs wait for the same cause."),
    }
}

fn done(row: &JobRow, at: &Clock) -> String {
    let ended = row.finished_at.unwrap_or(row.last_progress_at);
    let word = if row.state == JobState::Succeeded {
        "Succeeded"
    } else {
        "Cancelled"
    };
    let skipped = row.skipped.as_ref().map_or_else(String::new, |skipped| {
        format!("; skipped: {}", counted(skipped))
    });
    format!(
        "{word} at {}, {} after it was accepted{skipped}.",
        at.time(ended),
        span(ended - row.created_at)
    )
}

fn stage(row: &JobRow, facts: &Facts) -> String {
    match facts.position {
        Some((k, n)) => format!("stage `{}` ({k} of {n})", row.stage),
        None => format!("stage `{}`", row.stage),
    }
}

/// Returns the number of the attempt that runs or is due, and the failure of the previous one.
fn attempt(row: &JobRow, facts: &Facts) -> String {
    let of = facts
        .attempts
        .map_or_else(String::new, |attempts| format!(" of {attempts}"));
    let after = match row.state {
        JobState::Ready | JobState::Running if row.error_code.is_some() => {
            format!(" after {}", failure(row))
        }
        _ => String::new(),
    };
    format!("attempt {}{of}{after}", row.attempt)
}

fn failure(row: &JobRow) -> String {
    match (row.error_code.as_deref(), row.error_message.as_deref()) {
        (Some(code), Some(message)) => format!("{code} ({})", message.trim_end_matches('.')),
        (Some(code), None) => code.to_owned(),
        (None, _) => "no recorded failure".to_owned(),
    }
}

fn hint(row: &JobRow) -> String {
    row.error_hint
        .as_ref()
        .map_or_else(String::new, |hint| format!(" {hint}"))
}

/// Returns what the deadline means for a job that is not running.
fn overdue(row: &JobRow, at: &Clock) -> String {
    match row.deadline {
        Some(deadline) if deadline <= row.now => {
            format!(
                " Its deadline passed at {}: a worker parks the job.",
                at.time(deadline)
            )
        }
        Some(deadline) => format!(" Its deadline is {}.", at.time(deadline)),
        None => String::new(),
    }
}

fn owner(row: &JobRow) -> String {
    row.owner
        .map_or_else(|| "unknown".to_owned(), |owner| owner.to_string())
}

/// Formats times for people, relative to the database's `now`.
struct Clock {
    now: OffsetDateTime,
}

impl Clock {
    /// Formats a time as `14:02:07 UTC`, with the date if it is not today.
    fn time(&self, at: OffsetDateTime) -> String {
        let at = at.to_offset(time::UtcOffset::UTC);
        let clock = format!("{:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second());
        if at.date() == self.now.to_offset(time::UtcOffset::UTC).date() {
            clock
        } else {
            format!("{} {clock}", at.date())
        }
    }

    fn since(&self, at: OffsetDateTime) -> String {
        format!("{} ago", span(self.now - at))
    }
}

/// Formats a length as its largest unit and the next one: `3 d 4 h`, `2 min 5 s`, `4 s`.
fn span(length: time::Duration) -> String {
    let seconds = Duration::try_from(length).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests;
