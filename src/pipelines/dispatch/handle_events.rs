//! Selects the service-hook events that are genuine and new.
//!
//! *Needs*: `fetch_states`.
//! *Effects*: none. An event counts as seen only after `update_assignments` has committed it, so
//! the events of a job that is parked before that stage are not lost.
//! *Safe to repeat*: the stage only reads our own tables and the stored request.
//!
//! Events are only hints, because the present state of the work item decides. Only the sender and
//! the work item are parsed from a body. Source: Microsoft, "Service hooks events"
//! (<https://learn.microsoft.com/azure/devops/service-hooks/events>).

use std::collections::{BTreeMap, HashSet};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use subtle::{Choice, ConstantTimeEq};

use super::event_resource::work_item;
use super::{AccountState, FetchStates};
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::job::words;
use crate::message::{HookEvent, Request};
use crate::pipelines::Dispatch;

#[derive(Debug, Clone, Copy)]
pub struct HandleEvents;

/// The events of the request; each is in one of the two lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandledEvents {
    /// Genuine and new, in the request's order.
    pub accepted: Vec<AcceptedEvent>,
    /// Skipped, in the request's order.
    pub ignored: Vec<IgnoredEvent>,
}

impl HandledEvents {
    /// Counts the ignored events by reason.
    fn reasons(&self) -> BTreeMap<String, u32> {
        let mut reasons = BTreeMap::new();
        for event in &self.ignored {
            *reasons.entry(event.reason.word().to_owned()).or_default() += 1;
        }
        reasons
    }
}

/// A genuine and new event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedEvent {
    /// Azure DevOps' id of the event.
    pub event_id: String,
    /// The work item that the event names.
    pub work_item_id: i64,
    /// The revision that the event names, if any.
    pub rev: Option<i64>,
}

/// A skipped event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredEvent {
    /// The index in the request, from 0.
    pub index: usize,
    /// The event's id, if it has one.
    pub event_id: Option<String>,
    pub reason: IgnoredReason,
}

words! {
    /// Why an event is skipped.
    IgnoredReason {
        /// The event was seen before, or is twice in this job.
        Duplicate = "duplicate",
        /// The event's type does not report a change of a work item.
        UnsupportedEventType = "unsupported_event_type",
        /// The event is from another account than the job's.
        WrongAccount = "wrong_account",
        /// The event has no shared secret, or one that is not the account's.
        BadSecret = "bad_secret",
        /// The event names no work item.
        NotAWorkItem = "not_a_work_item",
        /// The body does not have the form of an event.
        Malformed = "malformed",
    }
}

impl Stage for HandleEvents {
    type Product = Dispatch;

    const NAME: &'static str = "handle_events";
    const NEEDS: &'static [&'static str] = &[FetchStates::NAME];
    type Output = HandledEvents;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let request = cx.payload::<Request>()?;
        if request.events.is_empty() {
            return Ok(StageOutcome::of(HandledEvents::default()));
        }
        let states = cx.output::<FetchStates>()?;
        let account = states.account()?;
        let secrets = cx
            .services
            .tracker
            .hook_secrets(account.integration_id)
            .await?;
        let judged: Vec<Judged> = request
            .events
            .iter()
            .map(|event| judge(event, account, &secrets))
            .collect();
        let ids: Vec<String> = judged
            .iter()
            .filter_map(|one| one.result.as_ref().ok())
            .map(|it| it.event_id.clone())
            .collect();
        let seen = cx
            .services
            .tracker
            .seen_events(account.integration_id, &ids)
            .await?;
        let handled = sort(judged, seen);
        let skipped = handled.reasons();
        Ok(StageOutcome::of(handled).with_skipped("events", skipped))
    }
}

/// An event that is checked except for being new.
struct Judged {
    event_id: Option<String>,
    result: Result<AcceptedEvent, IgnoredReason>,
}

/// The fields that every event has, each as an arbitrary JSON value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    id: Value,
    event_type: Value,
    #[serde(default)]
    resource: Option<Box<RawValue>>,
    #[serde(default)]
    resource_containers: Option<Value>,
}

fn judge(event: &HookEvent, account: &AccountState, secrets: &[[u8; 32]]) -> Judged {
    let malformed = |event_id| Judged {
        event_id,
        result: Err(IgnoredReason::Malformed),
    };
    let Ok(body) = serde_json::from_str::<Body>(event.payload.get()) else {
        return malformed(None);
    };
    let Some(event_id) = event_id(&body.id) else {
        return malformed(None);
    };
    let Some(event_type) = body.event_type.as_str() else {
        return malformed(Some(event_id));
    };
    let result = if !is_known_secret(event.secret_sha256.as_deref(), secrets) {
        Err(IgnoredReason::BadSecret)
    } else if !SUPPORTED.contains(&event_type) {
        Err(IgnoredReason::UnsupportedEventType)
    } else if !is_of_account(body.resource_containers.as_ref(), &account.account_id) {
        Err(IgnoredReason::WrongAccount)
    } else {
        body.resource
            .and_then(|resource| work_item(event_type == UPDATED, &resource))
            .map(|(work_item_id, rev)| AcceptedEvent {
                event_id: event_id.clone(),
                work_item_id,
                rev,
            })
            .ok_or(IgnoredReason::NotAWorkItem)
    };
    Judged {
        event_id: Some(event_id),
        result,
    }
}

const CREATED: &str = "workitem.created";
const UPDATED: &str = "workitem.updated";
/// The supported event types. A deletion or a restoration changes whether the work item exists, so
/// it is read again. A comment changes neither assignee nor state.
const SUPPORTED: [&str; 4] = [CREATED, UPDATED, "workitem.deleted", "workitem.restored"];
/// The limit of an event's id. Azure DevOps uses GUIDs, which are shorter.
const EVENT_ID_BYTES: usize = 128;

/// Returns an event's id if Postgres can store it and a person can read it.
fn event_id(id: &Value) -> Option<String> {
    let id = id.as_str()?;
    let right = !id.is_empty()
        && id.len() <= EVENT_ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_graphic());
    right.then(|| id.to_owned())
}

/// Compares with every secret in constant time, so that the time reveals neither which secret
/// matches nor how closely.
fn is_known_secret(given: Option<&str>, secrets: &[[u8; 32]]) -> bool {
    let Some(given) = given.and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()) else {
        return false;
    };
    secrets
        .iter()
        .fold(Choice::from(0), |found, secret| {
            found | secret.as_slice().ct_eq(&given)
        })
        .into()
}

/// Checks the account: a body that names collections or accounts must name the job's. For a body
/// that names none, the secret alone decides.
fn is_of_account(containers: Option<&Value>, account_id: &str) -> bool {
    let id = |container: &str| containers.and_then(|all| all.get(container)?.get("id")?.as_str());
    let mut named = [id("collection"), id("account")]
        .into_iter()
        .flatten()
        .peekable();
    named.peek().is_none() || named.any(|id| id.eq_ignore_ascii_case(account_id))
}

/// Accepts the genuine events that are new, each id once.
fn sort(judged: Vec<Judged>, mut seen: HashSet<String>) -> HandledEvents {
    let mut handled = HandledEvents::default();
    for (index, Judged { event_id, result }) in judged.into_iter().enumerate() {
        let result = result.and_then(|event| match seen.insert(event.event_id.clone()) {
            true => Ok(event),
            false => Err(IgnoredReason::Duplicate),
        });
        match result {
            Ok(event) => handled.accepted.push(event),
            Err(reason) => handled.ignored.push(IgnoredEvent {
                index,
                event_id,
                reason,
            }),
        }
    }
    handled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::pipelines::dispatch::samples::account;

    fn secret(text: &str) -> [u8; 32] {
        Sha256::digest(text).into()
    }

    fn event(payload: &Value) -> HookEvent {
        raw(&payload.to_string())
    }

    fn raw(payload: &str) -> HookEvent {
        let payload = RawValue::from_string(payload.to_owned()).unwrap();
        HookEvent {
            payload,
            secret_sha256: Some(data_encoding::HEXLOWER.encode(&secret("right"))),
        }
    }

    fn result_of(event: &HookEvent) -> Result<AcceptedEvent, IgnoredReason> {
        judge(event, &account(), &[secret("old"), secret("right")]).result
    }

    fn updated() -> Value {
        json!({
            "id": "27646e0e", "eventType": "workitem.updated",
            "resource": { "id": 2, "workItemId": 0, "rev": 2, "revision": { "id": 5, "rev": 2 } },
            "resourceContainers": { "collection": { "id": "c12d" }, "account": { "id": "ACC-1" } }
        })
    }

    #[test]
    fn an_update_without_a_work_item_id_falls_back_to_its_revision() {
        let accepted = AcceptedEvent {
            event_id: "27646e0e".to_owned(),
            work_item_id: 5,
            rev: Some(2),
        };
        assert_eq!(result_of(&event(&updated())), Ok(accepted));
        let mut with_id = updated();
        with_id["resource"]["workItemId"] = json!(17);
        assert_eq!(result_of(&event(&with_id)).unwrap().work_item_id, 17);
        with_id["resource"] = json!({ "id": 9 });
        assert_eq!(
            result_of(&event(&with_id)),
            Err(IgnoredReason::NotAWorkItem)
        );
    }

    #[test]
    fn a_minimal_body_is_accepted_by_its_url_and_one_without_a_resource_is_not() {
        let mut body = updated();
        body["resource"] =
            json!({ "id": 3, "url": "https://dev.azure.com/acc/_apis/wit/workItems/17/updates/3" });
        let accepted = AcceptedEvent {
            event_id: "27646e0e".to_owned(),
            work_item_id: 17,
            rev: None,
        };
        assert_eq!(result_of(&event(&body)), Ok(accepted));
        body["resource"] = json!(null);
        assert_eq!(result_of(&event(&body)), Err(IgnoredReason::NotAWorkItem));
    }

    #[test]
    fn created_deleted_and_restored_events_carry_the_work_item_s_own_id() {
        for kind in ["workitem.created", "workitem.deleted", "workitem.restored"] {
            let event = event(
                &json!({ "id": "e", "eventType": kind, "resource": { "id": 9, "rev": 1, "workItemId": 3 } }),
            );
            assert_eq!(result_of(&event).unwrap().work_item_id, 9, "{kind}");
        }
    }

    #[test]
    fn each_bad_event_is_ignored_for_its_own_reason() {
        let with = |path: &str, value: Value| {
            let mut body = updated();
            *body.pointer_mut(path).unwrap() = value;
            result_of(&event(&body)).unwrap_err()
        };
        assert_eq!(
            with("/eventType", json!("workitem.commented")),
            IgnoredReason::UnsupportedEventType
        );
        assert_eq!(with("/eventType", json!(7)), IgnoredReason::Malformed);
        assert_eq!(with("/id", json!("a\0b")), IgnoredReason::Malformed);
        assert_eq!(
            with("/id", json!("x".repeat(129))),
            IgnoredReason::Malformed
        );
        assert_eq!(
            with("/resourceContainers/account/id", json!("other")),
            IgnoredReason::WrongAccount
        );
        assert_eq!(
            with("/resource/revision/id", json!(i64::from(i32::MAX) + 1)),
            IgnoredReason::NotAWorkItem
        );
        assert_eq!(with("/resource", json!("x")), IgnoredReason::NotAWorkItem);
        for nonsense in ["7", "[]", "null", r#""x""#, "{}"] {
            assert_eq!(
                result_of(&raw(nonsense)),
                Err(IgnoredReason::Malformed),
                "{nonsense}"
            );
        }
    }

    #[test]
    fn nonsense_elsewhere_in_a_body_does_no_harm() {
        let body = r#"{"id":"e","eventType":"workitem.created","createdDate":"2023-02-31T99:00:00Z",
            "resource":{"id":5,"rev":"x","fields":{"System.AssignedTo":"\u0000","n":1e999}}}"#;
        let accepted = AcceptedEvent {
            event_id: "e".to_owned(),
            work_item_id: 5,
            rev: None,
        };
        assert_eq!(result_of(&raw(body)), Ok(accepted));
    }

    #[test]
    fn a_missing_or_wrong_secret_is_refused_and_either_of_two_is_right() {
        let mut event = event(&updated());
        for secrets in [
            vec![secret("right"), secret("new")],
            vec![secret("old"), secret("right")],
        ] {
            assert!(judge(&event, &account(), &secrets).result.is_ok());
        }
        assert_eq!(
            judge(&event, &account(), &[]).result,
            Err(IgnoredReason::BadSecret)
        );
        for wrong in [
            None,
            Some(String::new()),
            Some("zz".to_owned()),
            Some("ab".repeat(32)),
        ] {
            event.secret_sha256 = wrong;
            assert_eq!(result_of(&event), Err(IgnoredReason::BadSecret));
        }
    }

    #[test]
    fn a_body_without_containers_is_vouched_for_by_its_secret() {
        for containers in [
            json!(null),
            json!({}),
            json!({ "project": { "id": "p" } }),
            json!("x"),
        ] {
            let mut body = updated();
            body["resourceContainers"] = containers;
            assert!(result_of(&event(&body)).is_ok());
        }
    }

    #[test]
    fn an_event_is_new_once_and_a_forged_one_does_not_take_its_place() {
        let mut forged = event(&updated());
        forged.secret_sha256 = None;
        let events = [forged, event(&updated()), event(&updated())];
        let judged = || {
            events
                .iter()
                .map(|event| judge(event, &account(), &[secret("right")]))
                .collect()
        };
        let handled = sort(judged(), HashSet::new());
        let reasons: Vec<_> = handled
            .ignored
            .iter()
            .map(|it| (it.index, it.reason))
            .collect();
        assert_eq!(handled.accepted.len(), 1);
        assert_eq!(
            reasons,
            [(0, IgnoredReason::BadSecret), (2, IgnoredReason::Duplicate)]
        );
        let again = sort(judged(), HashSet::from(["27646e0e".to_owned()]));
        assert_eq!((again.accepted.len(), again.ignored.len()), (0, 3));
        let reasons = BTreeMap::from([("bad_secret".to_owned(), 1), ("duplicate".to_owned(), 2)]);
        assert_eq!(again.reasons(), reasons);
    }

    proptest! {
        #[test]
        fn any_event_of_a_job_is_either_accepted_or_ignored(bodies in proptest::collection::vec("\\PC*", 0..20)) {
            let events: Vec<HookEvent> = bodies.iter().map(|text| event(&json!({ "id": text, "eventType": text }))).collect();
            let judged = events.iter().map(|event| judge(event, &account(), &[secret("right")])).collect();
            let handled = sort(judged, HashSet::new());
            prop_assert_eq!(handled.accepted.len() + handled.ignored.len(), events.len());
        }
    }
}
