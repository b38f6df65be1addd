//! "Why is this job not moving?", answered from the fields that the claim and the waker look at. Pure.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::claim::CRASHES;
use super::inspect::JobRow;
use crate::job::{JobState, WaitReason};

/// What is known beside the row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The stage due is the k-th of n, from 1; `None` for one that is reached by a jump only, or is not known here.
    pub position: Option<(usize, usize)>,
    /// Attempts that the stage due may use; `None` where the stage is not known here.
    pub attempts: Option<i32>,
    /// Jobs that wait for the same cause, this one included.
    pub waiting_for_same: i64,
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
        Some(WaitReason::Reauthentication) => ("an identity's new tokens", "`dispatch tracker import` brings them".to_owned()),
        Some(WaitReason::InstallationDisabled) => {
            ("an installation to be enabled", "`dispatch tracker import` enables it".to_owned())
        }
        Some(WaitReason::Hold) => ("a hold to end", "it goes on by itself".to_owned()),
        Some(WaitReason::Version) => ("a worker that knows its schema", "start a newer worker".to_owned()),
        None => ("a cause that this version does not know", "run the newest `dispatch`".to_owned()),
    };
    let others = match facts.waiting_for_same {
        ..=1 => String::new(),
        jobs => format!("; {jobs} jobs wait for the same cause"),
    };
    let deadline = overdue(row, at);
    let failed = row.error_code.as_ref().map_or_else(String::new, |_| format!(": {}", failure(row)));
    format!("Waiting at {stage} since {since} for {cause} (`{key}`){failed}; {next}{others}{deadline}.")
}

fn done(row: &JobRow, at: &Clock) -> String {
    let ended = row.finished_at.unwrap_or(row.last_progress_at);
    let word = if row.state == JobState::Succeeded { "Succeeded" } else { "Cancelled" };
    format!("{word} at {}, {} after it was accepted.", at.time(ended), span(ended - row.created_at))
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
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::job::JobId;

    const NOW: OffsetDateTime = datetime!(2025-03-04 14:05:00 UTC);
    const FACTS: Facts = Facts { position: Some((2, 10)), attempts: Some(12), waiting_for_same: 1 };

    fn row(state: JobState) -> JobRow {
        let id: JobId = "0195612e-9a00-7000-8000-000000000001".parse().unwrap();
        JobRow {
            id,
            pipeline: "dispatch".to_owned(),
            parent: None,
            organization: "contoso".to_owned(),
            source: "hooks".to_owned(),
            dedupe_key: "1".to_owned(),
            state,
            stage: "fetch_states".to_owned(),
            attempt: 1,
            generation: 1,
            epoch: 3,
            owner: (state == JobState::Running).then_some(7),
            wait_reason: None,
            wait_key: None,
            open_children: 0,
            error_code: None,
            error_message: None,
            error_hint: None,
            due_at: datetime!(2025-03-04 14:02:00 UTC),
            woken_at: None,
            last_progress_at: datetime!(2025-03-04 14:02:07 UTC),
            created_at: datetime!(2025-03-03 10:00:00 UTC),
            finished_at: None,
            deadline: None,
            now: NOW,
            owner_alive: state == JobState::Running,
            crash_count: 0,
        }
    }

    fn failed(row: JobRow) -> JobRow {
        JobRow {
            attempt: 3,
            error_code: Some("azure_devops.rate_limited".to_owned()),
            error_message: Some("Azure DevOps answered 429".to_owned()),
            error_hint: Some("Look at the account's usage.".to_owned()),
            ..row
        }
    }

    fn waits(reason: &str, key: &str) -> JobRow {
        JobRow { wait_reason: Some(reason.to_owned()), wait_key: Some(key.to_owned()), ..row(JobState::Waiting) }
    }

    #[test]
    fn a_ready_job_is_due_woken_or_later() {
        let woken = JobRow { woken_at: Some(datetime!(2025-03-04 14:04:56 UTC)), ..row(JobState::Ready) };
        assert_eq!(
            explain(&woken, &FACTS),
            "Ready at stage `fetch_states` (2 of 10) and due since 14:02:00 UTC, woken (wake-up published 4 s ago): the next free \
             worker claims it; attempt 1 of 12."
        );
        assert_eq!(
            explain(&row(JobState::Ready), &FACTS),
            "Ready at stage `fetch_states` (2 of 10) and due since 14:02:00 UTC, not woken yet: the waker of any running worker \
             publishes its wake-up in its organization's turn; attempt 1 of 12."
        );
        let later = JobRow { due_at: datetime!(2025-03-05 14:09:00 UTC), ..failed(row(JobState::Ready)) };
        assert_eq!(
            explain(&later, &FACTS),
            "Ready at stage `fetch_states` (2 of 10), not due before 2025-03-05 14:09:00 UTC (in 1 d 0 h); attempt 3 of 12 after \
             azure_devops.rate_limited (Azure DevOps answered 429)."
        );
    }

    #[test]
    fn a_running_job_has_a_live_owner_or_is_about_to_be_freed() {
        assert_eq!(
            explain(&row(JobState::Running), &FACTS),
            "Running at stage `fetch_states` (2 of 10): replica 7 has it, attempt 1 of 12, last progress 2 min 53 s ago."
        );
        let dead = JobRow { owner_alive: false, crash_count: 2, ..row(JobState::Running) };
        assert_eq!(
            explain(&dead, &Facts::default()),
            "Running at stage `fetch_states` by name only: the lease of replica 7 is over, and the waker of any running worker \
             frees the job (takeovers without progress so far: 2 of 5)."
        );
    }

    #[test]
    fn a_waiting_job_says_for_what_what_to_do_and_who_waits_too() {
        let facts = Facts { waiting_for_same: 412, ..FACTS };
        assert_eq!(
            explain(&failed(waits("reauthentication", "identity:7")), &facts),
            "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC for an identity's new tokens (`identity:7`): \
             azure_devops.rate_limited (Azure DevOps answered 429); `dispatch tracker import` brings them; 412 jobs wait for the \
             same cause."
        );
        assert_eq!(
            explain(&JobRow { open_children: 3, ..waits("children", "children") }, &facts),
            "Waiting since 14:02:07 UTC for its follow-ups: 3 follow-ups are not done; `dispatch jobs list --parent \
             0195612e-9a00-7000-8000-000000000001` shows them."
        );
        let deadline = JobRow { deadline: Some(datetime!(2025-03-04 15:00:00 UTC)), ..waits("configuration", "job") };
        assert_eq!(
            explain(&deadline, &FACTS),
            "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC for somebody to choose an account (`job`); `dispatch \
             jobs configure 0195612e-9a00-7000-8000-000000000001 --account ID` supplies it; its deadline is 15:00:00 UTC."
        );
    }

    #[test]
    fn a_parked_job_says_its_failure_and_the_hint_and_a_done_one_how_long_it_took() {
        assert_eq!(
            explain(&failed(row(JobState::Parked)), &FACTS),
            "Parked at stage `fetch_states` (2 of 10) after attempt 3 of 12: azure_devops.rate_limited (Azure DevOps answered \
             429). Look at the account's usage."
        );
        let done = JobRow { finished_at: Some(datetime!(2025-03-03 12:30:00 UTC)), ..row(JobState::Succeeded) };
        assert_eq!(explain(&done, &FACTS), "Succeeded at 2025-03-03 12:30:00 UTC, 2 h 30 min after it was accepted.");
        let cancelled = JobRow { finished_at: Some(NOW), ..row(JobState::Cancelled) };
        assert_eq!(explain(&cancelled, &FACTS), "Cancelled at 14:05:00 UTC, 1 d 4 h after it was accepted.");
    }

    proptest! {
        /// The claim takes `state = 'ready' AND due_at <= now()`; the waker takes those of them without `woken_at`, and frees
        /// `running` ones whose replica is over.
        #[test]
        fn the_standing_is_what_the_claim_and_the_waker_see(
            state in 0..JobState::ALL.len(), due_in in -3..3i64, woken: bool, owner_alive: bool,
        ) {
            let state = JobState::ALL[state];
            let row = JobRow {
                due_at: NOW + time::Duration::seconds(due_in),
                woken_at: woken.then_some(NOW),
                owner_alive,
                ..row(state)
            };
            let (standing, claimable) = (standing(&row), state == JobState::Ready && due_in <= 0);
            prop_assert_eq!(matches!(standing, Standing::DueWoken | Standing::DueNotWoken), claimable);
            prop_assert_eq!(standing == Standing::DueNotWoken, claimable && !woken);
            prop_assert_eq!(standing == Standing::OwnerDead, state == JobState::Running && !owner_alive);
            prop_assert!(!explain(&row, &FACTS).is_empty());
        }
    }
}
