//! How a message that an operator publishes again shows whose it is: its AMQP user is the operator's, and a sealed header names the
//! producer. Only who has the keyring can make one, and it fits that body alone.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::secrets::{Keyring, Place};

/// The header.
pub const REPLAY: &str = "x-dispatch-replay";

/// The header's value for a body of `producer`; `None` where that is not known.
#[must_use]
pub fn proof_of_replay(keyring: &Keyring, body: &[u8], producer: Option<&str>) -> String {
    keyring.seal(place(&digest(body)), producer.unwrap_or_default().as_bytes())
}

/// Whose a body is that comes with this header; inside, `None` where that is not known. Outside, `None`: the header was not made
/// for this body.
#[must_use]
pub fn replayed_for(keyring: &Keyring, body: &[u8], proof: &str) -> Option<Option<String>> {
    let producer = keyring.open(place(&digest(body)), proof).ok()?;
    let producer = String::from_utf8(producer).ok()?;
    Some(Some(producer).filter(|name| !name.is_empty()))
}

const fn place(digest: &str) -> Place<'_> {
    Place { table: "dead_letters", column: "replay", row: digest }
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
        assert_eq!(replayed_for(&ours, b"{}", &proof), Some(Some("shop".to_owned())));
        assert_eq!(replayed_for(&ours, b"{ }", &proof), None);
        assert_eq!(replayed_for(&theirs, b"{}", &proof), None);
        assert_eq!(replayed_for(&ours, b"{}", "shop"), None);
        assert_eq!(replayed_for(&ours, b"{}", &proof_of_replay(&ours, b"{}", None)), Some(None));
    }
}
