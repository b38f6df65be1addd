//! The spans of jobs with different courses.

use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::super::job_row::JobRow;
use super::facts::{Facts, Run, Span, SpanKind};
use super::marks::{ActionMark, EndMark};
use super::spans::spans;
use crate::job::{JobId, JobState};

const ACCEPTED: OffsetDateTime = datetime!(2025-03-04 14:00:00 UTC);

fn at(seconds: i64) -> OffsetDateTime {
    ACCEPTED + Duration::seconds(seconds)
}

fn row(state: JobState, epoch: i64, now: i64) -> JobRow {
    JobRow {
        id: JobId::fresh(),
        pipeline: "dispatch".to_owned(),
        parent: None,
        organization: "acme".to_owned(),
        source: "tests".to_owned(),
        dedupe_key: "1".to_owned(),
        schema: 1,
        state,
        stage: "two".to_owned(),
        attempt: 1,
        generation: 1,
        epoch,
        owner: (state == JobState::Running).then_some(9),
        wait_reason: None,
        wait_key: None,
        open_children: 0,
        error_code: None,
        error_message: None,
        error_hint: None,
        due_at: ACCEPTED,
        woken_at: None,
        last_progress_at: ACCEPTED,
        created_at: ACCEPTED,
        finished_at: state.is_done().then(|| at(now)),
        deadline: None,
        now: at(now),
        owner_alive: true,
        crash_count: 0,
        skipped: None,
    }
}

fn facts(row: JobRow, runs: Vec<Run>) -> Facts {
    Facts {
        row,
        runs,
        actions: Vec::new(),
        ends: Vec::new(),
        is_cut: false,
    }
}

fn run(kind: SpanKind, stage: &str, epoch: i64, (from, until): (i64, i64)) -> Run {
    let is_attempt = !matches!(kind, SpanKind::Stage | SpanKind::ByHand);
    Run {
        kind,
        generation: 1,
        stage: stage.to_owned(),
        attempt: 1,
        replica: 7,
        epoch,
        from: at(from),
        until: at(until),
        code: is_attempt.then(|| "slack.busy".to_owned()),
    }
}

fn action(action: &str, seconds: i64) -> ActionMark {
    ActionMark {
        id: seconds,
        at: at(seconds),
        who: "ann".to_owned(),
        action: action.to_owned(),
        reason: None,
    }
}

fn death(replica: i64, seconds: i64, was_blamed: bool) -> EndMark {
    EndMark {
        replica,
        at: at(seconds),
        ended_well: false,
        was_blamed,
    }
}

/// Returns each span as its kind and its end in seconds.
fn shape(facts: &Facts) -> Vec<(SpanKind, i64)> {
    let end = |span: &Span| (span.until - ACCEPTED).whole_seconds();
    spans(facts)
        .iter()
        .map(|span| (span.kind, end(span)))
        .collect()
}

#[test]
fn stages_follow_each_other_and_the_job_waits_for_its_follow_ups() {
    use SpanKind::{Commit, FollowUps, Queued, Stage};
    let runs = vec![run(Stage, "two", 1, (4, 5)), run(Stage, "one", 1, (2, 3))];
    let done = facts(row(JobState::Succeeded, 1, 9), runs);
    assert_eq!(
        shape(&done),
        [
            (Queued, 2),
            (Stage, 3),
            (Commit, 4),
            (Stage, 5),
            (FollowUps, 9)
        ]
    );
}

#[test]
fn a_job_that_failed_was_parked_retried_and_lost_its_owner_names_every_gap() {
    use SpanKind::{Backoff, Failed, OwnerDied, Parked, Queued, Retried, Stage};
    let runs = vec![
        run(Retried, "one", 1, (0, 1)),
        run(Failed, "one", 2, (11, 12)),
        // Retried by a person (3), claimed (4), lost and freed (5), claimed (6).
        Run {
            replica: 8,
            ..run(Stage, "one", 6, (40, 41))
        },
    ];
    let mut facts = facts(row(JobState::Succeeded, 6, 41), runs);
    facts.actions = vec![action("unmask", 15), action("retry", 20)];
    facts.ends = vec![death(9, 30, true)];
    assert_eq!(
        shape(&facts),
        [
            (Retried, 1),
            (Backoff, 11),
            (Failed, 12),
            (Parked, 20),
            (OwnerDied, 30),
            (Queued, 40),
            (Stage, 41)
        ]
    );
    let spans = spans(&facts);
    assert_eq!(spans[4].text, "owner died: replica 9");
    assert_eq!(
        (spans[0].code.as_deref(), spans[0].replica),
        (Some("slack.busy"), Some(7))
    );
}

#[test]
fn a_replica_that_dies_while_it_does_not_have_the_job_is_no_owner() {
    use SpanKind::{Backoff, OwnerDied, Queued, Retried, Stage};
    let runs = |epoch| {
        vec![
            run(Retried, "one", 1, (0, 1)),
            run(Stage, "one", epoch, (9, 10)),
        ]
    };
    let mut idle = facts(row(JobState::Succeeded, 2, 10), runs(2));
    idle.ends = vec![death(7, 5, false)];
    assert_eq!(shape(&idle), [(Retried, 1), (Backoff, 9), (Stage, 10)]);
    // After a checkpoint, the owner goes on with the next stage, and dies.
    let kept = vec![run(Stage, "one", 1, (0, 1)), run(Stage, "two", 3, (9, 10))];
    let mut kept = facts(row(JobState::Succeeded, 3, 10), kept);
    kept.ends = vec![death(7, 5, false)];
    assert_eq!(
        shape(&kept),
        [(Stage, 1), (OwnerDied, 5), (Queued, 9), (Stage, 10)]
    );
}

#[test]
fn the_last_gap_is_named_by_the_row() {
    use SpanKind::{Backoff, FollowUps, Held, OwnerDied, Parked, Queued, Retried, Running, Waits};
    let tail = |row: JobRow| {
        let facts = facts(row, vec![run(Retried, "two", 1, (0, 10))]);
        let spans = spans(&facts);
        let tail = spans[1..].iter().map(|span| (span.kind, span.text.clone()));
        tail.collect::<Vec<_>>()
    };
    let later = JobRow {
        due_at: at(90),
        ..row(JobState::Ready, 1, 60)
    };
    assert_eq!(tail(later)[0].0, Backoff);
    let due = JobRow {
        due_at: at(30),
        ..row(JobState::Ready, 1, 60)
    };
    let kinds: Vec<_> = tail(due).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [Backoff, Queued]);
    let waits = |reason: &str, key: &str| {
        let row = row(JobState::Waiting, 1, 60);
        tail(JobRow {
            wait_reason: Some(reason.to_owned()),
            wait_key: Some(key.to_owned()),
            ..row
        })
        .remove(0)
    };
    assert_eq!(
        waits("hold", "hold:lane:messaging"),
        (Held, "held by lane:messaging".to_owned())
    );
    assert_eq!(
        waits("reauthentication", "identity:1"),
        (Waits, "waits for identity:1".to_owned())
    );
    assert_eq!(waits("children", "children").0, FollowUps);
    assert_eq!(tail(row(JobState::Parked, 1, 60))[0].0, Parked);
    let runs = tail(JobRow {
        due_at: at(20),
        ..row(JobState::Running, 2, 60)
    });
    assert_eq!((runs[0].0, runs[1].0), (Backoff, Running));
    let dead = tail(JobRow {
        owner_alive: false,
        ..row(JobState::Running, 2, 60)
    });
    assert_eq!(dead[0].0, OwnerDied);
}

#[test]
fn a_checkpoint_that_a_re_run_has_copied_is_shown_once() {
    let copied = Run {
        generation: 2,
        ..run(SpanKind::Stage, "one", 1, (1, 2))
    };
    let runs = vec![
        run(SpanKind::Stage, "one", 1, (1, 2)),
        copied,
        run(SpanKind::Stage, "two", 3, (9, 10)),
    ];
    let mut facts = facts(row(JobState::Succeeded, 3, 10), runs);
    facts.actions = vec![action("rerun", 5)];
    let stages: Vec<_> = spans(&facts)
        .into_iter()
        .filter(|span| span.kind == SpanKind::Stage)
        .map(|span| (span.stage.unwrap_or_default(), span.generation))
        .collect();
    assert_eq!(
        stages,
        [("one".to_owned(), Some(1)), ("two".to_owned(), Some(1))]
    );
}

fn any_run() -> impl Strategy<Value = Run> {
    let kinds = prop::sample::select(vec![
        SpanKind::Stage,
        SpanKind::ByHand,
        SpanKind::Retried,
        SpanKind::Waited,
        SpanKind::Failed,
    ]);
    (
        kinds,
        1..4_i64,
        0..30_i64,
        -20..200_i64,
        0..50_i64,
        1..3_i32,
    )
        .prop_map(|(kind, replica, epoch, from, length, generation)| Run {
            replica,
            generation,
            ..run(kind, "one", epoch, (from, from + length))
        })
}

fn any_row() -> impl Strategy<Value = JobRow> {
    let states = prop::sample::select(JobState::ALL.to_vec());
    (states, 0..40_i64, -5..200_i64, any::<bool>(), -10..300_i64).prop_map(
        |(state, epoch, now, owner_alive, due)| JobRow {
            owner_alive,
            due_at: at(due),
            ..row(state, epoch, now)
        },
    )
}

proptest! {
    /// Whatever the tables contain, also what clocks and copies have made of them.
    #[test]
    fn spans_cover_the_time_from_acceptance_to_the_end_without_gap_and_overlap(
        row in any_row(),
        runs in prop::collection::vec(any_run(), 0..12),
        actions in prop::collection::vec((0..6_usize, -5..200_i64), 0..6),
        deaths in prop::collection::vec((1..10_i64, -5..200_i64, any::<bool>()), 0..4),
        is_cut in any::<bool>(),
    ) {
        let words = ["retry", "park", "rerun", "configure", "effect.mark", "unmask"];
        let mut actions: Vec<_> = actions.into_iter().map(|(word, at)| action(words[word], at)).collect();
        actions.sort_by_key(|one| one.at);
        let mut ends: Vec<_> = deaths.into_iter().map(|(replica, at, blamed)| death(replica, at, blamed)).collect();
        ends.sort_by_key(|one| one.at);
        let facts = Facts { row, runs, actions, ends, is_cut };
        let spans = spans(&facts);
        let mut end = facts.row.created_at;
        for span in &spans {
            prop_assert_eq!(span.from, end);
            prop_assert!(span.until > span.from || span.kind.is_work());
            end = span.until;
        }
        prop_assert_eq!(end, facts.until());
    }
}
