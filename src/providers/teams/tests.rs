//! Tests of the channel of Microsoft Teams, against a scripted server.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fault::{Certainty, Class, Fault};
use crate::providers::fuzz;
use crate::providers::scripted::{Reply, Scripted, channel_config, client, message, reply, soon};

fn teams() -> Teams {
    Teams::new(client())
}

fn config(url: &str) -> ChannelConfig {
    channel_config(json!({}), Some(url))
}

fn texts(rendered: &Rendered) -> Vec<String> {
    let body: Value = serde_json::from_str(&rendered.0).unwrap();
    let blocks = body["attachments"][0]["content"]["body"]
        .as_array()
        .unwrap();
    blocks
        .iter()
        .map(|block| block["text"].as_str().unwrap().to_owned())
        .collect()
}

async fn deliver(answer: Reply) -> (Result<Delivered, ChannelFault>, Scripted) {
    let server = Scripted::start(vec![answer]);
    let config = config(&format!(
        "{}/workflows/1/triggers/manual/paths/invoke?sig=canary",
        server.url
    ));
    let rendered = teams().render(&message("Hello", &["there"]));
    let delivery = Delivery::first(&config, &rendered, "k", EffectClass::AtLeastOnce, soon());
    let result = teams().deliver(delivery).await;
    (result, server)
}

#[tokio::test]
async fn a_card_is_posted_to_the_address_with_its_signature() {
    for (status, body) in [
        (202, ""),
        (200, ""),
        (204, ""),
        (200, "1"),
        (200, "\u{feff} 1\r\n"),
    ] {
        let (delivered, server) = deliver(reply(status, "", body)).await;
        assert_eq!(delivered.unwrap(), Delivered::whole(None));
        let request = server.received().remove(0);
        assert_eq!(
            (
                request.method.as_str(),
                request.target.ends_with("/invoke?sig=canary")
            ),
            ("POST", true)
        );
        assert_eq!(request.header("content-type"), Some(MEDIA_TYPE));
        let attachment = &request.json()["attachments"][0];
        assert_eq!(
            attachment["contentType"],
            "application/vnd.microsoft.card.adaptive"
        );
        let blocks = json!([
            {"type": "TextBlock", "text": "Hello", "wrap": true, "weight": "Bolder"},
            {"type": "TextBlock", "text": "there", "wrap": true}
        ]);
        assert_eq!(attachment["content"]["body"], blocks);
    }
}

#[tokio::test]
async fn a_failure_is_classified_and_does_not_show_the_address() {
    let patient = Class::RateLimited {
        retry_after: Some(Duration::from_secs(9)),
    };
    let slow = Class::Transient { retry_after: None };
    for (answer, code, class, certainty) in [
        (
            reply(429, "retry-after: 9\r\n", ""),
            "teams.rate_limited",
            patient,
            Certainty::NotDone,
        ),
        (
            reply(502, "", ""),
            "teams.server_error",
            slow.clone(),
            Certainty::Unknown,
        ),
        (
            Reply::Lose,
            "teams.connection_lost",
            slow,
            Certainty::Unknown,
        ),
        (
            reply(401, "", "bad sig"),
            "teams.unauthorized",
            Class::Permanent,
            Certainty::NotDone,
        ),
        (
            reply(413, "", ""),
            "teams.refused",
            Class::Permanent,
            Certainty::NotDone,
        ),
    ] {
        let fault = deliver(answer).await.0.unwrap_err();
        assert_eq!(
            (fault.code(), fault.class(), fault.certainty()),
            (code, class, certainty)
        );
        assert!(!format!("{fault:?} {}", crate::fault::chain(&fault)).contains("canary"));
    }
}

#[tokio::test]
async fn a_2xx_with_a_failed_delivery_in_its_body_is_classified_by_the_status_in_the_body() {
    const SAID: &str =
        "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error ";
    let slow = || Class::Transient { retry_after: None };
    let patient = Class::RateLimited {
        retry_after: Some(Duration::from_secs(9)),
    };
    for (header, text, code, class) in [
        (
            "",
            format!("{SAID}429 with ContextId tcid=0"),
            "teams.rate_limited",
            Class::RateLimited { retry_after: None },
        ),
        (
            "retry-after: 9\r\n",
            format!("{SAID}429 …"),
            "teams.rate_limited",
            patient,
        ),
        ("", format!("{SAID}503 …"), "teams.delivery_failed", slow()),
        (
            "",
            format!("{SAID}400 …"),
            "teams.delivery_failed",
            Class::Permanent,
        ),
        (
            "",
            "… HTTP error 413 …".to_owned(),
            "teams.delivery_failed",
            Class::Permanent,
        ),
        (
            "",
            format!("{SAID}302 …"),
            "teams.unrecognized",
            Class::Unrecognized,
        ),
        (
            "",
            "Webhook message delivery failed: no such thing.".to_owned(),
            "teams.unrecognized",
            Class::Unrecognized,
        ),
    ] {
        let fault = deliver(reply(200, header, &text)).await.0.unwrap_err();
        let certainty = if text.contains("503") {
            Certainty::Unknown
        } else {
            Certainty::NotDone
        };
        assert_eq!(
            (fault.code(), fault.class(), fault.certainty()),
            (code, class, certainty),
            "{text}"
        );
        assert!(fault.to_string().contains(&text), "{fault}");
    }
}

#[tokio::test]
async fn a_2xx_with_any_other_body_proves_nothing() {
    let page = format!(
        "<html>HTTP error 503: delivery failed {}",
        "x".repeat(100_000)
    );
    for (status, body) in [
        (200, page.as_str()),
        (200, "{\"ok\": true}"),
        (202, "1"),
        (200, "11"),
        (200, "0"),
    ] {
        let fault = deliver(reply(status, "", body)).await.0.unwrap_err();
        let seen = (fault.code(), fault.class(), fault.certainty());
        assert_eq!(
            seen,
            (
                "teams.malformed_answer",
                Class::Unrecognized,
                Certainty::Unknown
            ),
            "{body:.20}"
        );
        assert!(fault.to_string().len() < 1000, "{fault}");
    }
}

#[tokio::test]
async fn a_retired_address_cannot_be_registered_and_a_connector_s_is_not_called() {
    let connector = config("https://acme.webhook.office.com/webhookb2/canary");
    let moved = config(
        "https://prod-1.westus.logic.azure.com/workflows/canary?api-version=2016-06-01&sig=canary",
    );
    for (config, part) in [
        (&connector, "Send webhook alerts to a channel"),
        (&moved, "environment.api.powerplatform.com"),
    ] {
        let BadConfig(why) = teams().check_config(config).unwrap_err();
        assert!(why.contains(part) && !why.contains("canary"), "{why}");
    }
    let rendered = teams().render(&message("Hello", &[]));
    let delivery = Delivery::first(&connector, &rendered, "k", EffectClass::AtLeastOnce, soon());
    let fault = teams().deliver(delivery).await.unwrap_err();
    assert_eq!(
        (fault.code(), fault.certainty()),
        ("teams.bad_config", Certainty::NotDone)
    );
    assert!(
        fault.hint().contains("Send webhook alerts"),
        "{}",
        fault.hint()
    );
}

#[test]
fn markup_links_mentions_and_functions_are_escaped() {
    let lines = [
        "[click](https://x) <at>x</at>",
        "- list",
        "{{DATE(2020)}} &lt; **b**",
        "a\r\nb",
        "a-b",
    ];
    let expected = [
        "\\<at\\>Ann\\</at\\>",
        "\\[click\\]\\(https\u{200a}://x\\) \\<at\\>x\\</at\\>",
        "\\- list",
        "\\{\\{DATE\\(2020\\)\\}\\} \\&lt; \\*\\*b\\*\\*",
        "a  b",
        "a-b",
    ];
    assert_eq!(
        texts(&teams().render(&message("<at>Ann</at>", &lines))),
        expected
    );
}

#[test]
fn the_fault_of_bad_settings_states_what_is_expected_and_not_the_address() {
    let good = "https://default1.2.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/1?sig=x";
    assert_eq!(teams().check_config(&config(good)), Ok(()));
    for (public, secret) in [
        (json!({}), None),
        (json!({}), Some("http://example.com/?sig=canary")),
        (json!({}), Some("canary")),
        (
            json!({"url": "https://example.com"}),
            Some("https://example.com/?sig=canary"),
        ),
    ] {
        let config = channel_config(public, secret);
        let BadConfig(why) = teams().check_config(&config).unwrap_err();
        assert!(why.contains("secret") && !why.contains("canary"), "{why}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_card_fits_and_no_escape_is_split(title in ".{0,400}", lines in prop::collection::vec("[*\"é🦀a\\\\]{0,900}", 0..30)) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let rendered = teams().render(&message(&title, &lines));
        prop_assert!(rendered.0.len() <= BODY_BYTES);
        for text in texts(&rendered) {
            let trailing = text.trim_end_matches('…').chars().rev().take_while(|&c| c == '\\').count();
            prop_assert_eq!(trailing % 2, 0);
        }
    }
}

#[test]
fn every_fuzzed_answer_is_a_proof_or_a_fault_with_a_text() {
    let refused = b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 403 with ContextId x";
    fuzz::answers(
        &TEAMS,
        &[b"1", b"", refused, b"<html>Sign in</html>"],
        |answer| {
            let proof = answer::proof(&TEAMS, &answer);
            proof.err().map(|fault| fault.to_string())
        },
    );
}
