//! `dispatch destinations`: destinations of messages.

mod register;
mod rotate;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::consent::{Consent, operator};
use super::output::{Output, or_dash, plain, rendered, say, when};
use crate::app;
use crate::config::{Links, ProviderLinks};
use crate::operations;
use crate::pipelines::connection_tests::Sent;
use crate::tracker::DestinationRow;

/// Register and test destinations of messages, and replace their secrets
#[derive(Debug, Subcommand)]
pub(super) enum Destinations {
    List(List),
    Register(register::Register),
    Enable(Enable),
    Disable(Disable),
    Test(Test),
    RotateSecret(rotate::RotateSecret),
}

/// List destinations, without their secrets
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
    /// Only of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
}

/// Enable a destination; jobs that wait for it continue
#[derive(Debug, Args)]
pub(super) struct Enable {
    #[command(flatten)]
    switch: Switch,
}

/// Disable a destination; messages for it wait
#[derive(Debug, Args)]
pub(super) struct Disable {
    #[command(flatten)]
    switch: Switch,
}

#[derive(Debug, Args)]
struct Switch {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    consent: Consent,
}

/// Send one test message, even if the destination is disabled
#[derive(Debug, Args)]
pub(super) struct Test {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    providers: ProviderLinks,
    #[command(flatten)]
    which: Which,
    /// Reason for the audit log
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct Which {
    /// Name of the destination
    #[arg(value_name = "NAME")]
    name: String,
    /// Organization of the destination
    #[arg(long, value_name = "SLUG")]
    organization: String,
}

impl Destinations {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Register(register) => register.run(output).await,
            Self::Enable(enable) => enable.switch.run(output, false).await,
            Self::Disable(disable) => disable.switch.run(output, true).await,
            Self::Test(test) => test.run(output).await,
            Self::RotateSecret(rotate) => rotate.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let tracker = connect::tracker(&self.links).await?;
        let rows = tracker
            .destination_rows(self.organization.as_deref())
            .await?;
        output.rows(&rows, table)?;
        if rows.is_empty() {
            say("no destinations");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Switch {
    async fn run(self, output: Output, disabled: bool) -> anyhow::Result<ExitCode> {
        let verb = if disabled { "Disable" } else { "Enable" };
        let Which { name, organization } = &self.which;
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&format!("{verb} destination {name} of {organization}?"))?;
        let actor = self.consent.actor();
        let changed = operations::switch_destination(&store, &actor, organization, name, disabled);
        output.changed(&changed.await?, table)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Test {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let services = app::services(&self.links, &self.providers)?;
        let Which { name, organization } = &self.which;
        let actor = operator(self.reason);
        let sent = operations::test_destination(&store, &services, &actor, organization, name);
        let Sent {
            message_id,
            refused,
        } = sent.await?;
        output.answer(&json!({"destination": name, "sent": true, "message_id": message_id, "refused": refused}), || {
            let sent = format!("sent; the provider's message id: {}", or_dash(message_id.as_deref()));
            let refused = refused.iter().map(|one| format!("\nnot sent to {}: {}", plain(&one.to), plain(&one.said)));
            std::iter::once(sent).chain(refused).collect()
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, rows: &[DestinationRow]) -> String {
    let headings = [
        "organization",
        "name",
        "kind",
        "state",
        "default",
        "unknown outcome",
        "secret",
        "previous until",
    ];
    let mut table = output.table(&headings);
    for row in rows {
        table.add_row([
            Cell::new(plain(&row.organization)),
            Cell::new(plain(&row.name)),
            Cell::new(plain(&row.kind)),
            Cell::new(if row.disabled { "disabled" } else { "enabled" }),
            Cell::new(if row.default { "yes" } else { "no" }),
            Cell::new(plain(&row.unknown_policy)),
            Cell::new(if row.has_secret { "yes" } else { "no" }),
            Cell::new(
                row.previous_secret_until
                    .map_or_else(|| "-".to_owned(), when),
            ),
        ]);
    }
    rendered(table)
}
