//! The work item search
//! (<https://learn.microsoft.com/rest/api/azure/devops/search/work-item-search-results?view=azure-devops-rest-7.1>).

use std::collections::{BTreeMap, HashSet};

use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{API_VERSION, AzureDevOps, AzureDevOpsFault, Caller, address};
use crate::providers::http::{Answer, BATCH_BODY_BYTES};
use crate::providers::http_fault::HttpFault;

/// Results asked for at once.
const PAGE: usize = 200;
/// The vendor gives no results beyond these.
const WINDOW: usize = 1000;

/// What to look for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchQuery {
    /// The words.
    pub text: String,
    /// Only in this project (name or id).
    #[serde(default)]
    pub project: Option<String>,
    /// Only of these types; all where empty.
    #[serde(default)]
    pub work_item_types: Vec<String>,
    /// Only in these states; all where empty.
    #[serde(default)]
    pub states: Vec<String>,
}

impl SearchQuery {
    fn filters(&self) -> BTreeMap<&'static str, &[String]> {
        let all = [("System.WorkItemType", self.work_item_types.as_slice()), ("System.State", self.states.as_slice())];
        all.into_iter().filter(|(_, values)| !values.is_empty()).collect()
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
    results: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(borrow)]
    fields: Fields<'a>,
}

/// The vendor writes the id as text, under its name in lower case.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "system.id", alias = "System.Id", borrow, default)]
    id: Option<&'a RawValue>,
}

impl Hit<'_> {
    fn id(&self) -> Option<i64> {
        self.fields.id?.get().trim_matches('"').parse().ok()
    }
}

impl AzureDevOps {
    /// `POST …/_apis/search/workitemsearchresults`, page by page: the ids of at most `limit` work items, each once, in the
    /// vendor's order.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::SearchNotReady`], [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Http`].
    pub async fn search(
        &self,
        token: Caller<'_>,
        org_name: &str,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<Vec<i64>, AzureDevOpsFault> {
        let url = self.search_address(org_name, query)?;
        let filters = query.filters();
        let (mut ids, mut seen, mut skip) = (Vec::new(), HashSet::new(), 0);
        while ids.len() < limit && skip < WINDOW {
            let top = PAGE.min(limit - ids.len()).min(WINDOW - skip);
            let body = json!({
                "searchText": query.text, "$skip": skip, "$top": top, "filters": filters, "includeFacets": false,
            });
            let call = self.call(Method::POST, url.clone()).json("application/json", &body)?;
            let answer = self.fetch(token, call.body_limit(BATCH_BODY_BYTES)).await?;
            let page = ready_page(&answer)?;
            for hit in &page.results {
                let id = hit.id().ok_or_else(|| answer.malformed("a result has no `system.id`"))?;
                if seen.insert(id) {
                    ids.push(id);
                }
            }
            skip += page.results.len();
            let all = page.count.is_some_and(|count| skip >= count);
            if all || page.results.len() < top {
                break;
            }
        }
        ids.truncate(limit);
        Ok(ids)
    }

    fn search_address(&self, org_name: &str, query: &SearchQuery) -> Result<Url, HttpFault> {
        let mut segments = vec![org_name];
        segments.extend(query.project.as_deref());
        segments.extend(["_apis", "search", "workitemsearchresults"]);
        address(&self.search, &segments, &[("api-version", API_VERSION)])
    }
}

/// The vendor says 200 also where it could not search: `infoCode` tells.
fn ready_page(answer: &Answer) -> Result<Page<'_>, AzureDevOpsFault> {
    let page: Page<'_> = answer.json()?;
    if page.info_code == 0 { Ok(page) } else { Err(AzureDevOpsFault::SearchNotReady(page.info_code)) }
}
