//! What stages reach the outside with.

use std::fmt;

use time::{Duration, OffsetDateTime};

use super::ProductFault;
use crate::fault::StageFault;
use crate::providers::Providers;
use crate::providers::azure_devops::{AzureDevOpsFault, Caller};
use crate::tracker::{AccessToken, Tracker};

/// What stages reach the outside with.
pub struct Services {
    /// Our own tables.
    pub tracker: Tracker,
    /// Azure DevOps and the channels of messages.
    pub providers: Providers,
}

/// An identity's access token, fetched for one run of one stage. It is never part of a checkpoint.
pub struct SignedIn(AccessToken);

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("identity_id", &self.0.identity_id).finish_non_exhaustive()
    }
}

impl Services {
    /// The identity's token, if it can still be used.
    ///
    /// # Errors
    /// [`ProductFault::Reauthentication`] where it has ended, [`ProductFault::NoIdentity`] where the identity is gone, or the
    /// tracker's fault.
    pub async fn sign_in(&self, identity_id: i64) -> Result<SignedIn, StageFault> {
        let token = self.tracker.access_token(identity_id).await?;
        let token = token.ok_or_else(|| ProductFault::NoIdentity(format!("identity {identity_id} is gone")))?;
        usable(identity_id, token.version, token.expires_at, OffsetDateTime::now_utc())?;
        Ok(SignedIn(token))
    }
}

impl SignedIn {
    /// For the call.
    #[must_use]
    pub fn token(&self) -> Caller<'_> {
        Caller { organization: &self.0.organization, token: &self.0.token }
    }

    /// What a call made with this token has brought; a refused token makes the job wait for a new one.
    ///
    /// # Errors
    /// The call's own, or [`ProductFault::Reauthentication`].
    pub fn judge<T>(&self, answer: Result<T, AzureDevOpsFault>) -> Result<T, StageFault> {
        answer.map_err(|fault| match fault {
            AzureDevOpsFault::Unauthorized => {
                reauthentication(self.0.identity_id, self.0.version, "Azure DevOps does not accept its token").into()
            }
            other => other.into(),
        })
    }
}

/// A token this close to its end may end on the way.
const MARGIN: Duration = Duration::seconds(30);

/// Whether a token can still be used at `now`.
pub(super) fn usable(
    identity_id: i64,
    version: i64,
    expires_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), ProductFault> {
    // `now + MARGIN` would overflow at the end of time; the difference does not.
    if expires_at - now > MARGIN { Ok(()) } else { Err(reauthentication(identity_id, version, "its token has ended")) }
}

const fn reauthentication(identity_id: i64, version: i64, why: &'static str) -> ProductFault {
    ProductFault::Reauthentication { identity_id, version, why }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use time::macros::datetime;

    use super::*;
    use crate::fault::Class;

    const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

    fn signed_in() -> SignedIn {
        let token = SecretString::from("canary".to_owned());
        SignedIn(AccessToken { identity_id: 7, organization: "acme".to_owned(), token, expires_at: NOW, version: 4 })
    }

    #[test]
    fn a_token_is_usable_until_half_a_minute_before_its_end() {
        assert!(usable(7, 4, NOW + Duration::seconds(31), NOW).is_ok());
        assert!(usable(7, 4, NOW + Duration::seconds(30), NOW).is_err());
        assert!(usable(7, 4, NOW - Duration::days(1), NOW).is_err());
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
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", signed_in()).contains("canary"));
    }
}
