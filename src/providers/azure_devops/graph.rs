//! Users (<https://learn.microsoft.com/rest/api/azure/devops/graph/users/list?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{AzureDevOps, AzureDevOpsFault, CONTINUATION, Caller, List, address};
use crate::providers::http::BATCH_BODY_BYTES;

/// This area is still a preview in 7.1.
const API_VERSION: &str = "7.1-preview.1";
/// Pages looked through; the vendor puts some hundred users on one.
pub(super) const PAGES: usize = 200;

/// A user of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphUser {
    /// The vendor's own id of the user.
    pub descriptor: String,
    /// What `System.AssignedTo` takes; empty where the vendor gives none.
    #[serde(alias = "principalName", default, deserialize_with = "or_empty")]
    pub principal_name: String,
    /// The e-mail address; empty where the vendor gives none.
    #[serde(alias = "mailAddress", default, deserialize_with = "or_empty")]
    pub mail_address: String,
    /// As people read it; empty where the vendor gives none.
    #[serde(alias = "displayName", default, deserialize_with = "or_empty")]
    pub display_name: String,
}

fn or_empty<'de, D: serde::Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl GraphUser {
    fn answers_to(&self, wanted: &[String]) -> bool {
        let names = [self.mail_address.to_lowercase(), self.principal_name.to_lowercase()];
        names.iter().any(|name| !name.is_empty() && wanted.contains(name))
    }
}

impl AzureDevOps {
    /// `GET …/_apis/graph/users`, page by page: the first user whose e-mail address or principal name is one of `emails`,
    /// whatever the case. The result is kept for up to five minutes, for all tokens.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::TooManyUsers`], [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Http`].
    pub async fn find_user(
        &self,
        token: Caller<'_>,
        org_name: &str,
        emails: &[String],
    ) -> Result<Option<GraphUser>, AzureDevOpsFault> {
        let mut wanted: Vec<String> = emails.iter().map(|email| email.trim().to_lowercase()).collect();
        wanted.retain(|email| !email.is_empty());
        wanted.sort_unstable();
        if wanted.is_empty() {
            return Ok(None);
        }
        let key = (org_name.to_lowercase(), wanted);
        if let Some(known) = self.users.get(&key, Instant::now()) {
            return Ok(known);
        }
        let found = self.look_through_users(token, org_name, &key.1).await?;
        self.users.put(key, found.clone(), Instant::now());
        Ok(found)
    }

    async fn look_through_users(
        &self,
        token: Caller<'_>,
        org_name: &str,
        wanted: &[String],
    ) -> Result<Option<GraphUser>, AzureDevOpsFault> {
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut query = vec![("api-version", API_VERSION)];
            query.extend(next.as_deref().map(|token| ("continuationToken", token)));
            let url = address(&self.graph, &[org_name, "_apis", "graph", "users"], &query)?;
            let answer = self.fetch(token, self.call(Method::GET, url).body_limit(BATCH_BODY_BYTES)).await?;
            let List(users) = answer.json::<List<GraphUser>>()?;
            if let Some(user) = users.into_iter().find(|user| user.answers_to(wanted)) {
                return Ok(Some(user));
            }
            match answer.header(CONTINUATION.as_str()).filter(|token| !token.is_empty()) {
                Some(token) => next = Some(token.to_owned()),
                None => return Ok(None),
            }
        }
        Err(AzureDevOpsFault::TooManyUsers(PAGES))
    }
}
