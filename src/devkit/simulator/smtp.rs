//! A mail server (RFC 5321) that accepts everything. A fault is matched at `MAIL`, with that
//! method and the path `/smtp`: refused, hanging and rate-limited mails end there; a slow mail, or
//! one whose answer is lost or replaced, is affected after its content. Another fault is matched
//! at each `RCPT`, with that method and the address as path: a reply line that does not begin with
//! `2` skips that recipient, and the dialogue continues.

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
use super::faults::{FaultKind, FaultRule, RECIPIENT, Request};
use super::witness::{Entry, Provider};

const PATH: &str = "/smtp";
const GREETING: &str = "220 simulator";
const FINE: &str = "250 fine";
const READY: &str = "354 end with a dot";
const TAKEN: &str = "250 taken";
/// The maximum number of bytes that a client may send in one dialogue.
const DIALOGUE_BYTES: u64 = 1 << 20;

/// A dialogue with one client.
struct Dialogue {
    simulator: Arc<Simulator>,
    lines: BufReader<tokio::io::Take<OwnedReadHalf>>,
    replies: OwnedWriteHalf,
    is_signed_in: bool,
    mail: Mail,
    fault: Option<FaultRule>,
}

/// Accepts connections forever. Dropping it drops every dialogue.
pub(super) async fn serve(listener: TcpListener, simulator: Arc<Simulator>) {
    let mut dialogues = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = dialogues.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(dialogues.spawn(Dialogue::of(stream, Arc::clone(&simulator)).run())),
                Err(error) => {
                    tracing::warn!(error = crate::fault::chain(&error), "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

impl Dialogue {
    fn of(stream: TcpStream, simulator: Arc<Simulator>) -> Self {
        let (read, replies) = stream.into_split();
        let mail = Mail {
            from: String::new(),
            to: Vec::new(),
            content: String::new(),
        };
        Self {
            simulator,
            lines: BufReader::new(read.take(DIALOGUE_BYTES)),
            replies,
            is_signed_in: false,
            mail,
            fault: None,
        }
    }

    /// Runs the dialogue to its end, ignoring I/O errors.
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
                    if !self.recipient(rest).await? {
                        return Ok(());
                    }
                }
                "DATA" if self.mail.to.is_empty() => {
                    self.reply("554 5.5.1 no recipient was taken").await?
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
        self.replies
            .write_all(format!("{reply}\r\n").as_bytes())
            .await
    }

    fn must_sign_in(&self) -> bool {
        !self.is_signed_in && !self.simulator.world().state.mail.users.is_empty()
    }

    /// Handles `PLAIN` and the base64 of `\0user\0password` (RFC 4616).
    async fn sign_in(&mut self, given: &str) -> std::io::Result<()> {
        let plain = given
            .strip_prefix("PLAIN ")
            .and_then(|encoded| BASE64.decode(encoded.as_bytes()).ok())
            .unwrap_or_default();
        let plain = String::from_utf8_lossy(&plain).into_owned();
        let mut parts = plain.split('\0').skip(1);
        let (user, password) = (parts.next().unwrap_or_default(), parts.next());
        self.is_signed_in = self
            .simulator
            .world()
            .state
            .mail
            .users
            .get(user)
            .map(String::as_str)
            == password;
        self.reply(if self.is_signed_in {
            "235 welcome"
        } else {
            "535 user or password is not right"
        })
        .await
    }

    /// Begins a mail, or applies its fault. Returns `false` if the dialogue is over.
    async fn begin(&mut self, from: &str) -> std::io::Result<bool> {
        self.mail = Mail {
            from: address(from),
            to: Vec::new(),
            content: String::new(),
        };
        self.fault = self.strike("MAIL", PATH);
        let (status, reply) = match self.fault.as_ref().map(refusal) {
            None | Some(Refusal::Later) => {
                self.reply(FINE).await?;
                return Ok(true);
            }
            Some(Refusal::Silence) => {
                self.log("MAIL", None, false).await;
                return std::future::pending().await;
            }
            Some(Refusal::End(status, reply)) => (status, reply),
        };
        self.log("MAIL", status, false).await;
        if let Some(reply) = reply {
            self.reply(&reply).await?;
        }
        Ok(false)
    }

    /// Accepts one recipient, or applies its fault. Returns `false` if the dialogue is over.
    async fn recipient(&mut self, to: &str) -> std::io::Result<bool> {
        let to = address(to);
        let Some(fault) = self.strike(RECIPIENT, &to) else {
            self.mail.to.push(to);
            self.reply(FINE).await?;
            return Ok(true);
        };
        let refusal = refusal(&fault);
        let (status, reply) = match &refusal {
            Refusal::Later => (code(FINE), Some(FINE)),
            Refusal::Silence => (None, None),
            Refusal::End(status, reply) => (*status, reply.as_deref()),
        };
        let is_taken = status.is_some_and(|status| status < 300);
        self.log_recipient(&to, &fault, status).await;
        if is_taken {
            self.mail.to.push(to);
        }
        match (&refusal, reply) {
            (Refusal::Silence, _) => std::future::pending().await,
            (_, Some(reply)) => self.reply(reply).await.map(|()| true),
            (_, None) => Ok(false),
        }
    }

    fn strike(&self, method: &str, path: &str) -> Option<FaultRule> {
        let request = Request {
            provider: Provider::Email,
            method,
            path,
            caller: None,
            query: "",
            body: &[],
        };
        self.simulator.world().faults.strike(&request)
    }

    /// Receives the content. Returns `false` if the dialogue is over.
    async fn take(&mut self) -> std::io::Result<bool> {
        self.reply(READY).await?;
        loop {
            let Some(line) = self.line().await? else {
                return Ok(false);
            };
            if line == "." {
                break;
            }
            self.mail
                .content
                .push_str(line.strip_prefix('.').unwrap_or(&line));
            self.mail.content.push('\n');
        }
        let delay = self.fault.as_ref().map_or(Duration::ZERO, FaultRule::delay);
        tokio::time::sleep(delay).await;
        let is_lost = self
            .fault
            .as_ref()
            .is_some_and(|rule| rule.fault == FaultKind::LoseAnswer);
        let reply = self
            .fault
            .as_ref()
            .and_then(FaultRule::reply)
            .unwrap_or(TAKEN)
            .to_owned();
        self.log("DATA", code(&reply).filter(|_| !is_lost), true)
            .await;
        if is_lost {
            return Ok(false);
        }
        self.reply(&reply).await?;
        Ok(true)
    }

    /// Writes the log line of a complete mail, or of one that ended early.
    async fn log(&self, method: &str, status: Option<u16>, effect: bool) {
        let subject = self.mail.to.first().map(|to| format!("email:{to}"));
        let fault = self.fault.as_ref().map(|rule| rule.fault);
        let line = Entry {
            method: method.to_owned(),
            status,
            effect,
            subject,
            fault,
            ..self.entry()
        };
        self.keep(line).await;
    }

    async fn log_recipient(&self, to: &str, fault: &FaultRule, status: Option<u16>) {
        let subject = Some(format!("email:{to}"));
        let line = Entry {
            method: RECIPIENT.to_owned(),
            status,
            subject,
            fault: Some(fault.fault),
            ..self.entry()
        };
        self.keep(line).await;
    }

    /// Returns an entry with the common fields.
    fn entry(&self) -> Entry {
        Entry {
            seq: 0,
            at: time::OffsetDateTime::now_utc(),
            provider: Provider::Email,
            method: String::new(),
            path: PATH.to_owned(),
            query: None,
            content_type: None,
            traceparent: None,
            body_shape: None,
            key: message_id(&self.mail.content),
            caller: None,
            body_sha256: HEXLOWER.encode(&Sha256::digest(self.mail.content.as_bytes())),
            status: None,
            effect: false,
            subject: None,
            fault: None,
            detail: json!({ "to": self.mail.to }),
        }
    }

    /// Writes the line to the witness log and keeps an accepted mail, in the order of effects.
    async fn keep(&self, line: Entry) {
        let stored = {
            let mut world = self.simulator.world();
            if line.effect {
                world.state.mail.received.push(self.mail.clone());
            }
            self.simulator.witness.submit(line)
        };
        // If the witness log cannot be written, everything stops, which tests notice.
        if stored.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The effect of a fault on a command.
enum Refusal {
    /// The command is accepted; the fault applies later, or not at all.
    Later,
    /// No reply is sent.
    Silence,
    /// The reply's code and line. Without a line, the connection is dropped.
    End(Option<u16>, Option<String>),
}

fn refusal(rule: &FaultRule) -> Refusal {
    let reply = |line: &str| Refusal::End(code(line), Some(line.to_owned()));
    match rule.fault {
        FaultKind::Slow | FaultKind::LoseAnswer | FaultKind::Decorate => Refusal::Later,
        FaultKind::Answer if rule.is_done() => Refusal::Later,
        FaultKind::Answer => reply(rule.reply().unwrap_or_default()),
        FaultKind::Refuse => Refusal::End(None, None),
        FaultKind::Hang => Refusal::Silence,
        FaultKind::RateLimit => reply("451 too many mails"),
        FaultKind::ServerError => reply("421 the service is unavailable"),
        FaultKind::Nonsense => reply("<<<nonsense"),
    }
}

/// Returns the three digits at the beginning of a reply line.
fn code(reply: &str) -> Option<u16> {
    reply.get(..3)?.parse().ok()
}

/// Returns the text between `<` and `>`.
fn address(text: &str) -> String {
    let inner = text
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(inner, _)| inner);
    inner.unwrap_or(text).to_owned()
}

/// Returns the part of the message id before the `@`.
fn message_id(content: &str) -> Option<String> {
    let line = content
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix("Message-ID: "))?;
    Some(
        line.trim_start_matches('<')
            .split('@')
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}
