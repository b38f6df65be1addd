//! `dispatch topology`: exchanges, queues and bindings in RabbitMQ.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Output, plain};
use crate::broker::topology::{self, Outdated};
use crate::config::Links;
use crate::engine::Lane;
use crate::pipelines;

/// Declare or check exchanges, queues and bindings in RabbitMQ
#[derive(Debug, Subcommand)]
pub(super) enum Topology {
    Declare(Declare),
    Check(Check),
}

/// Declare the exchanges, queues and bindings of the worker, as an administrator; idempotent
#[derive(Debug, Args)]
pub(super) struct Declare {
    #[command(flatten)]
    links: Links,
    /// Keep the bindings of the previous version while its workers still run
    #[arg(long)]
    keep_old_bindings: bool,
}

/// Print differences from the expected topology; exit code 1 if there are any
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    links: Links,
}

impl Topology {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Declare(declare) => {
                let outdated = if declare.keep_old_bindings {
                    Outdated::Keep
                } else {
                    Outdated::Remove
                };
                let declared =
                    topology::declare(declare.links.amqp_url()?, &lanes(), outdated).await?;
                output.answer(&json!({"declared": declared}), || lines(&declared))?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Check(check) => {
                let differences = topology::check(check.links.amqp_url()?, &lanes()).await?;
                let right = differences.is_empty();
                output.answer(&json!({"right": right, "differences": differences}), || {
                    if right {
                        "the topology is as expected".to_owned()
                    } else {
                        lines(&differences)
                    }
                })?;
                Ok(if right {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                })
            }
        }
    }
}

fn lanes() -> Vec<Lane> {
    pipelines::registry()
        .iter()
        .map(|pipeline| pipeline.lane)
        .collect()
}

fn lines(of: &[String]) -> String {
    of.iter().map(|line| format!("{}\n", plain(line))).collect()
}
