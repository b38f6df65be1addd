//! The result of a mail with several recipients.
//!
//! Accepted recipients get the mail. Recipients refused permanently (5yz) are listed in the
//! result. Recipients refused temporarily (4yz) are retried without the others: [`Rest::served`]
//! lists the recipients that have the mail. If none has it, the delivery failed.

use lettre::Address;

use super::channel::{ChannelFault, Delivered, Refusal, RefusedRecipient, Rest};
use super::smtp::{EMAIL, Recipients};
use crate::fault::{Certainty, Class};

const ADDRESSES: &str = "The mail server refuses every address: register the destination again with addresses that it accepts.";
const WAIT: &str =
    "The mail server refuses addresses temporarily; the job is retried automatically.";
const WAIT_FOR_SOME: &str = "The mail server refuses some addresses temporarily; they are retried automatically, and the others \
                             do not get the mail again. If this continues, register the destination without them.";

/// Returns the result of a delivery of the mail `id`, by the server's decision about each
/// remaining recipient. The recipients in `served` have it from earlier attempts.
///
/// # Errors
/// `email.recipient_refused` if all are refused permanently, `email.try_later` if none has the
/// mail and some may get it later.
pub(super) fn outcome(
    id: String,
    served: &[String],
    answered: Recipients,
) -> Result<Delivered, ChannelFault> {
    let Recipients {
        taken,
        refused,
        waiting,
    } = answered;
    let served = [served, &taken].concat();
    if served.is_empty() {
        return Err(none_accepted(&refused, &waiting).into());
    }
    let rest = (!waiting.is_empty()).then(|| Rest {
        fault: unfinished(served.len(), &refused, &waiting),
        served,
    });
    Ok(Delivered {
        provider_ref: Some(id),
        refused,
        rest,
    })
}

/// Adds the recipients in `left`, for whom the call was made, to `refusal`.
pub(super) fn of_the_rest(refusal: Refusal, left: &[Address]) -> Refusal {
    let names: Vec<&str> = left.iter().map(AsRef::as_ref).collect();
    let said = format!(
        "{} (still without the mail: {})",
        refusal.said,
        names.join(", ")
    );
    Refusal { said, ..refusal }
}

fn none_accepted(refused: &[RefusedRecipient], waiting: &[RefusedRecipient]) -> Refusal {
    let (code, class, hint) = if waiting.is_empty() {
        ("email.recipient_refused", Class::Permanent, ADDRESSES)
    } else {
        (
            EMAIL.codes.try_later,
            Class::Transient { retry_after: None },
            WAIT,
        )
    };
    let said = listed(refused, waiting);
    Refusal {
        provider: &EMAIL,
        code,
        said,
        class,
        certainty: Certainty::NotDone,
        hint: hint.into(),
    }
}

fn unfinished(
    served: usize,
    refused: &[RefusedRecipient],
    waiting: &[RefusedRecipient],
) -> Refusal {
    Refusal {
        provider: &EMAIL,
        code: "email.partly_delivered",
        said: format!(
            "{}; recipients who have the mail: {served}",
            listed(refused, waiting)
        ),
        class: Class::Transient { retry_after: None },
        certainty: Certainty::NotDone,
        hint: WAIT_FOR_SOME.into(),
    }
}

/// Returns all names, with the first reason of each kind:
/// `not yet for b@x: transient error (450): …; not for a@x, c@x: permanent error (550): …`.
fn listed(refused: &[RefusedRecipient], waiting: &[RefusedRecipient]) -> String {
    let of_kind = |kind: &str, all: &[RefusedRecipient]| {
        let first = all.first()?;
        let names: Vec<&str> = all.iter().map(|one| one.to.as_str()).collect();
        Some(format!("{kind} {}: {}", names.join(", "), first.said))
    };
    let kinds = [of_kind("not yet for", waiting), of_kind("not for", refused)];
    kinds.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::json;

    use super::*;
    use crate::fault::{Fault, chain};
    use crate::job::EffectClass;
    use crate::providers::channel::{Channel, Delivery, Rendered};
    use crate::providers::email::Email;
    use crate::providers::scripted::{channel_config, soon};
    use crate::providers::scripted_smtp::{Act, ScriptedSmtp};
    use crate::providers::smtp::SmtpServer;

    const ANN: &str = "ann@acme.example";
    const BOB: &str = "bob@acme.example";
    const EVE: &str = "eve@acme.example";
    const TO_BOB: &str = "RCPT TO:<bob";
    const GONE: Act = Act::Say("550 5.1.1 no such user");
    const LATER: Act = Act::Say("450 4.2.0 greylisted");

    type Acts = Vec<(&'static str, Act)>;

    /// Sends a mail to Ann, Bob and Eve, except those in `served`. Returns the result, and the
    /// lines that the server received.
    async fn attempt(
        served: &[&str],
        acts: Acts,
    ) -> (Result<Delivered, ChannelFault>, Vec<String>) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let script = ScriptedSmtp::start(acts);
        let email = Email::new(Some(
            SmtpServer::parse(&SecretString::from(script.url.clone()), true).unwrap(),
        ));
        let public =
            json!({"from": "bot@acme.example", "to": [ANN, "Bob <bob@acme.example>", EVE]});
        let config = channel_config(public, None);
        let rendered = Rendered(json!({"subject": "S", "text": "hello"}).to_string());
        let served: Vec<String> = served.iter().map(|&one| one.to_owned()).collect();
        let first = Delivery::first(&config, &rendered, "key", EffectClass::AtLeastOnce, soon());
        let sent = email
            .deliver(Delivery {
                served: &served,
                ..first
            })
            .await;
        (sent, script.received())
    }

    fn envelope(lines: &[String]) -> Vec<&str> {
        lines
            .iter()
            .filter_map(|line| line.strip_prefix("RCPT TO:<")?.strip_suffix('>'))
            .collect()
    }

    fn has_content(lines: &[String]) -> bool {
        lines.iter().any(|line| line == "hello")
    }

    fn names(refused: &[RefusedRecipient]) -> Vec<&str> {
        refused.iter().map(|one| one.to.as_str()).collect()
    }

    #[tokio::test]
    async fn a_permanently_refused_recipient_is_listed_and_the_others_get_the_mail() {
        let (sent, lines) = attempt(&[], vec![(TO_BOB, GONE)]).await;
        let Delivered {
            provider_ref,
            refused,
            rest,
        } = sent.unwrap();
        assert_eq!(
            (provider_ref.as_deref(), names(&refused), rest),
            (Some("<key@acme.example>"), vec![BOB], None)
        );
        assert!(refused[0].said.contains("no such user"), "{refused:?}");
        assert_eq!(
            (envelope(&lines), has_content(&lines)),
            (vec![ANN, BOB, EVE], true)
        );
    }

    #[tokio::test]
    async fn a_temporarily_refused_recipient_remains_and_the_others_get_the_mail() {
        let (sent, lines) = attempt(&[], vec![(TO_BOB, LATER), ("RCPT TO:<eve", GONE)]).await;
        let Delivered { refused, rest, .. } = sent.unwrap();
        let Rest { served, fault } = rest.unwrap();
        assert_eq!(
            (served, names(&refused), has_content(&lines)),
            (vec![ANN.to_owned()], vec![EVE], true)
        );
        let fault = ChannelFault::from(fault);
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("email.partly_delivered", Certainty::NotDone)
        );
        assert_eq!(fault.class(), Class::Transient { retry_after: None });
        let said = chain(&fault);
        assert!(
            said.contains(BOB)
                && said.contains("greylisted")
                && said.contains(EVE)
                && !said.contains(ANN),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_retry_sends_the_same_mail_only_to_the_remaining_recipients() {
        let (sent, lines) = attempt(&[ANN, EVE], Vec::new()).await;
        assert_eq!(
            sent.unwrap(),
            Delivered::whole(Some("<key@acme.example>".to_owned()))
        );
        assert_eq!(envelope(&lines), [BOB]);
        let header = lines.iter().find(|line| line.starts_with("To: ")).unwrap();
        assert!(header.contains(ANN) && header.contains(BOB), "{header}");
    }

    #[tokio::test]
    async fn a_retry_without_progress_keeps_the_served_recipients() {
        let (sent, lines) = attempt(&[ANN], vec![("RCPT", LATER)]).await;
        let rest = sent.unwrap().rest.unwrap();
        assert_eq!(
            (rest.served, rest.fault.code, has_content(&lines)),
            (vec![ANN.to_owned()], "email.partly_delivered", false)
        );
        let (sent, lines) = attempt(&[ANN, EVE], vec![("RCPT", GONE)]).await;
        let Delivered { refused, rest, .. } = sent.unwrap();
        assert_eq!(
            (names(&refused), rest, has_content(&lines)),
            (vec![BOB], None, false),
            "the others have the mail"
        );
    }

    #[tokio::test]
    async fn no_server_is_called_if_all_recipients_have_the_mail() {
        let (sent, lines) = attempt(&[EVE, ANN, BOB], Vec::new()).await;
        assert!(sent.is_ok() && lines.is_empty(), "{lines:?}");
    }

    #[tokio::test]
    async fn a_mail_is_not_sent_if_all_recipients_are_refused() {
        let slow = Class::Transient { retry_after: None };
        for (acts, code, class) in [
            (
                vec![("RCPT", GONE)],
                "email.recipient_refused",
                Class::Permanent,
            ),
            (vec![("RCPT", LATER)], "email.try_later", slow.clone()),
            (
                vec![(TO_BOB, LATER), ("RCPT", GONE)],
                "email.try_later",
                slow,
            ),
        ] {
            let (sent, lines) = attempt(&[], acts).await;
            let fault = sent.unwrap_err();
            assert_eq!(
                (fault.code(), fault.class(), fault.certainty()),
                (code, class, Certainty::NotDone)
            );
            let said = chain(&fault);
            assert!(
                [ANN, BOB, EVE].iter().all(|name| said.contains(name)),
                "{said}"
            );
            assert!(!lines.iter().any(|line| line == "DATA"), "{lines:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_after_the_content_applies_to_all_recipients_of_the_call() {
        let (sent, _) = attempt(&[], vec![(TO_BOB, GONE), (".", Act::Say("554 spam"))]).await;
        let fault = sent.unwrap_err();
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("email.refused", Certainty::NotDone)
        );
        let (sent, _) = attempt(&[ANN], vec![(".", Act::Close)]).await;
        let fault = sent.unwrap_err();
        let said = chain(&fault);
        assert_eq!(
            (fault.code(), fault.certainty()),
            ("email.connection_lost", Certainty::Unknown)
        );
        assert!(
            said.contains(BOB) && said.contains(EVE) && !said.contains(ANN),
            "{said}"
        );
    }
}
