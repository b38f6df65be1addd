//! Documents from files or stdin, and the AMQP properties of each.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;
use uuid::Uuid;

use crate::message::{Envelope, check_intake, read_body};

/// A document to publish.
#[derive(Debug)]
pub(super) struct Document {
    /// The document's bytes, unchanged.
    pub(super) body: Vec<u8>,
    /// File and line, for error messages.
    pub(super) origin: String,
    /// AMQP `message_id`: the dedupe key of a body that has none.
    pub(super) message_id: Option<String>,
    /// AMQP `app_id`: the source of a body that has none.
    pub(super) app_id: Option<String>,
    /// The source that the worker will see, if known.
    pub(super) source: Option<String>,
    /// The dedupe key that the worker will see, if known.
    pub(super) dedupe_key: Option<String>,
}

/// Reads every document of these files in order. No file, or `-`, is stdin.
pub(super) fn all(files: &[PathBuf], lines: bool) -> anyhow::Result<Vec<Document>> {
    let stdin = [PathBuf::from("-")];
    let files = if files.is_empty() { &stdin } else { files };
    let mut documents = Vec::new();
    for file in files {
        let (name, bytes) = contents(file)?;
        documents.extend(split(&name, bytes, lines));
    }
    Ok(documents)
}

/// Returns a file's name for error messages, and its bytes. `-` is stdin.
pub(in crate::cli) fn contents(file: &Path) -> anyhow::Result<(String, Vec<u8>)> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read stdin")?;
        return Ok(("stdin".to_owned(), bytes));
    }
    let name = file.display().to_string();
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, bytes))
}

fn split(name: &str, bytes: Vec<u8>, lines: bool) -> Vec<Document> {
    if !lines {
        return vec![Document::new(bytes, name.to_owned())];
    }
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(at, line)| Document::new(line.to_vec(), format!("{name}:{}", at + 1)))
        .collect()
}

impl Document {
    const fn new(body: Vec<u8>, origin: String) -> Self {
        Self {
            body,
            origin,
            message_id: None,
            app_id: None,
            source: None,
            dedupe_key: None,
        }
    }

    /// Sets the properties that replace missing fields of the body: `source`, and a fresh dedupe
    /// key.
    pub(super) fn identify(&mut self, source: Option<&str>) {
        let body = read_body(&self.body).unwrap_or_default();
        let field = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        self.app_id = source.map(str::to_owned);
        if body.get("dedupe_key").is_none_or(Value::is_null) {
            self.message_id = Some(Uuid::now_v7().to_string());
        }
        self.source = field("source").or_else(|| self.app_id.clone());
        self.dedupe_key = field("dedupe_key").or_else(|| self.message_id.clone());
    }

    /// Checks the document as the worker will.
    pub(super) fn validate(&mut self) -> anyhow::Result<()> {
        let envelope = Envelope {
            content_type: Some("application/json".to_owned()),
            message_id: self.message_id.clone(),
            app_id: self.app_id.clone(),
            ..Envelope::default()
        };
        let (source, dedupe_key) =
            check_intake(&self.body, &envelope).with_context(|| self.origin.clone())?;
        (self.source, self.dedupe_key) = (Some(source), Some(dedupe_key));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Document {
        split("x.json", text.as_bytes().to_vec(), false).remove(0)
    }

    #[test]
    fn lines_are_documents_with_their_numbers_and_empty_ones_are_none() {
        let documents = split("stdin", b"{\"a\":1}\n\n  \n{\"b\":2}".to_vec(), true);
        let origins: Vec<&str> = documents
            .iter()
            .map(|document| document.origin.as_str())
            .collect();
        assert_eq!(origins, ["stdin:1", "stdin:4"]);
        assert_eq!(documents[1].body, b"{\"b\":2}");
    }

    #[test]
    fn a_document_without_a_key_gets_one_and_one_with_a_key_keeps_it() {
        let mut without = only(r#"{"schema":1,"organization":"contoso"}"#);
        without.identify(Some("shell"));
        without.validate().unwrap();
        assert_eq!(without.source.as_deref(), Some("shell"));
        assert!(without.message_id.is_some() && without.message_id == without.dedupe_key);
        let mut with =
            only(r#"{"schema":1,"organization":"contoso","source":"hooks","dedupe_key":"17"}"#);
        with.identify(Some("shell"));
        with.validate().unwrap();
        assert_eq!(
            (with.source.as_deref(), with.dedupe_key.as_deref()),
            (Some("hooks"), Some("17"))
        );
        assert_eq!(with.message_id, None);
    }

    #[test]
    fn a_byte_order_mark_or_a_spoiled_value_hides_no_key() {
        for text in [
            "\u{feff}{\"schema\":1,\"organization\":\"contoso\",\"source\":\"hooks\",\"dedupe_key\":\"17\"}",
            r#"{"schema":1,"organization":"contoso","source":"hooks","dedupe_key":"17","events":[{"payload":["\ud83d",1e999]}]}"#,
        ] {
            let mut document = only(text);
            document.identify(Some("shell"));
            assert_eq!(
                (document.source.as_deref(), document.dedupe_key.as_deref()),
                (Some("hooks"), Some("17")),
                "{text}"
            );
            assert_eq!(document.message_id, None, "{text}");
            document.validate().unwrap();
        }
    }

    #[test]
    fn a_document_that_the_worker_would_refuse_is_refused_with_its_place() {
        let mut nameless = only(r#"{"schema":1,"organization":"contoso"}"#);
        nameless.identify(None);
        let error = format!("{:#}", nameless.validate().unwrap_err());
        assert_eq!(error, "x.json: `source` is required");
    }
}
