//! The work item search
//! (<https://learn.microsoft.com/rest/api/azure/devops/search/work-item-search-results?view=azure-devops-rest-7.1>).

use std::collections::BTreeMap;

use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{API_VERSION, AzureDevOps, AzureDevOpsFault, Caller, Operation, address};
use crate::providers::http::{BATCH_BODY_BYTES, HttpResponse};
use crate::providers::http_fault::HttpFault;

/// The results of one page.
const PAGE: usize = 200;
/// The vendor returns no results beyond this number.
const WINDOW: usize = 1000;

/// The query of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// The search text.
    pub text: String,
    /// The project (name or id); all if `None`.
    #[serde(default)]
    pub project: Option<String>,
    /// The types; all if empty.
    #[serde(default)]
    pub work_item_types: Vec<String>,
    /// The states; all if empty.
    #[serde(default)]
    pub states: Vec<String>,
}

impl SearchQuery {
    fn filters(&self) -> BTreeMap<&'static str, &[String]> {
        let all = [
            ("System.WorkItemType", self.work_item_types.as_slice()),
            ("System.State", self.states.as_slice()),
        ];
        all.into_iter()
            .filter(|(_, values)| !values.is_empty())
            .collect()
    }
}

/// The progress of a search: the work items found, and the next page. It can be stored between two
/// pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkItemSearch {
    /// The ids without duplicates, in the vendor's order.
    ids: Vec<i64>,
    /// The number of results read.
    skip: usize,
    is_over: bool,
}

/// `POST …/_apis/search/workitemsearchresults`: one page.
#[derive(Debug, Clone, Copy)]
pub struct SearchPage<'a> {
    /// The `{organization}` segment.
    pub account: &'a str,
    /// The query.
    pub query: &'a SearchQuery,
    skip: usize,
    top: usize,
}

/// One page of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchedPage {
    ids: Vec<i64>,
    results: usize,
    /// The number of all results, if the vendor states it.
    count: Option<usize>,
    /// Whether the vendor returned fewer results than requested although there are more.
    is_trimmed: bool,
    asked: usize,
}

impl WorkItemSearch {
    /// Returns the next page, or `None` if `limit` work items are found or there are no more.
    #[must_use]
    pub fn next<'a>(
        &self,
        account: &'a str,
        query: &'a SearchQuery,
        limit: usize,
    ) -> Option<SearchPage<'a>> {
        let wanted = limit
            .saturating_sub(self.ids.len())
            .min(WINDOW.saturating_sub(self.skip));
        let page = SearchPage {
            account,
            query,
            skip: self.skip,
            top: PAGE.min(wanted),
        };
        (!self.is_over && wanted > 0).then_some(page)
    }

    /// Adds the results of a page.
    pub fn take(&mut self, page: SearchedPage) {
        for id in page.ids {
            if !self.ids.contains(&id) {
                self.ids.push(id);
            }
        }
        self.skip += page.results;
        let all = page.count.is_some_and(|count| self.skip >= count);
        self.is_over = all || page.results == 0 || (page.results < page.asked && !page.is_trimmed);
    }

    /// Returns at most `limit` work items, in the vendor's order.
    #[must_use]
    pub fn found(mut self, limit: usize) -> Vec<i64> {
        self.ids.truncate(limit);
        self.ids
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(default)]
    count: Option<usize>,
    #[serde(default)]
    info_code: i64,
    #[serde(borrow, default)]
    results: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow)]
    fields: Fields<'a>,
}

/// The fields of a result. The vendor sends the id as text, with its name in lower case.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "system.id", alias = "System.Id", borrow, default)]
    id: Option<&'a RawValue>,
}

fn id_of(result: &RawValue) -> Option<i64> {
    let hit = serde_json::from_str::<Hit<'_>>(result.get()).ok()?;
    hit.fields.id?.get().trim_matches('"').parse().ok()
}

impl Operation for SearchPage<'_> {
    type Output = SearchedPage;

    /// Also [`AzureDevOpsFault::SearchNotReady`], [`AzureDevOpsFault::SearchRefused`].
    async fn send(
        &self,
        to: &AzureDevOps,
        caller: Caller<'_>,
    ) -> Result<SearchedPage, AzureDevOpsFault> {
        let body = json!({
            "searchText": self.query.text, "$skip": self.skip, "$top": self.top, "filters": self.query.filters(),
            "includeFacets": false,
        });
        let call = to
            .call(Method::POST, self.address(to)?)
            .json("application/json", &body)?;
        let answer = to.fetch(caller, call.body_limit(BATCH_BODY_BYTES)).await?;
        self.page(&answer)
    }
}

impl SearchPage<'_> {
    fn address(&self, to: &AzureDevOps) -> Result<Url, HttpFault> {
        let mut segments = vec![self.account];
        segments.extend(self.query.project.as_deref());
        segments.extend(["_apis", "search", "workitemsearchresults"]);
        address(&to.search, &segments, &[("api-version", API_VERSION)])
    }

    /// Parses a page. The vendor answers 200 even if it could not search; `infoCode` shows it. A
    /// result without an id is skipped.
    fn page(&self, answer: &HttpResponse) -> Result<SearchedPage, AzureDevOpsFault> {
        let page: Page<'_> = answer.json()?;
        let is_trimmed = use_of(page.info_code)? == Use::Trimmed;
        let ids: Vec<i64> = page
            .results
            .iter()
            .filter_map(|result| id_of(result))
            .collect();
        if ids.is_empty() && !page.results.is_empty() {
            return Err(answer.malformed("no result has a `system.id`").into());
        }
        if ids.len() < page.results.len() {
            tracing::warn!(
                results = page.results.len(),
                readable = ids.len(),
                "some results of a search have no id and are skipped"
            );
        }
        Ok(SearchedPage {
            ids,
            results: page.results.len(),
            count: page.count,
            is_trimmed,
            asked: self.top,
        })
    }
}

/// The completeness of a page of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The page is complete.
    Whole,
    /// There may be more results than the page has.
    Trimmed,
}

/// Returns the meaning of an `infoCode`, by the vendor's table (in its documentation of
/// `WorkItemSearchResponse`). Codes that are not in it are "used for internal purpose": the
/// results are used.
fn use_of(code: i64) -> Result<Use, AzureDevOpsFault> {
    let not_ready = |meaning| Err(AzureDevOpsFault::SearchNotReady { code, meaning });
    let refused = |meaning| Err(AzureDevOpsFault::SearchRefused { code, meaning });
    match code {
        // The request contains neither branches nor facets.
        0 | 9 | 10 => Ok(Use::Whole),
        1 => not_ready("Account is being reindexed"),
        2 => not_ready("Account indexing has not started"),
        3 => refused("Invalid Request"),
        4 => refused("Prefix wildcard query not supported"),
        5 => refused("MultiWords with code facet not supported"),
        6 => not_ready("Account is being onboarded"),
        7 => not_ready("Account is being onboarded or reindexed"),
        8 => Ok(Use::Trimmed),
        11 => refused("Work items not accessible"),
        19 => refused("Phrase queries with code type filters not supported"),
        20 => refused("Wildcard queries with code type filters not supported"),
        other => {
            tracing::warn!(
                search.info_code = other,
                "the search answered with an unknown infoCode; its results are used"
            );
            Ok(Use::Whole)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Class, Fault};

    #[test]
    fn each_info_code_of_the_vendor_s_table_is_used_retried_or_refused() {
        for code in [0, 9, 10, 77] {
            assert_eq!(use_of(code).unwrap(), Use::Whole, "{code}");
        }
        assert_eq!(use_of(8).unwrap(), Use::Trimmed);
        for code in [1, 2, 6, 7] {
            let fault = use_of(code).unwrap_err();
            let seen = (fault.code(), fault.class());
            assert_eq!(
                seen,
                (
                    "azure_devops.search_not_ready",
                    Class::Transient { retry_after: None }
                ),
                "{code}"
            );
        }
        for (code, meaning) in [
            (3, "Invalid Request"),
            (4, "Prefix wildcard"),
            (5, "facet"),
            (11, "not accessible"),
            (19, "Phrase"),
            (20, "Wildcard"),
        ] {
            let fault = use_of(code).unwrap_err();
            assert_eq!(
                (fault.code(), fault.class()),
                ("azure_devops.search_refused", Class::Permanent),
                "{code}"
            );
            assert!(fault.to_string().contains(meaning), "{fault}");
        }
    }

    #[test]
    fn a_search_continues_after_a_trimmed_page() {
        let query = SearchQuery::default();
        let mut search = WorkItemSearch::default();
        let page = |ids: std::ops::Range<i64>, is_trimmed| {
            let ids: Vec<i64> = ids.collect();
            SearchedPage {
                results: ids.len(),
                ids,
                count: None,
                is_trimmed,
                asked: PAGE,
            }
        };
        search.take(page(0..50, true));
        assert_eq!(search.next("a", &query, 1000).unwrap().skip, 50);
        search.take(page(50..60, false));
        assert!(search.next("a", &query, 1000).is_none());
        assert_eq!(search.found(55).len(), 55);
    }

    #[test]
    fn a_stored_search_continues_with_the_next_page() {
        let query = SearchQuery::default();
        let mut search = WorkItemSearch::default();
        search.take(SearchedPage {
            ids: (0..200).collect(),
            results: 200,
            count: Some(900),
            is_trimmed: false,
            asked: PAGE,
        });
        let text = serde_json::to_string(&search).unwrap();
        let again: WorkItemSearch = serde_json::from_str(&text).unwrap();
        let page = again.next("a", &query, 1000).unwrap();
        assert_eq!((page.skip, page.top, &again), (200, 200, &search));
    }
}
