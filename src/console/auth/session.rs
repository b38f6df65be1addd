//! The session of a browser: a cookie that only the keyring can make and read, so that any console
//! with the keyring accepts it and none stores it.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use time::{Duration, OffsetDateTime};

use crate::secrets::{Keyring, Place};

/// The cookie over plain HTTP on this machine.
const COOKIE: &str = "dispatch_session";
/// The cookie over https; the prefix makes browsers refuse one that another host has set.
const SECURE_COOKIE: &str = "__Host-dispatch_session";
/// The longest session.
const LONGEST: Duration = Duration::hours(12);
/// The longest time without a request.
const IDLE: Duration = Duration::hours(1);
/// How old the time of the last request may be before the cookie is renewed.
const RENEW: Duration = Duration::minutes(5);

const PLACE: Place<'static> = Place {
    table: "console",
    column: "session",
    row: "cookie",
};

/// What the cookie contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::console) struct Session {
    /// The number of the token that the person signed in with; the session ends with it.
    pub(in crate::console) token: i64,
    /// When the person signed in, in seconds since 1970.
    begun: i64,
    /// The last request, to about five minutes.
    seen: i64,
    /// The token that forms of this session contain.
    pub(in crate::console) form: String,
    /// Whether a proxy has signed the person in. No cookie says so.
    #[serde(skip)]
    pub(in crate::console) is_of_proxy: bool,
}

impl Session {
    /// Begins a session.
    pub(in crate::console) fn begin(token: i64, now: OffsetDateTime) -> Self {
        Self {
            token,
            begun: now.unix_timestamp(),
            seen: now.unix_timestamp(),
            form: data_encoding::BASE64URL_NOPAD.encode(&rand::random::<[u8; 16]>()),
            is_of_proxy: false,
        }
    }

    /// Returns the session of a person whom a proxy has signed in, for one request.
    pub(super) fn through_proxy(token: i64, form: String, now: OffsetDateTime) -> Self {
        Self {
            form,
            is_of_proxy: true,
            ..Self::begin(token, now)
        }
    }

    /// Opens a cookie's value, unless its session is over.
    pub(in crate::console) fn open(keyring: &Keyring, value: &str) -> Option<Self> {
        let text = keyring.open(PLACE, value).ok()?;
        let session: Self = serde_json::from_slice(&text).ok()?;
        session
            .is_valid(OffsetDateTime::now_utc())
            .then_some(session)
    }

    fn is_valid(&self, now: OffsetDateTime) -> bool {
        let age = |since: i64| now.unix_timestamp() - since;
        age(self.begun) < LONGEST.whole_seconds() && age(self.seen) < IDLE.whole_seconds()
    }

    /// Returns the session with the time of this request, if the cookie is to be renewed.
    pub(in crate::console) fn renewed(&self, now: OffsetDateTime) -> Option<Self> {
        let is_old = now.unix_timestamp() - self.seen >= RENEW.whole_seconds();
        is_old.then(|| Self {
            seen: now.unix_timestamp(),
            ..self.clone()
        })
    }

    /// Returns whether a form has the token of this session.
    pub(in crate::console) fn has_form_token(&self, token: &str) -> bool {
        self.form.as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// Returns the header that sets the cookie.
    pub(in crate::console) fn cookie(&self, keyring: &Keyring, is_secure: bool) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let value = keyring.seal(PLACE, &text);
        header(is_secure, &value, LONGEST.whole_seconds())
    }
}

/// Returns the header that removes the cookie.
pub(super) fn no_cookie(is_secure: bool) -> String {
    header(is_secure, "", 0)
}

/// Returns the name of the cookie.
pub(super) const fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { SECURE_COOKIE } else { COOKIE }
}

/// `SameSite=Lax` sends the cookie when a link in a chat or a pager is followed; `Strict` would
/// show the sign-in page instead.
fn header(is_secure: bool, value: &str, seconds: i64) -> String {
    let (name, secure) = (
        cookie_name(is_secure),
        if is_secure { "; Secure" } else { "" },
    );
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::parse(&Keyring::fresh_setting()).unwrap()
    }

    #[test]
    fn a_cookie_is_read_only_with_its_keyring_and_ends() {
        let (keyring, now) = (keyring(), OffsetDateTime::now_utc());
        let session = Session::begin(7, now);
        let cookie = session.cookie(&keyring, false);
        let value = cookie.strip_prefix("dispatch_session=").unwrap();
        let value = value.split(';').next().unwrap();
        assert_eq!(Session::open(&keyring, value), Some(session.clone()));
        assert_eq!(Session::open(&self::keyring(), value), None);
        assert_eq!(Session::open(&keyring, "v1.k1.x.y"), None);
        assert!(!session.is_valid(now + IDLE));
        let busy = Session {
            seen: (now + LONGEST).unix_timestamp(),
            ..session.clone()
        };
        assert!(!busy.is_valid(now + LONGEST));
        assert_eq!(session.renewed(now + Duration::minutes(4)), None);
        assert!(session.renewed(now + RENEW).is_some());
    }

    #[test]
    fn a_cookie_is_hidden_from_scripts_and_secure_behind_a_proxy() {
        let session = Session::begin(7, OffsetDateTime::now_utc());
        let cookie = session.cookie(&keyring(), true);
        assert!(
            cookie.starts_with("__Host-dispatch_session=v1."),
            "{cookie}"
        );
        assert!(
            cookie.contains("; HttpOnly; SameSite=Lax; Secure"),
            "{cookie}"
        );
        assert!(!session.cookie(&keyring(), false).contains("Secure"));
    }

    #[test]
    fn a_form_has_the_token_of_its_session() {
        let session = Session::begin(7, OffsetDateTime::now_utc());
        assert!(session.has_form_token(&session.form.clone()));
        assert!(!session.has_form_token("") && !session.has_form_token("other"));
    }
}
