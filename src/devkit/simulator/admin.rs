//! `/_sim/…`: calls with which tests and the demo set up the data, act as people, and inspect the
//! result. They are not in the witness log.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /_sim/state` | | [`State`], with the messages received |
//! | `POST /_sim/state[?mode=replace\|merge]` | [`State`] | null |
//! | `POST /_sim/options` | [`Options`] | null |
//! | `POST /_sim/change` | [`Change`] | the service-hook event's body |
//! | `POST /_sim/delete_work_item` | `{org, work_item}` | null |
//! | `POST /_sim/tokens` | [`TokenChange`] | null |
//! | `GET /_sim/assignees` | | unique name or null, by `org:id` |
//! | `GET /_sim/events?after=N` | | list of [`super::world::Event`] |
//! | `POST /_sim/faults` | [`FaultRule`] | `{id}` |
//! | `GET /_sim/faults` | | list of [`super::faults::FaultReport`] |
//! | `DELETE /_sim/faults[/ID]` | | null |
//! | `POST /_sim/detach` | | null; keeps running after the end of stdin |
//!
//! A wrong call is answered with 400 (404 for an unknown path) and `{error}`, which states what
//! was expected.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::faults::FaultRule;
use super::state::{AssigneeFormat, Options, State, Token};
use super::world::{Edit, World};
use crate::providers::simulated::{ReceivedCall, SimulatedAnswer};

/// A person's change of a work item. Without `assigned_to` and `state`, the revision changes
/// neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The organization's name.
    pub org: String,
    /// The work item's id.
    pub work_item: i64,
    /// The new assignee's unique name or e-mail; `Some(None)` (JSON null) = none; `None` (absent)
    /// = unchanged.
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub assigned_to: Option<Option<String>>,
    /// The new state's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The unique name of the person who makes it; default: the author of the previous revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The format of the assignee in the event; default: [`Options::assignee_format`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<AssigneeFormat>,
}

/// A change of a token. Absent fields are unchanged; a new token requires `user`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenChange {
    /// The token itself.
    pub token: String,
    /// The unique name of its user.
    #[serde(default)]
    pub user: Option<String>,
    /// See [`Token::expired`].
    #[serde(default)]
    pub expired: Option<bool>,
    /// See [`Token::sign_in_page`].
    #[serde(default)]
    pub sign_in_page: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkItemName {
    org: String,
    work_item: i64,
}

/// Distinguishes null from absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Returns whether a path belongs to this module.
pub(super) fn is_admin(path: &str) -> bool {
    path == "/_sim" || path.starts_with("/_sim/")
}

/// Answers one request.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> SimulatedAnswer {
    let parts = call.parts();
    let outcome = match (&call.method, &parts[1..]) {
        (&Method::GET, ["state"]) => Ok(json!(world.state)),
        (&Method::POST, ["state"]) => load(world, call),
        (&Method::POST, ["options"]) => call.json::<Options>().map(|options| {
            world.state.options = options;
            Value::Null
        }),
        (&Method::GET, ["assignees"]) => Ok(json!(assignees(world))),
        (&Method::GET, ["events"]) => events(world, call),
        (&Method::POST, ["change"]) => call.json().and_then(|change| apply(world, change)),
        (&Method::POST, ["delete_work_item"]) => call.json().and_then(|name| delete(world, &name)),
        (&Method::POST, ["tokens"]) => call.json().and_then(|change| change_token(world, change)),
        (&Method::GET, ["faults"]) => Ok(json!(world.faults.list())),
        (&Method::POST, ["faults"]) => call.json::<FaultRule>().and_then(|rule| {
            rule.check()?;
            Ok(json!({ "id": world.faults.add(rule) }))
        }),
        (&Method::DELETE, ["faults"]) => {
            world.faults.clear();
            Ok(Value::Null)
        }
        (&Method::DELETE, ["faults", id]) => match id.parse() {
            Ok(id) if world.faults.remove(id) => Ok(Value::Null),
            _ => Err(format!("there is no fault {id}")),
        },
        (&Method::POST, ["detach"]) => {
            world.detached = true;
            Ok(Value::Null)
        }
        _ => return refusal(StatusCode::NOT_FOUND, "there is no such admin call"),
    };
    outcome.map_or_else(
        |reason| refusal(StatusCode::BAD_REQUEST, &reason),
        |body| SimulatedAnswer::ok(&body),
    )
}

fn refusal(status: StatusCode, reason: &str) -> SimulatedAnswer {
    SimulatedAnswer::json(status, &json!({ "error": reason }))
}

/// Replaces the state document; `?mode=merge` merges the posted one into the current one.
fn load(world: &mut World, call: &ReceivedCall) -> Result<Value, String> {
    let posted: State = call.json()?;
    let state = match call.query.get("mode").map_or("replace", String::as_str) {
        "replace" => posted,
        "merge" => {
            let mut merged = world.state.clone();
            merged.merge(posted);
            merged
        }
        other => return Err(format!("expected the mode replace or merge, got {other:?}")),
    };
    state.check()?;
    world.state = state;
    Ok(Value::Null)
}

/// Returns the current assignees of all existing work items, by organization and id.
fn assignees(world: &World) -> BTreeMap<&String, &Option<String>> {
    let present = world
        .state
        .work_items
        .iter()
        .filter(|(_, item)| !item.deleted);
    present
        .map(|(key, item)| (key, &item.current().assigned_to))
        .collect()
}

fn events(world: &World, call: &ReceivedCall) -> Result<Value, String> {
    let after = call
        .query
        .get("after")
        .map_or(Ok(0), |after| after.parse::<u64>());
    let after = after.map_err(|error| format!("after: {error}"))?;
    Ok(json!(
        world
            .events
            .iter()
            .filter(|event| event.seq > after)
            .collect::<Vec<_>>()
    ))
}

fn apply(world: &mut World, change: Change) -> Result<Value, String> {
    let missing = || {
        format!(
            "there is no work item {} in {:?}",
            change.work_item, change.org
        )
    };
    let item = world
        .work_item(&change.org, change.work_item)
        .ok_or_else(missing)?;
    let resolved = |name: &String| {
        let found = world
            .state
            .find_user(name)
            .map(|(unique_name, _)| unique_name.clone());
        found.ok_or_else(|| format!("there is no user {name:?}"))
    };
    let states = world
        .state
        .work_item_types
        .get(&item.work_item_type)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if let Some(state) = change
        .state
        .as_ref()
        .filter(|wanted| !states.iter().any(|state| state.name == **wanted))
    {
        return Err(format!("a {} has no state {state:?}", item.work_item_type));
    }
    let assigned_to = match &change.assigned_to {
        Some(wanted) => Some(wanted.as_ref().map(resolved).transpose()?),
        None => None,
    };
    let by = change
        .by
        .as_ref()
        .map_or_else(|| Ok(item.current().changed_by.clone()), resolved)?;
    let edit = Edit {
        assigned_to,
        state: change.state.clone(),
        by,
        format: change.format,
    };
    world
        .revise(&change.org, change.work_item, edit)
        .map(|(_, event)| event)
        .ok_or_else(missing)
}

fn delete(world: &mut World, name: &WorkItemName) -> Result<Value, String> {
    let key = super::state::work_item_key(&name.org, name.work_item);
    let item = world
        .state
        .work_items
        .get_mut(&key)
        .ok_or_else(|| format!("there is no work item {key}"))?;
    item.deleted = true;
    Ok(Value::Null)
}

fn change_token(world: &mut World, change: TokenChange) -> Result<Value, String> {
    let old = world.state.tokens.get(&change.token);
    let user = change
        .user
        .or_else(|| old.map(|token| token.user.clone()))
        .ok_or("a new token requires a user")?;
    let expired = change
        .expired
        .or_else(|| old.map(|token| token.expired))
        .unwrap_or(false);
    let sign_in_page = change
        .sign_in_page
        .or_else(|| old.map(|token| token.sign_in_page))
        .unwrap_or(false);
    world.state.tokens.insert(
        change.token,
        Token {
            user,
            expired,
            sign_in_page,
        },
    );
    Ok(Value::Null)
}
