//! Lists the accounts that the token's owner may use. If the job's account is not among them, a
//! person must choose one.
//!
//! *Needs*: `fetch_states`, `retrieve_user`.
//! *Effects*: none. The stage reads the list of accounts from Azure DevOps.
//! *Safe to repeat*: the stage only reads.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FetchStates, RetrieveUser, ShowConfiguration};
use crate::engine::{Context, Stage, StageOutcome, StageResult, Then};
use crate::fault::storable;
use crate::pipelines::{Dispatch, SignedIn};
use crate::providers::azure_devops;

#[derive(Debug, Clone, Copy)]
pub struct GetAccounts;

/// The accounts that the identity may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// The accounts, sorted by name.
    pub accounts: Vec<UsableAccount>,
}

/// An account the identity may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsableAccount {
    /// The id that `configure` takes.
    pub account_id: String,
    /// The display name.
    pub name: String,
}

impl Stage for GetAccounts {
    type Product = Dispatch;

    const NAME: &'static str = "get_accounts";
    const NEEDS: &'static [&'static str] = &[FetchStates::NAME, RetrieveUser::NAME];
    /// Covers two calls of Azure DevOps and, between them, a refresh that may wait for another
    /// one.
    const TIMEOUT: Duration = Duration::from_secs(60);
    type Output = Accounts;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let states = cx.output::<FetchStates>()?;
        let user = cx.output::<RetrieveUser>()?;
        let found = SignedIn::of(cx, states.identity()?.id)
            .call(&azure_devops::Accounts {
                member_id: &user.id,
            })
            .await?;
        let accounts = by_name(found);
        let then = next(
            states
                .account
                .as_ref()
                .map(|account| account.account_id.as_str()),
            &accounts,
        );
        Ok(StageOutcome::of(accounts).then(then))
    }
}

/// The limit of an account's id and name.
const NAME_BYTES: usize = 255;

fn by_name(accounts: Vec<azure_devops::Account>) -> Accounts {
    // Postgres builds events from the checkpoint and refuses a NUL there.
    let text = |text: String| storable(&text, NAME_BYTES);
    let usable = |account: azure_devops::Account| UsableAccount {
        account_id: text(account.id),
        name: text(account.name),
    };
    let mut accounts: Vec<UsableAccount> = accounts.into_iter().map(usable).collect();
    accounts
        .sort_by(|one, other| (&one.name, &one.account_id).cmp(&(&other.name, &other.account_id)));
    Accounts { accounts }
}

/// Continues with the next stage if the job's account is among those that the identity may use.
fn next(wanted: Option<&str>, usable: &Accounts) -> Then {
    let is_usable = |wanted: &str| {
        usable
            .accounts
            .iter()
            .any(|account| account.account_id.eq_ignore_ascii_case(wanted))
    };
    if wanted.is_some_and(is_usable) {
        Then::Next
    } else {
        Then::Jump(ShowConfiguration::NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(ids: &[&str]) -> Accounts {
        let account = |id: &&str| azure_devops::Account {
            id: (*id).to_owned(),
            name: format!("name of {id}"),
        };
        by_name(ids.iter().map(account).collect())
    }

    #[test]
    fn only_a_job_whose_account_is_usable_goes_on() {
        let configure = Then::Jump("show_configuration");
        assert_eq!(
            next(Some("ACC-1"), &usable(&["acc-2", "acc-1"])),
            Then::Next
        );
        assert_eq!(next(Some("acc-1"), &usable(&["acc-2"])), configure);
        assert_eq!(next(Some("acc-1"), &usable(&[])), configure);
        assert_eq!(next(None, &usable(&["acc-1"])), configure);
    }

    #[test]
    fn no_account_has_a_name_that_postgres_refuses() {
        let UsableAccount { account_id, name } = usable(&["a\0b"]).accounts.remove(0);
        assert!(
            !account_id.contains('\0') && !name.contains('\0'),
            "{account_id:?} {name:?}"
        );
    }

    #[test]
    fn choices_come_by_name() {
        let ids: Vec<_> = usable(&["b", "a"])
            .accounts
            .into_iter()
            .map(|account| account.account_id)
            .collect();
        assert_eq!(ids, ["a", "b"]);
    }
}
