//! Answers of Azure DevOps.

use dispatch_worker::devkit::simulator::faults::FaultRule;
use serde_json::{Value, json};

use super::expected::{Ask, Case, Ends, Expected, Seen, Wrong};
use super::{
    ANN_HAS_IT, BOTH_HAVE, ONE_EVENT, SUCCEEDED, TWO_EVENTS, linked, one_group, two_groups,
};
use crate::providers::answers::tenant::{ANN, BOB, Item, Tenant};
use crate::providers::answers::{NOBODY, SIGN_IN_PAGE, refusal};

const SEARCH: &str = "/_apis/search/workitemsearchresults";
const BATCH: &str = "/_apis/wit/workitemsbatch";
const USERS: &str = "/_apis/graph/users";
/// The path of the work item that follow-ups write.
const LINKED: &str = "/_apis/wit/workitems/18";
const NO_ACCESS: &str = "TF400813: The user '4d7f2a10-1c2b-4e5f-8a9b-0c1d2e3f4a5b' is not authorized to access this resource.";
const STALE: &str = "OIDCONFLICT_UpnReuse_4d7f2a101c2b4e5f8a9b0c1d2e3f4a5b_ann@field.example";
/// The work items of three pages of search results.
const MANY: std::ops::Range<i64> = 1001..1451;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a01",
        has: |tenant, _| one_group(tenant),
        answers: |it| {
            let refused = json!({"count": 0, "results": [], "infoCode": 4}).to_string();
            vec![FaultRule::answering(200, refused).path_contains(&it.path(SEARCH))]
        },
        asks: &[Ask::search("*login")],
        expected: Expected {
            calls: &[("POST /_apis/search/workitemsearchresults", &[200])],
            ..Expected::to(Ends::Parked {
                code: "azure_devops.search_refused",
                says: "Prefix wildcard query not supported",
            })
        },
    },
    Case {
        name: "a03",
        has: |tenant, _| linked(tenant),
        answers: |it| {
            let message =
                "TF26071: This work item has been changed by someone else since you opened it.";
            let moved = refusal(409, "WorkItemRevisionMismatchException", message);
            vec![
                moved
                    .method("PATCH")
                    .path_contains(&it.path(LINKED))
                    .times(2),
            ]
        },
        asks: ONE_EVENT,
        expected: Expected {
            groups: ANN_HAS_IT,
            outside: &[(18, ANN)],
            // One batch of all affected work items, and a read before each PATCH.
            calls: &[
                ("PATCH /workitems/18", &[409, 409, 200]),
                ("POST /workitemsbatch", &[200; 4]),
            ],
            ..SUCCEEDED
        },
    },
    Case {
        name: "a04",
        has: |tenant, _| linked(tenant),
        answers: |it| {
            let refused = refusal(401, "UnauthorizedRequestException", NOBODY);
            vec![
                refused
                    .method("PATCH")
                    .path_contains(&it.path(LINKED))
                    .times(1),
            ]
        },
        asks: ONE_EVENT,
        expected: Expected {
            groups: ANN_HAS_IT,
            outside: &[(18, ANN)],
            calls: &[
                ("PATCH /workitems/18", &[401, 200]),
                ("POST /token", &[200]),
            ],
            refreshes: 1,
            ..SUCCEEDED
        },
    },
    Case {
        name: "a05",
        has: |tenant, _| {
            // The simulator has no type of this name and answers a request for its states with 404
            // and VS402323.
            let old = Item {
                kind: "Änderung",
                project: "Old",
                ..Item::new(18)
            };
            two_groups(Tenant {
                items: vec![Item::new(17), old],
                ..tenant
            })
        },
        answers: |_| Vec::new(),
        asks: TWO_EVENTS,
        expected: Expected {
            groups: BOTH_HAVE,
            calls: &[
                ("GET /Bug/states", &[200]),
                ("GET /%C3%84nderung/states", &[404]),
            ],
            skipped: Some(("work_items", "states_unavailable", 1)),
            ..SUCCEEDED
        },
    },
    Case {
        name: "a06",
        has: |tenant, _| linked(tenant),
        answers: |it| {
            let user = |descriptor: &str, principal: &str| json!({"subjectKind": "user", "descriptor": descriptor, "principalName": principal, "mailAddress": ANN});
            let users =
                json!({"count": 2, "value": [user("aad.stale", STALE), user("aad.live", ANN)]})
                    .to_string();
            let unknown = format!(
                "The identity value '{STALE}' for field 'Assigned To' is an unknown identity."
            );
            let refused = refusal(400, "RuleValidationException", &unknown)
                .method("PATCH")
                .path_contains(&it.path(LINKED));
            vec![
                FaultRule::answering(200, users).path_contains(&it.path(USERS)),
                refused.body_contains("OIDCONFLICT"),
            ]
        },
        asks: ONE_EVENT,
        expected: Expected {
            groups: ANN_HAS_IT,
            outside: &[(18, ANN)],
            calls: &[("PATCH /workitems/18", &[200])],
            ..SUCCEEDED
        },
    },
    Case {
        name: "a07",
        has: |tenant, _| one_group(tenant),
        answers: |it| {
            vec![
                FaultRule::answering(203, SIGN_IN_PAGE)
                    .path_contains(&it.path(BATCH))
                    .times(1),
            ]
        },
        asks: ONE_EVENT,
        expected: Expected {
            groups: ANN_HAS_IT,
            calls: &[("POST /workitemsbatch", &[203, 200])],
            refreshes: 1,
            ..SUCCEEDED
        },
    },
    Case {
        name: "a08",
        has: |tenant, _| one_group(tenant),
        answers: no_access,
        asks: ONE_EVENT,
        expected: Expected {
            groups: &[(17, None)],
            calls: &[("POST /workitemsbatch", &[401, 401])],
            refreshes: 1,
            also: no_hint_to_sign_in_again,
            ..Expected::to(NOT_ALLOWED)
        },
    },
    Case {
        name: "a08-unrefreshed",
        has: |tenant, _| {
            one_group(Tenant {
                has_refresh_token: false,
                ..tenant
            })
        },
        answers: no_access,
        asks: ONE_EVENT,
        expected: Expected {
            groups: &[(17, None)],
            calls: &[("POST /workitemsbatch", &[401])],
            also: no_hint_to_sign_in_again,
            ..Expected::to(NOT_ALLOWED)
        },
    },
    Case {
        name: "a23",
        has: |tenant, _| two_groups(tenant),
        answers: |it| {
            let person = |name: &str| json!({"displayName": name, "uniqueName": name, "descriptor": "aad.x"});
            let item = |id: i64, state: Value, assigned_to: &str| {
                let fields = json!({
                    "System.TeamProject": "Shop", "System.WorkItemType": "Bug", "System.State": state,
                    "System.AssignedTo": person(assigned_to), "System.ChangedBy": person(BOB),
                    "System.ChangedDate": "2026-01-02T03:04:05.6Z"
                });
                json!({"id": id, "rev": 2, "fields": fields})
            };
            let items = [item(17, json!("New"), ANN), item(18, Value::Null, BOB)];
            let batch = json!({"count": 2, "value": items}).to_string();
            vec![FaultRule::answering(200, batch).path_contains(&it.path(BATCH))]
        },
        asks: TWO_EVENTS,
        expected: Expected {
            groups: &[(17, Some(ANN)), (18, None)],
            calls: &[("POST /workitemsbatch", &[200])],
            skipped: Some(("work_items", "unreadable", 1)),
            ..SUCCEEDED
        },
    },
];

/// Successful answers with a Retry-After header.
pub(super) const PATIENT: &[Case] = &[
    Case {
        name: "a09",
        has: |tenant, _| one_group(tenant),
        answers: |it| vec![waiting(4).path_contains(&it.path(BATCH))],
        asks: ONE_EVENT,
        expected: Expected {
            groups: ANN_HAS_IT,
            calls: &[("POST /workitemsbatch", &[200]), ("GET /states", &[200])],
            also: once_each,
            ..SUCCEEDED
        },
    },
    Case {
        name: "b02",
        has: |tenant, _| {
            let mut tenant = one_group(tenant);
            tenant.items.extend(MANY.map(|id| Item {
                title: "One of many",
                ..Item::new(id)
            }));
            tenant
        },
        answers: |it| vec![waiting(3).path_contains(&it.path(SEARCH))],
        asks: &[Ask::search("many")],
        expected: Expected {
            calls: &[
                ("POST /workitemsearchresults", &[200; 3]),
                ("POST /workitemsbatch", &[200; 3]),
            ],
            also: once_each,
            ..SUCCEEDED
        },
    },
    Case {
        name: "b06",
        has: |tenant, _| {
            // These users sort before Ann, who is on the second page.
            let others = ["aa@field.example", "ab@field.example", "ac@field.example"]
                .map(str::to_owned)
                .to_vec();
            linked(Tenant { others, ..tenant })
        },
        answers: |it| vec![waiting(3).path_contains(&it.path(USERS))],
        asks: ONE_EVENT,
        expected: Expected {
            groups: ANN_HAS_IT,
            outside: &[(18, ANN)],
            calls: &[
                ("GET /graph/users", &[200, 200]),
                ("PATCH /workitems/18", &[200]),
            ],
            also: once_each,
            ..SUCCEEDED
        },
    },
];

const NOT_ALLOWED: Ends = Ends::Parked {
    code: "azure_devops.no_access",
    says: "TF400813: The user",
};

fn no_access(it: &Tenant) -> Vec<FaultRule> {
    vec![refusal(401, "UnauthorizedRequestException", NO_ACCESS).path_contains(&it.path(BATCH))]
}

fn no_hint_to_sign_in_again(seen: &Seen<'_>, wrong: &mut Wrong) {
    for job in &seen.jobs {
        let hint = job
            .row
            .error_hint
            .clone()
            .unwrap_or_default()
            .to_lowercase();
        if hint.is_empty() || (hint.contains("sign") && hint.contains("again")) {
            wrong.say(format_args!(
                "signing in again does not help, but the hint is {hint:?}"
            ));
        }
    }
}

fn waiting(seconds: u32) -> FaultRule {
    FaultRule::decorating().header("Retry-After", &seconds.to_string())
}

/// Checks that each call of the case was made once.
fn once_each(seen: &Seen<'_>, wrong: &mut Wrong) {
    wrong.equal("calls made more than once", seen.repeated(), Vec::new());
}
