//! The explanation of each standing.

use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::job::JobId;

const NOW: OffsetDateTime = datetime!(2025-03-04 14:05:00 UTC);
const FACTS: Facts = Facts {
    position: Some((2, 10)),
    attempts: Some(12),
    waiting_for_same: CappedCount::of(1),
    hold: None,
};

fn row(state: JobState) -> JobRow {
    let id: JobId = "0195612e-9a00-7000-8000-000000000001".parse().unwrap();
    JobRow {
        id,
        pipeline: "dispatch".to_owned(),
        parent: None,
        organization: "contoso".to_owned(),
        source: "hooks".to_owned(),
        dedupe_key: "1".to_owned(),
        schema: 1,
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
        skipped: None,
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
    JobRow {
        wait_reason: Some(reason.to_owned()),
        wait_key: Some(key.to_owned()),
        ..row(JobState::Waiting)
    }
}

#[test]
fn a_ready_job_is_due_woken_or_later() {
    let woken = JobRow {
        woken_at: Some(datetime!(2025-03-04 14:04:56 UTC)),
        ..row(JobState::Ready)
    };
    assert_eq!(
        explain(&woken, &FACTS),
        "Ready at stage `fetch_states` (2 of 10) and due since 14:02:00 UTC; wake-up published 4 s ago. The next free \
         worker claims it for attempt 1 of 12."
    );
    assert_eq!(
        explain(&row(JobState::Ready), &FACTS),
        "Ready at stage `fetch_states` (2 of 10) and due since 14:02:00 UTC; its wake-up is not published yet. The waker of \
         any running worker publishes it in its organization's turn, and a free worker claims the job for attempt 1 of 12."
    );
    let later = JobRow {
        due_at: datetime!(2025-03-05 14:09:00 UTC),
        ..failed(row(JobState::Ready))
    };
    assert_eq!(
        explain(&later, &FACTS),
        "Ready at stage `fetch_states` (2 of 10), not due before 2025-03-05 14:09:00 UTC (in 1 d 0 h), for attempt 3 of 12 after \
         azure_devops.rate_limited (Azure DevOps answered 429). `dispatch jobs retry 0195612e-9a00-7000-8000-000000000001` makes \
         it due now."
    );
}

#[test]
fn a_running_job_has_a_live_owner_or_is_about_to_be_freed() {
    assert_eq!(
        explain(&row(JobState::Running), &FACTS),
        "Running at stage `fetch_states` (2 of 10) on replica 7: attempt 1 of 12, last progress 2 min 53 s ago."
    );
    let hung = JobRow {
        last_progress_at: datetime!(2025-03-04 13:45:00 UTC),
        due_at: datetime!(2025-03-04 13:44:00 UTC),
        ..row(JobState::Running)
    };
    let explained = explain(&hung, &FACTS);
    assert!(
        explained.contains("`dispatch jobs park 0195612e-9a00-7000-8000-000000000001` takes the job from the replica"),
        "{explained}"
    );
    // It stood for long, and has just been claimed.
    let claimed = JobRow {
        woken_at: Some(datetime!(2025-03-04 14:04:56 UTC)),
        ..hung
    };
    assert!(!explain(&claimed, &FACTS).contains("park"));
    let dead = JobRow {
        owner_alive: false,
        crash_count: 2,
        ..row(JobState::Running)
    };
    assert_eq!(
        explain(&dead, &Facts::default()),
        "Running at stage `fetch_states`, but the lease of its owner, replica 7, has ended. The duty `takeover` of any running \
         worker frees the job within about 200 ms (takeovers without progress so far: 2 of 5). If none does, no worker runs: \
         start one with `dispatch worker`."
    );
}

#[test]
fn a_waiting_job_says_for_what_what_to_do_and_who_waits_too() {
    let facts = Facts {
        waiting_for_same: CappedCount::of(412),
        ..FACTS
    };
    assert_eq!(
        explain(&failed(waits("reauthentication", "identity:7")), &facts),
        "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC for new tokens of an identity (`identity:7`): \
         azure_devops.rate_limited (Azure DevOps answered 429). `dispatch identities set-tokens` stores them. 412 jobs wait for \
         the same cause."
    );
    assert_eq!(
        explain(
            &JobRow {
                open_children: 3,
                ..waits("children", "children")
            },
            &facts
        ),
        "Waiting since 14:02:07 UTC for its follow-ups: 3 follow-ups are not done. `dispatch jobs list --parent \
         0195612e-9a00-7000-8000-000000000001` lists them; retry or cancel those that are parked."
    );
    let deadline = JobRow {
        deadline: Some(datetime!(2025-03-04 15:00:00 UTC)),
        ..waits("configuration", "job")
    };
    assert_eq!(
        explain(&deadline, &FACTS),
        "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC for the choice of an account (`job`). `dispatch \
         jobs configure 0195612e-9a00-7000-8000-000000000001 --account ID` sets the account. Its deadline is 15:00:00 UTC."
    );
    assert_eq!(
        explain(&waits("installation_disabled", "integration:3@1"), &FACTS),
        "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC for an account that is disabled for its organization \
         (`integration:3@1`). Enable it with `dispatch integrations enable`, or with `dispatch tracker import` of a document \
         that enables it."
    );
    assert_eq!(
        explain(&waits("hold", "destination:9"), &FACTS),
        "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC for a disabled destination (`destination:9`). The job does \
         not continue by itself; `dispatch destinations enable` enables the destination."
    );
}

#[test]
fn a_held_job_says_what_its_destination_did_and_until_when() {
    let hold = HoldRow {
        scope: "contoso|azure_devops|dev.azure.com".to_owned(),
        kind: "hold".to_owned(),
        reason: "contoso's Azure DevOps answered 429".to_owned(),
        who: "replica 7".to_owned(),
        automatic: true,
        created_at: NOW,
        expires_at: datetime!(2025-03-04 14:09:00 UTC),
        now: NOW,
        waiting: CappedCount::of(412),
    };
    let row = JobRow {
        attempt: 3,
        ..waits("hold", "hold:contoso|azure_devops|dev.azure.com")
    };
    let explanation = |hold| {
        explain(
            &row,
            &Facts {
                waiting_for_same: CappedCount::of(412),
                hold,
                ..FACTS
            },
        )
    };
    let begin = "Waiting at stage `fetch_states` (2 of 10) since 14:02:07 UTC, attempt 3 of 12: ";
    let then = "The jobs that wait for it then continue by themselves in small batches; `dispatch holds release` ends it now.";
    let end = "412 jobs wait for the same cause.";
    let by_hand = HoldRow {
        automatic: false,
        who: "olga".to_owned(),
        reason: "maintenance.".to_owned(),
        ..hold.clone()
    };
    for (hold, cause) in [
        (
            hold,
            "replica 7 holds `contoso|azure_devops|dev.azure.com` until 14:09:00 UTC (contoso's Azure DevOps answered 429).",
        ),
        (
            by_hand,
            "olga holds `contoso|azure_devops|dev.azure.com` until 14:09:00 UTC (maintenance).",
        ),
    ] {
        assert_eq!(
            explanation(Some(hold)),
            format!("{begin}{cause} {then} {end}")
        );
    }
    let over =
        "the hold has ended. The jobs that waited for it continue by themselves in small batches.";
    assert_eq!(explanation(None), format!("{begin}{over} {end}"));
}

#[test]
fn a_paused_job_says_who_paused_it_and_until_when_whether_it_waits_or_is_ready() {
    let hold = Some(HoldRow {
        scope: "all".to_owned(),
        kind: "pause".to_owned(),
        reason: "Postgres moves.".to_owned(),
        who: "olga".to_owned(),
        automatic: false,
        created_at: NOW,
        expires_at: datetime!(2025-03-04 14:09:00 UTC),
        now: NOW,
        waiting: CappedCount::of(1),
    });
    let facts = Facts { hold, ..FACTS };
    let waiting = explain(&waits("hold", "hold:all"), &facts);
    let cause = "olga has paused all jobs until 14:09:00 UTC (Postgres moves)";
    assert!(
        waiting.contains(&format!(": {cause}. The jobs that wait"))
            && waiting.contains("`dispatch resume`"),
        "{waiting}"
    );
    let ready = explain(&row(JobState::Ready), &facts);
    assert!(
        ready.starts_with("Ready at stage")
            && ready.contains(&format!("but {cause}, so no worker")),
        "{ready}"
    );
    let running = explain(&row(JobState::Running), &facts);
    assert!(
        !running.contains("paused"),
        "a running stage goes on: {running}"
    );
}

#[test]
fn a_parked_job_says_its_failure_and_the_hint_and_a_done_one_how_long_it_took() {
    assert_eq!(
        explain(&failed(row(JobState::Parked)), &FACTS),
        "Parked at stage `fetch_states` (2 of 10) after attempt 3 of 12: azure_devops.rate_limited (Azure DevOps answered \
         429). Look at the account's usage. `dispatch jobs retry 0195612e-9a00-7000-8000-000000000001` runs the stage again; \
         `dispatch jobs cancel 0195612e-9a00-7000-8000-000000000001` ends the job."
    );
    let done = JobRow {
        finished_at: Some(datetime!(2025-03-03 12:30:00 UTC)),
        ..row(JobState::Succeeded)
    };
    assert_eq!(
        explain(&done, &FACTS),
        "Succeeded at 2025-03-03 12:30:00 UTC, 2 h 30 min after it was accepted."
    );
    let cancelled = JobRow {
        finished_at: Some(NOW),
        ..row(JobState::Cancelled)
    };
    assert_eq!(
        explain(&cancelled, &FACTS),
        "Cancelled at 14:05:00 UTC, 1 d 4 h after it was accepted."
    );
    let skipped = Some([("events".to_owned(), [("duplicate".to_owned(), 2)].into())].into());
    let said = explain(&JobRow { skipped, ..done }, &FACTS);
    assert!(
        said.ends_with("2 h 30 min after it was accepted; skipped: events: 2 duplicate."),
        "{said}"
    );
}

proptest! {
    /// The claim takes `state = 'ready' AND due_at <= now()`; the waker takes those of them
    /// without `woken_at`; the takeover frees `running` jobs whose replica's lease has ended.
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
