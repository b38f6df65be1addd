//! Signing in as an identity: its access token, refreshed at Microsoft Entra where it must be.
//!
//! One refreshes at a time among all replicas, by a turn on the identity's row; the others wait for the new version.
//! **Invariant:** refreshed tokens are saved before they are used, and only in place of those they were refreshed from.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::{ProductFault, Services};
use crate::crash_point::reach;
use crate::fault::{Class, Fault, StageFault};
use crate::providers::entra::{EntraFault, Tokens};
use crate::tracker::{AccessToken, NewTokens, RefreshTurn, TrackerFault, Turn};

/// A token this close to its end may end on the way.
pub(super) const MARGIN: time::Duration = time::Duration::seconds(30);
/// A job begins with a token that lives at least this long, where one can be had.
const AHEAD: time::Duration = time::Duration::minutes(5);
/// The longest refresh, whatever the setting for calls says, so that a stage's own limit leaves room to wait for another's.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long tokens in hand are tried to be saved while Postgres is ill: they cannot be had again.
const SAVING: Duration = Duration::from_secs(5);
/// How often a turn is asked for: at first, and later.
const PACE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// A token that is refused is refreshed once in this time: if the new one is refused as well, its age is not what is wrong, and jobs
/// that wait would release each other for ever.
const AFTER_REFUSAL: Duration = Duration::from_secs(3600);
/// The same of one that is known not to be valid.
const AFTER_PROOF: Duration = Duration::from_secs(600);
/// Tokens may have changed, to others that have ended too, while their turn was waited for.
const ROUNDS: usize = 2;

/// Why tokens are to be refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The access token has ended, or is about to.
    Ended,
    /// Azure DevOps does not take the access token: it, or its owner.
    Refused,
    /// Azure DevOps does not show the token's owner their own profile: it is the token.
    NotValid,
}

/// What came of asking for another token.
#[derive(Debug)]
pub(super) enum Renewal {
    /// It is here: refreshed now, or by somebody else meanwhile.
    Renewed(AccessToken),
    /// There is none to be had without a person, and why.
    Impossible(String),
}

impl Services {
    /// The end of the identity's token, refreshed already if it ends within five minutes. While it is good, it does not matter
    /// whether that succeeds, and nobody waits for another's refresh. `stage`: whose crash points are passed.
    ///
    /// # Errors
    /// [`ProductFault::Reauthentication`] where it cannot be refreshed, [`ProductFault::NoIdentity`] where the identity is
    /// gone, [`ProductFault::RefreshBusy`], the tracker's fault or Microsoft Entra's.
    pub async fn sign_in_ahead(&self, identity_id: i64, stage: &'static str) -> Result<OffsetDateTime, StageFault> {
        let token = self.token(identity_id).await?;
        if token.ends_in <= MARGIN {
            return Ok(self.good_token(identity_id, stage).await?.expires_at);
        }
        if token.ends_in > AHEAD || !self.providers.entra.has_client() {
            return Ok(token.expires_at);
        }
        match self.renew_in_turn(&token, stage).await {
            Ok(renewed) => Ok(renewed.unwrap_or(token).expires_at),
            Err(fault) if fault.class() != Class::Infrastructure => {
                tracing::warn!(identity.id = identity_id, error = fault.message(), "a token that ends soon is not refreshed");
                Ok(token.expires_at)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Another token than the one that was seen, where it is this one's turn to have it refreshed.
    async fn renew_in_turn(&self, seen: &AccessToken, stage: &'static str) -> Result<Option<AccessToken>, StageFault> {
        self.providers.governor.look(&self.providers.entra.scope(&seen.organization)).await?;
        let deadline = self.call_deadline();
        match self.turn(seen, Occasion::Ended).await? {
            RefreshTurn::Yours(turn) => match self.refresh(seen, Occasion::Ended, turn, deadline, stage).await? {
                Renewal::Renewed(token) => Ok(Some(token)),
                Renewal::Impossible(why_not) => Err(reauthentication(seen, "its token ends soon", &why_not).into()),
            },
            RefreshTurn::Moved => self.token(seen.identity_id).await.map(Some),
            RefreshTurn::Taken | RefreshTurn::NoRefreshToken | RefreshTurn::Refused(_) | RefreshTurn::RefusedAgain => Ok(None),
        }
    }

    async fn token(&self, identity_id: i64) -> Result<AccessToken, StageFault> {
        let token = self.tracker.access_token(identity_id).await?;
        Ok(token.ok_or_else(|| ProductFault::NoIdentity(format!("identity {identity_id} is gone")))?)
    }

    /// The identity's token, good for half a minute at least; refreshed first if it is not.
    ///
    /// # Errors
    /// As [`Services::sign_in_ahead`].
    pub(super) async fn good_token(&self, identity_id: i64, stage: &'static str) -> Result<AccessToken, StageFault> {
        let mut token = self.token(identity_id).await?;
        for _ in 0..ROUNDS {
            if token.ends_in > MARGIN {
                break;
            }
            token = match self.renew(&token, Occasion::Ended, stage).await? {
                Renewal::Renewed(renewed) => renewed,
                Renewal::Impossible(why_not) => return Err(reauthentication(&token, ENDED, &why_not).into()),
            };
        }
        Ok(token)
    }

    /// Another token than the one that was seen: refreshed here, or by somebody else meanwhile.
    ///
    /// # Errors
    /// [`ProductFault::RefreshBusy`], the tracker's fault or Microsoft Entra's, but for a refusal.
    pub(super) async fn renew(&self, seen: &AccessToken, occasion: Occasion, stage: &'static str) -> Result<Renewal, StageFault> {
        let impossible = |why_not: &str| Ok(Renewal::Impossible(why_not.to_owned()));
        if !self.providers.entra.has_client() {
            return impossible("no client of Microsoft Entra is set");
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
                RefreshTurn::Moved => return self.token(seen.identity_id).await.map(Renewal::Renewed),
                RefreshTurn::NoRefreshToken => return impossible("there is no refresh token"),
                RefreshTurn::Refused(said) => {
                    let said = said.as_deref().unwrap_or("its refresh token was refused");
                    return impossible(&format!("{said} (a moment ago; it is not asked again at once)"));
                }
                RefreshTurn::RefusedAgain => return impossible("it was refreshed for that already, a short time ago"),
                RefreshTurn::Taken if Instant::now() + pace > give_up => {
                    return Err(ProductFault::RefreshBusy(seen.identity_id).into());
                }
                RefreshTurn::Taken => sleep(pace).await,
            }
            pace = (pace * 2).min(PACE.1);
        }
    }

    async fn turn(&self, seen: &AccessToken, occasion: Occasion) -> Result<RefreshTurn, TrackerFault> {
        let refreshed_before = match occasion {
            Occasion::Ended => None,
            Occasion::Refused => Some(AFTER_REFUSAL),
            Occasion::NotValid => Some(AFTER_PROOF),
        };
        self.tracker.take_refresh_turn(seen.identity_id, seen.version, self.longest_turn(), refreshed_before).await
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
    ) -> Result<Renewal, StageFault> {
        let entra = &self.providers.entra;
        let scope = entra.scope(&seen.organization);
        let answer = self.providers.governor.call(&scope, entra.refresh(&turn.refresh_token, deadline)).await;
        let (refused, came_to) = match answer {
            Ok(Ok(tokens)) => return self.use_refreshed(seen, occasion, tokens, stage).await.map(Renewal::Renewed),
            Ok(Err(EntraFault::Refused(why))) => {
                let why = format!("Microsoft Entra refused: {why}");
                (Some(why.clone()), Ok(Renewal::Impossible(why)))
            }
            Ok(Err(other)) => (None, Err(other.into())),
            Err(not_called) => (None, Err(not_called.into())),
        };
        if let Err(error) = self.tracker.end_refresh_turn(seen.identity_id, &turn, refused.as_deref()).await {
            tracing::warn!(error = crate::fault::chain(&error), "a refresh turn ends by itself");
        }
        came_to
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
        let tokens = NewTokens { access_token, refresh_token, expires_in, after_refusal: occasion != Occasion::Ended };
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

/// What is wrong with an access token whose life is over.
const ENDED: &str = "its token has ended";

/// Why a person is needed: what is wrong with the access token, and why it is not refreshed.
pub(super) fn reauthentication(seen: &AccessToken, what: &str, why_not: &str) -> ProductFault {
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

    fn token() -> AccessToken {
        let token = SecretString::from("canary".to_owned());
        let expires_at = datetime!(2026-01-02 03:04:05 UTC);
        AccessToken { identity_id: 7, organization: "acme".to_owned(), token, expires_at, ends_in: MARGIN, version: 4 }
    }

    #[test]
    fn a_refused_token_waits_for_a_newer_one_than_was_seen() {
        let Class::Wait(on) = reauthentication(&token(), ENDED, "x").class() else { panic!("it waits for a person") };
        assert_eq!((on.reason.word(), on.key.as_str(), on.observed), ("reauthentication", "identity:7", 4));
    }

    #[test]
    fn a_person_reads_what_is_wrong_and_why_it_is_not_refreshed() {
        let fault = reauthentication(&token(), ENDED, "there is no refresh token");
        let expected = "identity 7 must sign in again: its token has ended, and is not refreshed: there is no refresh token";
        assert_eq!(fault.to_string(), expected);
        assert!(fault.hint().contains("dispatch identities set-tokens"), "{}", fault.hint());
    }
}
