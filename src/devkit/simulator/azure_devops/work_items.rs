//! Work items: reading one, reading several, and the PATCH that is guarded by the revision.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Reply, Scope, bad_request, error};
use crate::devkit::simulator::hooks;
use crate::devkit::simulator::state::{AssigneeFormat, RevMismatch, WorkItem};
use crate::devkit::simulator::world::{Edit, World};
use crate::providers::simulated::{ReceivedCall, SimulatedAnswer};

/// The maximum number of ids in one batch.
const BATCH_IDS: usize = 200;

#[derive(Deserialize)]
struct BatchRequest {
    ids: Vec<i64>,
    #[serde(default)]
    fields: Option<Vec<String>>,
    #[serde(rename = "errorPolicy", default)]
    error_policy: Option<String>,
    #[serde(rename = "$expand", default)]
    expand: Option<String>,
}

#[derive(Deserialize)]
struct Operation {
    op: String,
    path: String,
    #[serde(default)]
    value: Value,
}

/// `POST /{org}[/{project}]/_apis/wit/workitemsbatch`, in the requested order. With `errorPolicy:
/// omit`, a missing work item is null; without, it fails the whole batch.
pub(super) fn batch(world: &World, call: &ReceivedCall, scope: &Scope<'_>) -> Reply {
    let request: BatchRequest = call.json().map_err(|error| bad_request(&error))?;
    if request.ids.is_empty() || request.ids.len() > BATCH_IDS {
        return Err(bad_request(&format!(
            "VS402337: ids holds from 1 to {BATCH_IDS} ids"
        )));
    }
    let expands = request
        .expand
        .as_ref()
        .is_some_and(|expand| !expand.eq_ignore_ascii_case("none"));
    if expands && request.fields.is_some() {
        return Err(bad_request(
            "The expand parameter can not be used with the fields parameter.",
        ));
    }
    let omit = request
        .error_policy
        .as_ref()
        .is_some_and(|policy| policy.eq_ignore_ascii_case("omit"));
    let shown = request
        .ids
        .iter()
        .map(|id| match scope.work_item(world, *id) {
            Some(item) => Ok(resource(world, scope, *id, item, request.fields.as_deref())),
            None if omit => Ok(Value::Null),
            None => Err(missing(*id)),
        });
    Ok(SimulatedAnswer::list(
        &shown.collect::<Result<Vec<_>, _>>()?,
    ))
}

/// `GET /{org}[/{project}]/_apis/wit/workitems/{id}?fields=`.
pub(super) fn get(world: &World, call: &ReceivedCall, scope: &Scope<'_>, id: i64) -> Reply {
    let item = scope.work_item(world, id).ok_or_else(|| missing(id))?;
    let fields = call
        .query
        .get("fields")
        .map(|names| names.split(',').map(str::to_owned).collect::<Vec<_>>());
    Ok(SimulatedAnswer::ok(&resource(
        world,
        scope,
        id,
        item,
        fields.as_deref(),
    )))
}

/// `PATCH /{org}[/{project}]/_apis/wit/workitems/{id}`. A patch that changes nothing creates no
/// revision.
pub(super) fn patch(world: &mut World, call: &ReceivedCall, scope: &Scope<'_>, id: i64) -> Reply {
    if call.media_type() != "application/json-patch+json" {
        let message = "the content type is application/json-patch+json";
        return Err(error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "VssRequestContentTypeNotSupportedException",
            message,
        ));
    }
    let operations: Vec<Operation> = call.json().map_err(|error| bad_request(&error))?;
    let before = scope
        .work_item(world, id)
        .ok_or_else(|| missing(id))?
        .current()
        .clone();
    let mut edit = Edit {
        assigned_to: None,
        state: None,
        by: scope.user.to_owned(),
        format: None,
    };
    for operation in &operations {
        match (operation.op.as_str(), operation.path.as_str()) {
            ("test", "/rev") if rev(&operation.value) == Some(before.rev) => {}
            ("test", "/rev") => return Err(moved_on(world, &operation.value, before.rev)),
            ("add" | "replace", "/fields/System.AssignedTo") => {
                edit.assigned_to = Some(assignee(world, &operation.value)?);
            }
            ("remove", "/fields/System.AssignedTo") => edit.assigned_to = Some(None),
            (op, path) => {
                return Err(bad_request(&format!(
                    "{op} {path}: the simulator knows no such operation"
                )));
            }
        }
    }
    let wanted = edit
        .assigned_to
        .clone()
        .unwrap_or_else(|| before.assigned_to.clone());
    let changes = wanted != before.assigned_to;
    let rev_after = if changes {
        let (rev, _) = world
            .revise(scope.organization, id, edit)
            .ok_or_else(|| missing(id))?;
        rev
    } else {
        before.rev
    };
    let item = scope.work_item(world, id).ok_or_else(|| missing(id))?;
    let facts = json!({ "rev_before": before.rev, "rev_after": rev_after, "value_before": before.assigned_to, "value": wanted });
    let answer = SimulatedAnswer::ok(&resource(world, scope, id, item, None)).detail(facts);
    Ok(if changes { answer.effect() } else { answer })
}

/// Returns the revision that a patch tests, if it does.
pub(super) fn tested_rev(patch: &Value) -> Option<i64> {
    let operations = patch.as_array()?;
    let test = operations
        .iter()
        .find(|operation| operation["op"] == "test" && operation["path"] == "/rev")?;
    rev(&test["value"])
}

/// Parses a revision. The service accepts a number or its text.
fn rev(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn moved_on(world: &World, tested: &Value, present: i64) -> SimulatedAnswer {
    let status = match world.state.options.rev_mismatch {
        RevMismatch::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        RevMismatch::BadRequest => StatusCode::BAD_REQUEST,
        RevMismatch::Conflict => StatusCode::CONFLICT,
    };
    let facts = json!({ "rev_tested": tested, "rev_before": present });
    error(
        status,
        "TestPatchOperationFailedException",
        "VS403351: Test Operation for path /rev failed.",
    )
    .detail(facts)
}

/// Returns the unique name of the new assignee; `None` removes the assignee.
fn assignee(world: &World, value: &Value) -> Result<Option<String>, SimulatedAnswer> {
    let name = value
        .as_str()
        .ok_or_else(|| bad_request("System.AssignedTo is a unique name, or empty for nobody"))?;
    if name.is_empty() {
        return Ok(None);
    }
    let unknown = || {
        let message =
            format!("The identity value '{name}' for field 'Assigned To' is an unknown identity.");
        error(StatusCode::BAD_REQUEST, "RuleValidationException", &message)
    };
    world
        .state
        .find_user(name)
        .map(|(unique_name, _)| Some(unique_name.clone()))
        .ok_or_else(unknown)
}

fn resource(
    world: &World,
    scope: &Scope<'_>,
    id: i64,
    item: &WorkItem,
    wanted: Option<&[String]>,
) -> Value {
    let current = item.current();
    let mut fields: Map<String, Value> =
        hooks::fields(&world.state, item, current, AssigneeFormat::Identity);
    fields.insert("System.Id".to_owned(), json!(id));
    fields.insert("System.Rev".to_owned(), json!(current.rev));
    if let Some(wanted) = wanted {
        fields.retain(|name, _| wanted.iter().any(|field| field.eq_ignore_ascii_case(name)));
    } else {
        fields.remove("System.Id");
        fields.remove("System.Rev");
    }
    let url = format!(
        "https://dev.azure.com/{}/_apis/wit/workItems/{id}",
        scope.organization
    );
    json!({ "id": id, "rev": current.rev, "fields": fields, "url": url })
}

fn missing(id: i64) -> SimulatedAnswer {
    let message = format!(
        "TF401232: Work item {id} does not exist, or you do not have permissions to read it."
    );
    error(
        StatusCode::NOT_FOUND,
        "WorkItemUnauthorizedAccessException",
        &message,
    )
}
