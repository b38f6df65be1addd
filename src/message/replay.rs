//! The proof of origin of a replayed message. Its AMQP user is the operator's, so a sealed header
//! names the producer. Making one requires the keyring, and it is valid for that body only.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::secrets::{Keyring, Place};

/// Name of the header.
pub const REPLAY: &str = "x-dispatch-replay";

/// Returns the header's value for a body of `producer`, which is `None` if the producer is
/// unknown.
#[must_use]
pub fn proof_of_replay(keyring: &Keyring, body: &[u8], producer: Option<&str>) -> String {
    keyring.seal(
        place(&digest(body)),
        producer.unwrap_or_default().as_bytes(),
    )
}

/// Returns the producer that the header names for this body: `Some(None)` if the producer is
/// unknown, `None` if the header was not made for this body.
#[must_use]
pub fn replayed_for(keyring: &Keyring, body: &[u8], proof: &str) -> Option<Option<String>> {
    let producer = keyring.open(place(&digest(body)), proof).ok()?;
    let producer = String::from_utf8(producer).ok()?;
    Some(Some(producer).filter(|name| !name.is_empty()))
}

const fn place(digest: &str) -> Place<'_> {
    Place {
        table: "dead_letters",
        column: "replay",
        row: digest,
    }
}

fn digest(body: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_its_body_and_its_keyring_alone() {
        let [ours, theirs] = [(); 2].map(|()| Keyring::parse(&Keyring::fresh_setting()).unwrap());
        let proof = proof_of_replay(&ours, b"{}", Some("shop"));
        assert_eq!(
            replayed_for(&ours, b"{}", &proof),
            Some(Some("shop".to_owned()))
        );
        assert_eq!(replayed_for(&ours, b"{ }", &proof), None);
        assert_eq!(replayed_for(&theirs, b"{}", &proof), None);
        assert_eq!(replayed_for(&ours, b"{}", "shop"), None);
        assert_eq!(
            replayed_for(&ours, b"{}", &proof_of_replay(&ours, b"{}", None)),
            Some(None)
        );
    }
}
