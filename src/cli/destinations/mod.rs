//! `dispatch destinations`: destinations of messages.

mod register;
mod rotate;

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::{Value, json, to_value};

use super::connect;
use super::consent::{Consent, operator};
use super::output::{Output, or_dash, plain, rendered, say, when};
use crate::app;
use crate::config::{Links, ProviderLinks};
use crate::pipelines::connection_tests::{Sent, try_destination};
use crate::store::{self, Released};
use crate::tracker::{
    DestinationRow, RowChange, destination_cause, known_organization, set_destination_disabled,
};

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
        output.answer(&rows, || {
            if rows.is_empty() {
                String::new()
            } else {
                table(output, &rows)
            }
        })?;
        if rows.is_empty() {
            say("no destinations");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Switch {
    async fn run(self, output: Output, disabled: bool) -> anyhow::Result<ExitCode> {
        let (verb, action) = if disabled {
            ("Disable", "destination.disable")
        } else {
            ("Enable", "destination.enable")
        };
        let Which { name, organization } = &self.which;
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&format!("{verb} destination {name} of {organization}?"))?;
        let actor = self.consent.actor();
        let changed = store.audited_release(&actor, action, async |tx| {
            let organization_id = known_organization(tx, organization).await?;
            let changed = set_destination_disabled(tx, organization_id, name, disabled).await?;
            let gone = (!disabled).then(|| destination_cause(changed.after.id));
            Ok::<_, anyhow::Error>(store::AuditedChange {
                audit: audit(&changed)?,
                gone,
                answer: changed,
            })
        });
        let (changed, released) = changed.await?;
        told(output, &changed, released)
    }
}

impl Test {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let services = app::services(&self.links, &self.providers)?;
        let Which { name, organization } = &self.which;
        let destination = services
            .sealed
            .known_destination(organization, name)
            .await?;
        let actor = operator(self.reason);
        let tested = json!({"destination_id": destination.id, "destination": name});
        // Written before the message is sent, so that every test message is recorded.
        store
            .audit(&actor, "destination.test", None, &Value::Null, &tested)
            .await?;
        let sent = try_destination(&services, &destination, &actor.who).await;
        let Sent {
            message_id,
            refused,
        } = sent.map_err(|fault| anyhow!("{}; {}", fault.message(), fault.hint()))?;
        output.answer(&json!({"destination": name, "sent": true, "message_id": message_id, "refused": refused}), || {
            let sent = format!("sent; the provider's message id: {}", or_dash(message_id.as_deref()));
            let refused = refused.iter().map(|one| format!("\nnot sent to {}: {}", plain(&one.to), plain(&one.said)));
            std::iter::once(sent).chain(refused).collect()
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the row before and after for the audit log, or `None` if nothing changed.
fn audit(changed: &RowChange<DestinationRow>) -> anyhow::Result<Option<(Value, Value)>> {
    if changed.before.as_ref() == Some(&changed.after) {
        return Ok(None);
    }
    Ok(Some((
        to_value(&changed.before)?,
        to_value(&changed.after)?,
    )))
}

fn told(
    output: Output,
    changed: &RowChange<DestinationRow>,
    released: Released,
) -> anyhow::Result<ExitCode> {
    let is_changed = changed.before.as_ref() != Some(&changed.after);
    let value = json!({"changed": is_changed, "now": changed.after, "jobs_released": released.now, "jobs_to_follow": released.later});
    output.answer(&value, || {
        format!(
            "{}\n\njobs released: {released}",
            table(output, std::slice::from_ref(&changed.after))
        )
    })?;
    Ok(ExitCode::SUCCESS)
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
