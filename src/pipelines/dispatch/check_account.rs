//! Looks up the organization, the account and the identity that the request names.
//!
//! *Needs*: nothing.
//! *Effects*: none.
//! *Safe to repeat*: the stage only reads our own tables.

use serde::{Deserialize, Serialize};

use super::{Reason, ShowConfiguration};
use crate::engine::{Context, Stage, StageOutcome, StageResult, Then};
use crate::message::Request;
use crate::pipelines::{Dispatch, ProductFault};
use crate::tracker::Installation;

#[derive(Debug, Clone, Copy)]
pub struct CheckAccount;

/// The request's tenant, account and identity as the tracker stores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedAccount {
    /// The tenant.
    pub organization_id: i64,
    pub account: Account,
    pub acting_as: ActingAs,
}

/// Whether the account is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    /// The account is installed.
    Found {
        /// Row id of the integration.
        integration_id: i64,
        /// The account's id, as installed.
        account_id: String,
    },
    /// The account is not installed, or the request names none.
    Missing(Reason),
}

/// The identity to act as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActingAs {
    /// The installation's identity, because the request names none.
    Installation,
    /// The identity that the request names.
    Identity(i64),
    /// The request names an identity that the organization does not have.
    Nobody,
}

impl Stage for CheckAccount {
    type Product = Dispatch;

    const NAME: &'static str = "check_account";
    type Output = CheckedAccount;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let request = cx.payload::<Request>()?;
        let tracker = &cx.services.tracker;
        let slug = &request.organization;
        let organization = tracker.organization_id(slug).await?;
        let organization_id =
            organization.ok_or_else(|| ProductFault::UnknownOrganization(slug.clone()))?;
        let acting_as = match &request.identity {
            None => ActingAs::Installation,
            Some(name) => {
                let known = tracker.identity_by_name(organization_id, name).await?;
                known.map_or(ActingAs::Nobody, |identity| ActingAs::Identity(identity.id))
            }
        };
        let named = cx.job.account.as_deref().or(request.account.as_deref());
        let installation = match named {
            None => None,
            Some(account) => tracker.installation(organization_id, account).await?,
        };
        let account = judge(named, installation, organization_id)?;
        let then = next(&account, acting_as);
        Ok(StageOutcome::of(CheckedAccount {
            organization_id,
            account,
            acting_as,
        })
        .then(then))
    }
}

fn judge(
    named: Option<&str>,
    installation: Option<Installation>,
    organization_id: i64,
) -> Result<Account, ProductFault> {
    let Some(found) = installation else {
        return Ok(Account::Missing(if named.is_some() {
            Reason::UnknownAccount
        } else {
            Reason::NoAccount
        }));
    };
    enabled(&found, organization_id)?;
    Ok(Account::Found {
        integration_id: found.integration_id,
        account_id: found.account_id,
    })
}

/// Refuses an installation that a person has disabled.
pub(crate) fn enabled(
    installation: &Installation,
    organization_id: i64,
) -> Result<(), ProductFault> {
    if !installation.disabled {
        return Ok(());
    }
    let account = installation.account_name.clone();
    Err(ProductFault::InstallationDisabled {
        integration_id: installation.integration_id,
        organization_id,
        account,
    })
}

/// Returns the next stage. Without an account, an identity can still list the accounts to choose
/// from.
const fn next(account: &Account, acting_as: ActingAs) -> Then {
    match (account, acting_as) {
        (Account::Found { .. }, _) | (Account::Missing(_), ActingAs::Identity(_)) => Then::Next,
        (Account::Missing(_), ActingAs::Installation | ActingAs::Nobody) => {
            Then::Jump(ShowConfiguration::NAME)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Class, Fault};
    use crate::pipelines::dispatch::samples::installation;

    #[test]
    fn a_missing_account_asks_for_configuration_at_once_unless_an_identity_can_offer_choices() {
        let missing = Account::Missing(Reason::NoAccount);
        assert_eq!(
            next(&missing, ActingAs::Installation),
            Then::Jump("show_configuration")
        );
        assert_eq!(
            next(&missing, ActingAs::Nobody),
            Then::Jump("show_configuration")
        );
        assert_eq!(next(&missing, ActingAs::Identity(7)), Then::Next);
        let found = Account::Found {
            integration_id: 3,
            account_id: "a".to_owned(),
        };
        assert_eq!(next(&found, ActingAs::Nobody), Then::Next);
    }

    #[test]
    fn an_account_not_named_and_one_not_installed_are_distinguished() {
        assert_eq!(
            judge(None, None, 1).unwrap(),
            Account::Missing(Reason::NoAccount)
        );
        assert_eq!(
            judge(Some("a"), None, 1).unwrap(),
            Account::Missing(Reason::UnknownAccount)
        );
    }

    #[test]
    fn a_disabled_installation_waits_for_the_installation_of_its_organization() {
        let off = Installation {
            disabled: true,
            ..installation()
        };
        let fault = judge(Some("a"), Some(off), 5).unwrap_err();
        let Class::Wait(on) = fault.class() else {
            panic!("{fault}")
        };
        assert_eq!(
            (on.reason.word(), on.key.as_str(), on.observed),
            ("installation_disabled", "integration:3@5", 0)
        );
    }
}
