//! `dispatch identities`: the identities that the worker acts as, and their tokens. Tokens come
//! from stdin or a file, never from the command line, and are never printed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use comfy_table::Cell;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::connect;
use super::consent::operator;
use super::failure::Usage;
use super::output::{Output, plain, rendered, say, when};
use super::publish::contents;
use super::tracker::parse;
use crate::app;
use crate::config::{Links, ProviderLinks};
use crate::operations;
use crate::pipelines::connection_tests;
use crate::store::CappedCount;
use crate::tracker::{GivenTokens, IdentityRow, TokenEnd, identity_cause};

/// List, register and test identities, and replace their tokens
#[derive(Debug, Subcommand)]
pub(super) enum Identities {
    List(List),
    Register(Register),
    SetTokens(SetTokens),
    Test(Box<Test>),
}

/// List identities with the expiry time and version of the token, and the number of jobs that wait
/// for one
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
    /// Only of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
}

/// Register an identity with its tokens
#[derive(Debug, Args)]
pub(super) struct Register {
    #[command(flatten)]
    given: Given,
}

/// Replace all tokens of an identity; jobs that wait for them continue
#[derive(Debug, Args)]
pub(super) struct SetTokens {
    #[command(flatten)]
    given: Given,
}

/// Sign in to Azure DevOps as an identity, refreshing its token if due, and print its profile
#[derive(Debug, Args)]
pub(super) struct Test {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    providers: ProviderLinks,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
struct Who {
    /// Organization of the identity
    #[arg(long, value_name = "SLUG")]
    organization: String,
    /// Name of the identity
    #[arg(long)]
    name: String,
}

#[derive(Debug, Args)]
struct Given {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    who: Who,
    /// Reason for the audit log
    #[arg(long)]
    reason: Option<String>,
    /// JSON file with `access_token`, `refresh_token` or both, and `expires_in` (seconds) or
    /// `expires_at` of the access token, for example the response of Microsoft Entra's token
    /// endpoint; `-` is stdin
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
}

/// The fields of a token file. A response of Entra has more, which are ignored.
#[derive(Deserialize)]
struct TokenFile {
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u32>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
}

impl Identities {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Register(register) => register.given.run(output, TokenAction::Register).await,
            Self::SetTokens(set) => set.given.run(output, TokenAction::SetTokens).await,
            Self::Test(test) => test.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (store, tracker) = connect::store_and_tracker(&self.links).await?;
        let identities = tracker.identities(self.organization.as_deref()).await?;
        let causes: Vec<String> = identities
            .iter()
            .map(|identity| identity_cause(identity.id))
            .collect();
        let rows: Vec<_> = identities
            .into_iter()
            .zip(store.waiting_for_each(&causes).await?)
            .collect();
        let value = rows
            .iter()
            .map(|(identity, waiting)| shown(identity, *waiting))
            .collect::<anyhow::Result<Vec<_>>>()?;
        output.answer(&value, || {
            if rows.is_empty() {
                String::new()
            } else {
                table(output, &rows)
            }
        })?;
        if rows.is_empty() {
            say("no identities");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Test {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        drop(connect::store(&self.links).await?);
        let services = app::services(&self.links, &self.providers)?;
        let find = async || -> anyhow::Result<IdentityRow> {
            let all = services
                .tracker
                .identities(Some(&self.who.organization))
                .await?;
            let missing = || {
                anyhow!(
                    "organization {} has no identity `{}`",
                    self.who.organization,
                    self.who.name
                )
            };
            all.into_iter()
                .find(|identity| identity.name == self.who.name)
                .ok_or_else(missing)
        };
        let before = find().await?;
        let profile = connection_tests::try_identity(&services, before.id).await;
        let profile = profile.map_err(|fault| anyhow!("{}. {}", fault.message(), fault.hint()))?;
        let now = find().await?;
        let is_refreshed = now.version != before.version;
        output.answer(
            &json!({"identity": now, "refreshed": is_refreshed, "profile": profile}),
            || {
                let email = profile
                    .email
                    .as_deref()
                    .map_or_else(String::new, |email| format!(" <{}>", plain(email)));
                let refreshed = if is_refreshed {
                    ", refreshed just now"
                } else {
                    ""
                };
                format!(
                    "{} of {} is {}{email}, {}\nits token expires {}{refreshed}",
                    plain(&now.name),
                    plain(&now.organization),
                    plain(&profile.display_name),
                    plain(&profile.id),
                    when(now.token_expires_at)
                )
            },
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The action on the given tokens.
#[derive(Clone, Copy)]
enum TokenAction {
    Register,
    SetTokens,
}

impl Given {
    async fn run(self, output: Output, action: TokenAction) -> anyhow::Result<ExitCode> {
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        let (file, bytes) = contents(&self.file)?;
        let tokens = parse::<TokenFile>(&bytes)
            .and_then(TokenFile::tokens)
            .context(file)?;
        let actor = operator(self.reason);
        let Who { organization, name } = &self.who;
        let (identity, released) = match action {
            TokenAction::Register => {
                operations::register_identity(&store, &keyring, &actor, organization, name, &tokens)
                    .await?
            }
            TokenAction::SetTokens => {
                operations::set_tokens(&store, &keyring, &actor, organization, name, &tokens)
                    .await?
            }
        };
        let value = json!({"identity": identity, "jobs_released": released.now, "jobs_to_follow": released.later});
        output.answer(&value, || {
            let version = identity.version;
            format!(
                "{} of {}: version {version} of its tokens\njobs released: {released}",
                plain(name),
                plain(organization)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl TokenFile {
    fn tokens(self) -> anyhow::Result<GivenTokens> {
        let token = |text: Option<String>| {
            text.map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        let (access, refresh) = (token(self.access_token), token(self.refresh_token));
        let end = match (self.expires_at, self.expires_in) {
            (Some(at), _) => TokenEnd::At(at),
            (None, Some(seconds)) => TokenEnd::In(Duration::from_secs(seconds.into())),
            (None, None) if access.is_none() => TokenEnd::In(Duration::ZERO),
            (None, None) => {
                let right =
                    "`expires_in` (seconds) or `expires_at` (RFC 3339) beside `access_token`";
                return Err(Usage(format!(
                    "expected the expiry time of the access token, got none; use {right}"
                ))
                .into());
            }
        };
        if access.is_none() && refresh.is_none() {
            return Err(Usage(
                "expected a token, got none; use `access_token`, `refresh_token` or both"
                    .to_owned(),
            )
            .into());
        }
        let (access_token, refresh_token) = (
            access.map(SecretString::from),
            refresh.map(SecretString::from),
        );
        Ok(GivenTokens {
            access_token,
            refresh_token,
            end,
        })
    }
}

fn shown(identity: &IdentityRow, waiting: CappedCount) -> anyhow::Result<Value> {
    let mut value =
        serde_json::to_value(identity).context("the answer cannot be encoded as JSON")?;
    value["jobs_waiting"] = json!(waiting);
    Ok(value)
}

fn table(output: Output, rows: &[(IdentityRow, CappedCount)]) -> String {
    let headings = [
        "id",
        "organization",
        "name",
        "token expires",
        "version",
        "refresh token",
        "jobs waiting",
    ];
    let mut table = output.table(&headings);
    for (identity, waiting) in rows {
        let refresh = match (identity.has_refresh_token, identity.refresh_refused_at) {
            (false, _) => "none".to_owned(),
            (true, None) => "yes".to_owned(),
            (true, Some(at)) => format!("refused {}", when(at)),
        };
        table.add_row([
            Cell::new(identity.id),
            Cell::new(plain(&identity.organization)),
            Cell::new(plain(&identity.name)),
            Cell::new(when(identity.token_expires_at)),
            Cell::new(identity.version),
            Cell::new(refresh),
            Cell::new(waiting),
        ]);
    }
    rendered(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<GivenTokens> {
        parse::<TokenFile>(text.as_bytes()).and_then(TokenFile::tokens)
    }

    #[test]
    fn an_answer_of_entra_is_a_file_of_tokens() {
        let given = read(
            r#"{"token_type":"Bearer","scope":"x","expires_in":3599,"ext_expires_in":3599,"access_token":"a","refresh_token":"r"}"#,
        );
        let given = given.unwrap();
        assert!(given.access_token.is_some() && given.refresh_token.is_some());
        assert_eq!(given.end, TokenEnd::In(Duration::from_secs(3599)));
        assert_eq!(
            read(r#"{"refresh_token":"r\n"}"#).unwrap().end,
            TokenEnd::In(Duration::ZERO)
        );
    }

    #[test]
    fn an_invalid_file_is_reported_without_its_tokens() {
        for (text, right) in [
            ("{}", "expected a token"),
            (
                r#"{"access_token":" ","refresh_token":""}"#,
                "expected a token",
            ),
            (r#"{"access_token":"canary"}"#, "`expires_in`"),
            (r#"{"access_token":["canary"]}"#, "access_token"),
            (
                r#"{"access_token":1,"refresh_token":"canary"}"#,
                "access_token",
            ),
            (r#""canary""#, "invalid type"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(
                error.contains(right) && !error.contains("canary"),
                "{error}"
            );
        }
    }
}
