//! The link to a page of the console on which a person chooses the account of a job. It names the
//! job and its version, sealed with the keyring: nobody can make one, and it serves once, since a
//! job with an account has another version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::job::{Epoch, Generation, Job, JobId};
use crate::secrets::{Keyring, Place};

/// The path of the page, before the token.
pub const PATH: &str = "/configure/";
/// The longest token that is read.
const TOKEN_BYTES: usize = 1000;

const PLACE: Place<'static> = Place {
    table: "console",
    column: "configuration",
    row: "link",
};

/// Makes links, if the address of the console is known.
#[derive(Debug, Clone)]
pub struct ConfigurationLinks {
    keyring: Arc<Keyring>,
    console: Option<String>,
}

/// The job that a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedJob {
    /// The job.
    pub job: JobId,
    /// Its generation.
    pub generation: Generation,
    /// Its epoch while it waits.
    pub epoch: Epoch,
}

impl From<&Job> for LinkedJob {
    fn from(job: &Job) -> Self {
        Self {
            job: job.id,
            generation: job.generation,
            epoch: job.epoch,
        }
    }
}

impl ConfigurationLinks {
    /// Creates them for the console at this address, without a path.
    #[must_use]
    pub const fn new(keyring: Arc<Keyring>, console: Option<String>) -> Self {
        Self { keyring, console }
    }

    /// Returns the link for a job that is about to wait; `None` without a console.
    pub(super) fn of(&self, job: LinkedJob) -> Option<String> {
        let console = self.console.as_ref()?;
        let text = serde_json::to_vec(&job).ok()?;
        Some(format!(
            "{console}{PATH}{}",
            self.keyring.seal(PLACE, &text)
        ))
    }
}

/// Returns the job of a link's token; `None` if it was not made with this keyring.
#[must_use]
pub fn open(keyring: &Keyring, token: &str) -> Option<LinkedJob> {
    if token.len() > TOKEN_BYTES {
        return None;
    }
    let text = keyring.open(PLACE, token).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_its_job_and_is_opened_only_with_its_keyring() {
        let fresh = || Arc::new(Keyring::parse(&Keyring::fresh_setting()).unwrap());
        let (keyring, job) = (fresh(), JobId::fresh());
        let linked = LinkedJob {
            job,
            generation: Generation(2),
            epoch: Epoch(7),
        };
        let links = |console| ConfigurationLinks::new(Arc::clone(&keyring), console);
        assert_eq!(links(None).of(linked), None);
        let link = links(Some("https://dispatch.example".to_owned())).of(linked);
        let link = link.unwrap();
        let token = link.strip_prefix("https://dispatch.example/configure/");
        let token = token.unwrap();
        assert_eq!(open(&keyring, token), Some(linked));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        assert!(token.chars().all(is_plain), "no escapes: {token}");
        assert_eq!(open(&fresh(), token), None);
        for wrong in ["", "v1.k1.a.b", &"a".repeat(2000)] {
            assert_eq!(open(&keyring, wrong), None);
        }
    }
}
