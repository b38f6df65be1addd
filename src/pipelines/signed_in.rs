//! The client of Azure DevOps signed in as one identity: the only way in which a stage calls Azure
//! DevOps. A call gets a valid token, waits for a short hold if fetched data would be lost
//! otherwise, and is repeated once with a new token if its token is refused.
//!
//! **Invariant:** only the signed-in client makes a `Caller` of Azure DevOps, so no stage can omit
//! renewing a refused token.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::sign_in::{MARGIN, Occasion, Renewal, reauthentication};
use super::{Dispatch, Services, assignee_sync};
use crate::engine::{Context, EngineFault, Kept};
use crate::fault::StageFault;
use crate::providers::azure_devops::{
    AzureDevOpsFault, Caller, Operation, ProfileMe, Unauthorized,
};
use crate::providers::governor::{CallLane, GovernorFault};
use crate::tracker::AccessToken;

/// The longest hold that a run waits for if it has already fetched something; for a longer one the
/// job waits.
const SHORT_HOLD: Duration = Duration::from_secs(5);
/// The limit of all such waits of one run together: the run keeps its permit meanwhile.
const WAITS: Duration = Duration::from_secs(10);
/// Data that was read longer ago is read again. Holds last at most an hour.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// An identity's access to Azure DevOps for one run of one stage. Its token is never part of a
/// checkpoint.
pub struct SignedIn<'a> {
    services: &'a Services,
    identity_id: i64,
    stage: &'static str,
    kept: Option<&'a Kept<'a>>,
    lane: CallLane,
    /// Whether the run may end between two calls; false after an intent is stored.
    may_end: bool,
    token: Option<(AccessToken, Instant)>,
    is_renewed: bool,
    waited: Duration,
}

impl fmt::Debug for SignedIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("identity_id", &self.identity_id)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Services {
    /// Signs in as an identity outside of a stage; `what` names the caller in logs.
    #[must_use]
    pub const fn as_identity(&self, identity_id: i64, what: &'static str) -> SignedIn<'_> {
        let (kept, lane, token, waited) = (None, CallLane::Dispatch, None, Duration::ZERO);
        SignedIn {
            services: self,
            identity_id,
            stage: what,
            kept,
            lane,
            may_end: false,
            token,
            is_renewed: false,
            waited,
        }
    }
}

impl<'a> SignedIn<'a> {
    /// Signs in as an identity for one run of a stage.
    #[must_use]
    pub fn of(cx: &Context<'a, Dispatch>, identity_id: i64) -> Self {
        let kept = cx.pieces();
        let outside = cx.services.as_identity(identity_id, kept.stage());
        let is_sync = cx.job.pipeline == assignee_sync::NAME;
        let lane = if is_sync {
            CallLane::AssigneeSync
        } else {
            CallLane::Dispatch
        };
        Self {
            kept: Some(kept),
            lane,
            may_end: cx.effect.is_none(),
            ..outside
        }
    }

    /// Returns the answer to an operation that an earlier run of this stage has kept under this
    /// name, or else calls and keeps it.
    ///
    /// # Errors
    /// The same as [`SignedIn::call`].
    pub async fn fetch<O>(&mut self, piece: &str, operation: &O) -> Result<O::Output, StageFault>
    where
        O: Operation<Output: Serialize + DeserializeOwned>,
    {
        if let Some(known) = self.known(piece) {
            return Ok(known);
        }
        let answer = self.call(operation).await?;
        self.keep(piece, &answer);
        Ok(answer)
    }

    /// Returns the value that an earlier run of this stage has kept under this name, unless it is
    /// too old.
    #[must_use]
    pub fn known<T: DeserializeOwned>(&self, piece: &str) -> Option<T> {
        self.kept?.younger(piece, KEPT_FOR)
    }

    /// Keeps a value for a later run, in case this run does not finish its stage.
    pub fn keep(&self, piece: &str, value: &impl Serialize) {
        if let Some(kept) = self.kept {
            kept.put(piece, value);
        }
    }

    /// Waits until Azure DevOps may be called, if a hold is short. Stages call this before an
    /// intent is stored.
    ///
    /// # Errors
    /// The same as [`SignedIn::call`].
    pub async fn may_call(&mut self) -> Result<(), StageFault> {
        loop {
            let azure_devops = &self.services.providers.azure_devops;
            let lane = self.lane;
            match azure_devops.look(caller(self.token().await?, lane)).await {
                Ok(()) => return Ok(()),
                Err(not_now) => self.wait_for(not_now).await?,
            }
        }
    }

    /// Calls an operation and returns its answer.
    ///
    /// # Errors
    /// [`super::ProductFault::Reauthentication`] if the token is refused and no new one is
    /// available, or the new one is refused as well; [`AzureDevOpsFault::NoAccess`] if the token
    /// is valid and its owner has no access; the fault of a hold that is too long to wait for;
    /// [`EngineFault::Unfinished`] between two calls; and the errors of the operation and of
    /// [`Services::sign_in_ahead`].
    pub async fn call<O: Operation>(&mut self, operation: &O) -> Result<O::Output, StageFault> {
        Ok(self.try_call(operation).await??)
    }

    /// Calls as [`SignedIn::call`] does, but returns the operation's own fault as a value, for
    /// callers that handle it.
    ///
    /// # Errors
    /// The same as [`SignedIn::call`], except the operation's own.
    pub async fn try_call<O: Operation>(
        &mut self,
        operation: &O,
    ) -> Result<Result<O::Output, AzureDevOpsFault>, StageFault> {
        loop {
            if self.may_end && self.kept.is_some_and(Kept::should_end) {
                return Err(EngineFault::Unfinished.into());
            }
            let azure_devops = &self.services.providers.azure_devops;
            let lane = self.lane;
            match operation
                .send(azure_devops, caller(self.token().await?, lane))
                .await
            {
                Ok(answer) => return Ok(Ok(answer)),
                Err(AzureDevOpsFault::Governor(not_now)) => self.wait_for(not_now).await?,
                Err(AzureDevOpsFault::Unauthorized(refusal)) => self.renew::<O>(refusal).await?,
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    /// Waits for a short hold while keeping the permit, if the run has fetched data that it would
    /// otherwise have to store.
    async fn wait_for(&mut self, not_now: GovernorFault) -> Result<(), StageFault> {
        let GovernorFault::Held {
            left, for_permit, ..
        } = not_now
        else {
            return Err(not_now.into());
        };
        let loses = self.kept.is_some_and(|kept| !kept.is_empty());
        // A run that waits for a permit of a destination must not keep a permit of the lane
        // meanwhile.
        if !loses || for_permit || left > SHORT_HOLD || self.waited + left > WAITS {
            return Err(not_now.into());
        }
        // Never zero: a hold that ends just now must not be polled in a tight loop.
        let left = left.max(Duration::from_millis(20));
        self.waited += left;
        sleep(left).await;
        Ok(())
    }

    /// Replaces a refused token, once in a run.
    async fn renew<O: Operation>(&mut self, refusal: Unauthorized) -> Result<(), StageFault> {
        let mut why_not = "a new token is refused as well".to_owned();
        if !self.is_renewed {
            match self.refresh(Occasion::Refused, &refusal).await? {
                Ok(()) => return Ok(()),
                Err(why) => why_not = why,
            }
        }
        if O::OF_ACCOUNT
            && let Some(fault) = self.is_access_refused(&refusal).await?
        {
            return Err(fault.into());
        }
        // The owner's own profile is refused as well, so the token is invalid. A recent refresh
        // may have had another cause: an account that its owner cannot access.
        if !self.is_renewed {
            match self.refresh(Occasion::NotValid, &refusal).await? {
                Ok(()) => return Ok(()),
                Err(why) => why_not = why,
            }
        }
        let what = format!("Azure DevOps does not accept its token ({refusal})");
        Err(reauthentication(self.token().await?, &what, &why_not).into())
    }

    /// Refreshes the token, or returns the reason why it is not refreshed.
    async fn refresh(
        &mut self,
        occasion: Occasion,
        refusal: &Unauthorized,
    ) -> Result<Result<(), String>, StageFault> {
        let refused = self.token().await?.clone();
        match self.services.renew(&refused, occasion, self.stage).await? {
            Renewal::Renewed(token) => {
                tracing::info!(
                    identity.id = self.identity_id,
                    stage = self.stage,
                    answer = refusal.to_string(),
                    "Azure DevOps refused the access token; the call is made again with a new one"
                );
                self.is_renewed = true;
                self.put(token);
                Ok(Ok(()))
            }
            Renewal::Impossible(why_not) => Ok(Err(why_not)),
        }
    }

    /// Returns a fault unless the token itself is refused: Azure DevOps answers 401 also if the
    /// token's owner has no access to the account. The owner's profile needs no access to any
    /// account.
    async fn is_access_refused(
        &mut self,
        refusal: &Unauthorized,
    ) -> Result<Option<AzureDevOpsFault>, StageFault> {
        let (azure_devops, lane) = (&self.services.providers.azure_devops, self.lane);
        let refusal = refusal.clone();
        Ok(
            match ProfileMe
                .send(azure_devops, caller(self.token().await?, lane))
                .await
            {
                Ok(_) if refusal.said.is_empty() => Some(AzureDevOpsFault::SignInPage(refusal)),
                Ok(_) => Some(AzureDevOpsFault::NoAccess(refusal)),
                Err(AzureDevOpsFault::Unauthorized(_)) => None,
                Err(fault) => Some(AzureDevOpsFault::Unverified {
                    refusal,
                    why: Box::new(fault),
                }),
            },
        )
    }

    /// Returns the token; reads it with the first call and again shortly before it expires.
    async fn token(&mut self) -> Result<&AccessToken, StageFault> {
        if self
            .token
            .as_ref()
            .is_none_or(|(_, good_until)| Instant::now() >= *good_until)
        {
            let token = self
                .services
                .good_token(self.identity_id, self.stage)
                .await?;
            self.put(token);
        }
        let (token, _) = self.token.as_ref().expect("the token was just set");
        Ok(token)
    }

    fn put(&mut self, token: AccessToken) {
        let good_for = Duration::try_from(token.ends_in - MARGIN).unwrap_or_default();
        // A token within its margin has just been read; the minimum of 1 s avoids reading it again
        // with every call.
        let good_until = Instant::now() + good_for.max(Duration::from_secs(1));
        self.token = Some((token, good_until));
    }
}

const fn caller(token: &AccessToken, lane: CallLane) -> Caller<'_> {
    Caller {
        organization: token.organization.as_str(),
        token: &token.token,
        lane,
    }
}
