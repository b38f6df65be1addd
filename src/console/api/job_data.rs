//! The input and the outputs of a job: masked for everybody who may read, in full for somebody who
//! gives a reason, which is audited.

use axum::http::Method;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jobs::{Reason, VIEWER, act};
use crate::console::call::Call;
use crate::console::mask::masked;
use crate::console::problem::Problem;
use crate::console::routes::{Access, JSON, Route, acts, handler, reads, schema};
use crate::console::{answer, pages};
use crate::job::JobId;
use crate::operations::{self, EarlierInput, JobInputs, PathChange, Unmasked};
use crate::secrets::Keyring;
use crate::store::{CheckpointRow, Role, Target};

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!(
        for VIEWER;
        "job_data",
        "/jobs/{id}/data",
        "Returns the input, the earlier inputs with what each edit changed, and the outputs of a job, masked",
        [],
        JobData,
        data
    ),
    acts!(by handler!(pages::unmask::page); "unmask_job", "/jobs/{id}/unmask", "Shows the input and the outputs of a job in full", Unmask, true, Reason => Shown, unmask),
    Route {
        name: "preview_input",
        method: Method::POST,
        path: "/jobs/{id}/input/preview",
        about: "Checks an edited input and returns what it would change; values that are replaced are masked",
        access: Access::From {
            role: Role::Admin,
            is_scoped: true,
        },
        action: None,
        parameters: &[],
        input: Some(schema::<EditedInput>),
        output: schema::<Preview>,
        media_type: JSON,
        api: Some(handler!(preview)),
        page: Some(handler!(pages::edit::page)),
    },
];

/// The data of a job, masked.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct JobData {
    /// The input; `None` if it is sealed.
    pub(in crate::console) input: Option<Value>,
    /// The earlier inputs, oldest first.
    pub(in crate::console) earlier: Vec<EarlierData>,
    /// The outputs of all generations.
    pub(in crate::console) outputs: Vec<CheckpointRow>,
}

/// An earlier input, masked.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct EarlierData {
    #[serde(flatten)]
    pub(in crate::console) version: EarlierInput,
    /// What the edit that replaced it changed.
    pub(in crate::console) changes: Vec<PathChange>,
}

/// The data of a job in full.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct Shown {
    /// `None` if the request is the repetition of an earlier one.
    pub(in crate::console) data: Option<Unmasked>,
}

/// An edited input.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::console) struct EditedInput {
    /// The input, as JSON text.
    pub(in crate::console) input: String,
}

/// What an edit would change.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct Preview {
    /// The changes; empty if only secrets differ, or nothing.
    pub(in crate::console) changes: Vec<PathChange>,
}

async fn data(call: Call) -> Result<Response, Problem> {
    let id = call.job().await?.id;
    answer::json(&read_data(&call, id).await?)
}

/// Reads the data of a job, masked.
///
/// # Errors
/// `postgres_away`.
pub(in crate::console) async fn read_data(call: &Call, id: JobId) -> Result<JobData, Problem> {
    let keyring = &call.console.parts.keyring;
    let JobInputs { input, mut earlier } = operations::inputs(call.reads(), id).await?;
    let input = input.map(|input| masked(&input, keyring));
    for one in &mut earlier {
        one.input = masked(&one.input, keyring);
    }
    let after = earlier.iter().skip(1).map(|one| &one.input).chain(&input);
    let changes: Vec<Vec<PathChange>> = earlier
        .iter()
        .zip(after)
        .map(|(before, after)| operations::diff(&before.input, after))
        .collect();
    let mut outputs = call.reads().checkpoints(id).await?;
    for done in &mut outputs {
        done.output = masked(&done.output, keyring);
    }
    let earlier = earlier.into_iter().enumerate();
    Ok(JobData {
        earlier: earlier
            .map(|(at, version)| EarlierData {
                version,
                changes: changes.get(at).cloned().unwrap_or_default(),
            })
            .collect(),
        input,
        outputs,
    })
}

/// Shows the data of the job of the path in full.
///
/// # Errors
/// Errors of the action.
pub(in crate::console) async fn unmask(call: &Call) -> Result<Shown, Problem> {
    let Reason { reason } = call.input()?;
    let mut data = None;
    act(call, &reason, async |store, actor, target| {
        let (result, unmasked) = operations::unmask(store, actor, target).await?;
        data = unmasked;
        Ok(result)
    })
    .await?;
    Ok(Shown { data })
}

async fn preview(call: Call) -> Result<Response, Problem> {
    answer::json(&read_preview(&call).await?.1)
}

/// Checks an edited input, and returns it with what it would change.
///
/// # Errors
/// `invalid_input`, `not_possible`, `not_found`.
pub(in crate::console) async fn read_preview(
    call: &Call,
) -> Result<(EditedInput, Preview), Problem> {
    let id = call.job().await?.id;
    let edited: EditedInput = call.input()?;
    let document = document(&edited.input)?;
    let changes = operations::preview_edit(call.reads(), &Target::Id(id), &document).await?;
    let keyring = &call.console.parts.keyring;
    let changes = changes.into_iter().map(|one| before_masked(one, keyring));
    let preview = Preview {
        changes: changes.collect(),
    };
    Ok((edited, preview))
}

/// Parses an input that a person has written.
///
/// # Errors
/// `invalid_input`.
pub(super) fn document(input: &str) -> Result<Value, Problem> {
    serde_json::from_str(input)
        .map_err(|error| Problem::invalid_input(format!("the input is no JSON: {error}")))
}

/// The new value was written by the reader; the old one is the job's.
fn before_masked(change: PathChange, keyring: &Keyring) -> PathChange {
    let last = change.path.rsplit('.').next().unwrap_or_default();
    let key = last.split('[').next().unwrap_or_default().to_owned();
    let before = change.before.map(|before| {
        let shown = masked(&Value::Object(Map::from_iter([(key, before)])), keyring);
        let mut fields = shown.as_object().into_iter().flat_map(Map::values);
        fields.next().cloned().unwrap_or_default()
    });
    PathChange { before, ..change }
}
