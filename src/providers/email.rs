//! E-mail, as plain text (RFC 5322, RFC 3834) through the mail server of the settings.
//!
//! **Proof of delivery**: the mail server's 250 after the content (any 2yz: RFC 5321 §4.2.1), for
//! the recipients that it accepted before; `email_recipients` handles the others. The channel
//! cannot know whether a mail bounces later or is read.
//!
//! At-least-once: mail servers do not dedupe. The `Message-ID` is the effect's key nevertheless,
//! so that two copies can be recognized as one mail, and many mail programs show them as one.

use std::borrow::Cow;
use std::time::SystemTime;

use futures_util::future::{BoxFuture, FutureExt};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{Address, Message as Letter};
use serde::{Deserialize, Serialize};

use super::channel::{
    BadConfig, Channel, ChannelConfig, ChannelFault, Delivered, Delivery, Message, Rendered, decode,
};
use super::email_recipients::{of_the_rest, outcome};
use super::kind::ChannelKind;
use super::smtp::{EMAIL, Mailing, SmtpServer};
use super::text::{Capped, cut, one_line, unlinked};
use crate::job::EffectClass;

const SUBJECT_CHARACTERS: usize = 256;
const BODY_CHARACTERS: usize = 20_000;
const RECIPIENTS: usize = 20;
const ADDRESS_BYTES: usize = 320;
const RIGHT: &str = r#"{"from": "Dispatch <dispatch@example.com>", "to": ["team@example.com"]}"#;

/// The description of this channel.
pub static KIND: ChannelKind = ChannelKind {
    provider: &EMAIL,
    api: None,
    // The password goes to the server in the workers' settings, regardless of the recipients.
    without_place: &["from", "to"],
    make: |parts| Box::new(Email::new(parts.smtp.take())),
    #[cfg(feature = "devkit")]
    requests: &[],
    #[cfg(feature = "devkit")]
    simulated: None,
};

/// A channel that sends mails to a list of addresses.
#[derive(Debug)]
pub struct Email {
    server: Option<SmtpServer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    to: Vec<String>,
}

/// A destination with valid settings.
struct Target<'s> {
    server: &'s SmtpServer,
    credentials: Option<Credentials>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

/// The stored form of a mail between rendering and delivery.
#[derive(Serialize, Deserialize)]
struct Written {
    subject: String,
    text: String,
}

impl Email {
    /// Creates a channel through this server. Without a server, every destination is invalid.
    #[must_use]
    pub const fn new(server: Option<SmtpServer>) -> Self {
        Self { server }
    }

    fn target(&self, config: &ChannelConfig) -> Result<Target<'_>, BadConfig> {
        let settings: Settings<'_> = decode(&config.public, RIGHT)?;
        if settings.to.is_empty() || settings.to.len() > RECIPIENTS {
            return Err(BadConfig(format!(
                "`to` must have 1 to {RECIPIENTS} addresses"
            )));
        }
        let from = mailbox("from", &settings.from)?;
        let to = settings
            .to
            .iter()
            .map(|address| mailbox("to", address))
            .collect::<Result<_, _>>()?;
        let server = self.server.as_ref();
        let server = server.ok_or_else(|| {
            BadConfig("mail needs a server: set DISPATCH_SMTP_URL for the workers".to_owned())
        })?;
        let credentials = server
            .credentials(config.secret.as_ref())
            .map_err(|why| BadConfig(why.to_owned()))?;
        Ok(Target {
            server,
            credentials,
            from,
            to,
        })
    }

    async fn send(&self, delivery: Delivery<'_>) -> Result<Delivered, ChannelFault> {
        let bad = |problem| ChannelFault::Config {
            provider: &EMAIL,
            problem,
        };
        let target = self.target(delivery.config).map_err(bad)?;
        let written: Written = serde_json::from_str(&delivery.rendered.0).map_err(|_| {
            bad(BadConfig(
                "the message was rendered for another channel; register the destination again with that kind, or cancel the job"
                    .to_owned(),
            ))
        })?;
        let id = format!("<{}@{}>", delivery.key, target.from.email.domain());
        let letter =
            letter(&target, written, &id).map_err(|error| bad(BadConfig(error.to_string())))?;
        // The header still names all recipients, because it is one mail.
        let left: Vec<Address> = target
            .to
            .into_iter()
            .map(|mailbox| mailbox.email)
            .filter(|to| !has_it(to, &delivery))
            .collect();
        if left.is_empty() {
            return Ok(Delivered::whole(Some(id)));
        }
        let mailing = Mailing {
            from: &target.from.email,
            to: &left,
            content: &letter.formatted(),
        };
        let sent = target
            .server
            .send(mailing, target.credentials.as_ref(), delivery.deadline)
            .await;
        let answered = sent.map_err(|refusal| {
            if delivery.served.is_empty() {
                refusal
            } else {
                of_the_rest(refusal, &left)
            }
        })?;
        outcome(id, delivery.served, answered)
    }
}

impl Channel for Email {
    fn kind(&self) -> &'static str {
        EMAIL.name
    }

    fn class(&self, _: &ChannelConfig) -> EffectClass {
        EffectClass::AtLeastOnce
    }

    fn render(&self, message: &Message) -> Rendered {
        let subject = one_line(&cut(&message.title, SUBJECT_CHARACTERS));
        let mut text = Capped::new(BODY_CHARACTERS);
        // Mail programs turn addresses in plain text into links.
        text.push(&unlinked(&subject));
        text.push("\r\n");
        for line in &message.lines {
            text.push("\r\n");
            text.push_all(unlinked(&one_line(line)).chars().map(String::from));
        }
        let written = Written {
            subject,
            text: text.finish(),
        };
        Rendered(serde_json::to_string(&written).expect("texts have a JSON form"))
    }

    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig> {
        self.target(config).map(|_| ())
    }

    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
        self.send(delivery).boxed()
    }
}

fn has_it(to: &Address, delivery: &Delivery<'_>) -> bool {
    delivery
        .served
        .iter()
        .any(|served| served == AsRef::<str>::as_ref(to))
}

/// Parses an address, with or without a name, that fits in one header line and that any server
/// accepts.
fn mailbox(field: &str, text: &str) -> Result<Mailbox, BadConfig> {
    let wrong = || {
        BadConfig(format!(
            "`{field}` must hold ASCII addresses such as team@example.com or Team <team@example.com>"
        ))
    };
    if text.len() > ADDRESS_BYTES || text.chars().any(char::is_control) {
        return Err(wrong());
    }
    let mailbox: Mailbox = text.parse().map_err(|_| wrong())?;
    if AsRef::<str>::as_ref(&mailbox.email).is_ascii() {
        Ok(mailbox)
    } else {
        Err(wrong())
    }
}

fn letter(target: &Target<'_>, written: Written, id: &str) -> Result<Letter, lettre::error::Error> {
    let auto = HeaderValue::new(
        HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated".to_owned(),
    );
    let to = |builder: MessageBuilder, mailbox: &Mailbox| builder.to(mailbox.clone());
    target
        .to
        .iter()
        .fold(Letter::builder().from(target.from.clone()), to)
        .subject(written.subject)
        .message_id(Some(id.to_owned()))
        .date(SystemTime::now())
        // Prevents out-of-office replies.
        .raw_header(auto)
        .header(ContentType::TEXT_PLAIN)
        .body(written.text)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::json;

    use super::*;
    use crate::fault::{Certainty, Fault};
    use crate::providers::scripted::{channel_config, message, soon};
    use crate::providers::scripted_smtp::{Act, ScriptedSmtp};

    const KEY: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";

    fn email(url: &str) -> Email {
        drop(rustls::crypto::ring::default_provider().install_default());
        Email::new(Some(
            SmtpServer::parse(&SecretString::from(url.to_owned()), true).unwrap(),
        ))
    }

    async fn deliver(
        message: &Message,
        acts: Vec<(&'static str, Act)>,
    ) -> (Result<Delivered, ChannelFault>, Vec<String>) {
        let script = ScriptedSmtp::start(acts);
        let email = email(&script.url);
        let config = channel_config(
            json!({"from": "Dispatch <bot@acme.example>", "to": ["Ann <ann@acme.example>", "bob@acme.example"]}),
            None,
        );
        let rendered = email.render(message);
        let delivery = Delivery::first(&config, &rendered, KEY, EffectClass::AtLeastOnce, soon());
        let sent = email.deliver(delivery).await;
        (sent, script.received())
    }

    #[tokio::test]
    async fn a_mail_has_the_key_as_its_id_and_is_marked_as_auto_generated() {
        let (sent, lines) = deliver(&message("Größe", &["It was Ödön."]), Vec::new()).await;
        let id = format!("<{KEY}@acme.example>");
        assert_eq!(sent.unwrap().provider_ref.as_deref(), Some(id.as_str()));
        for right in [
            "MAIL FROM:<bot@acme.example>",
            "RCPT TO:<ann@acme.example>",
            "RCPT TO:<bob@acme.example>",
            &format!("Message-ID: {id}"),
            "Auto-Submitted: auto-generated",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(lines.iter().any(|line| line == right), "{right}: {lines:?}");
        }
        assert!(lines.iter().all(|line| line.is_ascii()), "{lines:?}");
    }

    #[tokio::test]
    async fn titles_and_lines_cannot_inject_headers() {
        let hostile = message(
            "T\r\nBcc: eve@evil.example\r\n\r\nowned",
            &["a\r\n.\r\nMAIL FROM:<eve@evil.example>", "."],
        );
        let (sent, lines) = deliver(&hostile, Vec::new()).await;
        assert!(sent.is_ok());
        let head: Vec<&String> = lines.iter().take_while(|line| !line.is_empty()).collect();
        assert!(head.iter().all(|line| !line.starts_with("Bcc")), "{head:?}");
        assert_eq!(
            lines.iter().filter(|line| line.starts_with("MAIL")).count(),
            1,
            "{lines:?}"
        );
        assert_eq!(
            lines.iter().filter(|line| *line == ".").count(),
            1,
            "the content ends only once: {lines:?}"
        );
    }

    #[tokio::test]
    async fn a_lost_answer_is_unknown_and_a_refused_recipient_is_not_done() {
        let (lost, _) = deliver(&message("T", &[]), vec![(".", Act::Close)]).await;
        assert_eq!(lost.unwrap_err().certainty(), Certainty::Unknown);
        let (refused, _) =
            deliver(&message("T", &[]), vec![("RCPT", Act::Say("550 unknown"))]).await;
        let fault = refused.unwrap_err();
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("email.recipient_refused", Certainty::NotDone)
        );
    }

    #[test]
    fn a_mail_is_limited_in_size() {
        let Rendered(text) =
            email("smtps://mail.example").render(&message(&"t".repeat(500), &["long line "; 5000]));
        let written: Written = serde_json::from_str(&text).unwrap();
        assert_eq!(written.subject.chars().count(), SUBJECT_CHARACTERS);
        assert!(written.text.chars().count() <= BODY_CHARACTERS && written.text.ends_with('…'));
    }

    #[test]
    fn the_fault_of_bad_settings_states_what_is_expected() {
        let email = email("smtps://mail.example");
        let many: Vec<String> = (0..21)
            .map(|number| format!("p{number}@acme.example"))
            .collect();
        for (public, part) in [
            (json!({}), "from"),
            (json!({"from": "a@b.example", "to": []}), "1 to 20"),
            (json!({"from": "a@b.example", "to": many}), "1 to 20"),
            (json!({"from": "nobody", "to": ["a@b.example"]}), "`from`"),
            (
                json!({"from": "a@b.example", "to": ["x@y.example\r\nBcc: eve@evil.example"]}),
                "`to`",
            ),
            (
                json!({"from": "a@b.example", "to": ["ödön@b.example"]}),
                "ASCII",
            ),
        ] {
            let BadConfig(why) = email
                .check_config(&channel_config(public, None))
                .unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        let good = channel_config(
            json!({"from": "A <a@b.example>", "to": ["b@b.example"]}),
            None,
        );
        assert_eq!(email.check_config(&good), Ok(()));
        let BadConfig(why) = Email::new(None).check_config(&good).unwrap_err();
        assert!(why.contains("DISPATCH_SMTP_URL"), "{why}");
    }
}
