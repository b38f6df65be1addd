//! Events from service hooks as producers forward them.

use serde_json::{Value, json};

use super::expected::{Ask, Case, Expected, Seen, Wrong};
use super::{ANN_HAS_IT, BOTH_HAVE, SUCCEEDED, one_group, two_groups};
use crate::providers::answers::tenant::{ANN, BOB};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "p05",
        has: |tenant, _| two_groups(tenant),
        answers: |_| Vec::new(),
        asks: &[
            Ask::events(&[(17, ANN), (18, BOB)]).spoiled(|number, mut event| {
                event["message"]["text"] = json!(if number == 0 {
                    "HALF"
                } else {
                    "Bug #18 updated"
                });
                event.to_string().replace("HALF", r"Fixed \ud83d")
            }),
        ],
        expected: Expected {
            groups: BOTH_HAVE,
            also: every_event_is_accepted,
            ..SUCCEEDED
        },
    },
    Case {
        name: "p07",
        has: |tenant, _| one_group(tenant),
        answers: |_| Vec::new(),
        asks: &[Ask::events(&[(17, ANN)]).spoiled(|_, mut event| {
            event["resource"]["fields"]["System.Rev"]["oldValue"] = json!("HUGE");
            event.to_string().replace("\"HUGE\"", "1e999")
        })],
        expected: Expected {
            groups: ANN_HAS_IT,
            also: every_event_is_accepted,
            ..SUCCEEDED
        },
    },
    Case {
        name: "p08",
        has: |tenant, _| one_group(tenant),
        answers: |_| Vec::new(),
        asks: &[Ask::events(&[(17, ANN)]).spoiled(|_, mut event| {
            event["message"] = Value::Null;
            event["detailedMessage"] = Value::Null;
            event["resource"] =
                json!({"id": event["resource"]["id"], "url": event["resource"]["url"]});
            event.to_string()
        })],
        expected: Expected {
            groups: ANN_HAS_IT,
            also: every_event_is_accepted,
            ..SUCCEEDED
        },
    },
];

fn every_event_is_accepted(seen: &Seen<'_>, wrong: &mut Wrong) {
    for job in &seen.jobs {
        let handled = job
            .checkpoints
            .iter()
            .find(|checkpoint| checkpoint.stage == "handle_events");
        let output = handled.map_or(&Value::Null, |checkpoint| &checkpoint.output);
        let accepted = output["accepted"].as_array().map_or(0, Vec::len);
        wrong.equal("accepted events", accepted, seen.tenant.groups.len());
        wrong.equal("ignored events", &output["ignored"], &json!([]));
    }
}
