//! What is true in the tracker now, for each work item concerned? The present state decides, an event is only a hint: order,
//! loss and repetition of events do not matter.
//!
//! *Needs*: `fetch_states`, `search_issues`, `handle_events`.
//! *Effects*: none: it reads work items and the meaning of their states.
//! *Safe to repeat*: a read; a newer answer is a better one, and revisions keep an older one from being applied after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handle_events::HandledEvents;
use super::search_issues::FoundWorkItems;
use super::{FetchStates, HandleEvents, SearchIssues};
use crate::engine::{Context, Outcome, Stage};
use crate::fault::StageFault;
use crate::pipelines::{Dispatch, Services, SignedIn};
use crate::providers::azure_devops::{StateCategory, WorkItem};
use crate::tracker::Changes;

/// The stage.
#[derive(Debug, Clone, Copy)]
pub struct ProcessWorkItems;

/// The work items concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessedWorkItems {
    /// As they are now, by id.
    pub items: Vec<ProcessedWorkItem>,
    /// Those that are deleted, or that the identity may not see, by id.
    pub deleted: Vec<i64>,
}

/// A work item as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessedWorkItem {
    /// Revision, assignee, state, who changed it and when.
    pub item: WorkItem,
    /// What its state means; none where its type no longer has that state.
    pub category: Option<StateCategory>,
}

/// What the states of a (project, type) mean.
type Categories = BTreeMap<(String, String), BTreeMap<String, StateCategory>>;

impl Stage<Dispatch> for ProcessWorkItems {
    const NAME: &'static str = "process_work_items";
    const NEEDS: &'static [&'static str] = &[
        <FetchStates as Stage<Dispatch>>::NAME,
        <SearchIssues as Stage<Dispatch>>::NAME,
        <HandleEvents as Stage<Dispatch>>::NAME,
    ];
    /// Up to six batches, and one call for each (project, type); each with its own deadline.
    const TIMEOUT: Duration = Duration::from_secs(300);
    type Output = ProcessedWorkItems;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> Result<Outcome<ProcessedWorkItems, Changes>, StageFault> {
        let concerned = concerned(&cx.output::<SearchIssues>()?, &cx.output::<HandleEvents>()?);
        if concerned.is_empty() {
            return Ok(Outcome::of(ProcessedWorkItems::default()));
        }
        let states = cx.output::<FetchStates>()?;
        let account = &states.account()?.account_name;
        let signed_in = cx.services.sign_in(states.identity()?.id).await?;
        let ids: Vec<i64> = concerned.iter().copied().collect();
        let answer = cx.services.providers.azure_devops.work_items(signed_in.token(), account, &ids).await;
        let items = signed_in.judge(answer)?;
        let categories = categories(cx.services, &signed_in, account, &items).await?;
        Ok(Outcome::of(processed(concerned, items, &categories)))
    }
}

fn concerned(found: &FoundWorkItems, events: &HandledEvents) -> BTreeSet<i64> {
    found.work_item_ids.iter().copied().chain(events.accepted.iter().map(|event| event.work_item_id)).collect()
}

async fn categories(
    services: &Services,
    signed_in: &SignedIn,
    account: &str,
    items: &[WorkItem],
) -> Result<Categories, StageFault> {
    let mut categories = Categories::new();
    let kinds: BTreeSet<(&str, &str)> = items.iter().map(|item| (item.project.as_str(), item.work_item_type.as_str())).collect();
    for (project, kind) in kinds {
        let answer = services.providers.azure_devops.state_categories(signed_in.token(), account, project, kind).await;
        categories.insert((project.to_owned(), kind.to_owned()), signed_in.judge(answer)?);
    }
    Ok(categories)
}

fn processed(mut concerned: BTreeSet<i64>, items: Vec<WorkItem>, categories: &Categories) -> ProcessedWorkItems {
    let mut known = Vec::with_capacity(items.len());
    for item in items {
        // What was not asked for, or comes twice, is no business of this job.
        if !concerned.remove(&item.id) {
            continue;
        }
        let states = categories.get(&(item.project.clone(), item.work_item_type.clone()));
        let category = states.and_then(|states| states.get(&item.state)).copied();
        known.push(ProcessedWorkItem { item, category });
    }
    known.sort_unstable_by_key(|one| one.item.id);
    ProcessedWorkItems { items: known, deleted: concerned.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::dispatch::handle_events::AcceptedEvent;
    use crate::pipelines::dispatch::samples::work_item;

    fn categories_of(state: &str, category: StateCategory) -> Categories {
        let item = work_item(1, 1);
        Categories::from([((item.project, item.work_item_type), BTreeMap::from([(state.to_owned(), category)]))])
    }

    #[test]
    fn search_and_events_together_name_each_work_item_once() {
        let event = |work_item_id: i64| AcceptedEvent { event_id: work_item_id.to_string(), work_item_id, rev: None };
        let events = HandledEvents { accepted: vec![event(5), event(9), event(5)], ignored: Vec::new() };
        let ids: Vec<i64> = concerned(&FoundWorkItems { work_item_ids: vec![1, 9] }, &events).into_iter().collect();
        assert_eq!(ids, [1, 5, 9]);
    }

    #[test]
    fn a_work_item_that_is_left_out_is_deleted_and_the_others_go_on() {
        let items = vec![work_item(9, 2), work_item(1, 4), work_item(77, 1)];
        let processed = processed(BTreeSet::from([1, 5, 9]), items, &categories_of("Active", StateCategory::InProgress));
        let ids: Vec<_> = processed.items.iter().map(|one| (one.item.id, one.category)).collect();
        assert_eq!(ids, [(1, Some(StateCategory::InProgress)), (9, Some(StateCategory::InProgress))]);
        assert_eq!(processed.deleted, [5]);
    }

    #[test]
    fn a_state_that_its_type_no_longer_has_means_nothing() {
        let processed = processed(BTreeSet::from([1]), vec![work_item(1, 1)], &categories_of("Gone", StateCategory::Completed));
        assert_eq!(processed.items[0].category, None);
    }
}
