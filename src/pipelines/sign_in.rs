//! Signing in as an identity: provides its access token and refreshes it at Microsoft Entra when
//! necessary.
//!
//! Among all replicas, one refresh per identity runs at a time: it holds a turn on the identity's
//! row. The others wait for the new version.
//! **Invariant:** refreshed tokens are saved before they are used, and replace only the tokens
//! they were refreshed from.

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

/// A token that expires within this time may expire before a call reaches Azure DevOps.
pub(super) const MARGIN: time::Duration = time::Duration::seconds(30);
/// A job begins with a token that is valid for at least this long, if one is available.
const AHEAD: time::Duration = time::Duration::minutes(5);
/// The upper limit of a refresh call, regardless of the setting for calls, so that a stage's own
/// timeout leaves room to wait for another refresh.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long saving new tokens is retried while Postgres is unavailable: Entra does not issue the
/// same tokens again.
const SAVING: Duration = Duration::from_secs(5);
/// The first and the longest interval between two requests for a turn.
const PACE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// A refused token is refreshed at most once in this time: if the new one is refused as well, its
/// age is not the cause, and waiting jobs would release each other forever.
const AFTER_REFUSAL: Duration = Duration::from_secs(3600);
/// The same for a token that is known to be invalid.
const AFTER_PROOF: Duration = Duration::from_secs(600);
/// While this waits for its turn, the tokens may be replaced by others that have expired too.
const ROUNDS: usize = 2;

/// Why tokens are refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// The access token has expired or is about to expire.
    Ended,
    /// Azure DevOps refuses the access token or its owner; the answer does not tell which.
    Refused,
    /// Azure DevOps refuses even the profile of the token's owner, so the token is invalid.
    NotValid,
}

/// The result of a request for another token.
#[derive(Debug)]
pub(super) enum Renewal {
    /// The new token, refreshed by this call or by another one meanwhile.
    Renewed(AccessToken),
    /// The reason why no new token is available without a person.
    Impossible(String),
}

impl Services {
    /// Returns the expiry of the identity's token; refreshes the token first if it expires within
    /// five minutes. While the token is valid, a refresh may fail, and this does not wait for
    /// another refresh. `stage` names the stage whose crash points are passed.
    ///
    /// # Errors
    /// [`ProductFault::Reauthentication`] if the token cannot be refreshed,
    /// [`ProductFault::NoIdentity`] if the identity does not exist, [`ProductFault::RefreshBusy`],
    /// or a fault of the tracker or of Microsoft Entra.
    pub async fn sign_in_ahead(
        &self,
        identity_id: i64,
        stage: &'static str,
    ) -> Result<OffsetDateTime, StageFault> {
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
                tracing::warn!(
                    identity.id = identity_id,
                    error = fault.message(),
                    "refreshing a token that expires soon failed; the job uses the token that it has"
                );
                Ok(token.expires_at)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Replaces the token that was seen, if this call gets the turn to refresh it or finds that
    /// another one has done so.
    async fn renew_in_turn(
        &self,
        seen: &AccessToken,
        stage: &'static str,
    ) -> Result<Option<AccessToken>, StageFault> {
        self.providers
            .governor
            .look(&self.providers.entra.scope(&seen.organization))
            .await?;
        let deadline = self.call_deadline();
        match self.turn(seen, Occasion::Ended).await? {
            RefreshTurn::Yours(turn) => match self
                .refresh(seen, Occasion::Ended, turn, deadline, stage)
                .await?
            {
                Renewal::Renewed(token) => Ok(Some(token)),
                Renewal::Impossible(why_not) => {
                    Err(reauthentication(seen, "its token expires soon", &why_not).into())
                }
            },
            RefreshTurn::Moved => self.token(seen.identity_id).await.map(Some),
            RefreshTurn::Taken
            | RefreshTurn::NoRefreshToken
            | RefreshTurn::Refused(_)
            | RefreshTurn::RefusedAgain => Ok(None),
        }
    }

    async fn token(&self, identity_id: i64) -> Result<AccessToken, StageFault> {
        let token = self.sealed.access_token(identity_id).await?;
        Ok(token
            .ok_or_else(|| ProductFault::NoIdentity(format!("identity {identity_id} is gone")))?)
    }

    /// Returns the identity's token, valid for at least half a minute; refreshes it first if it is
    /// not.
    ///
    /// # Errors
    /// The same as [`Services::sign_in_ahead`].
    pub(super) async fn good_token(
        &self,
        identity_id: i64,
        stage: &'static str,
    ) -> Result<AccessToken, StageFault> {
        let mut token = self.token(identity_id).await?;
        for _ in 0..ROUNDS {
            if token.ends_in > MARGIN {
                break;
            }
            token = match self.renew(&token, Occasion::Ended, stage).await? {
                Renewal::Renewed(renewed) => renewed,
                Renewal::Impossible(why_not) => {
                    return Err(reauthentication(&token, ENDED, &why_not).into());
                }
            };
        }
        Ok(token)
    }

    /// Replaces the token that was seen: this call refreshes it, or another one has done so
    /// meanwhile.
    ///
    /// # Errors
    /// [`ProductFault::RefreshBusy`], or a fault of the tracker or of Microsoft Entra, except a
    /// refusal.
    pub(super) async fn renew(
        &self,
        seen: &AccessToken,
        occasion: Occasion,
        stage: &'static str,
    ) -> Result<Renewal, StageFault> {
        let impossible = |why_not: &str| Ok(Renewal::Impossible(why_not.to_owned()));
        if !self.providers.entra.has_client() {
            return impossible("no client of Microsoft Entra is configured");
        }
        // By then, a turn taken before this call has expired and has been requested once more.
        let give_up = Instant::now() + self.longest_turn() + 2 * PACE.1;
        let mut pace = PACE.0;
        let scope = self.providers.entra.scope(&seen.organization);
        loop {
            // Checked before the turn is taken, so that no process holds a turn while calls to
            // Microsoft Entra are held.
            self.providers.governor.look(&scope).await?;
            // Set before the turn is requested, and checked before the first byte is sent: a
            // process that was frozen in between does not send during another's turn.
            let deadline = self.call_deadline();
            match self.turn(seen, occasion).await? {
                RefreshTurn::Yours(turn) => {
                    return self.refresh(seen, occasion, turn, deadline, stage).await;
                }
                RefreshTurn::Moved => {
                    return self.token(seen.identity_id).await.map(Renewal::Renewed);
                }
                RefreshTurn::NoRefreshToken => return impossible("there is no refresh token"),
                RefreshTurn::Refused(reason) => {
                    let reason = reason.as_deref().unwrap_or("its refresh token was refused");
                    return impossible(&format!(
                        "{reason} (a moment ago; the refresh is not repeated at once)"
                    ));
                }
                RefreshTurn::RefusedAgain => {
                    return impossible("it was already refreshed for that reason a short time ago");
                }
                RefreshTurn::Taken if Instant::now() + pace > give_up => {
                    return Err(ProductFault::RefreshBusy(seen.identity_id).into());
                }
                RefreshTurn::Taken => sleep(pace).await,
            }
            pace = (pace * 2).min(PACE.1);
        }
    }

    async fn turn(
        &self,
        seen: &AccessToken,
        occasion: Occasion,
    ) -> Result<RefreshTurn, TrackerFault> {
        let refreshed_before = match occasion {
            Occasion::Ended => None,
            Occasion::Refused => Some(AFTER_REFUSAL),
            Occasion::NotValid => Some(AFTER_PROOF),
        };
        self.sealed
            .take_refresh_turn(
                seen.identity_id,
                seen.version,
                self.longest_turn(),
                refreshed_before,
            )
            .await
    }

    fn call_deadline(&self) -> Instant {
        Instant::now() + self.providers.call_timeout.min(CALL_TIMEOUT)
    }

    /// Returns the time for the call and for saving the tokens that it returns.
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
        let answer = self
            .providers
            .governor
            .call(&scope, entra.refresh(&turn.refresh_token, deadline))
            .await;
        let (refused, came_to) = match answer {
            Ok(Ok(tokens)) => {
                return self
                    .use_refreshed(seen, occasion, tokens, stage)
                    .await
                    .map(Renewal::Renewed);
            }
            Ok(Err(EntraFault::Refused(why))) => {
                let why = format!("Microsoft Entra refused: {why}");
                (Some(why.clone()), Ok(Renewal::Impossible(why)))
            }
            Ok(Err(other)) => (None, Err(other.into())),
            Err(not_called) => (None, Err(not_called.into())),
        };
        if let Err(error) = self
            .tracker
            .end_refresh_turn(seen.identity_id, &turn, refused.as_deref())
            .await
        {
            tracing::warn!(
                error = crate::fault::chain(&error),
                "ending a refresh turn failed; the turn expires by itself"
            );
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
        tracing::info!(
            identity.id = seen.identity_id,
            "the tokens of an identity were refreshed"
        );
        // The stored tokens are used: a person may have stored others first.
        self.token(seen.identity_id).await
    }

    /// Saves the tokens in a spawned task: Entra does not issue them again, so they are saved even
    /// if the job is released meanwhile.
    async fn save(
        &self,
        seen: &AccessToken,
        occasion: Occasion,
        tokens: Tokens,
    ) -> Result<(), StageFault> {
        let Tokens {
            access_token,
            refresh_token,
            expires_in,
        } = tokens;
        let tokens = NewTokens {
            access_token,
            refresh_token,
            expires_in,
            after_refusal: occasion != Occasion::Ended,
        };
        let (sealed, identity_id, version) = (self.sealed.clone(), seen.identity_id, seen.version);
        let give_up = Instant::now() + SAVING;
        let (sender, saved_result) = oneshot::channel();
        let saving = async move {
            let saved = loop {
                match sealed.save_tokens(identity_id, version, &tokens).await {
                    // Saved, or other tokens were saved first.
                    Ok(_) => break Ok(()),
                    Err(fault)
                        if fault.class() == Class::Infrastructure && Instant::now() < give_up =>
                    {
                        sleep(PACE.1).await
                    }
                    Err(fault) => break Err(fault.into()),
                }
            };
            // The receiver may be gone; the tokens are saved anyway.
            drop(sender.send(saved));
        };
        (self.spawn)("token save", Box::pin(saving.in_current_span()));
        saved_result
            .await
            .expect("the save task sends its result unless it panics")
    }
}

/// The description of an expired access token.
const ENDED: &str = "its token has expired";

/// Makes the fault for an identity that needs a person: `what` is wrong with the access token,
/// `why_not` it is not refreshed.
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
        AccessToken {
            identity_id: 7,
            organization: "acme".to_owned(),
            token,
            expires_at,
            ends_in: MARGIN,
            version: 4,
        }
    }

    #[test]
    fn a_refused_token_waits_for_a_newer_one_than_was_seen() {
        let Class::Wait(on) = reauthentication(&token(), ENDED, "x").class() else {
            panic!("it waits for a person")
        };
        assert_eq!(
            (on.reason.word(), on.key.as_str(), on.observed),
            ("reauthentication", "identity:7", 4)
        );
    }

    #[test]
    fn a_person_reads_what_is_wrong_and_why_it_is_not_refreshed() {
        let fault = reauthentication(&token(), ENDED, "there is no refresh token");
        let expected = "identity 7 must sign in again: its token has expired, and is not refreshed: there is no refresh token";
        assert_eq!(fault.to_string(), expected);
        assert!(
            fault.hint().contains("dispatch identities set-tokens"),
            "{}",
            fault.hint()
        );
    }
}
