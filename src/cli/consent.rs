//! Whether a person agrees to a change, and why they make it.

use anyhow::bail;
use clap::Args;

use super::failure::Usage;
use super::output::{ask, can_ask};
use crate::config;
use crate::store::Actor;

/// What every command takes that changes something.
#[derive(Debug, Args)]
pub(super) struct Consent {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
}

impl Consent {
    /// Whether it is given already or can be asked for.
    pub(super) fn can_be_had(&self) -> anyhow::Result<()> {
        if self.is_possible() {
            return Ok(());
        }
        Err(Usage("there is no terminal to ask on; right is --yes".to_owned()).into())
    }

    /// Whether it is given already or somebody can be asked: without it a command that is dry by default stays so.
    pub(super) fn is_possible(&self) -> bool {
        self.yes || can_ask()
    }

    /// Asks, unless it is given already; without it the command ends here.
    pub(super) fn to(&self, question: &str) -> anyhow::Result<()> {
        self.can_be_had()?;
        if !self.yes && !ask(question)? {
            bail!("nothing was changed");
        }
        Ok(())
    }

    /// Who acts, for the audit log.
    pub(super) fn actor(&self) -> Actor {
        operator(self.reason.clone())
    }
}

/// Whoever runs the command.
pub(super) fn operator(reason: Option<String>) -> Actor {
    Actor { who: config::user(), role: "operator".to_owned(), reason }
}
