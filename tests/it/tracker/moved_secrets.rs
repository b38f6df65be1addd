//! A stored secret is never sent to a place that it was not given for: a change of a destination's
//! kind, host or channel requires the secret again.

use dispatch_worker::providers::channel::CHANNELS;
use dispatch_worker::tracker::{DestinationDocument, TrackerDocument, TrackerFault, import};
use serde_json::{Value, json};

use crate::support::{Said, TestWorld, acme, unaudited};

/// A kind of channel with settings and a secret, and other settings that change the place, with
/// the expected part of the error.
type Kind = (
    &'static str,
    Value,
    &'static str,
    Vec<(Value, &'static str)>,
);
/// A kind and its settings, the new kind and settings, and the expected part of the error.
type Move = (&'static str, Value, &'static str, Value, String);

/// Returns the kinds of all channels, in the order of [`CHANNELS`].
fn kinds() -> Vec<Kind> {
    let hook = "https://discord.com/api/webhooks/42/canary-kept-token";
    vec![
        (
            "discord",
            json!({"channel_id": "1"}),
            "canary-kept-token",
            vec![
                (
                    json!({"channel_id": "2"}),
                    "`channel_id` changes from \"1\" to \"2\"",
                ),
                (
                    json!({"channel_id": "1", "api_base": "https://evil.example"}),
                    "`api_base` changes from nothing to",
                ),
            ],
        ),
        ("discord_webhook", json!({}), hook, vec![]),
        (
            "email",
            json!({"from": "a@b.example", "to": ["c@b.example"]}),
            "canary-kept-token",
            vec![],
        ),
        (
            "google_chat",
            json!({}),
            "https://chat.example/v1/spaces/AAA/messages?key=canary-kept-key&token=canary-kept-token",
            vec![],
        ),
        (
            "slack",
            json!({"channel": "C1"}),
            "canary-kept-token",
            vec![(json!({"channel": "C2"}), "`channel` changes from \"C1\"")],
        ),
        (
            "teams",
            json!({}),
            "https://teams.example/hooks/canary-kept-token",
            vec![],
        ),
        (
            "webhook",
            json!({"url": "https://acme.example/hook"}),
            "whsec_Y2FuYXJ5LWtlcHQtdG9rZW4tb2Ytd2ViaG9va3M=",
            vec![(
                json!({"url": "https://evil.example/hook"}),
                "`url` changes from \"https://acme.example/hook\" to",
            )],
        ),
    ]
}

#[test]
fn every_channel_is_tried() {
    let tried: Vec<&str> = kinds().iter().map(|(kind, ..)| *kind).collect();
    let channels: Vec<&str> = CHANNELS.iter().map(|kind| kind.name()).collect();
    assert_eq!(tried, channels);
}

/// Returns the changes that change the place of a destination: of its public settings, or of its
/// kind.
fn moves() -> Vec<Move> {
    let mut moves = Vec::new();
    for (kind, config, _, others) in kinds() {
        moves.extend(
            others
                .into_iter()
                .map(|(other, said)| (kind, config.clone(), kind, other, said.to_owned())),
        );
        let (to, config_there) = if kind == "slack" {
            ("webhook", json!({"url": "https://evil.example"}))
        } else {
            ("slack", json!({"channel": "C1"}))
        };
        moves.push((
            kind,
            config,
            to,
            config_there,
            format!("the kind changes from \"{kind}\" to \"{to}\""),
        ));
    }
    moves
}

fn document(name: &str, kind: &str, config: &Value, secret: Option<&str>) -> TrackerDocument {
    let destination: DestinationDocument = serde_json::from_value(
        json!({"name": name, "kind": kind, "config": config, "secret": secret}),
    )
    .expect("a destination");
    let mut document: TrackerDocument =
        serde_json::from_value(json!({"organizations": [{"slug": "aside", "name": "Aside"}]}))
            .expect("a document");
    document.organizations[0].destinations.push(destination);
    document
}

async fn imported(world: &TestWorld, document: &TrackerDocument) -> Result<u64, TrackerFault> {
    let mut client = world.pool().get().await.expect("a connection");
    import(&mut client, &world.keyring, document, unaudited)
        .await
        .map(|imported| imported.counts["destinations"])
}

/// Registers a destination by command, with or without a secret.
async fn register(
    world: &TestWorld,
    name: &str,
    kind: &str,
    config: &Value,
    secret: Option<&str>,
) -> Said {
    let config = config.to_string();
    let base = [
        "destinations",
        "register",
        "--organization",
        "aside",
        "--yes",
        "--name",
        name,
        "--kind",
        kind,
        "--config",
        &config,
    ];
    let more: &[&str] = if secret.is_some() {
        &["--secret-file", "-"]
    } else {
        &[]
    };
    let command = world
        .dispatch(&[&base[..], more].concat())
        .env("DISPATCH_SMTP_URL", "smtps://robot@mail.example");
    command.stdin(secret.unwrap_or_default()).said().await
}

/// Returns the stored kind, settings and sealed secret of a destination.
async fn stored(world: &TestWorld, name: &str) -> Vec<String> {
    let sql = format!(
        "SELECT kind, config, secret FROM destinations WHERE name = '{name}' AND organization_id = (SELECT id FROM organizations WHERE slug = 'aside')"
    );
    world.database.rows(&sql).await.concat()
}

#[tokio::test]
async fn a_document_without_a_secret_cannot_move_the_stored_secret() {
    let world = TestWorld::acme().await;
    for (kind, config, secret, _) in kinds() {
        assert_eq!(
            imported(
                &world,
                &document(&format!("my {kind}"), kind, &config, Some(secret))
            )
            .await
            .expect(kind),
            1
        );
    }
    for (kind, config, to, moved, part) in moves() {
        let name = format!("my {kind}");
        let before = stored(&world, &name).await;
        let fault = imported(&world, &document(&name, to, &moved, None))
            .await
            .expect_err(&part)
            .to_string();
        assert!(
            fault.contains(&part)
                && fault.contains("expected the secret again")
                && fault.contains("in the document"),
            "{fault}"
        );
        assert!(!fault.contains("canary"), "{fault}");
        assert_eq!(stored(&world, &name).await, before, "nothing has changed");
        assert_eq!(
            imported(&world, &document(&name, kind, &config, None))
                .await
                .expect(kind),
            0,
            "no secret needed"
        );
        assert_eq!(
            imported(&world, &document(&name, to, &moved, Some("canary-new")))
                .await
                .expect(kind),
            1,
            "{part}"
        );
        let back = kinds()
            .into_iter()
            .find(|(one, ..)| *one == kind)
            .expect("a kind")
            .2;
        imported(&world, &document(&name, kind, &config, Some(back)))
            .await
            .expect(kind);
    }
}

#[tokio::test]
async fn a_command_without_a_secret_cannot_move_the_stored_secret() {
    let world = TestWorld::acme().await;
    for (kind, config, secret, _) in kinds() {
        let done = register(&world, &format!("my {kind}"), kind, &config, Some(secret)).await;
        assert_eq!(done.code, Some(0), "{kind}: {done:?}");
    }
    for (kind, _, to, moved, part) in moves() {
        let name = format!("my {kind}");
        let before = stored(&world, &name).await;
        let refused = register(&world, &name, to, &moved, None).await;
        assert!(
            refused.code == Some(2) && refused.stderr.contains(&part),
            "{refused:?}"
        );
        assert!(
            refused.stderr.contains("expected the secret again")
                && refused.stderr.contains("--secret-file"),
            "{refused:?}"
        );
        assert_eq!(stored(&world, &name).await, before, "nothing has changed");
    }
    let mail = json!({"from": "other@b.example", "to": ["d@b.example"]});
    assert_eq!(
        register(&world, "my email", "email", &mail, None)
            .await
            .code,
        Some(0),
        "the password goes to the same server"
    );
    let moved = json!({"channel": "C2"});
    let given = register(
        &world,
        "my slack",
        "slack",
        &moved,
        Some("canary-kept-token"),
    )
    .await;
    assert_eq!(
        given.code,
        Some(0),
        "the same secret, given again: {given:?}"
    );
    assert_eq!(stored(&world, "my slack").await[1], moved.to_string());
}

#[tokio::test]
async fn a_previous_secret_does_not_move_together_with_its_replacement() {
    let world = TestWorld::acme().await;
    let at = |host: &str| json!({"url": format!("https://{host}/hook")});
    let (old, new) = (acme::WEBHOOK_SECRET, acme::NEW_WEBHOOK_SECRET);
    register(&world, "webhook", "webhook", &at("acme.example"), Some(old)).await;
    let rotate = [
        "destinations",
        "rotate-secret",
        "webhook",
        "--organization",
        "aside",
        "--yes",
    ];
    assert_eq!(
        world.dispatch(&rotate).stdin(new).said().await.code,
        Some(0)
    );
    let previous =
        "SELECT previous_secret IS NOT NULL, previous_secret_until IS NOT NULL FROM destinations WHERE name = 'webhook'
                    AND organization_id = (SELECT id FROM organizations WHERE slug = 'aside')";
    assert_eq!(world.database.rows(previous).await, [["t", "t"]]);
    imported(
        &world,
        &document("webhook", "webhook", &at("other.example"), Some(new)),
    )
    .await
    .expect("it has the secret");
    assert_eq!(world.database.rows(previous).await, [["f", "f"]]);
}
