//! Confirmation of a change by the operator, and the reason for the audit log.

use anyhow::bail;
use clap::Args;

use super::failure::Usage;
use super::output::{ask, can_ask};
use crate::config;
use crate::store::{Actor, Role};

/// Options of every command that makes changes.
#[derive(Debug, Args)]
pub(super) struct Consent {
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Reason for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Consent {
    /// Fails unless `--yes` is given or a prompt is possible.
    pub(super) fn can_be_had(&self) -> anyhow::Result<()> {
        if self.is_possible() {
            return Ok(());
        }
        Err(Usage(
            "expected a terminal for the confirmation prompt, got none; use --yes".to_owned(),
        )
        .into())
    }

    /// Returns whether `--yes` is given or a prompt is possible. Otherwise a command that is a dry
    /// run by default changes nothing.
    pub(super) fn is_possible(&self) -> bool {
        self.yes || can_ask()
    }

    /// Asks `question` unless `--yes` is given. Without consent it fails, and the command ends.
    pub(super) fn to(&self, question: &str) -> anyhow::Result<()> {
        self.can_be_had()?;
        if !self.yes && !ask(question)? {
            bail!("not confirmed; nothing was changed");
        }
        Ok(())
    }

    /// Returns the actor of a change whose reason others see.
    pub(super) fn actor_with_reason(&self) -> anyhow::Result<Actor> {
        if self
            .reason
            .as_deref()
            .is_none_or(|reason| reason.trim().is_empty())
        {
            return Err(Usage("expected a reason, got none; use --reason".to_owned()).into());
        }
        Ok(self.actor())
    }

    /// Returns the actor for the audit log.
    pub(super) fn actor(&self) -> Actor {
        operator(self.reason.clone())
    }
}

/// Returns the operator who runs the command, as an actor for the audit log.
pub(super) fn operator(reason: Option<String>) -> Actor {
    Actor {
        who: config::user(),
        role: Role::Admin,
        reason,
        request: None,
    }
}
