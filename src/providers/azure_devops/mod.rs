//! Azure DevOps Services, REST 7.1
//! (<https://learn.microsoft.com/rest/api/azure/devops/?view=azure-devops-rest-7.1>).
//!
//! Each submodule is one area of the vendor's API. This module has the parts that they share:
//! hosts, addresses, credentials and faults.

mod accounts;
mod assignee;
mod fault;
mod graph;
mod list;
mod operation;
mod profile;
mod search;
mod user_cache;
mod work_items;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::HeaderName;
use reqwest::{Method, Url};
use secrecy::SecretString;
use tokio::time::Instant;

pub use accounts::{Account, Accounts};
pub use assignee::Assignee;
pub use fault::{AzureDevOpsFault, Refused, Unauthorized};
pub use graph::{FoundUser, GraphUser, UsersPage, UsersSearch};
pub use operation::Operation;
pub use profile::{Profile, ProfileMe};
pub use search::{SearchPage, SearchQuery, WorkItemSearch};
pub use work_items::{
    Assign, BATCH, StateCategories, StateCategory, UnreadableWorkItem, WorkItem, WorkItems,
    WorkItemsBatch,
};

use self::list::List;
use self::user_cache::UserCache;
use super::governor::{CallLane, CallResult, Governor, GovernorFault, Scope};
use super::http::{HttpClient, HttpRequest, HttpResponse};
use super::http_fault::{HttpFault, HttpFaultKind, Provider, provider, retry_after};
use crate::message::is_segment;

/// The vendor limits work, not calls, and answers with `Retry-After` when the limit is exceeded.
pub(super) static AZURE_DEVOPS: Provider =
    provider!("azure_devops", "Azure DevOps", 200 calls in 1 s);
const API_VERSION: &str = "7.1";

/// The absolute addresses of the vendor's areas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// The host of profiles.
    pub profile: String,
    /// The host of accounts; the same as of profiles if not set.
    pub accounts: Option<String>,
    /// The host of users.
    pub graph: String,
    /// The host of the search.
    pub search: String,
    /// The host of work items.
    pub core: String,
}

impl Default for Hosts {
    /// Returns the vendor's hosts.
    fn default() -> Self {
        Self {
            profile: "https://app.vssps.visualstudio.com".to_owned(),
            accounts: None,
            graph: "https://vssps.dev.azure.com".to_owned(),
            search: "https://almsearch.dev.azure.com".to_owned(),
            core: "https://dev.azure.com".to_owned(),
        }
    }
}

/// An address in the settings that may not be called.
#[derive(Debug, thiserror::Error)]
#[error("the setting for Azure DevOps' host `{area}` is invalid: {why}")]
pub struct BadHost {
    /// The field of [`Hosts`].
    pub area: &'static str,
    /// What is expected.
    pub why: &'static str,
}

/// The caller of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The tenant's slug.
    pub organization: &'a str,
    /// The access token of one of the tenant's identities.
    pub token: &'a SecretString,
    /// The lane of the job that makes the call.
    pub lane: CallLane,
}

/// The client of Azure DevOps. Each call names its [`Caller`].
pub struct AzureDevOps {
    http: HttpClient,
    governor: Arc<Governor>,
    profile: Url,
    accounts: Url,
    graph: Url,
    search: Url,
    core: Url,
    call_timeout: Duration,
    users: UserCache,
}

impl fmt::Debug for AzureDevOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureDevOps")
            .field("core", &self.core.as_str())
            .finish_non_exhaustive()
    }
}

impl AzureDevOps {
    /// Creates a client of `hosts`. A call that reads may take `call_timeout`, a paged one that
    /// long per page.
    ///
    /// # Errors
    /// [`BadHost`] if one of the addresses may not be called.
    pub fn new(
        http: HttpClient,
        governor: Arc<Governor>,
        hosts: &Hosts,
        call_timeout: Duration,
    ) -> Result<Self, BadHost> {
        let parse = |area, text: &str| http.parse_url(text).map_err(|why| BadHost { area, why });
        Ok(Self {
            profile: parse("profile", &hosts.profile)?,
            accounts: parse(
                "accounts",
                hosts.accounts.as_ref().unwrap_or(&hosts.profile),
            )?,
            graph: parse("graph", &hosts.graph)?,
            search: parse("search", &hosts.search)?,
            core: parse("core", &hosts.core)?,
            http,
            governor,
            call_timeout,
            users: UserCache::default(),
        })
    }

    fn call(&self, method: Method, url: Url) -> HttpRequest {
        HttpRequest::new(
            &AZURE_DEVOPS,
            method,
            url,
            Instant::now() + self.call_timeout,
        )
    }

    /// Checks whether the governor would admit a call to the host of work items now.
    ///
    /// # Errors
    /// [`GovernorFault`] if it would not.
    pub async fn look(&self, caller: Caller<'_>) -> Result<(), GovernorFault> {
        let host = self.core.host_str().unwrap_or_default();
        self.governor
            .look(&Scope::host(caller.organization, AZURE_DEVOPS.name, host).from_lane(caller.lane))
            .await
    }

    /// Sends a call with a token once the governor admits it. A refused token is a fault; an
    /// answer with any other status is returned.
    async fn send(
        &self,
        caller: Caller<'_>,
        call: HttpRequest,
    ) -> Result<HttpResponse, AzureDevOpsFault> {
        let scope =
            Scope::host(caller.organization, AZURE_DEVOPS.name, call.host()).from_lane(caller.lane);
        let call = call.authorization("Bearer", caller.token)?;
        let permit = self.governor.admit(&scope).await?;
        let answer = self.http.send(call).await;
        permit.settle(outcome(&answer)).await;
        let answer = answer?;
        match fault::unauthorized(&answer) {
            Some(refusal) => Err(AzureDevOpsFault::Unauthorized(refusal)),
            None => Ok(answer),
        }
    }

    /// Sends a call with a token and requires a 2xx.
    async fn fetch(
        &self,
        caller: Caller<'_>,
        call: HttpRequest,
    ) -> Result<HttpResponse, AzureDevOpsFault> {
        Ok(self.send(caller, call).await?.success()?)
    }
}

/// Returns the result of a call for the governor. The vendor sends `Retry-After` also in a 200,
/// before it refuses calls
/// (<https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits#api-client-experience>).
fn outcome(answer: &Result<HttpResponse, HttpFault>) -> CallResult {
    let Ok(answer) = answer else {
        return CallResult::of(answer);
    };
    match (
        answer.status,
        retry_after(&answer.headers, SystemTime::now()),
    ) {
        (429, retry_after) | (200..=299 | 500..=599, retry_after @ Some(_)) => {
            CallResult::RateLimited { retry_after }
        }
        (408 | 425 | 500..=599, _) => CallResult::Failed,
        (200..=299, None) => CallResult::Done,
        _ => CallResult::Refused,
    }
}

/// Returns an address below `base`. Each segment is percent-encoded, so that a name with a slash
/// stays one segment.
fn address(base: &Url, segments: &[&str], query: &[(&str, &str)]) -> Result<Url, HttpFault> {
    let unsendable = |why: String| HttpFault {
        provider: &AZURE_DEVOPS,
        kind: HttpFaultKind::Unsendable(why),
    };
    if let Some(bad) = segments.iter().find(|segment| !is_segment(segment)) {
        return Err(unsendable(format!(
            "{bad:?} cannot be a segment of an address"
        )));
    }
    let mut url = base.clone();
    let mut path = url
        .path_segments_mut()
        .map_err(|()| unsendable("the host's address has no path".to_owned()))?;
    path.pop_if_empty().extend(segments);
    drop(path);
    url.query_pairs_mut().extend_pairs(query);
    Ok(url)
}

const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuationtoken");

#[cfg(test)]
mod tests;
