//! Signing in as an identity: its access token, refreshed at Microsoft Entra where it must be.
//!
//! One refreshes at a time among all replicas, by a turn on the identity's row; the others wait for the new version.
//! **Invariant:** refreshed tokens are saved before they are used, and only in place of those they were refreshed from.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::{ProductFault, Services};
use crate::crash_point::reach;
use crate::fault::{Class, Fault, StageFault};
use crate::providers::azure_devops::{AzureDevOpsFault, Caller, Profile};
use crate::providers::entra::{EntraFault, Tokens};
use crate::providers::governor::CallLane;
use crate::tracker::{AccessToken, NewTokens, RefreshTurn, TrackerFault, Turn};

/// A token this close to its end may end on the way.
const MARGIN: time::Duration = time::Duration::seconds(30);
/// A job begins with a token that lives at least this long, where one can be had.
const AHEAD: time::Duration = time::Duration::minutes(5);
/// The longest refresh, whatever the setting for calls says, so that a stage's own limit leaves room to wait for another's.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long tokens in hand are tried to be saved while Postgres is ill: they cannot be had again.
const SAVING: Duration = Duration::from_secs(5);
/// How often a turn is asked for: at first, and later.
const PACE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Tokens may have changed, to others that have ended too, while their turn was waited for.
const ROUNDS: usize = 2;

/// An identity's access token, fetched for one run of one stage. It is never part of a checkpoint.
pub struct SignedIn(AccessToken);

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("identity_id", &self.0.identity_id).finish_non_exhaustive()
    }
}

/// Why tokens are to be refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// The access token has ended, or is about to.
    Ended,
    /// Azure DevOps does not take the access token.
    Refused,
}

impl Services {
    /// The identity's token, good for half a minute at least; refreshed first if it is not.
    ///
    /// # Errors
    /// [`ProductFault::Reauthentication`] where it cannot be refreshed, [`ProductFault::NoIdentity`] where the identity is
    /// gone, [`ProductFault::RefreshBusy`], the tracker's fault or Microsoft Entra's.
    pub async fn sign_in(&self, identity_id: i64) -> Result<SignedIn, StageFault> {
        self.good_token(identity_id, "sign_in").await.map(SignedIn)
    }

    /// As [`Services::sign_in`], refreshed already if it ends within five minutes. While it is good, it does not matter whether
    /// that succeeds, and nobody waits for another's refresh. `stage`: whose crash points are passed.
    ///
    /// # Errors
    /// As [`Services::sign_in`].
    pub async fn sign_in_ahead(&self, identity_id: i64, stage: &'static str) -> Result<SignedIn, StageFault> {
        let token = self.token(identity_id).await?;
        if token.ends_in <= MARGIN {
            return self.good_token(identity_id, stage).await.map(SignedIn);
        }
        if token.ends_in > AHEAD || !self.providers.entra.has_client() {
            return Ok(SignedIn(token));
        }
        match self.renew_in_turn(&token, stage).await {
            Ok(None) => Ok(SignedIn(token)),
            Ok(Some(renewed)) => Ok(SignedIn(renewed)),
            Err(fault) if fault.class() != Class::Infrastructure => {
                tracing::warn!(identity.id = identity_id, error = fault.message(), "a token that ends soon is not refreshed");
                Ok(SignedIn(token))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Another token than the one that was seen, where it is this one's turn to have it refreshed.
    async fn renew_in_turn(&self, seen: &AccessToken, stage: &'static str) -> Result<Option<AccessToken>, StageFault> {
        self.providers.governor.look(&self.providers.entra.scope(&seen.organization)).await?;
        let deadline = self.call_deadline();
        match self.turn(seen, Occasion::Ended).await? {
            RefreshTurn::Yours(turn) => self.refresh(seen, Occasion::Ended, turn, deadline, stage).await.map(Some),
            RefreshTurn::Moved => self.token(seen.identity_id).await.map(Some),
            RefreshTurn::Taken | RefreshTurn::NoRefreshToken | RefreshTurn::Refused | RefreshTurn::RefusedAgain => Ok(None),
        }
    }

    /// Who the identity's token belongs to, as Azure DevOps says; a token that it does not take is refreshed once, even before
    /// its end.
    ///
    /// # Errors
    /// As [`Services::sign_in`]; [`ProductFault::Reauthentication`] where the new token is refused as well, or Azure DevOps'
    /// own fault.
    pub async fn profile(&self, identity_id: i64, stage: &'static str) -> Result<Profile, StageFault> {
        let signed_in = SignedIn(self.good_token(identity_id, stage).await?);
        let azure_devops = &self.providers.azure_devops;
        match azure_devops.profile_me(signed_in.token()).await {
            Err(AzureDevOpsFault::Unauthorized) => {
                let renewed = SignedIn(self.renew(&signed_in.0, Occasion::Refused, stage).await?);
                renewed.judge(azure_devops.profile_me(renewed.token()).await)
            }
            answer => signed_in.judge(answer),
        }
    }

    async fn token(&self, identity_id: i64) -> Result<AccessToken, StageFault> {
        let token = self.tracker.access_token(identity_id).await?;
        Ok(token.ok_or_else(|| ProductFault::NoIdentity(format!("identity {identity_id} is gone")))?)
    }

    async fn good_token(&self, identity_id: i64, stage: &'static str) -> Result<AccessToken, StageFault> {
        let mut token = self.token(identity_id).await?;
        for _ in 0..ROUNDS {
            if token.ends_in > MARGIN {
                break;
            }
            token = self.renew(&token, Occasion::Ended, stage).await?;
        }
        Ok(token)
    }

    /// Another token than the one that was seen: refreshed here, or by somebody else meanwhile.
    async fn renew(&self, seen: &AccessToken, occasion: Occasion, stage: &'static str) -> Result<AccessToken, StageFault> {
        if !self.providers.entra.has_client() {
            return Err(reauthentication(seen, occasion, "no client of Microsoft Entra is set").into());
        }
        // A turn that was taken before is over by then, and was asked for once more.
        let give_up = Instant::now() + self.longest_turn() + 2 * PACE.1;
        let mut pace = PACE.0;
        let scope = self.providers.entra.scope(&seen.organization);
        loop {
            // Asked before the turn, which nobody keeps while Microsoft Entra is to be left alone.
            self.providers.governor.look(&scope).await?;
            // Set before the turn is asked for, and looked at before the first byte is sent: a process that was frozen in
            // between does not send in somebody else's turn.
            let deadline = self.call_deadline();
            match self.turn(seen, occasion).await? {
                RefreshTurn::Yours(turn) => return self.refresh(seen, occasion, turn, deadline, stage).await,
                RefreshTurn::Moved => return self.token(seen.identity_id).await,
                RefreshTurn::NoRefreshToken => return Err(reauthentication(seen, occasion, "there is no refresh token").into()),
                RefreshTurn::Refused => {
                    return Err(reauthentication(seen, occasion, "its refresh token was refused a moment ago").into());
                }
                RefreshTurn::RefusedAgain => {
                    return Err(reauthentication(seen, occasion, "it was refreshed for that already, within the hour").into());
                }
                RefreshTurn::Taken if Instant::now() + pace > give_up => {
                    return Err(ProductFault::RefreshBusy(seen.identity_id).into());
                }
                RefreshTurn::Taken => sleep(pace).await,
            }
            pace = (pace * 2).min(PACE.1);
        }
    }

    async fn turn(&self, seen: &AccessToken, occasion: Occasion) -> Result<RefreshTurn, TrackerFault> {
        let after_refusal = occasion == Occasion::Refused;
        self.tracker.take_refresh_turn(seen.identity_id, seen.version, self.longest_turn(), after_refusal).await
    }

    fn call_deadline(&self) -> Instant {
        Instant::now() + self.providers.call_timeout.min(CALL_TIMEOUT)
    }

    /// The call, and time to save what it brings.
    fn longest_turn(&self) -> Duration {
        self.providers.call_timeout.min(CALL_TIMEOUT) + SAVING
    }

    async fn refresh(
        &self,
        seen: &AccessToken,
        occasion: Occasion,
        turn: Turn,
        deadline: Instant,
        stage: &'static str,
    ) -> Result<AccessToken, StageFault> {
        let entra = &self.providers.entra;
        let scope = entra.scope(&seen.organization);
        let answer = self.providers.governor.call(&scope, entra.refresh(&turn.refresh_token, deadline)).await;
        let (refused, fault): (bool, StageFault) = match answer {
            Ok(Ok(tokens)) => return self.use_refreshed(seen, occasion, tokens, stage).await,
            Ok(Err(EntraFault::Refused(why))) => (true, reauthentication(seen, occasion, &why).into()),
            Ok(Err(other)) => (false, other.into()),
            Err(not_called) => (false, not_called.into()),
        };
        if let Err(error) = self.tracker.end_refresh_turn(seen.identity_id, &turn, refused).await {
            tracing::warn!(error = crate::fault::chain(&error), "a refresh turn ends by itself");
        }
        Err(fault)
    }

    async fn use_refreshed(
        &self,
        seen: &AccessToken,
        occasion: Occasion,
        tokens: Tokens,
        stage: &'static str,
    ) -> Result<AccessToken, StageFault> {
        reach(stage, "after_refresh_answer");
        self.save(seen, occasion, tokens).await?;
        reach(stage, "after_refresh_saved");
        tracing::info!(identity.id = seen.identity_id, "its tokens are refreshed");
        // Whatever is stored now is used: a person may have been first.
        self.token(seen.identity_id).await
    }

    /// In a task of its own: tokens cannot be had again, so they are saved even where the job is let go meanwhile.
    async fn save(&self, seen: &AccessToken, occasion: Occasion, tokens: Tokens) -> Result<(), StageFault> {
        let Tokens { access_token, refresh_token, expires_in } = tokens;
        let tokens = NewTokens { access_token, refresh_token, expires_in, after_refusal: occasion == Occasion::Refused };
        let (tracker, identity_id, version) = (self.tracker.clone(), seen.identity_id, seen.version);
        let give_up = Instant::now() + SAVING;
        let (tell, told) = oneshot::channel();
        let saving = async move {
            let saved = loop {
                match tracker.save_tokens(identity_id, version, &tokens).await {
                    // Saved, or overtaken by who saved others.
                    Ok(_) => break Ok(()),
                    Err(fault) if fault.class() == Class::Infrastructure && Instant::now() < give_up => sleep(PACE.1).await,
                    Err(fault) => break Err(fault.into()),
                }
            };
            // Where nobody listens any more, they are saved all the same.
            drop(tell.send(saved));
        };
        (self.spawn)("token save", Box::pin(saving.in_current_span()));
        told.await.expect("it tells unless it panics")
    }
}

impl SignedIn {
    /// For a call of a job in the lane of requests.
    #[must_use]
    pub fn token(&self) -> Caller<'_> {
        self.token_from(CallLane::Dispatch)
    }

    /// For a call of a job in this lane.
    #[must_use]
    pub fn token_from(&self, lane: CallLane) -> Caller<'_> {
        Caller { organization: &self.0.organization, token: &self.0.token, lane }
    }

    /// End of the token's life.
    #[must_use]
    pub const fn expires_at(&self) -> OffsetDateTime {
        self.0.expires_at
    }

    /// What a call made with this token has brought; a refused token makes the job wait for a new one.
    ///
    /// # Errors
    /// The call's own, or [`ProductFault::Reauthentication`].
    pub fn judge<T>(&self, answer: Result<T, AzureDevOpsFault>) -> Result<T, StageFault> {
        answer.map_err(|fault| match fault {
            AzureDevOpsFault::Unauthorized => ProductFault::Reauthentication {
                identity_id: self.0.identity_id,
                version: self.0.version,
                why: REFUSED.to_owned(),
            }
            .into(),
            other => other.into(),
        })
    }
}

const REFUSED: &str = "Azure DevOps does not accept its token";

/// Why a person is needed: what is wrong with the access token, and why it is not refreshed.
fn reauthentication(seen: &AccessToken, occasion: Occasion, why_not: &str) -> ProductFault {
    let what = match occasion {
        Occasion::Ended => "its token has ended",
        Occasion::Refused => REFUSED,
    };
    ProductFault::Reauthentication {
        identity_id: seen.identity_id,
        version: seen.version,
        why: format!("{what}, and is not refreshed: {why_not}"),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use time::macros::datetime;

    use super::*;

    fn signed_in() -> SignedIn {
        let token = SecretString::from("canary".to_owned());
        let expires_at = datetime!(2026-01-02 03:04:05 UTC);
        SignedIn(AccessToken { identity_id: 7, organization: "acme".to_owned(), token, expires_at, ends_in: MARGIN, version: 4 })
    }

    #[test]
    fn a_refused_token_waits_for_a_newer_one_than_was_seen() {
        let fault = signed_in().judge::<()>(Err(AzureDevOpsFault::Unauthorized)).unwrap_err();
        let Class::Wait(on) = fault.class() else { panic!("{}", fault.message()) };
        assert_eq!((on.reason.word(), on.key.as_str(), on.observed), ("reauthentication", "identity:7", 4));
        let other = signed_in().judge::<()>(Err(AzureDevOpsFault::RevisionMoved)).unwrap_err();
        assert_eq!(other.class(), Class::Conflict);
    }

    #[test]
    fn a_person_reads_what_is_wrong_and_why_it_does_not_mend_itself() {
        let fault = reauthentication(&signed_in().0, Occasion::Ended, "there is no refresh token");
        let told = "identity 7 must sign in again: its token has ended, and is not refreshed: there is no refresh token";
        assert_eq!(fault.to_string(), told);
        assert!(fault.hint().contains("dispatch identities set-tokens"), "{}", fault.hint());
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", signed_in()).contains("canary"));
    }
}
