//! Accounts
//! (<https://learn.microsoft.com/rest/api/azure/devops/account/accounts/list?view=azure-devops-rest-7.1>).

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{API_VERSION, AzureDevOps, AzureDevOpsFault, Caller, List, Operation, address};

/// An account (the vendor also calls it organization or collection) that a member may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The account's id.
    #[serde(alias = "accountId")]
    pub id: String,
    /// The name, as in addresses.
    #[serde(alias = "accountName")]
    pub name: String,
}

/// `GET /_apis/accounts?memberId=`: the accounts of a member, in the vendor's order.
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a> {
    /// See [`super::Profile::id`].
    pub member_id: &'a str,
}

impl Operation for Accounts<'_> {
    type Output = Vec<Account>;
    const OF_ACCOUNT: bool = false;

    async fn send(
        &self,
        to: &AzureDevOps,
        caller: Caller<'_>,
    ) -> Result<Vec<Account>, AzureDevOpsFault> {
        let query = [("memberId", self.member_id), ("api-version", API_VERSION)];
        let url = address(&to.accounts, &["_apis", "accounts"], &query)?;
        let answer = to.fetch(caller, to.call(Method::GET, url)).await?;
        let accounts = answer.json::<List<'_, Account>>()?.readable();
        Ok(accounts.map_err(|error| answer.malformed(&error.to_string()))?)
    }
}
