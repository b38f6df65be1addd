//! `dispatch integrations register`: registers an account for an organization.

use std::process::ExitCode;

use clap::Args;

use super::table;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::Output;
use crate::config::Links;
use crate::operations::{self, IntegrationSettings};

/// Register an account for an organization, or change it; omitted options keep their values
#[derive(Debug, Args)]
pub(in crate::cli) struct Register {
    #[command(flatten)]
    links: Links,
    /// Organization that uses the account
    #[arg(long, value_name = "SLUG")]
    organization: String,
    /// Id of the account, a GUID
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    account_id: String,
    /// Name of the account, as in its URLs
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    account_name: String,
    /// Identity that the worker uses if a job names none
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Whether assignees are synchronised from Azure DevOps; initially true
    #[arg(long, value_name = "true|false")]
    assignee_inbound: Option<bool>,
    /// Whether assignees are synchronised to the other linked work items; initially true
    #[arg(long, value_name = "true|false")]
    assignee_outbound: Option<bool>,
    /// Whether the status is synchronised from Azure DevOps; initially true
    #[arg(long, value_name = "true|false")]
    status_inbound: Option<bool>,
    /// Disable the account: its jobs wait until `dispatch integrations enable`
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Register {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to(&format!(
            "Register account {} for {}?",
            self.account_id, self.organization
        ))?;
        let settings = IntegrationSettings {
            organization: &self.organization,
            account_id: &self.account_id,
            account_name: &self.account_name,
            identity: self.identity.as_deref(),
            assignee_inbound: self.assignee_inbound,
            assignee_outbound: self.assignee_outbound,
            status_inbound: self.status_inbound,
            disabled: self.disabled,
        };
        let actor = self.consent.actor();
        let changed = operations::register_integration(&store, &actor, &settings);
        output.changed(&changed.await?, table)?;
        Ok(ExitCode::SUCCESS)
    }
}
