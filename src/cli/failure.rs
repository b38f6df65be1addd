//! Reports a failed command: one line on stderr and exit code 1, or 2 for an invalid command line
//! or setting.

use std::process::ExitCode;

use super::output::say;
use crate::broker::BrokerError;
use crate::config::{NotRight, SecretFileFault, UnknownSettings, Unset};
use crate::fault::chain;
use crate::operations::OperationError;
use crate::secrets::SecretError;
use crate::store::StoreError;
use crate::telemetry::TelemetryError;

/// An invalid command line that the parser cannot detect. The text states what to use instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Exit code for an invalid command line or setting, the same as the parser's.
pub(super) const USAGE: u8 = 2;

/// Prints the chain of causes on one line and returns the exit code.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    say(&format!("error: {}", chain(error.as_ref())));
    ExitCode::from(if is_usage(error) { USAGE } else { 1 })
}

fn is_usage(error: &anyhow::Error) -> bool {
    // An error that was added as context is found by its type on the outer error, not in the
    // chain.
    error.is::<NotRight>() || error.chain().any(is_usage_itself)
}

fn is_usage_itself(cause: &(dyn std::error::Error + 'static)) -> bool {
    // A transparent error stands for its inner one, which is not in the chain.
    match cause.downcast_ref() {
        Some(OperationError::Invalid(_)) => return true,
        Some(OperationError::Store(inner)) => return is_usage_itself(inner),
        _ => {}
    }
    cause.is::<Usage>()
        || cause.is::<Unset>()
        || cause.is::<NotRight>()
        || cause.is::<UnknownSettings>()
        || cause.is::<SecretFileFault>()
        || matches!(cause.downcast_ref(), Some(SecretError::Keyring(_)))
        || matches!(
            cause.downcast_ref(),
            Some(StoreError::Url(_) | StoreError::Link(_) | StoreError::Login(_))
        )
        || matches!(
            cause.downcast_ref(),
            Some(BrokerError::Url | BrokerError::Refused(_))
        )
        || matches!(cause.downcast_ref(), Some(TelemetryError::Filter(_)))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_wrong_setting_is_distinguished_from_a_failure_however_deep_it_lies() {
        let setting: Result<(), _> = Err(StoreError::Url("use …".to_owned()));
        assert!(is_usage(&setting.context("opening").unwrap_err()));
        assert!(is_usage(&anyhow::Error::new(Usage("use --yes".to_owned()))));
        assert!(is_usage(
            &SecretError::Keyring("a key is not base64").into()
        ));
        assert!(is_usage(
            &anyhow!("its address is not right")
                .context(NotRight("a provider's setting"))
                .context("starting")
        ));
        let url = StoreError::Url("use …".to_owned());
        assert!(is_usage(&OperationError::Store(url).into()));
        assert!(is_usage(
            &OperationError::Invalid("use …".to_owned()).into()
        ));
        assert!(!is_usage(
            &OperationError::Unknown("gone".to_owned()).into()
        ));
        assert!(!is_usage(&anyhow!("there is no such job")));
        assert!(!is_usage(&StoreError::ReadOnly.into()));
    }
}
