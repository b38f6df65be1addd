//! A producer's trace continues in the calls, follow-ups, retries, events and log lines of its
//! job.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dispatch_worker::broker::Outgoing;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use dispatch_worker::trace::Trace;
use serde_json::Value;

use crate::support::{
    Checks, Listener, TestWorld, WorkerOptions, WorkerProcess, acme, intake, wait_for,
};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn json_logs() -> WorkerOptions {
    let environment = BTreeMap::from([("DISPATCH_LOG_FORMAT".to_owned(), "json".to_owned())]);
    WorkerOptions {
        environment,
        ..WorkerOptions::default()
    }
}

#[tokio::test]
async fn the_trace_of_a_message_continues_in_everything_that_its_job_does() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("answers", None).await;
    listener.queue("watch", Some("job.#")).await;
    let worker = world.worker(&json_logs());
    let once = FaultRule {
        retry_after: Some(1),
        ..FaultRule::new(FaultKind::RateLimit)
    };
    world
        .simulator()
        .await
        .client
        .fault(&once.path_contains(acme::PROFILE).times(1))
        .await
        .unwrap();
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    let sent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let message = Outgoing {
        trace: Trace::parse(Some(&sent), Some("congo=t61rcWkgMzE")),
        reply_to: Some("answers".to_owned()),
        ..intake(acme::job("one", &event).to_string())
    };
    world.publish_raw(&message).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;

    let calls = world.witness();
    assert!(
        calls.iter().any(|call| call.method == "PATCH")
            && calls.iter().any(|call| call.path.starts_with("/webhook/"))
    );
    let profile = calls
        .iter()
        .filter(|call| call.path.contains(acme::PROFILE))
        .count();
    assert_eq!(profile, 2, "the call and its retry");
    let traces: Vec<&str> = calls
        .iter()
        .map(|call| call.traceparent.as_deref().unwrap_or("none"))
        .collect();
    assert!(
        traces
            .iter()
            .all(|trace| trace.starts_with(&format!("00-{TRACE}-")) && trace.ends_with("-01")),
        "{traces:#?}"
    );
    let spans: BTreeSet<&str> = traces.iter().copied().chain([sent.as_str()]).collect();
    assert_eq!(
        spans.len(),
        calls.len() + 1,
        "each call is a span of its own"
    );

    every_event_has_the_trace(&listener).await;
    let kept = "SELECT count(*) FROM jobs WHERE tracestate = 'congo=t61rcWkgMzE'";
    assert_eq!(
        world.database.one(kept).await,
        world.database.one("SELECT count(*) FROM jobs").await
    );
    every_line_of_a_job_has_the_trace(&worker, TRACE).await;
    Checks {
        attempts: &[("retrieve_user", "azure_devops.rate_limited")],
    }
    .hold(&world)
    .await;
}

async fn every_event_has_the_trace(listener: &Listener) {
    for queue in ["answers", "watch"] {
        for event in ["job.accepted", "job.succeeded"] {
            let (traceparent, body) = listener.next_traced(queue).await;
            assert_eq!(body["event"], event);
            assert!(
                traceparent
                    .as_ref()
                    .is_some_and(|trace| trace.contains(TRACE)),
                "{queue} {event}: {traceparent:?}"
            );
        }
    }
}

/// Asserts that every JSON line of the log about a job has the trace.
async fn every_line_of_a_job_has_the_trace(worker: &WorkerProcess, trace: &str) {
    // A job's end is logged after it is stored.
    let log = wait_for("the lines of a job and its follow-ups", SOON, async || {
        let log = worker.log();
        if log.matches("\"job.id\"").count() >= 4 {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await;
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let spans: Vec<Value> = lines
        .map(|line| line["span"].clone())
        .filter(|span| span["job.id"].is_string())
        .collect();
    assert!(
        spans.len() >= 4,
        "a job and its follow-ups log their success: {spans:?}"
    );
    assert!(
        spans.iter().all(|span| span["trace.id"] == trace),
        "{spans:#?}"
    );
}

#[tokio::test]
async fn a_malformed_trace_is_ignored_and_a_new_one_begins() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&json_logs());
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world
        .publish_with_headers(
            &acme::job("one", &event),
            &[("traceparent", "00-4BF9-zz-1"), ("tracestate", "a=b")],
        )
        .await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let traces = world
        .database
        .rows("SELECT DISTINCT traceparent, tracestate FROM jobs")
        .await;
    let [row] = &traces[..] else {
        panic!("a job and its follow-ups are in one trace: {traces:?}")
    };
    let trace = Trace::parse(Some(&row[0]), None).expect("a valid trace");
    assert_eq!(row[1], "-", "the state is dropped with its trace");
    let calls = world.witness();
    assert!(calls.iter().all(|call| {
        call.traceparent
            .as_ref()
            .is_some_and(|sent| sent.contains(&trace.id()))
    }));
    every_line_of_a_job_has_the_trace(&worker, &trace.id()).await;
}
