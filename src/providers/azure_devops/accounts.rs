//! Accounts (<https://learn.microsoft.com/rest/api/azure/devops/account/accounts/list?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{API_VERSION, AzureDevOps, AzureDevOpsFault, Caller, List, address};

/// An account (also called organization or collection) a member may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The id.
    #[serde(alias = "accountId")]
    pub id: String,
    /// The name, as it stands in addresses.
    #[serde(alias = "accountName")]
    pub name: String,
}

impl AzureDevOps {
    /// `GET /_apis/accounts?memberId=`: the accounts of a member, in the vendor's order.
    ///
    /// # Errors
    /// [`AzureDevOpsFault::Unauthorized`], [`AzureDevOpsFault::Http`].
    pub async fn accounts(&self, token: Caller<'_>, member_id: &str) -> Result<Vec<Account>, AzureDevOpsFault> {
        let query = [("memberId", member_id), ("api-version", API_VERSION)];
        let url = address(&self.accounts, &["_apis", "accounts"], &query)?;
        let List(accounts) = self.fetch(token, self.call(Method::GET, url)).await?.json()?;
        Ok(accounts)
    }
}
