//! Work items (<https://learn.microsoft.com/rest/api/azure/devops/wit/?view=azure-devops-rest-7.1>).

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{API_VERSION, AZURE_DEVOPS, Assignee, AzureDevOps, AzureDevOpsFault, Caller, List, address};
use crate::providers::http::{Answer, BATCH_BODY_BYTES, Call};
use crate::providers::http_fault::{HttpFault, HttpFaultKind};

/// The vendor takes at most this many ids at once.
const BATCH: usize = 200;
const FIELDS: [&str; 6] =
    ["System.TeamProject", "System.WorkItemType", "System.AssignedTo", "System.State", "System.ChangedBy", "System.ChangedDate"];
/// What the vendor says where a patch's `test` fails, whatever the status.
const TEST_FAILED: &[u8] = b"VS403351";

/// A work item as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkItem {
    /// Its id, unique in the account.
    pub id: i64,
    /// Its revision, from 1.
    pub rev: i64,
    /// The project's name.
    pub project: String,
    /// The type's name (`Bug`).
    pub work_item_type: String,
    /// Who it is assigned to.
    pub assigned_to: Assignee,
    /// The state's name; [`AzureDevOps::state_categories`] says what it means.
    pub state: String,
    /// Who made this revision: the unique name, or else the display name.
    pub changed_by: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_date: OffsetDateTime,
}

/// What a state means, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateCategory {
    /// Not begun.
    Proposed,
    /// Begun.
    InProgress,
    /// Solved, to be verified.
    Resolved,
    /// Done.
    Completed,
    /// Taken off the list.
    Removed,
    /// A category the vendor's description does not name.
    #[serde(other)]
    Other,
}

impl StateCategory {
    /// Whether the work is done: resolved or completed.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Resolved | Self::Completed)
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    id: i64,
    rev: i64,
    #[serde(borrow)]
    fields: Fields<'a>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "System.TeamProject")]
    project: String,
    #[serde(rename = "System.WorkItemType")]
    work_item_type: String,
    #[serde(rename = "System.AssignedTo", borrow, default)]
    assigned_to: Option<&'a RawValue>,
    #[serde(rename = "System.State")]
    state: String,
    #[serde(rename = "System.ChangedBy", borrow, default)]
    changed_by: Option<&'a RawValue>,
    #[serde(rename = "System.ChangedDate", with = "time::serde::rfc3339")]
    changed_date: OffsetDateTime,
}

impl From<Body<'_>> for WorkItem {
    fn from(Body { id, rev, fields }: Body<'_>) -> Self {
        Self {
            id,
            rev,
            project: fields.project,
            work_item_type: fields.work_item_type,
            assigned_to: Assignee::read(fields.assigned_to),
            state: fields.state,
            changed_by: Assignee::read(fields.changed_by).label().map(str::to_owned),
            changed_date: fields.changed_date,
        }
    }
}

#[derive(Deserialize)]
struct State {
    name: String,
    category: StateCategory,
}

#[derive(Deserialize)]
struct Patched {
    rev: i64,
}

impl AzureDevOps {
    /// `POST …/_apis/wit/workitemsbatch`, 200 ids a call: the work items there are, in the vendor's order. Those that are
    /// deleted, or that the token may not see, are left out.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Http`].
    pub async fn work_items(&self, token: Caller<'_>, org_name: &str, ids: &[i64]) -> Result<Vec<WorkItem>, AzureDevOpsFault> {
        let url = address(&self.core, &[org_name, "_apis", "wit", "workitemsbatch"], &[("api-version", API_VERSION)])?;
        let mut items = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(BATCH) {
            let body = json!({"ids": chunk, "fields": FIELDS, "errorPolicy": "omit"});
            let call = self.call(Method::POST, url.clone()).json("application/json", &body)?;
            let answer = self.fetch(token, call.body_limit(BATCH_BODY_BYTES)).await?;
            let List(bodies) = answer.json::<List<Body<'_>>>()?;
            items.extend(bodies.into_iter().map(WorkItem::from));
        }
        Ok(items)
    }

    /// One work item, or `None` where it is deleted or the token may not see it.
    ///
    /// # Errors
    /// As [`AzureDevOps::work_items`].
    pub async fn work_item(&self, token: Caller<'_>, org_name: &str, id: i64) -> Result<Option<WorkItem>, AzureDevOpsFault> {
        match self.work_items(token, org_name, &[id]).await {
            Ok(items) => Ok(items.into_iter().find(|item| item.id == id)),
            Err(AzureDevOpsFault::Http(HttpFault { kind: HttpFaultKind::Status { status: 404, .. }, .. })) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// `GET …/_apis/wit/workitemtypes/{type}/states`: what each state of a type means in a project.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Http`].
    pub async fn state_categories(
        &self,
        token: Caller<'_>,
        org_name: &str,
        project: &str,
        work_item_type: &str,
    ) -> Result<BTreeMap<String, StateCategory>, AzureDevOpsFault> {
        let segments = [org_name, project, "_apis", "wit", "workitemtypes", work_item_type, "states"];
        let url = address(&self.core, &segments, &[("api-version", API_VERSION)])?;
        let List(states) = self.fetch(token, self.call(Method::GET, url)).await?.json::<List<State>>()?;
        Ok(states.into_iter().map(|state| (state.name, state.category)).collect())
    }

    /// `PATCH …/_apis/wit/workitems/{id}`: assigns the work item to `unique_name` (nobody where `None`) if it is still at
    /// `rev`, and gives its new revision. Must be over at `deadline`.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::RevisionMoved`] where it is not at `rev` any more; [`AzureDevOpsFault::Unauthorized`];
    /// [`AzureDevOpsFault::Http`], whose certainty says whether the change may have been made.
    pub async fn assign(
        &self,
        token: Caller<'_>,
        org_name: &str,
        id: i64,
        rev: i64,
        unique_name: Option<&str>,
        deadline: Instant,
    ) -> Result<i64, AzureDevOpsFault> {
        let segments = [org_name, "_apis", "wit", "workitems", &id.to_string()];
        let url = address(&self.core, &segments, &[("api-version", API_VERSION)])?;
        let patch = json!([
            {"op": "test", "path": "/rev", "value": rev},
            {"op": "add", "path": "/fields/System.AssignedTo", "value": unique_name.unwrap_or_default()},
        ]);
        let call = Call::new(&AZURE_DEVOPS, Method::PATCH, url, deadline).json("application/json-patch+json", &patch)?;
        let answer = self.send(token, call).await?;
        if revision_moved(&answer) {
            return Err(AzureDevOpsFault::RevisionMoved);
        }
        Ok(answer.success()?.json::<Patched>()?.rev)
    }
}

fn revision_moved(answer: &Answer) -> bool {
    match answer.status {
        412 => true,
        400 | 409 => answer.body.windows(TEST_FAILED.len()).any(|window| window == TEST_FAILED),
        _ => false,
    }
}
