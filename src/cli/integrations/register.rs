//! `dispatch integrations register`.

use std::process::ExitCode;

use clap::Args;

use super::{audit, told};
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::Output;
use crate::config::Links;
use crate::store::AuditedChange;
use crate::tracker::{NewInstallation, identity_cause, known_organization, register_installation};

/// Register an account for an organization, or change what is registered; what is not said stays
#[derive(Debug, Args)]
pub(in crate::cli) struct Register {
    #[command(flatten)]
    links: Links,
    /// The organization that uses it
    #[arg(long, value_name = "SLUG")]
    organization: String,
    /// The account's id, a GUID
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    account_id: String,
    /// The account's name, as it stands in URLs
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    account_name: String,
    /// Who the worker acts as when a job names nobody
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Whether assignees come from Azure DevOps; at first they do
    #[arg(long, value_name = "true|false")]
    assignee_inbound: Option<bool>,
    /// Whether assignees go to the other linked work items; at first they do
    #[arg(long, value_name = "true|false")]
    assignee_outbound: Option<bool>,
    /// Whether the status comes from Azure DevOps; at first it does
    #[arg(long, value_name = "true|false")]
    status_inbound: Option<bool>,
    /// Switch it off: its jobs wait until `dispatch integrations enable`
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Register {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to(&format!("Register account {} for {}?", self.account_id, self.organization))?;
        let actor = self.consent.actor();
        let changed = store.audited_release(&actor, "integration.register", async |tx| {
            let new = NewInstallation {
                organization_id: known_organization(tx, &self.organization).await?,
                account_id: &self.account_id,
                account_name: &self.account_name,
                identity: self.identity.as_deref(),
                assignee_inbound: self.assignee_inbound,
                assignee_outbound: self.assignee_outbound,
                status_inbound: self.status_inbound,
                disabled: self.disabled.then_some(true),
            };
            let changed = register_installation(tx, &new).await?;
            // Jobs that wait for the one before to sign in may go on as this one; others find out that they wait.
            let before = changed.before.as_ref().and_then(|before| before.identity_id);
            let gone = before.filter(|_| before != changed.after.identity_id).map(identity_cause);
            Ok::<_, anyhow::Error>(AuditedChange { audit: audit(&changed)?, gone, answer: changed })
        });
        let (changed, released) = changed.await?;
        told(output, &changed, released)
    }
}
