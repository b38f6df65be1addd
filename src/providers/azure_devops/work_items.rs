//! Work items
//! (<https://learn.microsoft.com/rest/api/azure/devops/wit/?view=azure-devops-rest-7.1>).

use std::collections::BTreeMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::list::Unreadable;
use super::{
    API_VERSION, AZURE_DEVOPS, Assignee, AzureDevOps, AzureDevOpsFault, Caller, List, Operation,
    address, fault,
};
use crate::fault::storable;
use crate::providers::http::{BATCH_BODY_BYTES, HttpRequest};

/// The most ids that the vendor accepts in one request.
pub const BATCH: usize = 200;
const FIELDS: [&str; 6] = [
    "System.TeamProject",
    "System.WorkItemType",
    "System.AssignedTo",
    "System.State",
    "System.ChangedBy",
    "System.ChangedDate",
];
/// The limit for the reason why an entry cannot be parsed.
const WHY_BYTES: usize = 200;

/// The present state of a work item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkItem {
    /// The id, unique in the account.
    pub id: i64,
    /// The revision, from 1.
    pub rev: i64,
    /// The project's name.
    pub project: String,
    /// The type's name (`Bug`).
    pub work_item_type: String,
    /// The assignee.
    pub assigned_to: Assignee,
    /// The state's name; [`StateCategories`] returns its meaning.
    pub state: String,
    /// The author of this revision: the unique name, or else the display name.
    pub changed_by: Option<String>,
    /// The time of this revision.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_date: OffsetDateTime,
}

/// The meaning of a state, independent of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateCategory {
    /// Not started.
    Proposed,
    /// Started.
    InProgress,
    /// Solved, not verified yet.
    Resolved,
    /// Done.
    Completed,
    /// Removed from the backlog.
    Removed,
    /// A category that the vendor does not document.
    #[serde(other)]
    Other,
}

impl StateCategory {
    /// Returns whether the work is done: resolved or completed.
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

/// The work items of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkItems {
    /// The work items that exist, in the vendor's order.
    pub items: Vec<WorkItem>,
    /// The entries that do not have the shape of a work item.
    pub unreadable: Vec<UnreadableWorkItem>,
}

/// A work item that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableWorkItem {
    /// The id, if the entry has one.
    pub id: Option<i64>,
    /// What was expected, and what the entry has.
    pub why: String,
}

impl From<Unreadable<'_>> for UnreadableWorkItem {
    fn from(Unreadable { entry, why }: Unreadable<'_>) -> Self {
        #[derive(Deserialize)]
        struct Named {
            id: i64,
        }
        let id = serde_json::from_str::<Named>(entry.get())
            .ok()
            .map(|named| named.id);
        Self {
            id,
            why: storable(&why.to_string(), WHY_BYTES),
        }
    }
}

/// `POST …/_apis/wit/workitemsbatch`: the present state of work items, without deleted ones and
/// those that the token may not see.
#[derive(Debug, Clone, Copy)]
pub struct WorkItemsBatch<'a> {
    /// The `{organization}` segment.
    pub account: &'a str,
    /// At most [`BATCH`].
    pub ids: &'a [i64],
}

impl Operation for WorkItemsBatch<'_> {
    type Output = WorkItems;

    async fn send(
        &self,
        to: &AzureDevOps,
        caller: Caller<'_>,
    ) -> Result<WorkItems, AzureDevOpsFault> {
        let url = address(
            &to.core,
            &[self.account, "_apis", "wit", "workitemsbatch"],
            &[("api-version", API_VERSION)],
        )?;
        let body = json!({"ids": self.ids, "fields": FIELDS, "errorPolicy": "omit"});
        let call = to.call(Method::POST, url).json("application/json", &body)?;
        let answer = to.fetch(caller, call.body_limit(BATCH_BODY_BYTES)).await?;
        let list = answer.json::<List<'_, Body<'_>>>()?;
        let unreadable = list
            .unreadable
            .into_iter()
            .map(UnreadableWorkItem::from)
            .collect();
        Ok(WorkItems {
            items: list.items.into_iter().map(WorkItem::from).collect(),
            unreadable,
        })
    }
}

#[derive(Deserialize)]
struct State {
    name: String,
    category: StateCategory,
}

/// `GET …/_apis/wit/workitemtypes/{type}/states`: the meaning of each state of a type in a
/// project.
#[derive(Debug, Clone, Copy)]
pub struct StateCategories<'a> {
    /// The `{organization}` segment.
    pub account: &'a str,
    /// The project's name or id.
    pub project: &'a str,
    /// The type's name.
    pub work_item_type: &'a str,
}

impl Operation for StateCategories<'_> {
    type Output = BTreeMap<String, StateCategory>;

    async fn send(
        &self,
        to: &AzureDevOps,
        caller: Caller<'_>,
    ) -> Result<Self::Output, AzureDevOpsFault> {
        let segments = [
            self.account,
            self.project,
            "_apis",
            "wit",
            "workitemtypes",
            self.work_item_type,
            "states",
        ];
        let url = address(&to.core, &segments, &[("api-version", API_VERSION)])?;
        let answer = to.fetch(caller, to.call(Method::GET, url)).await?;
        let states = answer
            .json::<List<'_, State>>()?
            .readable()
            .map_err(|error| answer.malformed(&error.to_string()))?;
        Ok(states
            .into_iter()
            .map(|state| (state.name, state.category))
            .collect())
    }
}

/// `PATCH …/_apis/wit/workitems/{id}`: assigns the work item if it is still at a revision. Returns
/// the new revision.
#[derive(Debug, Clone, Copy)]
pub struct Assign<'a> {
    /// The `{organization}` segment.
    pub account: &'a str,
    /// The work item.
    pub id: i64,
    /// The expected revision.
    pub rev: i64,
    /// The unique name of the new assignee; `None` to unassign.
    pub unique_name: Option<&'a str>,
    /// The deadline of the call.
    pub deadline: Instant,
}

#[derive(Deserialize)]
struct Assigned {
    rev: i64,
}

impl Operation for Assign<'_> {
    type Output = i64;

    /// Also [`AzureDevOpsFault::RevisionMoved`] if the work item is no longer at `rev`,
    /// [`AzureDevOpsFault::WorkItemGone`] if it does not exist any more. The certainty of
    /// [`AzureDevOpsFault::Http`] states whether the change may have been made.
    async fn send(&self, to: &AzureDevOps, caller: Caller<'_>) -> Result<i64, AzureDevOpsFault> {
        let segments = [
            self.account,
            "_apis",
            "wit",
            "workitems",
            &self.id.to_string(),
        ];
        let url = address(&to.core, &segments, &[("api-version", API_VERSION)])?;
        let patch = json!([
            {"op": "test", "path": "/rev", "value": self.rev},
            {"op": "add", "path": "/fields/System.AssignedTo", "value": self.unique_name.unwrap_or_default()},
        ]);
        let call = HttpRequest::new(&AZURE_DEVOPS, Method::PATCH, url, self.deadline)
            .json("application/json-patch+json", &patch)?;
        let answer = to.send(caller, call).await?;
        match fault::overtaken(&answer) {
            Some(overtaken) => Err(overtaken),
            None => Ok(answer.success()?.json::<Assigned>()?.rev),
        }
    }
}
