//! A mail server (RFC 5321) that takes everything. A fault is looked for at `MAIL`, under that method and the path `/smtp`:
//! refused, hanging and rate-limited mails end there; one that is slow, or whose answer is lost, meets it after its content.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Simulator;
use super::chats::Mail;
use super::faults::{FaultKind, FaultRule};
use super::witness::{Entry, Provider};

const PATH: &str = "/smtp";
const GREETING: &str = "220 simulator";
const READY: &str = "354 end with a dot";
const TAKEN: &str = "250 taken";
/// The most that one dialogue may send, in bytes.
const DIALOGUE_BYTES: u64 = 1 << 20;

/// One dialogue.
struct Dialogue {
    simulator: Arc<Simulator>,
    lines: BufReader<tokio::io::Take<OwnedReadHalf>>,
    replies: OwnedWriteHalf,
    is_signed_in: bool,
    mail: Mail,
    fault: Option<FaultRule>,
}

/// Accepts for ever; dropped, it drops every dialogue.
pub(super) async fn serve(listener: TcpListener, simulator: Arc<Simulator>) {
    let mut dialogues = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = dialogues.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(dialogues.spawn(Dialogue::of(stream, Arc::clone(&simulator)).run())),
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

impl Dialogue {
    fn of(stream: TcpStream, simulator: Arc<Simulator>) -> Self {
        let (read, replies) = stream.into_split();
        let mail = Mail { from: String::new(), to: Vec::new(), content: String::new() };
        Self { simulator, lines: BufReader::new(read.take(DIALOGUE_BYTES)), replies, is_signed_in: false, mail, fault: None }
    }

    /// To its end, which is nobody's error.
    async fn run(mut self) {
        let _ = self.converse().await;
    }

    async fn converse(&mut self) -> std::io::Result<()> {
        self.reply(GREETING).await?;
        while let Some(line) = self.line().await? {
            let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.reply("250-simulator\r\n250 AUTH PLAIN").await?,
                "AUTH" => self.sign_in(rest).await?,
                "MAIL" if self.must_sign_in() => self.reply("530 sign in first").await?,
                "MAIL" => {
                    if !self.begin(rest).await? {
                        return Ok(());
                    }
                }
                "RCPT" => {
                    self.mail.to.push(address(rest));
                    self.reply("250 fine").await?;
                }
                "DATA" => {
                    if !self.take().await? {
                        return Ok(());
                    }
                }
                "QUIT" => return self.reply("221 bye").await,
                _ => self.reply("502 not known here").await?,
            }
        }
        Ok(())
    }

    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).await?;
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    async fn reply(&mut self, reply: &str) -> std::io::Result<()> {
        self.replies.write_all(format!("{reply}\r\n").as_bytes()).await
    }

    fn must_sign_in(&self) -> bool {
        !self.is_signed_in && !self.simulator.world().state.mail.users.is_empty()
    }

    /// `PLAIN` and the base64 of `\0user\0password` (RFC 4616).
    async fn sign_in(&mut self, given: &str) -> std::io::Result<()> {
        let plain = given.strip_prefix("PLAIN ").and_then(|encoded| BASE64.decode(encoded.as_bytes()).ok()).unwrap_or_default();
        let plain = String::from_utf8_lossy(&plain).into_owned();
        let mut parts = plain.split('\0').skip(1);
        let (user, password) = (parts.next().unwrap_or_default(), parts.next());
        self.is_signed_in = self.simulator.world().state.mail.users.get(user).map(String::as_str) == password;
        self.reply(if self.is_signed_in { "235 welcome" } else { "535 user or password is not right" }).await
    }

    /// Begins a mail, or does what its fault does; `false`: the dialogue is over.
    async fn begin(&mut self, from: &str) -> std::io::Result<bool> {
        self.mail = Mail { from: address(from), to: Vec::new(), content: String::new() };
        self.fault = self.simulator.world().faults.strike(Provider::Email, "MAIL", PATH);
        let (status, reply) = match self.fault.as_ref().map(|rule| rule.fault) {
            None | Some(FaultKind::Slow | FaultKind::LoseAnswer) => {
                self.reply("250 fine").await?;
                return Ok(true);
            }
            Some(FaultKind::Refuse) => (None, None),
            Some(FaultKind::Hang) => {
                self.log("MAIL", None, false).await;
                return std::future::pending().await;
            }
            Some(FaultKind::RateLimit) => (Some(451), Some("451 too many mails")),
            Some(FaultKind::ServerError) => (Some(421), Some("421 the service is unavailable")),
            Some(FaultKind::Nonsense) => (None, Some("<<<nonsense")),
        };
        self.log("MAIL", status, false).await;
        if let Some(reply) = reply {
            self.reply(reply).await?;
        }
        Ok(false)
    }

    /// Takes the content; `false`: the dialogue is over.
    async fn take(&mut self) -> std::io::Result<bool> {
        self.reply(READY).await?;
        loop {
            let Some(line) = self.line().await? else { return Ok(false) };
            if line == "." {
                break;
            }
            self.mail.content.push_str(line.strip_prefix('.').unwrap_or(&line));
            self.mail.content.push('\n');
        }
        let delay = self.fault.as_ref().map_or(Duration::ZERO, FaultRule::delay);
        tokio::time::sleep(delay).await;
        let is_lost = self.fault.as_ref().is_some_and(|rule| rule.fault == FaultKind::LoseAnswer);
        self.log("DATA", (!is_lost).then_some(250), true).await;
        if is_lost {
            return Ok(false);
        }
        self.reply(TAKEN).await?;
        Ok(true)
    }

    /// Writes the witness's line, and keeps a mail that is taken, in the order of effects.
    async fn log(&self, method: &str, status: Option<u16>, effect: bool) {
        let mail = &self.mail;
        let entry = Entry {
            seq: 0,
            at: time::OffsetDateTime::now_utc(),
            provider: Provider::Email,
            method: method.to_owned(),
            path: PATH.to_owned(),
            query: None,
            content_type: None,
            traceparent: None,
            body_shape: None,
            key: message_id(&mail.content),
            body_sha256: HEXLOWER.encode(&Sha256::digest(mail.content.as_bytes())),
            status,
            effect,
            subject: mail.to.first().map(|to| format!("email:{to}")),
            fault: self.fault.as_ref().map(|rule| rule.fault),
            detail: json!({ "to": mail.to }),
        };
        let stored = {
            let mut world = self.simulator.world();
            if effect {
                world.state.mail.received.push(mail.clone());
            }
            self.simulator.witness.submit(entry)
        };
        // A witness that cannot write stops everything, which tests notice.
        if stored.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What stands between `<` and `>`.
fn address(text: &str) -> String {
    let inner = text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(inner, _)| inner);
    inner.unwrap_or(text).to_owned()
}

/// The part before the `@`.
fn message_id(content: &str) -> Option<String> {
    let line = content.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Message-ID: "))?;
    Some(line.trim_start_matches('<').split('@').next().unwrap_or_default().to_owned())
}
