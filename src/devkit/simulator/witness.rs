//! The witness log: one JSON line per received request, on disk before its answer is sent.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::faults::FaultKind;
use crate::providers::kind::ChannelKind;
use crate::providers::simulated::simulated;

/// A simulated provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "&'static str")]
pub enum Provider {
    /// Azure DevOps; also requests that match no provider.
    AzureDevops,
    /// Microsoft Entra's token endpoint.
    Entra,
    /// Discord.
    Discord,
    /// A webhook receiver.
    Webhook,
    /// The mail server. Its entries have an SMTP command as method and a reply code as status.
    Email,
    /// A channel that simulates itself, by its kind; see [`Provider::chat`].
    Chat(&'static str),
}

impl Provider {
    /// Returns a channel that simulates itself.
    #[must_use]
    pub const fn chat(kind: &ChannelKind) -> Self {
        Self::Chat(kind.name())
    }
}

impl From<Provider> for &'static str {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::AzureDevops => "azure_devops",
            Provider::Entra => "entra",
            Provider::Discord => "discord",
            Provider::Webhook => "webhook",
            Provider::Email => "email",
            Provider::Chat(kind) => kind,
        }
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = [
            Self::AzureDevops,
            Self::Entra,
            Self::Discord,
            Self::Webhook,
            Self::Email,
        ];
        let chat = || simulated(&name).map(|(kind, _)| Self::chat(kind));
        known
            .into_iter()
            .find(|provider| <&str>::from(*provider) == name)
            .or_else(chat)
            .ok_or_else(|| D::Error::custom(format!("expected a provider, got {name:?}")))
    }
}

/// A received request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number from 1, in the order in which the requests took effect. Continues when a simulator
    /// is started on an existing file.
    pub seq: u64,
    /// The time at which it took effect or was refused.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The provider that received it.
    pub provider: Provider,
    /// The HTTP method.
    pub method: String,
    /// The path as sent, percent-encoded, without the query. `***` replaces a token in it.
    pub path: String,
    /// The query as sent, without `?`. `***` replaces a signature.
    pub query: Option<String>,
    /// The `Content-Type` as sent.
    pub content_type: Option<String>,
    /// The key that repetitions of the request share: a nonce, a `webhook-id`,
    /// `work_item:contoso:17@3`, `search:contoso@200` (the start of the page),
    /// `work_items:contoso@17` (the first id of the batch).
    pub key: Option<String>,
    /// The unique name of the user whose access or refresh token the request has, if the token is
    /// known; expired ones are.
    #[serde(default)]
    pub caller: Option<String>,
    /// The W3C trace context as sent.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// SHA-256 of the body, lowercase hexadecimal.
    pub body_sha256: String,
    /// The shape of a JSON body: each scalar is replaced by the name of its type, each array by
    /// the distinct shapes of its items. For a form, the names of its fields.
    #[serde(default)]
    pub body_shape: Option<Value>,
    /// The HTTP status of the answer; `None` if the connection was dropped without an answer.
    pub status: Option<u16>,
    /// Whether it changed something, that is, was neither refused nor recognized as a repetition.
    pub effect: bool,
    /// The subject: `work_item:contoso:17`, `discord:123`, `webhook:team`.
    pub subject: Option<String>,
    /// The fault that was applied.
    pub fault: Option<FaultKind>,
    /// Further facts: revisions before and after, the value, `deduped`, `lost_status`.
    pub detail: Value,
}

/// Reads a witness file. An incomplete last line is ignored.
///
/// # Errors
/// If the file cannot be read, or has a complete line that is not an [`Entry`].
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).map_err(io::Error::from))
        .collect()
}

/// The writer of the log. A single thread writes; lines that arrive while it syncs share the next
/// sync.
pub(super) struct Witness {
    lines: mpsc::Sender<Line>,
    seq: AtomicU64,
}

struct Line {
    bytes: Vec<u8>,
    stored: oneshot::Sender<()>,
}

impl Witness {
    /// Opens or creates the file and appends after its last complete line.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let last = read(path)?.last().map_or(0, |entry| entry.seq);
        let whole = std::fs::read(path)?
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline as u64 + 1);
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        let (lines, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("witness".to_owned())
            .spawn(move || append(file, &queue))?;
        Ok(Self {
            lines,
            seq: AtomicU64::new(last + 1),
        })
    }

    /// Numbers and queues an entry. Called under the world's lock, so that the order of lines is
    /// the order of effects. The receiver completes when the entry is on disk, or fails if it
    /// cannot be written.
    pub(super) fn submit(&self, mut entry: Entry) -> oneshot::Receiver<()> {
        entry.seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let mut bytes =
            serde_json::to_vec(&entry).expect("an entry has no map with keys that are not strings");
        bytes.push(b'\n');
        let (stored, receiver) = oneshot::channel();
        // If the writer has stopped, its end is dropped; then `stored` is dropped here, and the
        // receiver fails.
        let _ = self.lines.send(Line { bytes, stored });
        receiver
    }
}

/// Writes until every sender is gone. Stops at the first error; then no request is answered, which
/// tests notice.
fn append(mut file: File, queue: &mpsc::Receiver<Line>) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Line> = std::iter::once(first).chain(queue.try_iter()).collect();
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|line| line.bytes.iter().copied())
            .collect();
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            tracing::error!(
                error = crate::fault::chain(&error),
                "cannot write the witness file"
            );
            return;
        }
        for line in batch {
            // The receiver is gone if the simulator is stopping.
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
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"seq\":2,\"at")
            .unwrap();
        Witness::open(&path).unwrap().submit(entry()).await.unwrap();
        let seqs: Vec<u64> = read(&path).unwrap().iter().map(|entry| entry.seq).collect();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seqs, [1, 2]);
    }
}
