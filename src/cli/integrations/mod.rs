//! `dispatch integrations`: Azure DevOps accounts of organizations.

mod register;
mod rotate;

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::output::{Output, or_dash, plain, rendered, say};
use crate::app;
use crate::config::{Links, ProviderLinks};
use crate::operations;
use crate::pipelines::connection_tests::try_account;
use crate::tracker::InstallationRow;

/// Register and test Azure DevOps accounts of organizations, and replace their service hook
/// secrets
#[derive(Debug, Subcommand)]
pub(super) enum Integrations {
    List(List),
    Register(register::Register),
    Enable(Enable),
    Disable(Disable),
    Test(Test),
    RotateSecret(rotate::RotateSecret),
}

/// List the accounts of organizations
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
    /// Only of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
}

/// Enable an organization's account; jobs that wait for it continue
#[derive(Debug, Args)]
pub(super) struct Enable {
    #[command(flatten)]
    switch: Switch,
}

/// Disable an organization's account; its jobs wait
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

/// Sign in to Azure DevOps, refreshing the token if due, and check access to the account; exit
/// code 1 without access
#[derive(Debug, Args)]
pub(super) struct Test {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    providers: ProviderLinks,
    #[command(flatten)]
    which: Which,
    /// Identity to use; default: the installation's
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

#[derive(Debug, Args)]
struct Which {
    /// Id of the account
    #[arg(value_name = "ACCOUNT_ID")]
    account_id: String,
    /// Organization that uses the account
    #[arg(long, value_name = "SLUG")]
    organization: String,
}

impl Integrations {
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
            .installation_rows(self.organization.as_deref())
            .await?;
        output.rows(&rows, table)?;
        if rows.is_empty() {
            say("no accounts");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Switch {
    async fn run(self, output: Output, disabled: bool) -> anyhow::Result<ExitCode> {
        let verb = if disabled { "Disable" } else { "Enable" };
        let Which {
            account_id,
            organization,
        } = &self.which;
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&format!("{verb} account {account_id} of {organization}?"))?;
        let actor = self.consent.actor();
        let changed =
            operations::switch_integration(&store, &actor, organization, account_id, disabled);
        output.changed(&changed.await?, table)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Test {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        drop(connect::store(&self.links).await?);
        let services = app::services(&self.links, &self.providers)?;
        let Which {
            account_id,
            organization,
        } = &self.which;
        let organization_id = services.tracker.known_organization(organization).await?;
        let rows = services
            .tracker
            .installation_rows(Some(organization))
            .await?;
        let installed = rows
            .into_iter()
            .find(|row| row.account_id.eq_ignore_ascii_case(account_id));
        let named = self
            .identity
            .or_else(|| installed.and_then(|row| row.identity));
        let named =
            named.context("expected an account with an identity, got none; use --identity NAME")?;
        let identity = services
            .tracker
            .identity_by_name(organization_id, &named)
            .await?;
        let identity =
            identity.with_context(|| format!("{organization} has no identity `{named}`"))?;
        let tested = try_account(&services, identity.id, account_id).await;
        let tested = tested.map_err(|fault| anyhow!("{}; {}", fault.message(), fault.hint()))?;
        let usable = tested.usable;
        output.answer(
            &json!({"identity": named, "account_id": account_id, "trial": tested}),
            || {
                let permission = if usable {
                    "may use the account"
                } else {
                    "may not use the account"
                };
                let accounts = tested.accounts.join(", ");
                plain(&format!(
                    "{named} is {} and {permission}; accounts: {accounts}",
                    tested.user
                ))
            },
        )?;
        Ok(if usable {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn table(output: Output, rows: &[InstallationRow]) -> String {
    let headings = [
        "organization",
        "account",
        "name",
        "state",
        "identity",
        "synchronised",
        "hook secrets",
    ];
    let mut table = output.table(&headings);
    for row in rows {
        let settings = [
            ("assignee in", row.settings.assignee_inbound),
            ("assignee out", row.settings.assignee_outbound),
            ("status in", row.settings.status_inbound),
        ];
        let on: Vec<&str> = settings
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| name)
            .collect();
        table.add_row([
            Cell::new(plain(&row.organization)),
            Cell::new(plain(&row.account_id)),
            Cell::new(plain(&row.account_name)),
            Cell::new(if row.disabled { "disabled" } else { "enabled" }),
            Cell::new(or_dash(row.identity.as_deref())),
            Cell::new(if on.is_empty() {
                "nothing".to_owned()
            } else {
                on.join(", ")
            }),
            Cell::new(row.hook_secrets),
        ]);
    }
    rendered(table)
}
