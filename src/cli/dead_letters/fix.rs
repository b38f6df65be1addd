//! `dispatch dead-letters fix`: replaces the body of a dead letter by a corrected one; a worker
//! publishes it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::app;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::document::{read, say_diff};
use crate::cli::output::{Output, say};
use crate::config::Links;
use crate::console::masked_changes;
use crate::operations;

/// Replace the body of a dead letter by the one in a file or stdin, and have a worker publish it.
/// The new body must be one that is accepted now, with the source and the organization of the
/// original
#[derive(Debug, Args)]
pub(in crate::cli) struct Fix {
    #[command(flatten)]
    links: Links,
    /// Number of the dead letter
    #[arg(value_name = "NUMBER")]
    id: i64,
    /// A file with the body as JSON; `-` for stdin
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// Check the body and show what would change, without changing it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Fix {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        if !self.dry_run {
            self.consent.can_be_had()?;
        }
        let body = read(&self.body)?;
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        let preview = operations::preview_letter_fix(&store, &keyring, self.id, &body).await?;
        if !preview.original_is_readable {
            say("the original cannot be read; these are all fields of the correction");
        }
        let diff = masked_changes(preview.diff, &keyring);
        say_diff(&diff);
        if !self.dry_run {
            self.consent
                .to(&format!("Replace the body of dead letter {}?", self.id))?;
            let actor = self.consent.actor();
            operations::fix_dead_letter(&store, &keyring, &actor, self.id, &body).await?;
        }
        let changed = !self.dry_run;
        let value = json!({"dead_letter_id": self.id, "changed": changed, "diff": diff});
        output.answer(&value, || {
            if changed {
                format!("dead letter {}: corrected; a worker publishes it", self.id)
            } else {
                String::new()
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
