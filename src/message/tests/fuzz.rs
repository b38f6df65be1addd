//! Decoders of messages on changed messages.

use super::*;
use crate::fault::storable;
use crate::fuzz;
use crate::message::edited::{kept, without_secrets};
use crate::message::repair::{read_body, shown_string};

const JOB: &[u8] = br#"{"schema":1,"source":"hooks","dedupe_key":"k-1","organization":"acme","account":"7",
    "identity":"3","search":{"text":"slow"},"events":[{"payload":{"id":"e","n":[1.5,"\ud83d\ude00"]},
    "shared_secret":"s"}],"notify":["chat"],"interaction":{"application_id":"12345678901234567",
    "token":"aW50ZXJhY3Rpb24","message_id":null},"not_before":"2026-01-01T00:00:00Z","deadline":"2026-12-31T23:59:59+14:00"}"#;
const NEWER: &[u8] = br#"{"schema":2,"source":"hooks","dedupe_key":"k-1","organization":"acme","more":[1,{"a":null}]}"#;
const CONFIGURE: &[u8] =
    br#"{"schema":1,"job_id":"0195612e-9a00-7000-8000-000000000001","account":"7"}"#;
const CANCEL: &[u8] = br#"{"schema":1,"source":"hooks","dedupe_key":"k-1"}"#;
const WAKE_UP: &[u8] = br#"{"job_id":"0195612e-9a00-7000-8000-000000000001"}"#;

/// Checks that a refusal has a reason, and that it can be stored as a dead letter's detail.
fn check_refusal(refusal: &Refusal) {
    let text = storable(&refusal.to_string(), 1_000);
    assert!(!refusal.code().is_empty() && !text.is_empty());
    assert!(text.len() <= 1_000 && !text.contains('\0'), "{text:?}");
}

#[test]
fn what_intake_takes_reads_back_and_what_it_refuses_has_a_reason() {
    let ring = ring();
    decode(JOB).expect("the message is a good one");
    let mut taken = 0_u64;
    fuzz::run("intake", &[JOB, NEWER], |input| {
        let decoded = decode_intake(input, &envelope(), &ring, JobId::fresh());
        let checked = check_intake(input, &envelope());
        match decoded {
            Ok(Intake::Request { request, .. }) => {
                let stored = serde_json::to_string(&request).unwrap();
                assert_eq!(serde_json::from_str::<Request>(&stored).unwrap(), *request);
                let key = (request.source.clone(), request.dedupe_key.clone());
                assert_eq!(checked.unwrap(), key);
                let interaction = serde_json::to_string(&request.interaction).unwrap();
                assert!(
                    !interaction.contains("aW50ZXJhY3Rpb24"),
                    "the token is sealed"
                );
                without_secrets(&stored).unwrap();
                kept(&stored).unwrap();
                taken += 1;
            }
            Ok(Intake::Newer(newer)) => {
                assert!(newer.schema > SCHEMA);
                assert_eq!(checked.unwrap(), (newer.source, newer.dedupe_key));
            }
            Err(refusal) => {
                check_refusal(&refusal);
                assert_eq!(checked.unwrap_err().code(), refusal.code());
                assert_eq!(Discarded::of(input).bytes, input.len() as u64);
            }
        }
    });
    assert!(taken > 0, "inputs that are taken are among them");
}

#[test]
fn what_is_shown_of_a_body_is_a_text() {
    fuzz::run("body", &[JOB, NEWER, CONFIGURE], |input| {
        if let Some(value) = read_body(input) {
            assert_eq!(canonical_digest(&value).len(), 32);
            assert!(allowed_headers(&value).is_object());
        }
        let text = String::from_utf8_lossy(input);
        if let Some(shown) = shown_string(&text) {
            assert!(!shown.contains('\0'));
        }
    });
}

#[test]
fn configure_cancel_and_wake_ups_are_read_or_refused() {
    fuzz::run("configure", &[CONFIGURE, CANCEL], |input| {
        let configured = decode_control::<Configure>(input, &envelope());
        let cancelled = decode_control::<Cancel>(input, &envelope());
        for refusal in [configured.err(), cancelled.err()].into_iter().flatten() {
            check_refusal(&refusal);
        }
    });
    fuzz::run("wake-up", &[WAKE_UP], |input| {
        if let Ok(wake_up) = serde_json::from_slice::<WakeUp>(input) {
            let again = serde_json::to_vec(&wake_up).unwrap();
            assert_eq!(serde_json::from_slice::<WakeUp>(&again).unwrap(), wake_up);
        }
    });
}
