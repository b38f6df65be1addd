//! The witness: one JSON line per request received, on disk before its answer goes out.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::faults::FaultKind;

/// A provider that is stood in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Azure DevOps; also what no provider knows.
    AzureDevops,
    /// Microsoft Entra's token endpoint.
    Entra,
    /// Discord.
    Discord,
    /// A webhook receiver.
    Webhook,
    /// Slack.
    Slack,
    /// A workflow of Microsoft Teams.
    Teams,
    /// The mail server; its entries have an SMTP command and a reply's code for method and status.
    Email,
}

/// One request received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, in the order in which the requests took effect; goes on when a simulator is started on an old file.
    pub seq: u64,
    /// When it took effect or was refused.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whom it was for.
    pub provider: Provider,
    /// `POST`.
    pub method: String,
    /// As sent, still percent-encoded, without the query; `***` stands for a token in it.
    pub path: String,
    /// The query as sent, without `?`; `***` stands for a signature.
    pub query: Option<String>,
    /// The `Content-Type` as sent.
    pub content_type: Option<String>,
    /// What the sender's repetitions have in common: a nonce, a `webhook-id`, `work_item:contoso:17@3`, `search:contoso@200`
    /// (where the page begins), `work_items:contoso@17` (the first id of the batch).
    pub key: Option<String>,
    /// The unique name of the user whose access or refresh token it bears, where the token is known; expired ones are.
    #[serde(default)]
    pub caller: Option<String>,
    /// The W3C trace context as sent.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// SHA-256 of the body, lowercase hexadecimal.
    pub body_sha256: String,
    /// The body's shape where it is JSON: each scalar is the name of its type, each array has its items' shapes once. Of a form,
    /// the names of its fields.
    #[serde(default)]
    pub body_shape: Option<Value>,
    /// The HTTP status answered; `None` where the connection was dropped without an answer.
    pub status: Option<u16>,
    /// Whether it changed something: neither refused nor recognised as a repetition.
    pub effect: bool,
    /// What it was about: `work_item:contoso:17`, `discord:123`, `webhook:team`.
    pub subject: Option<String>,
    /// The fault it met.
    pub fault: Option<FaultKind>,
    /// Small facts: revisions before and after, the value, `deduped`, `lost_status`.
    pub detail: Value,
}

/// Reads a witness file. A last line that was cut off is not counted.
///
/// # Errors
/// If the file cannot be read, or holds a whole line that is not an [`Entry`].
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).map_err(io::Error::from))
        .collect()
}

/// The end that appends. One thread writes; lines that come in while it syncs share the next sync.
pub(super) struct Witness {
    lines: mpsc::Sender<Line>,
    seq: AtomicU64,
}

struct Line {
    bytes: Vec<u8>,
    stored: oneshot::Sender<()>,
}

impl Witness {
    /// Opens or creates the file and goes on after its last whole line.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let last = read(path)?.last().map_or(0, |entry| entry.seq);
        let whole = std::fs::read(path)?.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline as u64 + 1);
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        let (lines, queue) = mpsc::channel();
        std::thread::Builder::new().name("witness".to_owned()).spawn(move || append(file, &queue))?;
        Ok(Self { lines, seq: AtomicU64::new(last + 1) })
    }

    /// Numbers and queues an entry. Called under the world's lock, so that the order of lines is the order of effects.
    /// The receiver answers when it is on disk, or errs if it cannot be written.
    pub(super) fn submit(&self, mut entry: Entry) -> oneshot::Receiver<()> {
        entry.seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let mut bytes = serde_json::to_vec(&entry).expect("an entry has no map with keys that are not strings");
        bytes.push(b'\n');
        let (stored, receiver) = oneshot::channel();
        // A writer that gave up has dropped its end; then `stored` is dropped here, and the receiver errs.
        let _ = self.lines.send(Line { bytes, stored });
        receiver
    }
}

/// Writes until every sender is gone. Stops at the first error: then no request is answered any more, which tests notice.
fn append(mut file: File, queue: &mpsc::Receiver<Line>) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Line> = std::iter::once(first).chain(queue.try_iter()).collect();
        let bytes: Vec<u8> = batch.iter().flat_map(|line| line.bytes.iter().copied()).collect();
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            tracing::error!(error = crate::fault::chain(&error), "the witness file cannot be written");
            return;
        }
        for line in batch {
            // Nobody waits where the simulator is stopping.
            let _ = line.stored.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            seq: 0,
            at: time::macros::datetime!(2026-01-01 00:00 UTC),
            provider: Provider::Webhook,
            method: "POST".into(),
            path: "/webhook/team".into(),
            query: None,
            content_type: None,
            key: None,
            caller: None,
            traceparent: None,
            body_sha256: String::new(),
            body_shape: None,
            status: Some(200),
            effect: true,
            subject: None,
            fault: None,
            detail: Value::Null,
        }
    }

    #[tokio::test]
    async fn a_witness_opened_again_drops_a_cut_line_and_goes_on_counting() {
        let path = std::env::temp_dir().join(format!("witness-{}", uuid::Uuid::now_v7()));
        Witness::open(&path).unwrap().submit(entry()).await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":2,\"at").unwrap();
        Witness::open(&path).unwrap().submit(entry()).await.unwrap();
        let seqs: Vec<u64> = read(&path).unwrap().iter().map(|entry| entry.seq).collect();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seqs, [1, 2]);
    }
}
