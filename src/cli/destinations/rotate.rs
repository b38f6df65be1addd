//! `dispatch destinations rotate-secret`: replaces a destination's secret. The previous one stays
//! in use for a time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::Which;
use crate::app;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::duration;
use crate::cli::failure::Usage;
use crate::cli::output::{Output, say, when};
use crate::cli::secret::SecretSource;
use crate::config::{Links, ProviderLinks};
use crate::pipelines::connection_tests::check_destination;
use crate::tracker::rotate_destination_secret;

/// Replace a destination's secret; a webhook is signed with both for --keep-for
#[derive(Debug, Args)]
pub(in crate::cli) struct RotateSecret {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    providers: ProviderLinks,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: SecretSource,
    /// How long the previous secret stays in use: 90s, 15m, 24h, 7d; at most 90d
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = duration::parse)]
    keep_for: Duration,
    #[command(flatten)]
    consent: Consent,
}

impl RotateSecret {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let secret = self.source.required()?;
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        let services = app::services(&self.links, &self.providers)?;
        let Which { name, organization } = &self.which;
        let destination = services
            .sealed
            .known_destination(organization, name)
            .await?;
        check_destination(
            &services.providers,
            &destination.kind,
            &destination.config,
            Some(&secret),
            destination.secret.as_ref(),
        )
        .map_err(|problem| anyhow!(Usage(problem.to_string())))?;
        self.consent.to(&format!(
            "Replace the secret of destination {name} of {organization}?"
        ))?;
        let named = json!({"destination_id": destination.id, "destination": name});
        let actor = self.consent.actor();
        let rotated = store.audited(&actor, "destination.rotate_secret", async |tx| {
            let rotated =
                rotate_destination_secret(tx, &keyring, destination.id, &secret, self.keep_for)
                    .await?;
            let after =
                json!({"destination_id": destination.id, "destination": name, "rotated": rotated});
            Ok::<_, anyhow::Error>((rotated, Some((named, after))))
        });
        let rotated = rotated.await?;
        output.answer(
            &json!({"destination": name, "rotated": rotated}),
            String::new,
        )?;
        say(&match rotated.previous_until {
            Some(until) => format!(
                "the new secret is in use; the previous one stays in use until {}",
                when(until)
            ),
            None => "the new secret is in use; there is no other".to_owned(),
        });
        Ok(ExitCode::SUCCESS)
    }
}
