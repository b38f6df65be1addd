//! Decoding hashes or seals secrets, and no refusal repeats one.

use std::collections::BTreeSet;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;

const CANARY: &str = "canary-7f3a9";

#[test]
fn no_secret_is_in_what_is_decoded_or_stored() {
    let body = json!({
        "schema": 1, "source": "hooks", "dedupe_key": "k-1", "organization": "acme",
        "events": [{ "payload": {}, "shared_secret": CANARY }, { "payload": {} }],
        "interaction": { "application_id": "1", "token": CANARY }
    });
    let id = JobId::fresh();
    let Ok(intake) = decode_intake(body.to_string().as_bytes(), &envelope(), &ring(), id) else {
        panic!()
    };
    assert!(!format!("{intake:?}").contains(CANARY));
    let Intake::Request { request, .. } = intake else {
        panic!()
    };
    assert!(!serde_json::to_string(&request).unwrap().contains(CANARY));
    let hashed = data_encoding::HEXLOWER.encode(&Sha256::digest(CANARY));
    let secrets: Vec<_> = request
        .events
        .iter()
        .map(|event| event.secret_sha256.as_deref())
        .collect();
    assert_eq!(secrets, [Some(hashed.as_str()), None]);
    let row = id.to_string();
    let place = crate::secrets::Place {
        table: "jobs",
        column: "payload.interaction.token",
        row: &row,
    };
    assert_eq!(
        ring()
            .open(place, &request.interaction.unwrap().sealed_token)
            .unwrap(),
        CANARY.as_bytes()
    );
}

#[test]
fn a_refusal_does_not_repeat_what_may_be_a_secret() {
    let rows = [
        ("events", json!([CANARY])),
        (
            "events",
            json!([{ "payload": {}, "shared_secret": [CANARY] }]),
        ),
        (
            "events",
            json!([{ "payload": {}, "shared_secret": 271_828_182 }]),
        ),
        ("events", json!({ "shared_secret": CANARY })),
        ("interaction", json!(CANARY)),
        (
            "interaction",
            json!({ "application_id": "1", "token": 271_828_182 }),
        ),
        (
            "interaction",
            json!({ "application_id": "1", "token": true, "message_id": CANARY }),
        ),
        ("search", json!(CANARY)),
        ("deadline", json!(CANARY)),
    ];
    for (field, value) in rows {
        let refusal = decode(with(field, value.clone())).unwrap_err();
        for shown in [refusal.to_string(), format!("{refusal:?}")] {
            assert!(
                !shown.contains(CANARY) && !shown.contains("271828182"),
                "{field} = {value}: {shown}"
            );
        }
    }
}

#[test]
fn the_digest_is_of_the_message_with_its_secrets_hashed() {
    let hashed = data_encoding::HEXLOWER.encode(&Sha256::digest(CANARY));
    let of = |secret: &str| json!({ "b": [{ "shared_secret": secret }], "a": { "token": secret, "x": 1 } });
    let canonical =
        format!(r#"{{"a":{{"token":"{hashed}","x":1}},"b":[{{"shared_secret":"{hashed}"}}]}}"#);
    assert_eq!(
        canonical_digest(&of(CANARY)).as_slice(),
        Sha256::digest(canonical).as_slice()
    );
    let digests: BTreeSet<_> = ["a", "b", &hashed, CANARY]
        .map(|secret| canonical_digest(&of(secret)))
        .into();
    assert_eq!(digests.len(), 4);
}
