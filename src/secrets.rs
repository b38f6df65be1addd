//! Seals secrets at rest with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) and the keys of a
//! keyring.
//!
//! The format is `v1.<key id>.<nonce>.<ciphertext>`, the last two in unpadded base64url. The
//! additional data names table, column, row and key id, so a ciphertext that is moved to another
//! row does not open.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The place of a sealed value, part of its additional data.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub table: &'a str,
    pub column: &'a str,
    /// The row's id, as text.
    pub row: &'a str,
}

/// A column of sealed values, for code that visits all of them. Each is listed in the `SEALED` of
/// its table's module.
#[derive(Debug, Clone, Copy)]
pub struct SealedColumn {
    /// The table, whose rows have the key `id`.
    pub table: &'static str,
    /// The column, as in [`Place::column`].
    pub column: &'static str,
    pub id: RowId,
    /// The position of the value if it is part of a JSON column; otherwise the column is the
    /// value.
    pub within: Option<Within>,
}

/// The type of a table's `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowId {
    /// A `bigint` above 0.
    Number,
    Uuid,
}

/// A sealed value within a column of type `json`.
#[derive(Debug, Clone, Copy)]
pub struct Within {
    /// The column.
    pub json: &'static str,
    /// An SQL pattern (`LIKE`) that matches every text with a value; it may match others as well.
    pub pattern: &'static str,
    /// Returns the value in the text of the column.
    pub find: fn(&str) -> Option<String>,
}

impl SealedColumn {
    /// Describes a column that is the value.
    #[must_use]
    pub const fn plain(table: &'static str, column: &'static str, id: RowId) -> Self {
        Self {
            table,
            column,
            id,
            within: None,
        }
    }
}

/// Returns the id of the key that a value was sealed with.
#[must_use]
pub fn key_of(sealed: &str) -> Option<&str> {
    sealed
        .strip_prefix("v1.")?
        .split_once('.')
        .map(|(id, _)| id)
}

/// Keys by id. The first one seals; all of them open.
pub struct Keyring(Vec<(String, XChaCha20Poly1305)>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(id, _)| id))
            .finish()
    }
}

/// The key of docker-compose.yml, which is public.
const PUBLISHED: &[u8; 32] = b"development-only-key-32-bytes!!!";

/// Returns whether the first key of a keyring setting, which seals, is the one of
/// docker-compose.yml, whatever its id. After another key it only opens the values it has sealed,
/// until `dispatch keys rotate` is done.
#[must_use]
pub fn seals_with_published_key(setting: &SecretString) -> bool {
    let first = setting
        .expose_secret()
        .split(',')
        .next()
        .and_then(|part| part.trim().split_once(':'));
    first.is_some_and(|(_, key)| {
        BASE64
            .decode(key.as_bytes())
            .is_ok_and(|key| key == PUBLISHED)
    })
}

/// A keyring or a sealed value that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "the keyring must be `id:key[,id:key…]`, each id of 1 to 16 letters, digits, `-` or `_`, each key 32 bytes in base64: {0}"
    )]
    Keyring(&'static str),
    /// The value was sealed with a key that the keyring does not have.
    #[error(
        "sealed with key `{0}`, which is not in the keyring; add it (DISPATCH_KEYRING) after the present ones"
    )]
    UnknownKey(String),
    #[error("a sealed value does not open: it is damaged or belongs to another row")]
    DoesNotOpen,
}

impl Keyring {
    /// Parses `id:base64key[,id:base64key…]`.
    ///
    /// # Errors
    /// [`SecretError::Keyring`], which never contains the key.
    pub fn parse(setting: &SecretString) -> Result<Self, SecretError> {
        let mut keys = Vec::new();
        for part in setting.expose_secret().split(',') {
            let (id, key) = part
                .trim()
                .split_once(':')
                .ok_or(SecretError::Keyring("a part has no `:`"))?;
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if id.is_empty() || id.len() > 16 || !id.chars().all(plain) {
                return Err(SecretError::Keyring("an id is not valid"));
            }
            let bytes = BASE64
                .decode(key.as_bytes())
                .map_err(|_| SecretError::Keyring("a key is not base64"))?;
            let key: [u8; 32] = bytes
                .try_into()
                .map_err(|_| SecretError::Keyring("a key is not 32 bytes long"))?;
            if keys.iter().any(|(known, _)| known == id) {
                return Err(SecretError::Keyring("an id occurs twice"));
            }
            keys.push((id.to_owned(), XChaCha20Poly1305::new(&Key::from(key))));
        }
        Ok(Self(keys))
    }

    /// Creates a keyring setting with one new key, `k1:<base64>`.
    #[must_use]
    pub fn fresh_setting() -> SecretString {
        let key: [u8; 32] = rand::random();
        SecretString::from(format!("k1:{}", BASE64.encode(&key)))
    }

    /// Returns the id of the key that seals.
    ///
    /// # Panics
    /// Never: a parsed keyring has at least one key.
    #[must_use]
    pub fn first(&self) -> &str {
        &self.0.first().expect("a parsed keyring has a key").0
    }

    /// Returns whether the keyring has the key with this id.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(id, _)| id == key)
    }

    /// Returns a hash of a text under the first key. Without the key, the text cannot be guessed
    /// from the hash.
    ///
    /// # Panics
    /// Never: a parsed keyring has at least one key, and sealing in memory cannot fail.
    #[must_use]
    pub fn keyed_hash(&self, text: &str) -> [u8; 32] {
        let (_, cipher) = self.0.first().expect("a parsed keyring has a key");
        let digest = Sha256::digest(text.as_bytes());
        let payload = Payload {
            msg: &digest,
            aad: b"keyed hash",
        };
        // A fixed nonce is safe here, because the ciphertext is never shown, only a hash of it.
        let sealed = cipher
            .encrypt(&XNonce::from([0; 24]), payload)
            .expect("sealing fails only past 256 GiB");
        Sha256::digest(&sealed).into()
    }

    /// Seals `plain` for `place` with the first key.
    ///
    /// # Panics
    /// Never: a parsed keyring has at least one key, and sealing in memory cannot fail.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> String {
        let (id, cipher) = self.0.first().expect("a parsed keyring has a key");
        let nonce: [u8; 24] = rand::random();
        let aad = additional(place, id);
        let sealed = cipher
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: plain,
                    aad: aad.as_bytes(),
                },
            )
            .expect("sealing fails only past 256 GiB");
        format!(
            "v1.{id}.{}.{}",
            BASE64URL_NOPAD.encode(&nonce),
            BASE64URL_NOPAD.encode(&sealed)
        )
    }

    /// Opens a value that [`Keyring::seal`] made for the same place.
    ///
    /// # Errors
    /// [`SecretError`] if the keyring does not have the key or the value does not open.
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Result<Vec<u8>, SecretError> {
        let mut parts = sealed.split('.');
        let (Some("v1"), Some(id), Some(nonce), Some(text), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(SecretError::DoesNotOpen);
        };
        let known = self.0.iter().find(|(known, _)| known == id);
        let (_, cipher) = known.ok_or_else(|| SecretError::UnknownKey(id.to_owned()))?;
        let nonce = BASE64URL_NOPAD
            .decode(nonce.as_bytes())
            .map_err(|_| SecretError::DoesNotOpen)?;
        let nonce: [u8; 24] = nonce.try_into().map_err(|_| SecretError::DoesNotOpen)?;
        let text = BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| SecretError::DoesNotOpen)?;
        let aad = additional(place, id);
        let payload = Payload {
            msg: &text,
            aad: aad.as_bytes(),
        };
        cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SecretError::DoesNotOpen)
    }

    /// Opens a value as [`Keyring::open`] does, as text.
    ///
    /// # Errors
    /// As [`Keyring::open`]; also if the plain text is not UTF-8.
    pub fn open_text(&self, place: Place<'_>, sealed: &str) -> Result<SecretString, SecretError> {
        let plain = self.open(place, sealed)?;
        String::from_utf8(plain)
            .map(SecretString::from)
            .map_err(|_| SecretError::DoesNotOpen)
    }
}

fn additional(place: Place<'_>, key: &str) -> String {
    format!("{}\n{}\n{}\n{key}", place.table, place.column, place.row)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place {
        table: "identities",
        column: "access_token",
        row: "7",
    };

    #[test]
    fn a_sealed_token_opens_at_its_place_only() {
        let ring = Keyring::parse(&Keyring::fresh_setting()).unwrap();
        let sealed = ring.seal(PLACE, b"token");
        assert!(sealed.starts_with("v1.k1.") && !sealed.contains("token"));
        assert_eq!(
            ring.open_text(PLACE, &sealed).unwrap().expose_secret(),
            "token"
        );
        let elsewhere = Place { row: "8", ..PLACE };
        assert!(matches!(
            ring.open(elsewhere, &sealed),
            Err(SecretError::DoesNotOpen)
        ));
    }

    #[test]
    fn a_new_first_key_seals_and_the_old_one_still_opens() {
        let old = Keyring::fresh_setting();
        let sealed = Keyring::parse(&old).unwrap().seal(PLACE, b"x");
        let new = Keyring::fresh_setting()
            .expose_secret()
            .replace("k1:", "k2:");
        let both = SecretString::from(format!("{new},{}", old.expose_secret()));
        let ring = Keyring::parse(&both).unwrap();
        assert_eq!(ring.open(PLACE, &sealed).unwrap(), b"x");
        assert_eq!(
            (
                key_of(&ring.seal(PLACE, b"x")),
                ring.first(),
                key_of(&sealed)
            ),
            (Some("k2"), "k2", Some("k1"))
        );
        assert!(ring.has("k1") && !ring.has("k3") && key_of("v2.k1.a.b").is_none());
        let without = Keyring::parse(&SecretString::from(new)).unwrap();
        assert!(matches!(
            without.open(PLACE, &sealed),
            Err(SecretError::UnknownKey(_))
        ));
    }

    #[test]
    fn the_key_of_compose_is_known_by_itself_and_may_stand_behind_another() {
        let compose = include_str!("../docker-compose.yml");
        let (_, rest) = compose.split_once("${DISPATCH_KEYRING:-").unwrap();
        let (published, _) = rest.split_once('}').unwrap();
        let own = Keyring::fresh_setting();
        let seals = |setting: &str| seals_with_published_key(&setting.into());
        assert!(
            seals(published)
                && seals(&published.replace("dev:", "k1:"))
                && seals(&format!(" {published},k2:x"))
        );
        assert!(
            !seals(own.expose_secret())
                && !seals(&format!("{},{published}", own.expose_secret()))
                && !seals("")
        );
    }

    #[test]
    fn a_keyed_hash_is_the_same_again_and_another_one_under_another_key() {
        let (one, other) = (
            Keyring::parse(&Keyring::fresh_setting()).unwrap(),
            Keyring::parse(&Keyring::fresh_setting()).unwrap(),
        );
        assert_eq!(one.keyed_hash("person 7"), one.keyed_hash("person 7"));
        assert_ne!(one.keyed_hash("person 7"), one.keyed_hash("person 8"));
        assert_ne!(one.keyed_hash("person 7"), other.keyed_hash("person 7"));
    }

    #[test]
    fn a_bad_keyring_is_refused_without_showing_the_key() {
        for bad in ["", "k1", "k1:short", "k 1:AAAA", ":AAAA"] {
            let error = Keyring::parse(&SecretString::from(bad.to_owned()))
                .unwrap_err()
                .to_string();
            assert!(!error.contains("AAAA"), "{error}");
        }
        let key = Keyring::fresh_setting();
        let twice = format!("{0},{0}", key.expose_secret());
        assert!(matches!(
            Keyring::parse(&SecretString::from(twice)),
            Err(SecretError::Keyring("an id occurs twice"))
        ));
    }
}
