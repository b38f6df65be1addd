//! Tests of dialogues with a mail server.

use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use secrecy::SecretString;
use tokio::time::Instant;

use super::channel::Refusal;
use super::scripted_smtp::{Act, ScriptedSmtp};
use super::smtp::{BadSmtp, Mailing, Recipients, SmtpServer};
use crate::fault::{Certainty, Class};

const PLENTY: Duration = Duration::from_secs(10);

fn parse(setting: &str) -> Result<SmtpServer, BadSmtp> {
    drop(rustls::crypto::ring::default_provider().install_default());
    SmtpServer::parse(&SecretString::from(setting.to_owned()), true)
}

async fn send(
    acts: &[(&'static str, Act)],
    limit: Duration,
) -> (Result<Recipients, Refusal>, ScriptedSmtp) {
    let script = ScriptedSmtp::start(acts.to_vec());
    let server = parse(&script.url.replace("://", "://robot:canary-password@")).unwrap();
    let (from, to) = (
        "a@acme.example".parse().unwrap(),
        ["b@acme.example", "c@acme.example"].map(|to| to.parse().unwrap()),
    );
    let mailing = Mailing {
        from: &from,
        to: &to,
        content: b"Subject: x\r\n\r\n.hello\r\n",
    };
    let credentials = server.credentials(None).unwrap();
    let sent = server
        .send(mailing, credentials.as_ref(), Instant::now() + limit)
        .await;
    (sent, script)
}

#[tokio::test]
async fn a_mail_is_sent_to_each_recipient_after_authentication() {
    let (sent, script) = send(&[], PLENTY).await;
    let Recipients {
        taken,
        refused,
        waiting,
    } = sent.unwrap();
    assert_eq!(
        (taken.join(" ").as_str(), refused, waiting),
        ("b@acme.example c@acme.example", Vec::new(), Vec::new())
    );
    let said = script.received();
    let verbs: Vec<&str> = said
        .iter()
        .map(|line| line.split([' ', ':']).next().unwrap_or_default())
        .collect();
    assert_eq!(verbs[..6], ["EHLO", "AUTH", "MAIL", "RCPT", "RCPT", "DATA"]);
    assert!(
        said.iter().any(|line| line == "..hello"),
        "dots are stuffed: {said:?}"
    );
}

#[tokio::test]
async fn a_reply_decides_the_certainty_and_a_missing_reply_after_the_content_is_unknown() {
    use Act::{Close, Say};
    use Certainty::{NotDone, Unknown};

    let slow = || Class::Transient { retry_after: None };
    let permanent = vec![
        ("", Say("554 no service"), "email.refused"),
        ("AUTH", Say("535 no"), "email.unauthorized"),
        ("DATA", Say("554 no valid recipients"), "email.refused"),
        (".", Say("554 spam"), "email.refused"),
    ];
    let transient = vec![
        ("", Close, "email.unreachable"),
        ("AUTH", Say("454 later"), "email.try_later"),
        ("MAIL", Say("451 later"), "email.try_later"),
        ("MAIL", Close, "email.connection_lost"),
        ("RCPT", Say("421 closing"), "email.try_later"),
        ("RCPT", Close, "email.connection_lost"),
        ("DATA", Close, "email.connection_lost"),
        (".", Say("452 full"), "email.try_later"),
    ];
    let unrecognized = vec![
        ("MAIL", Say("354 go on"), "email.unrecognized"),
        ("RCPT", Say("354 go on"), "email.unrecognized"),
        ("DATA", Say("250 fine"), "email.unrecognized"),
    ];
    let unknown = vec![
        (".", Close, "email.connection_lost"),
        (".", Say("what"), "email.connection_lost"),
    ];
    let unknown_and_unrecognized = vec![(".", Say("354 go on"), "email.unrecognized")];
    let groups = [
        (permanent, Class::Permanent, NotDone),
        (transient, slow(), NotDone),
        (unrecognized, Class::Unrecognized, NotDone),
        (unknown, slow(), Unknown),
        (unknown_and_unrecognized, Class::Unrecognized, Unknown),
    ];
    let rows = groups.into_iter().flat_map(|(rows, class, certainty)| {
        let expected = move |row| (row, class.clone(), certainty);
        rows.into_iter().map(expected)
    });
    for ((verb, act, code), class, certainty) in rows {
        let (sent, script) = send(&[(verb, act)], PLENTY).await;
        let refusal = sent.unwrap_err();
        assert_eq!(
            (refusal.code, refusal.class, refusal.certainty),
            (code, class, certainty),
            "{verb}: {}",
            refusal.said
        );
        let has_content = script.received().iter().any(|line| line == "..hello");
        assert_eq!(
            has_content,
            verb == ".",
            "{verb}: content without a 354 would be parsed as commands"
        );
    }
}

/// RFC 3207 §4.2: the client discards all knowledge from before TLS.
#[tokio::test]
async fn replies_injected_between_starttls_and_tls_end_the_dialogue() {
    let agreed = ("EHLO", Act::Say("250-hello\r\n250 STARTTLS"));
    for (injected, code) in [
        (
            "220 go on\r\n250-mine\r\n250 AUTH PLAIN\r\n235 in\r\n250 fine",
            "email.unrecognized",
        ),
        ("220-go\r\n220 on\r\n250 fine", "email.unrecognized"),
        ("454 later\r\n220 go on", "email.try_later"),
    ] {
        let script = ScriptedSmtp::start(vec![agreed, ("STARTTLS", Act::Say(injected))]);
        let server = parse(&format!("{}?tls=required", script.url)).unwrap();
        let (from, to) = (
            "a@acme.example".parse().unwrap(),
            ["b@acme.example".parse().unwrap()],
        );
        let mailing = Mailing {
            from: &from,
            to: &to,
            content: b"Subject: x\r\n\r\nhello\r\n",
        };
        let refusal = server
            .send(mailing, None, Instant::now() + PLENTY)
            .await
            .unwrap_err();
        assert_eq!(
            (refusal.code, refusal.certainty),
            (code, Certainty::NotDone),
            "{}",
            refusal.said
        );
        assert!(
            code != "email.unrecognized"
                || refusal.said.contains("unsolicited") && refusal.hint.contains("smtps://")
        );
        assert_eq!(
            script.received().last().map(String::as_str),
            Some("STARTTLS"),
            "nothing is sent after it"
        );
    }
}

#[tokio::test]
async fn the_deadline_ends_a_dialogue_and_a_mail_that_was_not_sent_is_not_done() {
    for (verb, certainty) in [("MAIL", Certainty::NotDone), (".", Certainty::Unknown)] {
        let (sent, _script) = send(&[(verb, Act::Hang)], Duration::from_millis(400)).await;
        let refusal = sent.unwrap_err();
        assert_eq!(
            (refusal.code, refusal.certainty),
            ("email.timed_out", certainty),
            "{verb}"
        );
    }
    let (sent, script) = send(&[], Duration::ZERO).await;
    assert_eq!(
        (sent.unwrap_err().certainty, script.received().len()),
        (Certainty::NotDone, 0)
    );
}

#[test]
fn plaintext_is_permitted_only_to_this_machine() {
    for good in [
        "smtps://mail.example",
        "smtp://u:p%40ss@mail.example:2525?tls=required",
        "smtp://127.0.0.1:25",
        "smtp://[::1]",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for (bad, part) in [
        ("smtp://mail.example", "loopback"),
        ("smtp://mail.example?tls=maybe", "query"),
        ("https://mail.example", "scheme"),
        ("smtps://mail.example/inbox", "more than a host"),
        ("mail.example", "not a URL"),
        ("smtps://canary:canary@mail.example?x", "query"),
    ] {
        let error = parse(bad).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("use smtps://") && !error.contains("canary"),
            "{error}"
        );
    }
    let setting = SecretString::from("smtp://127.0.0.1:25".to_owned());
    assert!(
        SmtpServer::parse(&setting, false).is_err(),
        "plaintext requires the development setting"
    );
}

#[test]
fn a_destination_s_password_takes_precedence_and_requires_a_user() {
    let own = SecretString::from("own".to_owned());
    let with = |url: &str, password| parse(url).unwrap().credentials(password);
    let is =
        |user: &str, password: &str| Some(Credentials::new(user.to_owned(), password.to_owned()));
    assert_eq!(
        with("smtps://u:p%40ss@mail.example", None),
        Ok(is("u", "p@ss"))
    );
    assert_eq!(
        with("smtps://u:p@mail.example", Some(&own)),
        Ok(is("u", "own"))
    );
    assert_eq!(with("smtps://mail.example", None), Ok(None));
    assert!(
        with("smtps://u@mail.example", None).is_err()
            && with("smtps://mail.example", Some(&own)).is_err()
    );
    assert!(!format!("{:?}", parse("smtps://u:canary@mail.example").unwrap()).contains("canary"));
}
