//! `dispatch integrations rotate-secret`: replaces a hook secret. Both secrets are valid for a
//! time.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::duration;
use crate::cli::output::{Output, say, when};
use crate::cli::secret::SecretSource;
use crate::config::Links;
use crate::operations;

/// Replace the secret of an account's service hooks; the previous one stays valid for --keep-for
#[derive(Debug, Args)]
pub(in crate::cli) struct RotateSecret {
    #[command(flatten)]
    links: Links,
    /// Id of the account
    #[arg(value_name = "ACCOUNT_ID")]
    account_id: String,
    #[command(flatten)]
    source: SecretSource,
    /// Generate a secret and print it once, on stdout
    #[arg(long, conflicts_with = "secret_file")]
    generate: bool,
    /// How long the previous secret stays valid: 90s, 15m, 24h, 7d; at most 90d
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration::parse)]
    keep_for: Duration,
    #[command(flatten)]
    consent: Consent,
}

impl RotateSecret {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let secret = if self.generate {
            SecretString::from(BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()))
        } else {
            self.source.required()?
        };
        let store = connect::store(&self.links).await?;
        self.consent.to(&format!(
            "Replace the hook secret of account {}?",
            self.account_id
        ))?;
        let actor = self.consent.actor();
        let rotated = operations::rotate_hook_secret(
            &store,
            &actor,
            &self.account_id,
            &secret,
            self.keep_for,
        );
        let rotated = rotated.await?;
        let mut answer = json!({"account_id": self.account_id, "rotated": rotated});
        if self.generate {
            answer["secret"] = Value::from(secret.expose_secret());
        }
        output.answer(&answer, || {
            if self.generate {
                secret.expose_secret().to_owned()
            } else {
                String::new()
            }
        })?;
        say(&match rotated.previous_until {
            Some(until) => format!(
                "the new secret is valid; the previous one is valid until {}",
                when(until)
            ),
            None => "the new secret is valid; there is no other".to_owned(),
        });
        Ok(ExitCode::SUCCESS)
    }
}
