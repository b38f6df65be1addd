//! `dispatch jobs park|rerun|skip|effect|edit|restore|unmask`: each acts on one job at the version
//! that was shown when it asked, and writes an audit row.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::Selector;
use super::actions::{print_result, question};
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::document::{read, say_diff};
use crate::cli::failure::Usage;
use crate::cli::output::{Output, say};
use crate::config::Links;
use crate::job::{Epoch, Generation};
use crate::operations::{self, Edited, Found};
use crate::store::{ActionResult, Store, Target};

#[derive(Debug, Args)]
struct Acting {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    job: Selector,
    #[command(flatten)]
    consent: Consent,
}

/// A job as it was when the command looked.
struct Seen {
    store: Store,
    target: Target,
    question: String,
}

/// Park an open job, also a running one, so that nothing runs until it is retried
#[derive(Debug, Args)]
pub(in crate::cli) struct Park {
    #[command(flatten)]
    acting: Acting,
}

/// Run an open job again from a stage on, as a new generation; earlier stages keep their
/// checkpoints, and open follow-ups are cancelled
#[derive(Debug, Args)]
pub(in crate::cli) struct Rerun {
    #[command(flatten)]
    acting: Acting,
    /// The first stage to run again
    #[arg(long, value_name = "NAME")]
    stage: String,
}

/// Pass the stage due with an output from a file or stdin; the stage itself does nothing
#[derive(Debug, Args)]
pub(in crate::cli) struct Skip {
    #[command(flatten)]
    acting: Acting,
    /// The stage due
    #[arg(long, value_name = "NAME")]
    stage: String,
    /// A file with the stage's output as JSON; `-` for stdin
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Record whether an effect with an unknown outcome is done
#[derive(Debug, Args)]
pub(in crate::cli) struct MarkEffect {
    #[command(flatten)]
    acting: Acting,
    /// Key of the effect, as `dispatch jobs show` prints it
    #[arg(long, value_name = "KEY")]
    effect: String,
    /// It is done: the job continues after its stage
    #[arg(
        long,
        conflicts_with = "not_done",
        required_unless_present = "not_done"
    )]
    done: bool,
    /// It is not done: its stage runs again
    #[arg(long)]
    not_done: bool,
    /// The provider's name for what was made, for example a message id
    #[arg(long, value_name = "ID", requires = "done")]
    reference: Option<String>,
}

/// Replace the input of an open job by the one in a file or stdin; the job restarts at its first
/// stage
#[derive(Debug, Args)]
pub(in crate::cli) struct Edit {
    #[command(flatten)]
    acting: Acting,
    /// A file with the input as JSON, in the form that `dispatch jobs unmask` prints; `-` for stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
}

/// Restore an input that a job had before an edit; the job restarts at its first stage
#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    #[command(flatten)]
    acting: Acting,
    /// Number of the input, as `dispatch jobs unmask` prints it
    #[arg(long, value_name = "N")]
    version: i32,
}

/// Show the input and the outputs of a job with their personal data
#[derive(Debug, Args)]
pub(in crate::cli) struct Unmask {
    #[command(flatten)]
    acting: Acting,
}

impl Acting {
    /// Looks at the job.
    async fn look(&self, verb: &str) -> anyhow::Result<Seen> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        let row = self.job.row(&store).await?;
        let target = Target::Version {
            id: row.id,
            generation: Generation(row.generation),
            epoch: Epoch(row.epoch),
        };
        let question = question(verb, &row);
        Ok(Seen {
            store,
            target,
            question,
        })
    }

    /// Looks at the job and asks for consent.
    async fn agreed(&self, verb: &str) -> anyhow::Result<Seen> {
        let seen = self.look(verb).await?;
        self.consent.to(&seen.question)?;
        Ok(seen)
    }
}

impl Park {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let Seen { store, target, .. } = self.acting.agreed("Park").await?;
        let actor = self.acting.consent.actor();
        print_result(
            output,
            "park",
            operations::park(&store, &actor, &target).await?,
        )
    }
}

impl Rerun {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let seen = self
            .acting
            .look(&format!("From {} on, re-run", self.stage))
            .await?;
        let (store, target) = (&seen.store, &seen.target);
        let again = operations::effects_that_may_repeat(store, target, &self.stage).await?;
        for one in &again.effects {
            let whose = if one.of_follow_ups {
                "follow-ups"
            } else {
                "the job"
            };
            say(&format!(
                "may repeat: {} effects {} of {} ({whose})",
                one.count, one.class, one.stage
            ));
        }
        self.acting.consent.to(&seen.question)?;
        let actor = self.acting.consent.actor();
        let result = operations::rerun(store, &actor, target, &self.stage).await?;
        print_result(output, "rerun", result)
    }
}

impl Skip {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let given = read(&self.output)?;
        let verb = format!("Skip {} of", self.stage);
        let Seen { store, target, .. } = self.acting.agreed(&verb).await?;
        let actor = self.acting.consent.actor();
        let result = operations::skip(&store, &actor, &target, &self.stage, &given).await?;
        print_result(output, "skip", result)
    }
}

impl MarkEffect {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (verb, found) = if self.done {
            let provider_ref = self.reference;
            ("Record an effect as done for", Found::Done { provider_ref })
        } else {
            ("Record an effect as not done for", Found::NotDone)
        };
        let Seen { store, target, .. } = self.acting.agreed(verb).await?;
        let actor = self.acting.consent.actor();
        let result = operations::mark_effect(&store, &actor, &target, &self.effect, &found);
        print_result(output, "effect", result.await?)
    }
}

impl Edit {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let document: Value = serde_json::from_str(&read(&self.input)?)
            .map_err(|error| Usage(format!("expected JSON, got something else: {error}")))?;
        let seen = self.acting.look("Replace the input of").await?;
        let (store, target) = (&seen.store, &seen.target);
        say_diff(&operations::preview_edit(store, target, &document).await?);
        self.acting.consent.to(&seen.question)?;
        let actor = self.acting.consent.actor();
        let edited = operations::edit_input(store, &actor, target, &document).await?;
        print_edited(output, "edit", edited)
    }
}

impl Restore {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let verb = format!("Restore input {} of", self.version);
        let Seen { store, target, .. } = self.acting.agreed(&verb).await?;
        let actor = self.acting.consent.actor();
        let edited = operations::restore_input(&store, &actor, &target, self.version).await?;
        say_diff(&edited.diff);
        print_edited(output, "restore", edited)
    }
}

impl Unmask {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let Seen { store, target, .. } = self.acting.agreed("Show the personal data of").await?;
        let actor = self.acting.consent.actor();
        match operations::unmask(&store, &actor, &target).await? {
            (_, Some(unmasked)) => {
                let pretty = serde_json::to_string_pretty(&unmasked)?;
                output.answer(&unmasked, || pretty)?;
                Ok(ExitCode::SUCCESS)
            }
            (result, None) => print_result(output, "unmask", result),
        }
    }
}

fn print_edited(output: Output, action: &str, edited: Edited) -> anyhow::Result<ExitCode> {
    let Edited {
        result,
        diff,
        kept_as,
    } = edited;
    let ActionResult::Done { job, before, now } = &result else {
        return print_result(output, action, result);
    };
    let value = json!({"job_id": job, "action": action, "changed": true, "before": before, "now": now, "diff": diff,
        "kept_as": kept_as});
    output.answer(&value, || {
        format!(
            "job {job}: was {before}, is now {now}; the input before is kept as version {}",
            kept_as.unwrap_or_default()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
