//! Finds the work items that match the request's search.
//!
//! *Needs*: `fetch_states`.
//! *Effects*: none. The stage calls the search of Azure DevOps, or makes no call if the request has
//! no search.
//! *Safe to repeat*: the stage only reads. A different answer is equally valid, because the present
//! state of the work items is read afterwards. Pages that were read are kept if the stage is
//! interrupted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FetchStates;
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::message::{Request, Search};
use crate::pipelines::{Dispatch, SignedIn};
use crate::providers::azure_devops::{SearchQuery, WorkItemSearch};

#[derive(Debug, Clone, Copy)]
pub struct SearchIssues;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundWorkItems {
    /// The ids in ascending order, without duplicates.
    pub work_item_ids: Vec<i64>,
}

impl Stage for SearchIssues {
    type Product = Dispatch;

    const NAME: &'static str = "search_issues";
    const NEEDS: &'static [&'static str] = &[FetchStates::NAME];
    /// Covers five pages, each with its own deadline and possibly a refresh.
    const TIMEOUT: Duration = Duration::from_secs(120);
    type Output = FoundWorkItems;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let request = cx.payload::<Request>()?;
        let Some(search) = &request.search else {
            return Ok(StageOutcome::of(FoundWorkItems::default()));
        };
        let states = cx.output::<FetchStates>()?;
        let mut azure_devops = SignedIn::of(cx, states.identity()?.id);
        let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
        let (account, query) = (&states.account()?.account_name, query(search));
        let mut found: WorkItemSearch = azure_devops.known(SEARCH).unwrap_or_default();
        while let Some(page) = found.next(account, &query, limit) {
            let page = azure_devops.call(&page).await?;
            found.take(page);
            azure_devops.keep(SEARCH, &found);
        }
        Ok(StageOutcome::of(ascending(found.found(limit))))
    }
}

/// The name of the piece that is kept between two pages.
const SEARCH: &str = "search";

fn query(search: &Search) -> SearchQuery {
    SearchQuery {
        text: search.text.clone(),
        project: search.project.clone(),
        work_item_types: search.work_item_types.clone(),
        states: search.states.clone(),
    }
}

fn ascending(mut work_item_ids: Vec<i64>) -> FoundWorkItems {
    work_item_ids.sort_unstable();
    work_item_ids.dedup();
    FoundWorkItems { work_item_ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_item_found_twice_is_handled_once_and_in_order() {
        assert_eq!(ascending(vec![5, 3, 5, 1]).work_item_ids, [1, 3, 5]);
    }
}
