//! Reads the present state of the account and of the identity.
//!
//! *Needs*: `check_account`.
//! *Effects*: none in the ledger. A token that expires within five minutes is refreshed at
//! Microsoft Entra.
//! *Safe to repeat*: the stage reads our own tables; tokens stay there, and later stages read them
//! by identity. One refresh at a time saves its tokens in place of those that it refreshed. The
//! previous refresh token stays valid at Entra; if it does not, the job waits for a person.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::check_account::{Account, ActingAs, CheckedAccount, enabled};
use super::{CheckAccount, ShowConfiguration};
use crate::engine::{Context, Stage, StageOutcome, StageResult, Then};
use crate::fault::StageFault;
use crate::pipelines::{Dispatch, ProductFault};
use crate::tracker::{Identity, Installation, SyncSettings, Tracker};

#[derive(Debug, Clone, Copy)]
pub struct FetchStates;

/// The account and the identity that the following stages use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    /// `None` if the job has no account yet.
    pub account: Option<AccountState>,
    /// `None` if there is no identity to act as; the job then waits for configuration.
    pub identity: Option<IdentityState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountState {
    /// Row id of the integration.
    pub integration_id: i64,
    pub account_id: String,
    /// The `{organization}` segment of Azure DevOps' URLs.
    pub account_name: String,
    /// The settings of this organization for synchronization.
    pub settings: SyncSettings,
}

/// The identity, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityState {
    /// Row id.
    pub id: i64,
    /// The name shown to people.
    pub name: String,
    /// The expiry of the access token.
    #[serde(with = "time::serde::rfc3339")]
    pub token_expires_at: OffsetDateTime,
}

impl States {
    /// Returns the account, for stages after its choice.
    ///
    /// # Errors
    /// [`ProductFault::IncompleteCheckpoint`] if a checkpoint written by hand names none.
    pub fn account(&self) -> Result<&AccountState, ProductFault> {
        self.account
            .as_ref()
            .ok_or(ProductFault::IncompleteCheckpoint(FetchStates::NAME))
    }

    /// Returns the identity, for stages that act as it.
    ///
    /// # Errors
    /// The same as [`States::account`].
    pub fn identity(&self) -> Result<&IdentityState, ProductFault> {
        self.identity
            .as_ref()
            .ok_or(ProductFault::IncompleteCheckpoint(FetchStates::NAME))
    }
}

impl Stage for FetchStates {
    type Product = Dispatch;

    const NAME: &'static str = "fetch_states";
    const NEEDS: &'static [&'static str] = &[CheckAccount::NAME];
    /// A run may wait for another refresh before its own.
    const TIMEOUT: Duration = Duration::from_secs(60);
    type Output = States;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let checked = cx.output::<CheckAccount>()?;
        let tracker = &cx.services.tracker;
        let installation = installed(tracker, &checked).await?;
        let mut identity = match acting(checked.acting_as, installation.as_ref()) {
            None => None,
            Some(id) => tracker.identity(id).await?,
        };
        if let Some(identity) = &mut identity {
            identity.token_expires_at = cx.services.sign_in_ahead(identity.id, Self::NAME).await?;
        }
        let then = match &identity {
            Some(_) => Then::Next,
            None => Then::Jump(ShowConfiguration::NAME),
        };
        Ok(StageOutcome::of(states(installation, identity)).then(then))
    }
}

/// Returns the present installation: it may have been disabled or removed since `check_account`.
async fn installed(
    tracker: &Tracker,
    checked: &CheckedAccount,
) -> Result<Option<Installation>, StageFault> {
    let Account::Found { account_id, .. } = &checked.account else {
        return Ok(None);
    };
    let installation = tracker
        .installation(checked.organization_id, account_id)
        .await?;
    if let Some(found) = &installation {
        enabled(found, checked.organization_id)?;
    }
    Ok(installation)
}

fn acting(acting_as: ActingAs, installation: Option<&Installation>) -> Option<i64> {
    match acting_as {
        ActingAs::Installation => installation.and_then(|found| found.identity_id),
        ActingAs::Identity(id) => Some(id),
        ActingAs::Nobody => None,
    }
}

fn states(installation: Option<Installation>, identity: Option<Identity>) -> States {
    let account = installation.map(|found| AccountState {
        integration_id: found.integration_id,
        account_id: found.account_id,
        account_name: found.account_name,
        settings: found.settings,
    });
    let identity = identity.map(|known| IdentityState {
        id: known.id,
        name: known.name,
        token_expires_at: known.token_expires_at,
    });
    States { account, identity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::dispatch::samples::installation;

    #[test]
    fn the_request_s_identity_wins_and_an_unknown_one_is_not_replaced_by_the_installation_s() {
        let installation = Installation {
            identity_id: Some(9),
            ..installation()
        };
        assert_eq!(acting(ActingAs::Identity(7), Some(&installation)), Some(7));
        assert_eq!(acting(ActingAs::Installation, Some(&installation)), Some(9));
        assert_eq!(acting(ActingAs::Nobody, Some(&installation)), None);
        assert_eq!(acting(ActingAs::Installation, None), None);
    }

    #[test]
    fn a_checkpoint_without_an_account_says_so() {
        let none = states(None, None);
        assert!(none.account().is_err() && none.identity().is_err());
    }
}
