//! Registers every series of the metrics whose labels are known, so that a worker that has done
//! nothing yet shows them at 0. A series that appears with its first event hides that event from
//! `increase()`. Those of duties begin with their duty.

use metrics::{counter, gauge, histogram};

use crate::broker::{CONTROL_QUEUE, INTAKE_QUEUE, PARKED_QUEUE};
use crate::engine::{AttemptOutcome, Pipeline, Registry, StageInfo};
use crate::job::{EffectState, JobState};
use crate::message::Refusal;
use crate::pg_error;
use crate::pipelines::Dispatch;
use crate::providers::provider_names;
use crate::quota::Kind;
use crate::store::{KillAction, StuckCode};
use crate::telemetry::names;

/// The codes of [`names::INFRASTRUCTURE_ERRORS`].
const UNAVAILABLE: [&str; 14] = [
    "store.database",
    "store.no_connection",
    "store.read_only",
    "store.closed",
    "store.after_commit",
    "store.writer_gone",
    "store.key_gone",
    "broker.link",
    "broker.no_host",
    "broker.timed_out",
    "broker.not_connected",
    "broker.blocked",
    "broker.nacked",
    "broker.returned",
];

/// Registers the series with the recorder of the process.
pub(super) fn register(registry: &Registry<Dispatch>) {
    for pipeline in registry.iter() {
        of_pipeline(pipeline);
        of_lane(pipeline.lane.name);
        zero(names::RECONNECTS, "link", pipeline.lane.queue);
        gauge!(names::QUEUE_MESSAGES, "queue" => pipeline.lane.queue).increment(0.0);
    }
    for name in [
        names::ACCEPTED,
        names::TAKEOVERS,
        names::FENCED,
        names::UNKNOWN_EFFECTS,
        names::WAKEUPS,
        names::WAKEUPS_WITHOUT_ROW,
        names::RETURNED_PUBLISHES,
        names::CONSUMER_CANCELS,
    ] {
        counter!(name).increment(0);
    }
    for name in [
        names::INTAKE_PAUSED,
        names::INTAKE_BYTES,
        names::OPEN_DEAD_LETTERS,
        names::OLDEST_HOLD_SECONDS,
        names::MISSING_PARTITIONS,
        names::DATABASE_BYTES,
        names::DESIRED_REPLICAS,
        names::READY,
    ] {
        gauge!(name).increment(0.0);
    }
    drop(histogram!(names::POOL_WAIT_SECONDS));
    drop(histogram!(names::GROUP_ROWS));
    of_links_and_codes();
}

fn of_pipeline(pipeline: &Pipeline<Dispatch>) {
    for state in JobState::ALL {
        if *state != JobState::Running {
            counter!(names::JOBS, "pipeline" => pipeline.name, "state" => state.word())
                .increment(0);
        }
    }
    for stage in pipeline.stages() {
        of_stage(pipeline.name, stage);
    }
}

fn of_stage(pipeline: &'static str, stage: &StageInfo) {
    let failures = AttemptOutcome::ALL.iter().map(|outcome| outcome.word());
    for outcome in failures.clone() {
        counter!(names::ATTEMPTS, "pipeline" => pipeline, "stage" => stage.name, "outcome" => outcome)
            .increment(0);
    }
    for outcome in failures.chain(["succeeded"]) {
        drop(
            histogram!(names::STAGE_SECONDS, "pipeline" => pipeline, "stage" => stage.name, "outcome" => outcome),
        );
    }
    if stage.effect.is_none() {
        return;
    }
    for state in EffectState::ALL {
        if *state != EffectState::InFlight {
            counter!(names::EFFECTS, "pipeline" => pipeline, "stage" => stage.name, "outcome" => state.word())
                .increment(0);
        }
    }
}

fn of_lane(lane: &'static str) {
    zero(names::DELIVERIES, "lane", lane);
    for name in [
        names::DUE_JOBS,
        names::OLDEST_DUE_SECONDS,
        names::PERMITS_USED,
        names::PERMITS,
    ] {
        gauge!(name, "lane" => lane).increment(0.0);
    }
    for state in ["ready", "running", "waiting", "parked"] {
        gauge!(names::OPEN_JOBS, "lane" => lane, "state" => state).increment(0.0);
    }
    for part in ["ready", "in_flight", "due_60s", "waits_on_vendor"] {
        gauge!(names::SCALE_JOBS, "lane" => lane, "part" => part).increment(0.0);
    }
    gauge!(names::LINK_UP, "link" => lane).increment(0.0);
}

fn of_links_and_codes() {
    for link in [
        INTAKE_QUEUE,
        CONTROL_QUEUE,
        PARKED_QUEUE,
        "publisher",
        "events",
        "replies",
    ] {
        zero(names::RECONNECTS, "link", link);
    }
    for queue in [INTAKE_QUEUE, CONTROL_QUEUE, PARKED_QUEUE] {
        gauge!(names::QUEUE_MESSAGES, "queue" => queue).increment(0.0);
    }
    for link in ["postgres", "publisher", "intake", "control"] {
        gauge!(names::LINK_UP, "link" => link).increment(0.0);
    }
    for provider in provider_names() {
        zero(names::HOLDS_PLACED, "provider", provider);
        gauge!(names::OPEN_CIRCUITS, "provider" => provider).increment(0.0);
    }
    for code in Refusal::CODES {
        zero(names::DEAD_LETTERS, "code", code);
    }
    for code in UNAVAILABLE {
        zero(names::INFRASTRUCTURE_ERRORS, "code", code);
    }
    for class in pg_error::CLASSES {
        zero(names::POSTGRES_ERRORS, "class", class);
    }
    for code in StuckCode::ALL {
        gauge!(names::STUCK, "code" => code.word()).increment(0.0);
    }
    for action in [KillAction::Park, KillAction::Cancel] {
        zero(names::KILLED, "action", action.word());
    }
    gauge!(names::KILL_SWITCHES_NOT_UNDERSTOOD).increment(0.0);
    for what in ["event", "reply"] {
        for why in ["refused", "unconfirmed", "returned", "too_old"] {
            counter!(names::DROPPED, "what" => what, "why" => why).increment(0);
        }
    }
    for kind in Kind::ALL {
        for by in ["producer", "organization"] {
            counter!(names::QUOTA_REFUSALS, "kind" => kind.word(), "by" => by).increment(0);
            gauge!(names::QUOTA_FULLEST, "kind" => kind.word(), "by" => by).increment(0.0);
        }
    }
}

/// Registers a counter with one label.
fn zero(name: &'static str, label: &'static str, value: &'static str) {
    counter!(name, label => value).increment(0);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::pipelines;

    #[test]
    fn an_idle_worker_has_its_series_and_not_too_many() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || register(&pipelines::registry()));
        let text = recorder.handle().render();
        for series in [
            "dispatch_takeovers_total 0",
            r#"dispatch_jobs_total{pipeline="dispatch",state="parked"} 0"#,
            r#"dispatch_open_jobs{lane="messaging",state="waiting"} 0"#,
            r#"dispatch_link_up{link="postgres"} 0"#,
        ] {
            assert!(text.contains(series), "{series} is not in {text}");
        }
    }

    #[test]
    fn every_reason_code_of_a_dead_letter_is_registered() {
        let source = include_str!("../message/refusal.rs");
        let (_, body) = source.split_once("fn code(&self)").unwrap();
        let (body, _) = body.split_once("\n    }\n").unwrap();
        let codes: Vec<&str> = body.split('"').skip(1).step_by(2).collect();
        assert_eq!(codes, Refusal::CODES);
    }
}
