//! Sends one mail over SMTP (RFC 5321), with TLS from the start or after STARTTLS (RFC 8314, RFC
//! 3207).
//!
//! This module sends each command itself. The driver's own function for sending does not report
//! how far the dialogue came, which decides whether the server may have accepted the mail: it
//! cannot have before the content is sent. That function also ends at the first refused recipient,
//! while RFC 5321 §3.3 permits delivery to the others.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::{Response, Severity};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::channel::{Refusal, RefusedRecipient};
use super::http::within;
use super::http_fault::{Provider, provider};
use super::scrub::scrub;
use super::starttls::{self, Unasked};
use super::text::cut;
use crate::fault::{Certainty, Class};
use crate::trace::{NewSpan, SpanKind, in_span};

pub(super) static EMAIL: Provider = provider!("email", "e-mail server", 10 calls in 1 s);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The server has accepted the mail already, so a missing reply to QUIT does not matter.
const GOODBYE: Duration = Duration::from_secs(1);
const RIGHT: &str =
    "use smtps://user:password@host:port, or smtp://user:password@host:port?tls=required";

const PATIENCE: &str =
    "The mail server refuses the mail temporarily; the job is retried automatically.";
const REACH: &str = "Check that this machine can reach the mail server (name, route, certificate).";
const SLOW: &str = "The mail server or the network is slow; the job is retried automatically.";
const CREDENTIALS: &str = "The mail server does not accept the credentials: correct DISPATCH_SMTP_URL or the destination's secret.";
const ABILITY: &str = "The mail server lacks STARTTLS or a supported authentication method: use another port or server in DISPATCH_SMTP_URL.";
const REFUSED: &str = "The mail server refuses the mail; its reply states the reason.";
const INJECTED: &str = "The server is broken, or an attacker on the network injects replies; none of them was used. Use smtps:// \
                        in DISPATCH_SMTP_URL.";
const UNEXPECTED: &str = "The reply is not one of RFC 5321 for this command: check that DISPATCH_SMTP_URL names a mail server.";
/// "Service not available, closing transmission channel": ends the dialogue after any command.
const CLOSING: u16 = 421;
/// The limit for the server's text about one recipient.
const SAID_CHARACTERS: usize = 300;

/// The mail server for outgoing mail.
pub struct SmtpServer {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<SecretString>,
    security: Security,
}

enum Security {
    /// Plaintext, only to this machine, for development.
    Plain,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

/// A setting that names no usable mail server. States what is expected, never the setting itself.
#[derive(Debug, thiserror::Error)]
pub enum BadSmtp {
    /// The setting is not a URL of a mail server.
    #[error("{0}; {RIGHT}")]
    Url(&'static str),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up for the mail server")]
    Tls(#[source] Error),
}

/// A mail, ready to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mailing<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a [Address],
    /// The headers and the body, in ASCII.
    pub(super) content: &'a [u8],
}

/// The server's decision about each recipient of a mail.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    /// The accepted recipients, who have the mail. If there are none, the content was not sent.
    pub(super) taken: Vec<String>,
    /// The recipients refused permanently (5yz).
    pub(super) refused: Vec<RefusedRecipient>,
    /// The recipients refused temporarily (4yz).
    pub(super) waiting: Vec<RefusedRecipient>,
}

/// The phase of a dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connect,
    SignIn,
    Sender,
    Recipient,
    /// The server may have accepted the content.
    Content,
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpServer")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl SmtpServer {
    /// Parses `smtps://user:password@host:port` or `smtp://user:password@host:port?tls=required`;
    /// user and password are optional. `allow_plain_loopback` permits plain `smtp:` to this
    /// machine (development).
    ///
    /// # Errors
    /// [`BadSmtp`] states what is expected.
    pub fn parse(setting: &SecretString, allow_plain_loopback: bool) -> Result<Self, BadSmtp> {
        let url = Url::parse(setting.expose_secret())
            .map_err(|_| BadSmtp::Url("the setting is not a URL"))?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(BadSmtp::Url("the URL has no host"))?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(BadSmtp::Url("the URL has more than a host"));
        }
        let tls = || TlsParameters::new(host.clone()).map_err(BadSmtp::Tls);
        let is_loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let (security, port) = match (url.scheme(), url.query()) {
            ("smtps", None) => (Security::Tls(tls()?), 465),
            ("smtp", Some("tls=required")) => (Security::StartTls(tls()?), 587),
            ("smtp", None) if allow_plain_loopback && is_loopback => (Security::Plain, 25),
            ("smtp", None) => {
                return Err(BadSmtp::Url(
                    "plaintext is permitted only to loopback, if the settings allow it",
                ));
            }
            _ => return Err(BadSmtp::Url("the scheme or the query is not supported")),
        };
        let decoded = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .ok()
        };
        let bad = || BadSmtp::Url("the user or the password is not UTF-8");
        let user = Some(url.username())
            .filter(|user| !user.is_empty())
            .map(|user| decoded(user).ok_or_else(bad))
            .transpose()?;
        let password = url
            .password()
            .map(|password| decoded(password).ok_or_else(bad))
            .transpose()?
            .map(SecretString::from);
        Ok(Self {
            port: url.port().unwrap_or(port),
            host,
            user,
            password,
            security,
        })
    }

    /// Returns the credentials: the setting's user, with `password` or the setting's own.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn credentials(
        &self,
        password: Option<&SecretString>,
    ) -> Result<Option<Credentials>, &'static str> {
        match (&self.user, password.or(self.password.as_ref())) {
            (Some(user), Some(password)) => Ok(Some(Credentials::new(
                user.clone(),
                password.expose_secret().to_owned(),
            ))),
            (Some(_), None) => Err(
                "the user of DISPATCH_SMTP_URL needs a password, there or as the destination's secret",
            ),
            (None, Some(_)) => {
                Err("a password needs a user, which DISPATCH_SMTP_URL does not name")
            }
            (None, None) => Ok(None),
        }
    }

    /// Sends a mail to the recipients that the server accepts.
    ///
    /// # Errors
    /// [`Refusal`], whose certainty states whether the server may have accepted the mail.
    pub(super) async fn send(
        &self,
        mailing: Mailing<'_>,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<Recipients, Refusal> {
        let span = || NewSpan {
            name: "SMTP email".into(),
            kind: SpanKind::Client,
            attributes: vec![("provider", EMAIL.name.into())],
        };
        in_span(
            span,
            Box::pin(self.send_mail(mailing, credentials, deadline)),
        )
        .await
    }

    async fn send_mail(
        &self,
        mailing: Mailing<'_>,
        credentials: Option<&Credentials>,
        deadline: Instant,
    ) -> Result<Recipients, Refusal> {
        let opened = within(deadline, self.open(mailing, credentials)).await;
        let (mut connection, recipients) = opened.ok_or_else(|| too_late(Phase::Connect))??;
        if !recipients.taken.is_empty() {
            let taken = within(deadline, connection.message(mailing.content)).await;
            of_severity(
                Severity::PositiveCompletion,
                Phase::Content,
                taken.ok_or_else(|| too_late(Phase::Content))?,
            )?;
        }
        drop(within(Instant::now() + GOODBYE, connection.quit()).await);
        Ok(recipients)
    }

    /// Connects and greets the server, and starts TLS unless the link is plaintext.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Refusal> {
        let refused = |error: Error| refusal(Phase::Connect, &error);
        let (server, hello) = ((self.host.as_str(), self.port), ClientId::default());
        let tls = match &self.security {
            Security::Plain => None,
            Security::Tls(tls) => Some(tls.clone()),
            Security::StartTls(tls) => {
                let stream = starttls::connect(server, CONNECT_TIMEOUT)
                    .await
                    .map_err(|error| unreachable(&error))?;
                let connected =
                    AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await;
                let mut connection = connected.map_err(refused)?;
                connection
                    .starttls(tls.clone(), &hello)
                    .await
                    .map_err(refused)?;
                return Ok(connection);
            }
        };
        AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_TIMEOUT), &hello, tls, None)
            .await
            .map_err(refused)
    }

    /// Runs the dialogue up to the content.
    async fn open(
        &self,
        mailing: Mailing<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<(AsyncSmtpConnection, Recipients), Refusal> {
        let at = |phase| move |error: Error| refusal(phase, &error);
        let mut connection = self.connect().await?;
        if let Some(credentials) = credentials {
            connection
                .auth(DEFAULT_MECHANISMS, credentials)
                .await
                .map_err(at(Phase::SignIn))?;
        }
        let sender = connection
            .command(Mail::new(Some(mailing.from.clone()), Vec::new()))
            .await;
        of_severity(Severity::PositiveCompletion, Phase::Sender, sender)?;
        let mut recipients = Recipients::default();
        for address in mailing.to {
            let answer = connection
                .command(Rcpt::new(address.clone(), Vec::new()))
                .await;
            recipients.add(address, answer)?;
        }
        if !recipients.taken.is_empty() {
            of_severity(
                Severity::PositiveIntermediate,
                Phase::Sender,
                connection.command(Data).await,
            )?;
        }
        Ok((connection, recipients))
    }
}

impl Recipients {
    /// Adds a recipient, by the first digit of the reply (RFC 5321 §4.2.1). A reply that is not
    /// about the recipient ends the dialogue.
    fn add(&mut self, to: &Address, answer: Result<Response, Error>) -> Result<(), Refusal> {
        let to = to.to_string();
        match answer {
            Err(error) if error.is_permanent() => self.refused.push(RefusedRecipient {
                to,
                said: said_of_one(&error),
            }),
            Err(error) if error.is_transient() && !is_closing(&error) => {
                self.waiting.push(RefusedRecipient {
                    to,
                    said: said_of_one(&error),
                });
            }
            other => {
                of_severity(Severity::PositiveCompletion, Phase::Recipient, other)?;
                self.taken.push(to);
            }
        }
        Ok(())
    }
}

fn is_closing(error: &Error) -> bool {
    error
        .status()
        .is_some_and(|code| u16::from(code) == CLOSING)
}

fn said_of_one(error: &Error) -> String {
    cut(&scrub(&crate::fault::chain(error)), SAID_CHARACTERS)
}

/// Checks that a reply has the severity of success for its command (RFC 5321 §4.3.2). The driver
/// accepts every 2yz and 3yz.
fn of_severity(
    severity: Severity,
    phase: Phase,
    answer: Result<Response, Error>,
) -> Result<(), Refusal> {
    let response = answer.map_err(|error| refusal(phase, &error))?;
    if response.code().severity == severity {
        return Ok(());
    }
    let (code, line) = (response.code(), response.first_line().unwrap_or_default());
    Err(Refusal {
        provider: &EMAIL,
        code: EMAIL.codes.unrecognized,
        said: cut(
            &scrub(&format!("expected {severity}yz, got {code} {line}")),
            SAID_CHARACTERS,
        ),
        class: Class::Unrecognized,
        certainty: unanswered(phase),
        hint: UNEXPECTED.into(),
    })
}

/// Returns the certainty of a dialogue that ended without a decision of the server.
const fn unanswered(phase: Phase) -> Certainty {
    match phase {
        Phase::Content => Certainty::Unknown,
        Phase::Connect | Phase::SignIn | Phase::Sender | Phase::Recipient => Certainty::NotDone,
    }
}

/// Converts an error of the driver. A reply is a decision of the server in every phase; a missing
/// reply after the content is not.
fn refusal(phase: Phase, error: &Error) -> Refusal {
    let transient = Class::Transient { retry_after: None };
    let codes = &EMAIL.codes;
    let (code, class, certainty, hint) = match phase {
        _ if Unasked::is_cause_of(error) => (
            codes.unrecognized,
            Class::Unrecognized,
            Certainty::NotDone,
            INJECTED,
        ),
        _ if error.is_transient() => (codes.try_later, transient, Certainty::NotDone, PATIENCE),
        Phase::SignIn if error.is_permanent() => (
            codes.unauthorized,
            Class::Permanent,
            Certainty::NotDone,
            CREDENTIALS,
        ),
        _ if error.is_permanent() => (codes.refused, Class::Permanent, Certainty::NotDone, REFUSED),
        _ if error.is_client() => (codes.refused, Class::Permanent, Certainty::NotDone, ABILITY),
        Phase::Connect => return unreachable(error),
        Phase::SignIn | Phase::Sender | Phase::Recipient | Phase::Content => {
            (codes.connection_lost, transient, unanswered(phase), SLOW)
        }
    };
    Refusal {
        provider: &EMAIL,
        code,
        said: scrub(&crate::fault::chain(error)),
        class,
        certainty,
        hint: hint.into(),
    }
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal {
        provider: &EMAIL,
        code: EMAIL.codes.unreachable,
        said: scrub(&crate::fault::chain(error)),
        class: Class::Transient { retry_after: None },
        certainty: Certainty::NotDone,
        hint: REACH.into(),
    }
}

fn too_late(phase: Phase) -> Refusal {
    let what = if phase == Phase::Content {
        "the content"
    } else {
        "the commands before the content"
    };
    Refusal {
        provider: &EMAIL,
        code: EMAIL.codes.timed_out,
        said: format!("no reply to {what} before the call's deadline"),
        class: Class::Transient { retry_after: None },
        certainty: unanswered(phase),
        hint: SLOW.into(),
    }
}
