//! Azure DevOps Services, REST 7.1 (<https://learn.microsoft.com/rest/api/azure/devops/?view=azure-devops-rest-7.1>).
//!
//! Each file below is one area of the vendor's; this one holds what they share: hosts, addresses, credentials and faults.

mod accounts;
mod assignee;
mod graph;
mod profile;
mod search;
mod user_cache;
mod work_items;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::HeaderName;
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

pub use accounts::Account;
pub use assignee::Assignee;
pub use graph::GraphUser;
pub use profile::Profile;
pub use search::SearchQuery;
pub use work_items::{StateCategory, WorkItem};

use self::user_cache::UserCache;
use super::governor::{CallLane, Governor, GovernorFault, Outcome, Scope};
use super::http::{Answer, Call, HttpClient};
use super::http_fault::{HttpFault, HttpFaultKind, Provider, provider, retry_after};
use crate::fault::{Certainty, Class, Fault};
use crate::message::is_segment;

static AZURE_DEVOPS: Provider = provider!("azure_devops");
const API_VERSION: &str = "7.1";

/// Where the vendor's areas live: absolute addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// Profiles.
    pub profile: String,
    /// Accounts; with the profiles where not set.
    pub accounts: Option<String>,
    /// Users.
    pub graph: String,
    /// The search.
    pub search: String,
    /// Work items.
    pub core: String,
}

impl Default for Hosts {
    /// The vendor's own.
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

/// An address in the settings that cannot be called.
#[derive(Debug, thiserror::Error)]
#[error("the setting for Azure DevOps' host `{area}` is not usable: {why}")]
pub struct BadHost {
    /// Which of the [`Hosts`].
    pub area: &'static str,
    /// What would be right.
    pub why: &'static str,
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The tenant's slug.
    pub organization: &'a str,
    /// The access token of one of its identities.
    pub token: &'a SecretString,
    /// The lane of the job that it calls for.
    pub lane: CallLane,
}

/// The way to Azure DevOps. Who calls comes with each call.
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
        f.debug_struct("AzureDevOps").field("core", &self.core.as_str()).finish_non_exhaustive()
    }
}

/// A call to Azure DevOps failed.
#[derive(Debug, thiserror::Error)]
pub enum AzureDevOpsFault {
    /// The access token is not (or no longer) accepted: 401, 203, or a sign-in page instead of an answer.
    #[error("azure_devops: the access token is not accepted")]
    Unauthorized,
    /// The work item is no longer at the revision the change was made for.
    #[error("azure_devops: the work item's revision has moved on")]
    RevisionMoved,
    /// The search answers, but not with what is there: it is still indexing, for example.
    #[error("azure_devops: the search is not ready (infoCode {0})")]
    SearchNotReady(i64),
    /// There are more users than are looked through.
    #[error("azure_devops: the organization has more than {0} pages of users")]
    TooManyUsers(usize),
    /// It was not called.
    #[error(transparent)]
    Governor(#[from] GovernorFault),
    /// What can happen to any call.
    #[error(transparent)]
    Http(#[from] HttpFault),
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for AzureDevOpsFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => AZURE_DEVOPS.codes.unauthorized,
            Self::RevisionMoved => "azure_devops.revision_moved",
            Self::SearchNotReady(_) => "azure_devops.search_not_ready",
            Self::TooManyUsers(_) => "azure_devops.too_many_users",
            Self::Governor(fault) => fault.code(),
            Self::Http(fault) => fault.code(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Unauthorized | Self::TooManyUsers(_) => Class::Permanent,
            Self::RevisionMoved => Class::Conflict,
            Self::SearchNotReady(_) => Class::Transient { retry_after: None },
            Self::Governor(fault) => fault.class(),
            Self::Http(fault) => fault.class(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Unauthorized => "Sign the identity in again.".to_owned(),
            Self::RevisionMoved => "Somebody else changed the work item; it is read again by itself.".to_owned(),
            Self::SearchNotReady(_) => "Azure DevOps is building its search index; it is tried again by itself.".to_owned(),
            Self::TooManyUsers(_) => "Assign by hand: the organization has too many users to look through.".to_owned(),
            Self::Governor(fault) => fault.hint(),
            Self::Http(fault) => fault.hint(),
        }
    }

    fn certainty(&self) -> Certainty {
        match self {
            Self::Unauthorized | Self::RevisionMoved | Self::SearchNotReady(_) | Self::TooManyUsers(_) => Certainty::NotDone,
            Self::Governor(fault) => fault.certainty(),
            Self::Http(fault) => fault.certainty(),
        }
    }
}

/// The vendor's lists come as `{count, value}`, and where the description says so as a bare array. What is null, as the token
/// may not see it, is left out. Read as it comes, without a copy of what nobody asked for: an answer may be hostile.
struct List<T>(Vec<T>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Value,
    #[serde(other)]
    Other,
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        list.deserialize_any(ListVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list, or an object with one as `value`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Option<T>>()? {
            list.extend(item);
        }
        Ok(List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<List<T>, A::Error> {
        let mut list = None;
        while let Some(member) = members.next_key()? {
            match member {
                Member::Value => list = Some(members.next_value()?),
                Member::Other => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        list.ok_or_else(|| A::Error::missing_field("value"))
    }
}

impl AzureDevOps {
    /// A way to `hosts`. A call that reads may take `call_timeout`; what pages, that long per page.
    ///
    /// # Errors
    /// [`BadHost`] where one of the addresses cannot be called.
    pub fn new(http: HttpClient, governor: Arc<Governor>, hosts: &Hosts, call_timeout: Duration) -> Result<Self, BadHost> {
        let parse = |area, text: &str| http.parse_url(text).map_err(|why| BadHost { area, why });
        Ok(Self {
            profile: parse("profile", &hosts.profile)?,
            accounts: parse("accounts", hosts.accounts.as_ref().unwrap_or(&hosts.profile))?,
            graph: parse("graph", &hosts.graph)?,
            search: parse("search", &hosts.search)?,
            core: parse("core", &hosts.core)?,
            http,
            governor,
            call_timeout,
            users: UserCache::default(),
        })
    }

    fn call(&self, method: Method, url: Url) -> Call {
        Call::new(&AZURE_DEVOPS, method, url, Instant::now() + self.call_timeout)
    }

    /// Sends with a token when the governor lets it out; tells a refused token from other answers. The status may still be
    /// anything else.
    async fn send(&self, caller: Caller<'_>, call: Call) -> Result<Answer, AzureDevOpsFault> {
        let scope = Scope::host(caller.organization, AZURE_DEVOPS.name, call.host()).from_lane(caller.lane);
        let call = call.authorization("Bearer", caller.token)?;
        let permit = self.governor.admit(&scope).await?;
        let answer = self.http.send(call).await;
        permit.settle(outcome(&answer)).await;
        let answer = answer?;
        if is_sign_in(&answer) { Err(AzureDevOpsFault::Unauthorized) } else { Ok(answer) }
    }

    /// Sends with a token and wants a 2xx.
    async fn fetch(&self, caller: Caller<'_>, call: Call) -> Result<Answer, AzureDevOpsFault> {
        Ok(self.send(caller, call).await?.success()?)
    }
}

/// What an answer says of the host. The vendor asks for patience with `Retry-After`, before it refuses also in a 200
/// (<https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits#api-client-experience>).
fn outcome(answer: &Result<Answer, HttpFault>) -> Outcome {
    let Ok(answer) = answer else { return Outcome::of(answer) };
    match (answer.status, retry_after(&answer.headers, SystemTime::now())) {
        (429, retry_after) | (200..=299 | 500..=599, retry_after @ Some(_)) => Outcome::RateLimited { retry_after },
        (408 | 425 | 500..=599, _) => Outcome::Failed,
        (200..=299, None) => Outcome::Done,
        _ => Outcome::Refused,
    }
}

/// A token that is not accepted shows as 401, as 203 with a page, as a page where data should be, or as a redirect to one.
fn is_sign_in(answer: &Answer) -> bool {
    let is_page = || answer.header("content-type").is_some_and(|kind| kind.trim_start().starts_with("text/html"));
    match answer.status {
        203 | 302 | 401 => true,
        200..=299 => is_page(),
        _ => false,
    }
}

/// An address below `base`: each segment percent-encoded, so that a name with a slash stays one segment.
fn address(base: &Url, segments: &[&str], query: &[(&str, &str)]) -> Result<Url, HttpFault> {
    let unsendable = |why: String| HttpFault { provider: &AZURE_DEVOPS, kind: HttpFaultKind::Unsendable(why) };
    if let Some(bad) = segments.iter().find(|segment| !is_segment(segment)) {
        return Err(unsendable(format!("{bad:?} is not a name that can stand in an address")));
    }
    let mut url = base.clone();
    let mut path = url.path_segments_mut().map_err(|()| unsendable("the host's address has no path".to_owned()))?;
    path.pop_if_empty().extend(segments);
    drop(path);
    url.query_pairs_mut().extend_pairs(query);
    Ok(url)
}

const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuationtoken");

#[cfg(test)]
mod tests;
