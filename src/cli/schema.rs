//! `dispatch schema`: the producers' contract, printed from the types that the worker reads and writes.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::output::Output;
use crate::broker::{EVENTS, EXCHANGE, KEY_CANCEL, KEY_CONFIGURE, KEY_JOB};
use crate::message::schema::{self, Addresses};

/// Print the JSON Schema (2020-12) of a message, or the AsyncAPI 3.0 document of all
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Of what
    #[arg(value_enum)]
    of: Document,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Document {
    /// A job, as a producer sends it
    Job,
    /// Supplies the account that a job waits for
    Configure,
    /// Ends a job
    Cancel,
    /// Outcome events and replies
    Outcome,
    /// All of them, with exchanges and routing keys
    Asyncapi,
}

impl Schema {
    pub(super) fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let document = self.of.value();
        let pretty = serde_json::to_string_pretty(&document).context("the document as JSON")?;
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
                let at =
                    Addresses { exchange: EXCHANGE, events: EVENTS, job: KEY_JOB, configure: KEY_CONFIGURE, cancel: KEY_CANCEL };
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
                "{} is not what the types say; if that is meant, run\n  dispatch schema {name} > src/message/schema/{name}.json\nand \
                 tell producers in CHANGELOG.md",
                file.display()
            );
        }
    }

    #[test]
    fn every_reference_of_the_asyncapi_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
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
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
