//! `dispatch producers register`: registers a producer.

use std::process::ExitCode;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use super::table;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::{Output, say};
use crate::config::Links;
use crate::message::Producer;
use crate::operations::{self, SharedSource};

/// Register a RabbitMQ user as a producer, or replace its permissions; a trailing `*` in a name
/// matches every suffix
#[derive(Debug, Args)]
pub(in crate::cli) struct Register {
    #[command(flatten)]
    links: Links,
    /// RabbitMQ user that the producer publishes as
    #[arg(value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Source that its messages may use; repeatable
    #[arg(long = "source", value_name = "NAME", required = true, value_parser = NonEmptyStringValueParser::new())]
    sources: Vec<String>,
    /// Organization that its jobs may belong to; repeatable
    #[arg(long = "organization", value_name = "SLUG", required = true, value_parser = NonEmptyStringValueParser::new())]
    organizations: Vec<String>,
    /// Queue of its own that may receive replies; repeatable; direct replies need none
    #[arg(long = "reply-queue", value_name = "QUEUE", value_parser = NonEmptyStringValueParser::new())]
    reply_queues: Vec<String>,
    /// Discord application whose interactions it may forward; repeatable
    #[arg(long = "application", value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    applications: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

impl Register {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        let Self {
            name,
            sources,
            organizations,
            reply_queues,
            applications,
            consent,
            ..
        } = self;
        let new = Producer {
            name,
            sources,
            organizations,
            reply_queues,
            applications,
        };
        for shared in operations::shared_sources(&store, &new).await? {
            let SharedSource { producer, source } = shared;
            say(&format!(
                "{producer} may use the source {source} too: producers with the same source can cancel each other's jobs and take their keys"
            ));
        }
        consent.to(&format!("Register producer {}?", new.name))?;
        let is_changed = operations::register_producer(&store, &consent.actor(), &new).await?;
        let now = std::slice::from_ref(&new);
        output.answer(&json!({"changed": is_changed, "now": new}), || {
            table(output, now)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
