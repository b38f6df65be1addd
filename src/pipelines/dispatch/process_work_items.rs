//! Reads the present state of each work item concerned. The present state decides and an event is
//! only a hint, so order, loss and repetition of events do not matter.
//!
//! *Needs*: `fetch_states`, `search_issues`, `handle_events`.
//! *Effects*: none. The stage reads work items and the categories of their states.
//! *Safe to repeat*: the stage only reads. A repeat reads a newer state, and revisions prevent an
//! older one from being applied after it. Pieces that were read are kept if the stage is
//! interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handle_events::HandledEvents;
use super::search_issues::FoundWorkItems;
use super::{FetchStates, HandleEvents, SearchIssues};
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::fault::{StageFault, storable};
use crate::job::words;
use crate::pipelines::{Dispatch, SignedIn};
use crate::providers::azure_devops::{
    BATCH, StateCategories, StateCategory, UnreadableWorkItem, WorkItem, WorkItems, WorkItemsBatch,
};

#[derive(Debug, Clone, Copy)]
pub struct ProcessWorkItems;

/// The work items concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessedWorkItems {
    /// The present work items, sorted by id.
    pub items: Vec<ProcessedWorkItem>,
    /// The work items that are deleted, or that the identity cannot see, sorted by id.
    pub deleted: Vec<i64>,
    /// The work items that are skipped in whole or in part, sorted by id; they do not stop the
    /// others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
}

/// The present state of a work item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessedWorkItem {
    /// Revision, assignee, state, and the person and time of the last change.
    pub item: WorkItem,
    /// The category of its state; `None` if its type no longer has that state, or if the states of
    /// its type cannot be read.
    pub category: Option<StateCategory>,
}

/// A work item that is skipped in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    pub work_item_id: i64,
    /// The skipped part and the reason.
    pub reason: SetAsideReason,
    /// The answer of Azure DevOps, or the expected and the actual form of its answer.
    pub detail: String,
}

words! {
    /// Why a work item is skipped in whole or in part.
    SetAsideReason {
        /// The whole work item is skipped: a required field is missing, or does not have the
        /// documented form.
        Unreadable = "unreadable",
        /// Its status is skipped: Azure DevOps does not return the categories of its type's
        /// states.
        StatesUnavailable = "states_unavailable",
    }
}

/// The categories of a type's states in a project.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TypeStates {
    Known(BTreeMap<String, StateCategory>),
    /// The refusal of Azure DevOps.
    Refused(String),
}

/// The states by (project, type).
type States = BTreeMap<(String, String), TypeStates>;

/// The limit of [`SetAside::detail`].
const DETAIL_BYTES: usize = 300;

impl Stage for ProcessWorkItems {
    type Product = Dispatch;

    const NAME: &'static str = "process_work_items";
    const NEEDS: &'static [&'static str] =
        &[FetchStates::NAME, SearchIssues::NAME, HandleEvents::NAME];
    /// Covers up to six batches, and one call for each (project, type); each call has its own
    /// deadline.
    const TIMEOUT: Duration = Duration::from_secs(300);
    type Output = ProcessedWorkItems;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let concerned = concerned(&cx.output::<SearchIssues>()?, &cx.output::<HandleEvents>()?);
        if concerned.is_empty() {
            return Ok(StageOutcome::of(ProcessedWorkItems::default()));
        }
        let states = cx.output::<FetchStates>()?;
        let account = &states.account()?.account_name;
        let mut azure_devops = SignedIn::of(cx, states.identity()?.id);
        let ids: Vec<i64> = concerned.iter().copied().collect();
        let mut read = WorkItems::default();
        for (number, ids) in ids.chunks(BATCH).enumerate() {
            let batch = azure_devops
                .fetch(&format!("batch:{number}"), &WorkItemsBatch { account, ids })
                .await?;
            read.items.extend(batch.items);
            read.unreadable.extend(batch.unreadable);
        }
        let states = type_states(&mut azure_devops, account, &read.items).await?;
        let processed = processed(concerned, read, &states);
        let skipped = reasons(&processed);
        Ok(StageOutcome::of(processed).with_skipped("work_items", skipped))
    }
}

fn concerned(found: &FoundWorkItems, events: &HandledEvents) -> BTreeSet<i64> {
    found
        .work_item_ids
        .iter()
        .copied()
        .chain(events.accepted.iter().map(|event| event.work_item_id))
        .collect()
}

/// Counts the work items that are skipped in whole or in part, by reason.
fn reasons(processed: &ProcessedWorkItems) -> BTreeMap<String, u32> {
    let mut reasons = BTreeMap::from([(
        "deleted".to_owned(),
        u32::try_from(processed.deleted.len()).unwrap_or(u32::MAX),
    )]);
    for one in &processed.set_aside {
        *reasons.entry(one.reason.word().to_owned()).or_default() += 1;
    }
    reasons
}

/// Reads the states of all types. A type that Azure DevOps does not know or does not show does not
/// stop the others.
async fn type_states(
    azure_devops: &mut SignedIn<'_>,
    account: &str,
    items: &[WorkItem],
) -> Result<States, StageFault> {
    let mut states = States::new();
    let types: BTreeSet<(&str, &str)> = items
        .iter()
        .map(|item| (item.project.as_str(), item.work_item_type.as_str()))
        .collect();
    for (project, work_item_type) in types {
        let piece = format!("states:{project}/{work_item_type}");
        let new = |azure_devops: &SignedIn<'_>, states: TypeStates| {
            azure_devops.keep(&piece, &states);
            states
        };
        let of_type = match azure_devops.known(&piece) {
            Some(known) => known,
            None => match azure_devops
                .try_call(&StateCategories {
                    account,
                    project,
                    work_item_type,
                })
                .await?
            {
                Ok(categories) => new(azure_devops, TypeStates::Known(categories)),
                Err(fault) => match fault.refused() {
                    Some(refused) => new(
                        azure_devops,
                        TypeStates::Refused(storable(&refused.to_string(), DETAIL_BYTES)),
                    ),
                    None => return Err(fault.into()),
                },
            },
        };
        states.insert((project.to_owned(), work_item_type.to_owned()), of_type);
    }
    Ok(states)
}

fn processed(mut concerned: BTreeSet<i64>, read: WorkItems, states: &States) -> ProcessedWorkItems {
    let mut items = Vec::with_capacity(read.items.len());
    let mut set_aside = unreadable(&mut concerned, &read);
    for item in read.items {
        // Work items that were not requested, and duplicates, are ignored.
        if !concerned.remove(&item.id) {
            continue;
        }
        let category = match states.get(&(item.project.clone(), item.work_item_type.clone())) {
            Some(TypeStates::Known(categories)) => categories.get(&item.state).copied(),
            Some(TypeStates::Refused(detail)) => {
                let (work_item_id, detail) = (item.id, detail.clone());
                set_aside.push(SetAside {
                    work_item_id,
                    reason: SetAsideReason::StatesUnavailable,
                    detail,
                });
                None
            }
            None => None,
        };
        items.push(ProcessedWorkItem { item, category });
    }
    items.sort_unstable_by_key(|one| one.item.id);
    set_aside.sort_unstable_by_key(|one| one.work_item_id);
    ProcessedWorkItems {
        items,
        deleted: concerned.into_iter().collect(),
        set_aside,
    }
}

/// Returns the work items that cannot be read, and removes them from `concerned`. If an unreadable
/// one has no id, it may be any of the missing ones, so none of these counts as deleted.
fn unreadable(concerned: &mut BTreeSet<i64>, read: &WorkItems) -> Vec<SetAside> {
    let aside = |work_item_id, why: &str| SetAside {
        work_item_id,
        reason: SetAsideReason::Unreadable,
        detail: why.to_owned(),
    };
    let mut set_aside = Vec::new();
    for UnreadableWorkItem { id, why } in &read.unreadable {
        set_aside.extend(
            id.filter(|id| concerned.remove(id))
                .map(|id| aside(id, why)),
        );
    }
    if let Some(nameless) = read.unreadable.iter().find(|one| one.id.is_none()) {
        let there: BTreeSet<i64> = read.items.iter().map(|item| item.id).collect();
        let missing: Vec<i64> = concerned.difference(&there).copied().collect();
        concerned.retain(|id| there.contains(id));
        set_aside.extend(missing.into_iter().map(|id| aside(id, &nameless.why)));
    }
    set_aside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::dispatch::handle_events::AcceptedEvent;
    use crate::pipelines::dispatch::samples::work_item;

    fn states_of(state: &str, category: StateCategory) -> States {
        of_type(TypeStates::Known(BTreeMap::from([(
            state.to_owned(),
            category,
        )])))
    }

    fn of_type(states: TypeStates) -> States {
        let item = work_item(1, 1);
        States::from([((item.project, item.work_item_type), states)])
    }

    fn read(items: Vec<WorkItem>, unreadable: &[Option<i64>]) -> WorkItems {
        let unreadable = unreadable
            .iter()
            .map(|id| UnreadableWorkItem {
                id: *id,
                why: "no state".to_owned(),
            })
            .collect();
        WorkItems { items, unreadable }
    }

    fn aside(processed: &ProcessedWorkItems) -> Vec<(i64, SetAsideReason)> {
        processed
            .set_aside
            .iter()
            .map(|one| (one.work_item_id, one.reason))
            .collect()
    }

    #[test]
    fn search_and_events_together_name_each_work_item_once() {
        let event = |work_item_id: i64| AcceptedEvent {
            event_id: work_item_id.to_string(),
            work_item_id,
            rev: None,
        };
        let events = HandledEvents {
            accepted: vec![event(5), event(9), event(5)],
            ignored: Vec::new(),
        };
        let ids: Vec<i64> = concerned(
            &FoundWorkItems {
                work_item_ids: vec![1, 9],
            },
            &events,
        )
        .into_iter()
        .collect();
        assert_eq!(ids, [1, 5, 9]);
    }

    #[test]
    fn a_work_item_that_is_left_out_is_deleted_and_the_others_go_on() {
        let items = vec![work_item(9, 2), work_item(1, 4), work_item(77, 1)];
        let states = states_of("Active", StateCategory::InProgress);
        let processed = processed(BTreeSet::from([1, 5, 9]), read(items, &[]), &states);
        let ids: Vec<_> = processed
            .items
            .iter()
            .map(|one| (one.item.id, one.category))
            .collect();
        assert_eq!(
            ids,
            [
                (1, Some(StateCategory::InProgress)),
                (9, Some(StateCategory::InProgress))
            ]
        );
        assert_eq!(processed.deleted, [5]);
    }

    #[test]
    fn a_state_that_its_type_no_longer_has_means_nothing() {
        let states = states_of("Gone", StateCategory::Completed);
        let processed = processed(
            BTreeSet::from([1]),
            read(vec![work_item(1, 1)], &[]),
            &states,
        );
        assert_eq!(
            (processed.items[0].category, processed.set_aside.len()),
            (None, 0)
        );
    }

    #[test]
    fn a_work_item_that_cannot_be_read_is_set_aside_and_is_not_taken_for_deleted() {
        let states = states_of("Active", StateCategory::InProgress);
        let all = || BTreeSet::from([1, 2, 3]);
        let one = processed(
            all(),
            read(vec![work_item(1, 4)], &[Some(2), Some(77)]),
            &states,
        );
        assert_eq!(
            (one.items.len(), aside(&one), &one.deleted[..]),
            (1, vec![(2, SetAsideReason::Unreadable)], &[3][..])
        );
        let nameless = processed(
            all(),
            read(vec![work_item(1, 4)], &[Some(2), None]),
            &states,
        );
        let both = vec![
            (2, SetAsideReason::Unreadable),
            (3, SetAsideReason::Unreadable),
        ];
        assert_eq!(
            (
                nameless.items.len(),
                aside(&nameless),
                nameless.deleted.len()
            ),
            (1, both, 0)
        );
        assert_eq!(nameless.set_aside[0].detail, "no state");
        assert_eq!(
            reasons(&one),
            BTreeMap::from([("deleted".to_owned(), 1), ("unreadable".to_owned(), 1)])
        );
    }

    #[test]
    fn a_type_whose_states_are_refused_leaves_its_work_items_their_assignees() {
        let states = of_type(TypeStates::Refused("404 VS402323: no such type".to_owned()));
        let processed = processed(
            BTreeSet::from([1]),
            read(vec![work_item(1, 1)], &[]),
            &states,
        );
        assert_eq!(
            (processed.items.len(), processed.items[0].category),
            (1, None)
        );
        assert_eq!(aside(&processed), [(1, SetAsideReason::StatesUnavailable)]);
        assert!(processed.set_aside[0].detail.contains("VS402323"));
    }
}
