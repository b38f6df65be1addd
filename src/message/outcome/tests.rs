//! Events built from stored facts.

use serde_json::{Value, json};

use super::*;

const ID: &str = "0195612e-9a00-7000-8000-000000000001";

fn facts(event: &str, more: &Value) -> String {
    let mut facts = json!({
        "event": event, "job_id": ID, "source": "hooks", "dedupe_key": "k", "organization": "acme", "state": "ready",
        "at": "2026-01-02T03:04:05.000006Z"
    });
    for (name, value) in more.as_object().unwrap() {
        facts[name] = value.clone();
    }
    facts.to_string()
}

fn body(facts: &str) -> Value {
    let outcome = Outcome::try_from(serde_json::from_str::<Facts>(facts).unwrap()).unwrap();
    serde_json::to_value(&outcome).unwrap()
}

#[test]
fn every_way_to_end_or_to_wait_has_an_event_that_reads_back() {
    let waits = WaitReason::ALL
        .iter()
        .map(|reason| (JobState::Waiting, Some(*reason)));
    let others = JobState::ALL
        .iter()
        .filter(|state| **state != JobState::Waiting)
        .map(|state| (*state, None));
    let mut events = 0;
    for (state, reason) in waits.chain(others) {
        let Some(event) = event_of(state, reason) else {
            continue;
        };
        let more = json!({"state": state, "reason": reason, "wait_key": "x:1", "code": "c", "message": "m", "hint": "h"});
        let body = body(&facts(&event, &more));
        assert_eq!(
            (&body["event"], &body["schema"], &body["state"]),
            (&json!(event), &json!(1), &json!(state))
        );
        assert!(
            jsonschema::is_valid(&crate::message::schema::outcome(), &body),
            "{body}"
        );
        let read: Outcome = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), body);
        events += 1;
    }
    assert_eq!(events, 3 + WaitReason::ALL.len() - 1);
}

#[test]
fn a_parked_job_has_its_failure_in_one_object_and_in_the_two_older_fields() {
    let more =
        json!({"state": "parked", "code": "x.refused", "message": "why", "hint": "what to do"});
    let body = body(&facts(PARKED, &more));
    assert_eq!(
        body["error"],
        json!({"code": "x.refused", "message": "why", "hint": "what to do"})
    );
    assert_eq!(
        (&body["code"], &body["hint"]),
        (&json!("x.refused"), &json!("what to do"))
    );
}

#[test]
fn a_job_that_waits_after_a_failure_names_the_failure() {
    let more = json!({"state": "waiting", "reason": "reauthentication", "wait_key": "identity:7", "code": "x.denied",
        "message": "why", "hint": "what to do"});
    let event = body(&facts("job.waiting.reauthentication", &more));
    assert_eq!(
        event["error"],
        json!({"code": "x.denied", "message": "why", "hint": "what to do"})
    );
    let more = json!({"state": "waiting", "reason": "version", "wait_key": "schema:2"});
    let event = body(&facts("job.waiting.version", &more));
    assert_eq!(event.get("error"), None, "it waits since it came: {event}");
}

#[test]
fn skipped_items_are_reported_when_a_job_ends_or_waits() {
    let skipped =
        json!({"events": {"duplicate": 2, "malformed": 1}, "assignments": {"unresolved": 3}});
    let more = json!({"state": "waiting", "reason": "hold", "wait_key": "hold:x", "code": "c", "message": "m", "hint": "h",
        "skipped": skipped, "follow_up": parked()});
    for event in [SUCCEEDED, CANCELLED, PARKED, "job.waiting.hold", FOLLOW_UP] {
        let body = body(&facts(event, &more));
        assert_eq!(body["skipped"], skipped, "{event}");
        assert!(
            jsonschema::is_valid(&crate::message::schema::outcome(), &body),
            "{body}"
        );
        let read: Outcome = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), body);
    }
    let nothing = body(&facts(SUCCEEDED, &json!({"state": "succeeded"})));
    assert_eq!(nothing.get("skipped"), None);
    let skipped: Skipped = serde_json::from_value(skipped).unwrap();
    assert_eq!(
        counted(&skipped),
        "assignments: 3 unresolved; events: 2 duplicate, 1 malformed"
    );
}

/// Returns a follow-up as it is stored with an event of its parent.
fn parked() -> Value {
    json!({"job_id": ID, "pipeline": "messaging", "code": "slack.refused", "message": "not_in_channel", "hint": "Invite the bot."})
}

#[test]
fn a_parent_waits_for_a_parked_follow_up_whatever_else_it_waits_for() {
    let configuration =
        json!({"state": "waiting", "reason": "configuration", "wait_key": "configuration:x"});
    let children = json!({"state": "waiting", "reason": "children", "wait_key": "children"});
    for mut more in [configuration, children] {
        more["follow_up"] = parked();
        let body = body(&facts(FOLLOW_UP, &more));
        assert_eq!(
            (&body["event"], &body["state"]),
            (&json!("job.waiting.follow_up"), &json!("waiting"))
        );
        assert_eq!(
            (&body["reason"], &body["wait_key"]),
            (&json!("children"), &json!("children"))
        );
        assert_eq!((&body["follow_up"], body.get("error")), (&parked(), None));
    }
}

#[test]
fn an_event_has_only_fields_of_its_own() {
    let more = json!({"state": "succeeded", "code": "stale", "message": "stale", "hint": "stale"});
    let body = body(&facts(SUCCEEDED, &more));
    assert!(!body.to_string().contains("stale"), "{body}");
}

#[test]
fn the_answer_to_a_repeated_message_is_where_the_job_stands() {
    let answer = |more: &Value| {
        let text = facts(ACCEPTED, more);
        let facts = serde_json::from_str::<Facts>(&text).unwrap().as_answer();
        serde_json::to_value(Outcome::try_from(facts).unwrap()).unwrap()["event"].clone()
    };
    assert_eq!(answer(&json!({"state": "running"})), ACCEPTED);
    assert_eq!(
        answer(&json!({"state": "waiting", "reason": "children", "wait_key": "children"})),
        ACCEPTED
    );
    assert_eq!(
        answer(&json!({"state": "waiting", "reason": "children", "follow_up": parked()})),
        FOLLOW_UP
    );
    assert_eq!(
        answer(&json!({"state": "waiting", "reason": "hold", "wait_key": "d:1"})),
        "job.waiting.hold"
    );
    assert_eq!(answer(&json!({"state": "succeeded"})), SUCCEEDED);
}

#[test]
fn a_refusal_has_the_known_fields_of_its_message() {
    let facts = json!({"event": REFUSED, "code": "not_json", "detail": "d", "dead_letter_id": 7, "at": "2026-01-02T03:04:05Z"});
    let body = body(&facts.to_string());
    assert!(
        jsonschema::is_valid(&crate::message::schema::outcome(), &body),
        "{body}"
    );
    assert_eq!(
        (&body["dead_letter_id"], body.get("source")),
        (&json!(7), None)
    );
}

#[test]
fn an_event_of_a_newer_worker_is_distinguished_from_known_ones() {
    let text = facts("job.renamed", &json!({}));
    assert!(Outcome::try_from(serde_json::from_str::<Facts>(&text).unwrap()).is_err());
}
