//! "Why is this job not moving?", answered from the fields that the claim and the waker look at. Pure.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::claim::CRASHES;
use super::controls::HoldRow;
use super::count::CappedCount;
use super::inspect::JobRow;
use crate::job::{JobState, WaitReason};
use crate::message::outcome::counted;

/// What is known beside the row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The stage due is the k-th of n, from 1; `None` for one that is reached by a jump only, or is not known here.
    pub position: Option<(usize, usize)>,
    /// Attempts that the stage due may use; `None` where the stage is not known here.
    pub attempts: Option<i32>,
    /// Jobs that wait for the same cause, this one included.
    pub waiting_for_same: CappedCount,
    /// The hold it waits for, while that is in force.
    pub hold: Option<HoldRow>,
}

/// Where a job stands, as the claim and the waker see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Ready, due, and a wake-up was published: the next free worker claims it.
    DueWoken,
    /// Ready and due, without a wake-up: the waker publishes one.
    DueNotWoken,
    /// Ready, not due yet.
    Later,
    /// Owned by a replica whose lease is good.
    Running,
    /// Owned by a replica whose lease is over: the waker frees it.
    OwnerDead,
    /// Waits for a cause.
    Waiting,
    /// Asks for a person.
    Parked,
    /// Done.
    Done,
}

/// Where `row` stands.
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

/// One sentence: where the job stands, since when, why, and what happens next or what a person can do.
#[must_use]
pub fn explain(row: &JobRow, facts: &Facts) -> String {
    let stage = stage(row, facts);
    let at = Clock { now: row.now };
    match standing(row) {
        Standing::DueWoken => {
            let woken = row.woken_at.map_or_else(String::new, |woken| format!(" (wake-up published {})", at.since(woken)));
            format!(
                "Ready at {stage} and due since {}, woken{woken}: the next free worker claims it; {}{}.",
                at.time(row.due_at),
                attempt(row, facts),
                overdue(row, &at)
            )
        }
        Standing::DueNotWoken => format!(
            "Ready at {stage} and due since {}, not woken yet: the waker of any running worker publishes its wake-up in its \
             organization's turn; {}{}.",
            at.time(row.due_at),
            attempt(row, facts),
            overdue(row, &at)
        ),
        Standing::Later => format!(
            "Ready at {stage}, not due before {} (in {}); {}{}.",
            at.time(row.due_at),
            span(row.due_at - row.now),
            attempt(row, facts),
            overdue(row, &at)
        ),
        Standing::Running => format!(
            "Running at {stage}: replica {} has it, {}, last progress {}.",
            owner(row),
            attempt(row, facts),
            at.since(row.last_progress_at)
        ),
        Standing::OwnerDead => format!(
            "Running at {stage} by name only: the lease of replica {} is over, and the waker of any running worker frees the job \
             (takeovers without progress so far: {} of {CRASHES}).",
            owner(row),
            row.crash_count
        ),
        Standing::Waiting => waiting(row, facts, &stage, &at),
        Standing::Parked => format!("Parked at {stage} after {}: {}.{}", attempt(row, facts), failure(row), hint(row)),
        Standing::Done => done(row, &at),
    }
}

fn waiting(row: &JobRow, facts: &Facts, stage: &str, at: &Clock) -> String {
    let reason = row.wait_reason.as_deref().and_then(|word| word.parse::<WaitReason>().ok());
    let since = at.time(row.last_progress_at);
    let key = row.wait_key.as_deref().unwrap_or("nothing named");
    if key.starts_with("hold:") {
        return held(row, facts, &format!("Waiting at {stage} since {since}"), at);
    }
    let (cause, next) = match reason {
        Some(WaitReason::Children) => {
            let jobs = if row.open_children == 1 { "follow-up is" } else { "follow-ups are" };
            return format!(
                "Waiting since {since} for its follow-ups: {} {jobs} not done; `dispatch jobs list --parent {}` shows them.",
                row.open_children, row.id
            );
        }
        Some(WaitReason::Configuration) => {
            ("somebody to choose an account", format!("`dispatch jobs configure {} --account ID` supplies it", row.id))
        }
        Some(WaitReason::Reauthentication) => {
            ("an identity's new tokens", "`dispatch identities set-tokens` brings them".to_owned())
        }
        Some(WaitReason::InstallationDisabled) => {
            ("an installation to be enabled", "`dispatch tracker import` enables it".to_owned())
        }
        Some(WaitReason::Hold) => ("a hold to end", "it goes on by itself".to_owned()),
        Some(WaitReason::Version) => ("a worker that knows its schema", "start a newer worker".to_owned()),
        None => ("a cause that this version does not know", "run the newest `dispatch`".to_owned()),
    };
    let others = match facts.waiting_for_same {
        jobs if jobs.at_least() <= 1 => String::new(),
        jobs => format!("; {jobs} jobs wait for the same cause"),
    };
    let deadline = overdue(row, at);
    let failed = row.error_code.as_ref().map_or_else(String::new, |_| format!(": {}", failure(row)));
    format!("Waiting at {stage} since {since} for {cause} (`{key}`){failed}; {next}{others}{deadline}.")
}

/// For a hold of a destination, as it is now; the job's own error may speak of an earlier one.
fn held(row: &JobRow, facts: &Facts, begin: &str, at: &Clock) -> String {
    let cause = match &facts.hold {
        Some(hold) if hold.automatic => format!("{} and is held until {}", hold.reason, at.time(hold.expires_at)),
        Some(hold) => {
            format!(
                "{} holds `{}` until {} ({})",
                hold.who,
                hold.scope,
                at.time(hold.expires_at),
                hold.reason.trim_end_matches('.')
            )
        }
        None => "its hold is over, and the jobs that waited for it go on a few at a time".to_owned(),
    };
    let same = match facts.waiting_for_same {
        jobs if jobs.at_least() <= 1 => String::new(),
        jobs => format!("; {jobs} jobs wait for the same reason"),
    };
    format!("{begin}: {cause}; {}{same}{}.", attempt(row, facts), overdue(row, at))
}

fn done(row: &JobRow, at: &Clock) -> String {
    let ended = row.finished_at.unwrap_or(row.last_progress_at);
    let word = if row.state == JobState::Succeeded { "Succeeded" } else { "Cancelled" };
    let skipped = row.skipped.as_ref().map_or_else(String::new, |skipped| format!("; skipped: {}", counted(skipped)));
    format!("{word} at {}, {} after it was accepted{skipped}.", at.time(ended), span(ended - row.created_at))
}

fn stage(row: &JobRow, facts: &Facts) -> String {
    match facts.position {
        Some((k, n)) => format!("stage `{}` ({k} of {n})", row.stage),
        None => format!("stage `{}`", row.stage),
    }
}

/// The attempt under way or due, and why it is not the first.
fn attempt(row: &JobRow, facts: &Facts) -> String {
    let of = facts.attempts.map_or_else(String::new, |attempts| format!(" of {attempts}"));
    let after = match row.state {
        JobState::Ready | JobState::Running if row.error_code.is_some() => format!(" after {}", failure(row)),
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
    row.error_hint.as_ref().map_or_else(String::new, |hint| format!(" {hint}"))
}

/// What a deadline means for a job that is not being worked on.
fn overdue(row: &JobRow, at: &Clock) -> String {
    match row.deadline {
        Some(deadline) if deadline <= row.now => {
            format!("; its deadline passed at {}, so it is parked when it is looked at next", at.time(deadline))
        }
        Some(deadline) => format!("; its deadline is {}", at.time(deadline)),
        None => String::new(),
    }
}

fn owner(row: &JobRow) -> String {
    row.owner.map_or_else(|| "unknown".to_owned(), |owner| owner.to_string())
}

/// Times as people read them, seen from the database's `now`.
struct Clock {
    now: OffsetDateTime,
}

impl Clock {
    /// `14:02:07 UTC`, with the date where it is another day.
    fn time(&self, at: OffsetDateTime) -> String {
        let at = at.to_offset(time::UtcOffset::UTC);
        let clock = format!("{:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second());
        if at.date() == self.now.to_offset(time::UtcOffset::UTC).date() { clock } else { format!("{} {clock}", at.date()) }
    }

    fn since(&self, at: OffsetDateTime) -> String {
        format!("{} ago", span(self.now - at))
    }
}

/// The largest unit that fits, and the next one: `3 d 4 h`, `2 min 5 s`, `4 s`.
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
