//! How a command ends that did not do what it was asked: one line on stderr, exit code 1, or 2 where the command line or a
//! setting is not right.

use std::process::ExitCode;

use super::output::say;
use crate::broker::BrokerError;
use crate::config::{NotRight, SecretFileFault, UnknownSettings, Unset};
use crate::fault::chain;
use crate::secrets::SecretError;
use crate::store::StoreError;
use crate::telemetry::TelemetryError;

/// The command line is not right, in a way that the parser cannot see. The text says what would be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Exit code of a wrong command line or setting, as the parser's own.
pub(super) const USAGE: u8 = 2;

/// Prints the chain of causes on one line and gives the exit code.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    say(&format!("error: {}", chain(error.as_ref())));
    ExitCode::from(if is_usage(error) { USAGE } else { 1 })
}

fn is_usage(error: &anyhow::Error) -> bool {
    // What was added as context is found by its type here, and not in the chain.
    error.is::<NotRight>() || error.chain().any(is_usage_itself)
}

fn is_usage_itself(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<Usage>()
        || cause.is::<Unset>()
        || cause.is::<NotRight>()
        || cause.is::<UnknownSettings>()
        || cause.is::<SecretFileFault>()
        || matches!(cause.downcast_ref(), Some(SecretError::Keyring(_)))
        || matches!(cause.downcast_ref(), Some(StoreError::Url(_) | StoreError::Link(_) | StoreError::Login(_)))
        || matches!(cause.downcast_ref(), Some(BrokerError::Url | BrokerError::Refused(_)))
        || matches!(cause.downcast_ref(), Some(TelemetryError::Filter(_)))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_wrong_setting_is_told_from_a_failure_however_deep_it_lies() {
        let setting: Result<(), _> = Err(StoreError::Url("right is …".to_owned()));
        assert!(is_usage(&setting.context("opening").unwrap_err()));
        assert!(is_usage(&anyhow::Error::new(Usage("right is --yes".to_owned()))));
        assert!(is_usage(&SecretError::Keyring("a key is not base64").into()));
        assert!(is_usage(&anyhow!("its address is not right").context(NotRight("a provider's setting")).context("starting")));
        assert!(!is_usage(&anyhow!("there is no such job")));
        assert!(!is_usage(&StoreError::ReadOnly.into()));
    }
}
