//! `dispatch producers`: the registry of producers and their permissions.

mod register;
mod usage;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::output::{Output, plain, rendered, say};
use crate::config::Links;
use crate::message::Producer;
use crate::operations;

/// List, register and remove producers, and show their quotas
#[derive(Debug, Subcommand)]
pub(super) enum Producers {
    List(List),
    Register(register::Register),
    Remove(Remove),
    Usage(usage::Usage),
}

/// List producers and the names that their messages may use
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
}

/// Remove a producer: its messages are refused within 5 s; its jobs continue
#[derive(Debug, Args)]
pub(super) struct Remove {
    #[command(flatten)]
    links: Links,
    /// RabbitMQ user of the producer
    #[arg(value_name = "USER")]
    name: String,
    #[command(flatten)]
    consent: Consent,
}

impl Producers {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Register(register) => register.run(output).await,
            Self::Remove(remove) => remove.run(output).await,
            Self::Usage(usage) => usage.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let producers = connect::store(&self.links).await?.producers().await?;
        output.rows(&producers, table)?;
        if producers.is_empty() {
            say("no producers; use `dispatch producers register` to add one");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Remove {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&format!("Remove producer {}?", self.name))?;
        operations::remove_producer(&store, &self.consent.actor(), &self.name).await?;
        output.answer(&json!({"producer": self.name, "removed": true}), || {
            format!("removed {}", plain(&self.name))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, producers: &[Producer]) -> String {
    let mut table = output.table(&[
        "producer",
        "sources",
        "organizations",
        "reply queues",
        "Discord applications",
    ]);
    for producer in producers {
        let Producer {
            name,
            sources,
            organizations,
            reply_queues,
            applications,
        } = producer;
        let lists = [sources, organizations, reply_queues, applications]
            .map(|list| Cell::new(plain(&list.join(", "))));
        table.add_row(std::iter::once(Cell::new(plain(name))).chain(lists));
    }
    rendered(table)
}
