//! `dispatch tokens`: the tokens of the console and its API.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Cell;
use secrecy::ExposeSecret;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::duration;
use super::output::{Output, or_dash, plain, rendered, say, when};
use crate::config::Links;
use crate::operations::{self, TokenSettings};
use crate::store::{ApiToken, Role};

/// Create, list and revoke tokens of the console and its API
#[derive(Debug, Subcommand)]
pub(super) enum Tokens {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create a token and print it once; only its SHA-256 is stored
#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    links: Links,
    /// Name of the person or program, as it is shown in the audit log
    #[arg(value_name = "NAME")]
    name: String,
    /// What the token permits
    #[arg(long, value_enum)]
    role: TokenRole,
    /// Source of the jobs of a producer
    #[arg(long)]
    source: Option<String>,
    /// Organization that it may see; repeat for several, omit for all
    #[arg(long = "organization", value_name = "SLUG")]
    organizations: Vec<String>,
    /// How long it is valid, such as 12h or 90d
    #[arg(long = "for", default_value = "90d", value_parser = duration::parse, value_name = "TIME")]
    valid: Duration,
    #[command(flatten)]
    consent: Consent,
}

/// List tokens, the newest first
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
}

/// Revoke a token: requests and sessions with it end
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    links: Links,
    /// Name of the token
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    consent: Consent,
}

/// See [`Role`].
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TokenRole {
    /// Status, wait, cancel and configure of the jobs of one source
    Producer,
    /// Read
    Viewer,
    /// Act on jobs, holds, campaigns and dead letters
    Operator,
    /// Everything
    Admin,
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Producer => Self::Producer,
            TokenRole::Viewer => Self::Viewer,
            TokenRole::Operator => Self::Operator,
            TokenRole::Admin => Self::Admin,
        }
    }
}

impl Tokens {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run(output).await,
            Self::List(list) => list.run(output).await,
            Self::Revoke(revoke) => revoke.run(output).await,
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        let actor = self.consent.actor();
        self.consent
            .to(&format!("Create a token for {}?", self.name))?;
        let settings = TokenSettings {
            name: self.name,
            role: self.role.into(),
            source: self.source,
            organizations: Some(self.organizations).filter(|list| !list.is_empty()),
            valid: self.valid,
        };
        let (row, token) = operations::create_token(&store, &actor, settings).await?;
        let token = token.expose_secret();
        output.answer(&json!({"token": token, "row": row}), || token.to_owned())?;
        say(&format!(
            "The token of {} is valid until {}. It is not shown again.",
            row.name,
            when(row.expires_at)
        ));
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let tokens = connect::store(&self.links).await?.tokens().await?;
        output.answer(&tokens, || {
            if tokens.is_empty() {
                String::new()
            } else {
                table(output, &tokens)
            }
        })?;
        if tokens.is_empty() {
            say("no tokens; use `dispatch tokens create` to add one");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Revoke {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&format!("Revoke the token of {}?", self.name))?;
        let token = operations::revoke_token(&store, &self.consent.actor(), &self.name).await?;
        output.answer(&token, || {
            format!("revoked the token of {}", plain(&token.name))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, tokens: &[ApiToken]) -> String {
    let mut table = output.table(&[
        "name",
        "role",
        "sees",
        "valid",
        "until",
        "last used",
        "created by",
    ]);
    for token in tokens {
        let sees = match (&token.source, &token.organizations) {
            (Some(source), _) => format!("jobs of the source {source}"),
            (None, Some(organizations)) => organizations.join(", "),
            (None, None) => "all".to_owned(),
        };
        let valid = if token.is_valid { "yes" } else { "no" };
        table.add_row([
            Cell::new(plain(&token.name)),
            Cell::new(token.role.word()),
            Cell::new(plain(&sees)),
            Cell::new(valid),
            Cell::new(when(token.expires_at)),
            Cell::new(or_dash(token.last_used_at.map(when).as_deref())),
            Cell::new(plain(&token.created_by)),
        ]);
    }
    rendered(table)
}
