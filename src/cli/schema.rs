//! `dispatch schema`: the contract with producers, generated from the types that the worker reads
//! and writes.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::output::Output;
use crate::broker::{EVENTS, EXCHANGE, KEY_CANCEL, KEY_CONFIGURE, KEY_JOB};
use crate::message::schema::{self, Addresses};

/// Print the JSON Schema (2020-12) of one message, or the AsyncAPI 3.0 document of all messages
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Document to print
    #[arg(value_enum)]
    of: Document,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Document {
    /// Job message of a producer
    Job,
    /// Message that supplies the account a job waits for
    Configure,
    /// Message that cancels a job
    Cancel,
    /// Outcome events and replies of the worker
    Outcome,
    /// All messages, with exchanges and routing keys
    Asyncapi,
}

impl Schema {
    pub(super) fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let document = self.of.value();
        let pretty = serde_json::to_string_pretty(&document)
            .context("the document cannot be encoded as JSON")?;
        output.answer(&document, || pretty)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Document {
    fn value(self) -> Value {
        match self {
            Self::Job => schema::job(),
            Self::Configure => schema::configure(),
            Self::Cancel => schema::cancel(),
            Self::Outcome => schema::outcome(),
            Self::Asyncapi => {
                let at = Addresses {
                    exchange: EXCHANGE,
                    events: EVENTS,
                    job: KEY_JOB,
                    configure: KEY_CONFIGURE,
                    cancel: KEY_CANCEL,
                };
                schema::asyncapi(env!("CARGO_PKG_VERSION"), at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_documents_are_those_of_the_types() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message/schema");
        for document in Document::value_variants() {
            let name = document.to_possible_value().unwrap().get_name().to_owned();
            let file = folder.join(format!("{name}.json"));
            let right = serde_json::to_string_pretty(&document.value()).unwrap() + "\n";
            let is = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(
                is == right,
                "{} differs from the types; if the change is intended, run\n  \
                 dispatch schema {name} > src/message/schema/{name}.json\nand add the change to CHANGELOG.md for producers",
                file.display()
            );
        }
    }

    #[test]
    fn every_reference_of_the_asyncapi_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(
                        fields
                            .get("$ref")
                            .and_then(Value::as_str)
                            .map(str::to_owned),
                    );
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let (document, mut found) = (Document::Asyncapi.value(), Vec::new());
        references(&document, &mut found);
        assert!(found.len() > 10, "{found:?}");
        for reference in found {
            assert!(
                document
                    .pointer(reference.trim_start_matches('#'))
                    .is_some(),
                "{reference}"
            );
        }
    }
}
