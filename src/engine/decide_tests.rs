//! Decisions about results that are not an ordinary success.

use std::time::Duration;

use serde_json::value::RawValue;

use super::decide::*;
use super::effect::Effect;
use super::kept::Kept;
use super::pipeline::{ErasedOutcome, StageInfo};
use super::skipped::Skipped;
use super::stage::Then;
use crate::engine::{Partial, RetryPolicy};
use crate::fault::{Class, Fault};
use crate::job::{Attempt, EffectClass, EffectState, Epoch, Generation, Job, JobId};

#[derive(Debug, thiserror::Error)]
#[error("the provider said: {0}")]
struct Answered(&'static str);

impl Fault for Answered {
    fn code(&self) -> &'static str {
        "x.unrecognized"
    }

    fn class(&self) -> Class {
        Class::Unrecognized
    }

    fn hint(&self) -> String {
        format!("Look up `{}`.", self.0)
    }
}

/// Returns the commit for the given attempt of a stage that can have an effect and had none.
fn committed(attempt: i32, ended: Ended<()>) -> Commit<()> {
    committed_with(None, attempt, ended)
}

fn committed_with(effect: Option<&Effect>, attempt: i32, ended: Ended<()>) -> Commit<()> {
    let job = Job {
        id: JobId::fresh(),
        pipeline: "assignee_sync".into(),
        organization: "acme".into(),
        account: None,
        source: "demo".into(),
        payload: RawValue::NULL.to_owned(),
        parent: None,
        generation: Generation(1),
        epoch: Epoch(2),
        stage: "patch_work_item".into(),
        attempt: Attempt(attempt),
        deadline: None,
        traceparent: None,
    };
    let stage = StageInfo {
        name: "patch_work_item",
        version: 1,
        needs: &[],
        retry: RetryPolicy::DEFAULT,
        timeout: Duration::from_secs(1),
        effect: Some(EffectClass::CompareAndSet),
        off_path: false,
    };
    let kept = Kept::new(&stage, Generation(1), Partial::default(), &|| false);
    let (conflicts, deadline_in) = (0, None);
    let at = Position {
        job: &job,
        stage: &stage,
        next: None,
        conflicts,
        effect,
        deadline_in,
        keep_going: true,
        kept: &kept,
    };
    match decide(&at, ended, 0.5) {
        Decision::Commit(commit) => *commit,
        other @ (Decision::Repeat | Decision::Infrastructure(_) | Decision::GiveUp) => {
            panic!("nothing to commit: {other:?}")
        }
    }
}

fn done(provider_ref: Option<String>, skipped: Skipped) -> Ended<()> {
    let outcome = ErasedOutcome {
        output: None,
        children: Vec::new(),
        changes: None,
        then: Then::Next,
        provider_ref,
        skipped,
    };
    Ended::Done(Box::new(outcome))
}

fn leftover(provider_ref: Option<String>) -> Option<EffectState> {
    committed(2, done(provider_ref, Skipped::new())).leftover
}

#[test]
fn a_call_whose_answer_was_lost_is_not_recorded_as_failed_when_there_is_nothing_more_to_do() {
    assert_eq!(leftover(None), Some(EffectState::Unknown));
    assert_eq!(leftover(Some("3".to_owned())), Some(EffectState::Confirmed));
}

#[test]
fn a_call_under_way_in_a_stage_that_panics_or_takes_too_long_may_have_gone_through() {
    let call = Effect {
        key: "k".to_owned(),
        class: EffectClass::AtLeastOnce,
        detail: serde_json::Value::Null,
        deadline: std::time::Instant::now(),
        repeated: false,
    };
    let became_of = |attempt, ended| committed_with(Some(&call), attempt, ended).effect;
    let unknown = EffectOutcome {
        key: "k".to_owned(),
        state: EffectState::Unknown,
        provider_ref: None,
    };
    assert_eq!(
        became_of(1, Ended::Panicked("index out of bounds".to_owned())),
        Some(unknown.clone())
    );
    // Both when the stage is retried and when, at the last attempt, the job is parked.
    for attempt in [1, RetryPolicy::DEFAULT.attempts] {
        assert_eq!(
            became_of(attempt, Ended::TimedOut(Duration::from_secs(1))),
            Some(unknown.clone()),
            "{attempt}"
        );
    }
    assert_eq!(
        committed(1, Ended::TimedOut(Duration::from_secs(1))).effect,
        None,
        "no call, no effect"
    );
}

#[test]
fn what_a_finished_stage_skipped_is_committed_with_it() {
    let skipped = Skipped::from([("events", [("duplicate".to_owned(), 2)].into())]);
    assert_eq!(committed(2, done(None, skipped.clone())).skipped, skipped);
    assert_eq!(
        committed(2, Ended::TimedOut(Duration::from_secs(1))).skipped,
        Skipped::new()
    );
}

#[test]
fn an_unknown_answer_is_tried_four_times_and_then_parked_with_its_words() {
    for attempt in 1..=5 {
        let Commit { record, next, .. } =
            committed(attempt, Ended::Fault(Answered("channel_on_holiday").into()));
        let Record::Attempt(record) = record else {
            panic!("{record:?}")
        };
        if attempt < 4 {
            assert_eq!(record.outcome, AttemptOutcome::Retried);
            assert!(
                matches!(
                    next,
                    Next::Retry {
                        used_attempt: true,
                        ..
                    }
                ),
                "{attempt}: {next:?}"
            );
        } else {
            assert_eq!(
                (record.outcome, next),
                (AttemptOutcome::Parked, Next::Park),
                "{attempt}"
            );
        }
        let Failure { message, hint, .. } = record.failure;
        assert!(
            message.contains("channel_on_holiday") && hint.contains("channel_on_holiday"),
            "{message}; {hint}"
        );
    }
}
