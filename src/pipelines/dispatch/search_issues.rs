//! Which work items match the request's search?
//!
//! *Needs*: `fetch_states`.
//! *Effects*: none: it reads Azure DevOps' search, and nothing where the request asks for nothing.
//! *Safe to repeat*: a read; another answer is as good, since the work items' present state is read after it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FetchStates;
use crate::engine::{Context, Outcome, Stage};
use crate::fault::StageFault;
use crate::message::{Request, Search};
use crate::pipelines::Dispatch;
use crate::providers::azure_devops::SearchQuery;
use crate::tracker::Changes;

/// The stage.
#[derive(Debug, Clone, Copy)]
pub struct SearchIssues;

/// What the search found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundWorkItems {
    /// Each once, ascending.
    pub work_item_ids: Vec<i64>,
}

impl Stage<Dispatch> for SearchIssues {
    const NAME: &'static str = "search_issues";
    const NEEDS: &'static [&'static str] = &[<FetchStates as Stage<Dispatch>>::NAME];
    /// Five pages, each with its own deadline.
    const TIMEOUT: Duration = Duration::from_secs(120);
    type Output = FoundWorkItems;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> Result<Outcome<FoundWorkItems, Changes>, StageFault> {
        let request = cx.payload::<Request>()?;
        let Some(search) = &request.search else { return Ok(Outcome::of(FoundWorkItems::default())) };
        let states = cx.output::<FetchStates>()?;
        let signed_in = cx.services.sign_in(states.identity()?.id).await?;
        let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
        let account = &states.account()?.account_name;
        let azure_devops = &cx.services.providers.azure_devops;
        let answer = azure_devops.search(signed_in.token(), account, &query(search), limit).await;
        Ok(Outcome::of(ascending(signed_in.judge(answer)?)))
    }
}

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
    fn what_is_found_twice_is_handled_once_and_in_order() {
        assert_eq!(ascending(vec![5, 3, 5, 1]).work_item_ids, [1, 3, 5]);
    }
}
