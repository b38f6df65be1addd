//! Imports of a tracker document: rows are found by natural keys, and an import can be repeated.

use dispatch_worker::secrets::Keyring;
use dispatch_worker::tracker::{NewTokens, RefreshTurn, TrackerFault};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tracker::fixture::{World, document};

fn counted(counts: &[(String, u64)]) -> Vec<(&str, u64)> {
    counts
        .iter()
        .map(|(table, count)| (table.as_str(), *count))
        .collect()
}

/// Returns the document with another value at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut changed = document();
    set(&mut changed, pointer, value);
    changed
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = document
        .pointer_mut(parent)
        .expect("a place in the document");
    match parent {
        Value::Array(values) => values[key.parse::<usize>().expect("an index")] = value,
        _ => parent[key] = value,
    }
}

#[tokio::test]
async fn a_second_import_of_the_same_document_changes_nothing() {
    let world = World::new().await;
    let rows = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM user_emails), (SELECT count(*) FROM subscriptions),
                (SELECT count(*) FROM group_links), (SELECT count(*) FROM external_issues), (SELECT last_value FROM issue_groups_id_seq)";
    assert_eq!(world.one(rows).await, "4|5|2|5|3|3");
    world
        .apply(vec![world.assign("WEB-1", 17, 5, "Ann").await])
        .await;
    let (counts, gone) = world.import(document()).await.unwrap();
    assert!(counts.is_empty() && gone.is_empty(), "{counts:?} {gone:?}");
    assert_eq!(world.one(rows).await, "4|5|2|5|3|3");
    assert_eq!(world.one("SELECT version FROM identities").await, "1");
    assert_eq!(world.assignee("WEB-1").await, "Ann");
}

#[tokio::test]
async fn rows_that_the_document_omits_stay() {
    let world = World::new().await;
    let little = json!({"organizations": [{"slug": "acme", "name": "Acme Ltd", "projects": [{"slug": "web", "name": "Web"}]}]});
    let (counts, gone) = world.import(little).await.unwrap();
    assert_eq!(counted(&counts), [("organizations", 1)]);
    assert!(gone.is_empty());
    assert!(world.import(json!({})).await.unwrap().0.is_empty());
    let (counts, _) = world.import(document()).await.unwrap();
    assert_eq!(counted(&counts), [("organizations", 1)]);
}

#[tokio::test]
async fn each_changed_row_is_counted_under_its_table() {
    let world = World::new().await;
    let mut changed = document();
    let table = [
        ("/users/1/name", json!("Robert"), "users"),
        (
            "/users/1/emails",
            json!(["BOB@example.com", "robert@example.com"]),
            "user_emails",
        ),
        (
            "/integrations/0/account_name",
            json!("fabrikam2"),
            "integrations",
        ),
        (
            "/integrations/1/hook_secrets",
            json!(["hook-1"]),
            "subscriptions",
        ),
        (
            "/organizations/0/installations/1/settings/status_inbound",
            json!(true),
            "organization_integrations",
        ),
        (
            "/organizations/0/teams/0/members",
            json!(["cid@example.com"]),
            "team_members",
        ),
        (
            "/organizations/0/projects/0/name",
            json!("The web"),
            "projects",
        ),
        (
            "/organizations/0/projects/0/groups/1/team",
            json!("web"),
            "issue_groups",
        ),
    ];
    for (pointer, value, table) in table {
        set(&mut changed, pointer, value);
        let (counts, gone) = world.import(changed.clone()).await.unwrap();
        assert_eq!(counted(&counts), [(table, 1)]);
        assert!(gone.is_empty(), "{gone:?}");
        assert!(
            world.import(changed.clone()).await.unwrap().0.is_empty(),
            "{table}"
        );
    }
}

#[tokio::test]
async fn an_import_returns_the_causes_that_it_removes() {
    let world = World::new().await;
    let off = with("/organizations/0/installations/0/disabled", json!(true));
    let (counts, gone) = world.import(off).await.unwrap();
    assert_eq!(
        (counted(&counts), gone),
        (vec![("organization_integrations", 1)], Vec::new())
    );
    let (_, gone) = world.import(document()).await.unwrap();
    let expected = format!(
        "integration:{}@{}",
        world.integration().await,
        world.organization().await
    );
    assert_eq!(gone, [expected]);

    let identity = world.one("SELECT id FROM identities").await;
    for (version, changed) in [
        (
            2,
            with(
                "/organizations/0/identities/0/access_token",
                json!("access-2"),
            ),
        ),
        (
            3,
            with("/organizations/0/identities/0/refresh_token", json!(null)),
        ),
        (
            4,
            with(
                "/organizations/0/identities/0/expires_at",
                json!("2027-01-01T00:00:00Z"),
            ),
        ),
    ] {
        let (counts, gone) = world.import(changed).await.unwrap();
        assert_eq!(
            (counted(&counts), gone),
            (
                vec![("identities", 1)],
                vec![format!("identity:{identity}")]
            )
        );
        assert_eq!(
            world.one("SELECT version FROM identities").await,
            version.to_string()
        );
    }

    let destination = world
        .one("SELECT id FROM destinations WHERE name = 'team'")
        .await;
    for pointer in ["config", "secret", "kind"] {
        let changed = with(
            &format!("/organizations/0/destinations/0/{pointer}"),
            json!("other"),
        );
        let (counts, gone) = world.import(changed).await.unwrap();
        assert!(
            counted(&counts).contains(&("destinations", 1)),
            "{counts:?}"
        );
        assert!(
            gone.contains(&format!("destination:{destination}")),
            "{gone:?}"
        );
    }
}

#[tokio::test]
async fn unknown_references_are_refused_with_the_valid_names() {
    let world = World::new().await;
    let organization = "/organizations/0";
    let group = format!("{organization}/projects/0/groups/0");
    let table = [
        (
            with(&format!("{group}/links/0/account_id"), json!("nope")),
            "account `nope`; use one of: account-1, account-2",
        ),
        (
            with(&format!("{group}/team"), json!("ops")),
            "team `ops`; use one of: web",
        ),
        (
            with(
                &format!("{organization}/installations/0/identity"),
                json!("rob"),
            ),
            "identity `rob`; use one of: bot",
        ),
        (
            with(
                &format!("{organization}/installations/0/account_id"),
                json!("x"),
            ),
            "account `x`",
        ),
        (
            with(&format!("{organization}/teams/0/members/0"), json!("x@y.z")),
            "user `x@y.z`; use one of: ann@example.com, ",
        ),
        (
            with(
                &format!("{organization}/projects/0/members/0"),
                json!("x@y.z"),
            ),
            "project web of organization acme: there is no user",
        ),
    ];
    for (mut wrong, expected) in table {
        wrong["users"][0]["name"] = json!("Changed");
        let error = world.import(wrong).await.unwrap_err();
        assert!(matches!(error, TrackerFault::UnknownReference { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(
        world
            .one("SELECT count(*) FROM users WHERE name = 'Changed'")
            .await,
        "0"
    );
}

#[tokio::test]
async fn an_address_belongs_to_one_person() {
    let world = World::new().await;
    let taken =
        json!({"users": [{"name": "Eve", "emails": ["eve@example.com", "ANN@second.example"]}]});
    let error = world.import(taken).await.unwrap_err().to_string();
    assert!(
        error.contains("user Eve: `ann@second.example` belongs to another user"),
        "{error}"
    );
    let twice = json!({"users": [{"name": "A", "emails": ["ann@example.com"]}, {"name": "B", "emails": ["ann@second.example"]}]});
    let error = world.import(twice).await.unwrap_err().to_string();
    assert!(
        error.contains("user B: the first e-mail belongs to an earlier user of the document"),
        "{error}"
    );
    // Any verified address identifies a user, and an import verifies an address that was only
    // claimed.
    let bob = world.user("Bob").await;
    world
        .sql(&format!(
            "INSERT INTO user_emails (user_id, email) VALUES ({bob}, 'robert@example.com')"
        ))
        .await;
    let known =
        json!({"users": [{"name": "Bob", "emails": ["bob@example.com", "robert@example.com"]}]});
    assert_eq!(
        counted(&world.import(known).await.unwrap().0),
        [("user_emails", 1)]
    );
    let renamed = json!({"users": [{"name": "Robert", "emails": ["robert@example.com"]}]});
    assert_eq!(
        counted(&world.import(renamed).await.unwrap().0),
        [("users", 1)]
    );
    assert_eq!(world.user("Robert").await, bob);
}

#[tokio::test]
async fn secrets_are_stored_sealed_or_as_digests() {
    let world = World::new().await;
    let stored = world
        .sql(
            "SELECT row_to_json(i)::text FROM identities i UNION ALL SELECT row_to_json(d)::text FROM destinations d
        UNION ALL SELECT row_to_json(s)::text FROM subscriptions s",
        )
        .await
        .join("\n");
    for plain in ["access-1", "refresh-1", "whsec-1", "hook-1"] {
        assert!(!stored.contains(plain), "{plain}");
    }
    let identity = world
        .tracker
        .identity_by_name(world.organization().await, "bot")
        .await
        .unwrap()
        .unwrap();
    let token = world
        .sealed
        .access_token(identity.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (token.token.expose_secret(), token.version),
        ("access-1", 1)
    );
    let expected: Vec<[u8; 32]> = ["hook-1", "hook-2"]
        .iter()
        .map(|secret| Sha256::digest(secret).into())
        .collect();
    let mut secrets = world
        .tracker
        .hook_secrets(world.integration().await)
        .await
        .unwrap();
    secrets.sort_unstable_by_key(|digest| expected.iter().position(|one| one == digest));
    assert_eq!(secrets, expected);
}

#[tokio::test]
async fn an_import_replaces_values_that_can_no_longer_be_opened() {
    let mut world = World::new().await;
    world.keyring = std::sync::Arc::new(Keyring::parse(&Keyring::fresh_setting()).unwrap());
    let (counts, _) = world.import(document()).await.unwrap();
    assert_eq!(counted(&counts), [("destinations", 1), ("identities", 1)]);
}

#[tokio::test]
async fn an_old_document_does_not_restore_old_tokens() {
    let world = World::new().await;
    let id = world.identity().await;
    let refreshed = NewTokens {
        access_token: SecretString::from("access-2"),
        refresh_token: Some(SecretString::from("refresh-2")),
        expires_in: std::time::Duration::from_secs(3600),
        after_refusal: true,
    };
    assert!(world.sealed.save_tokens(id, 1, &refreshed).await.unwrap());
    let (counts, gone) = world.import(document()).await.unwrap();
    assert!(counts.is_empty() && gone.is_empty(), "{counts:?} {gone:?}");
    let token = async || world.sealed.access_token(id).await.unwrap().unwrap();
    assert_eq!(
        (token().await.token.expose_secret(), token().await.version),
        ("access-2", 2)
    );

    world.sql("UPDATE identities SET refreshing_until = now() + interval '1 hour', refresh_refused_at = now()").await;
    let (counts, gone) = world
        .import(with(
            "/organizations/0/identities/0/refresh_token",
            json!("refresh-3"),
        ))
        .await
        .unwrap();
    assert_eq!(
        (counted(&counts), gone),
        (vec![("identities", 1)], vec![format!("identity:{id}")])
    );
    assert_eq!(
        (token().await.token.expose_secret(), token().await.version),
        ("access-1", 3)
    );
    let turn = world
        .sealed
        .take_refresh_turn(
            id,
            3,
            std::time::Duration::from_secs(1),
            Some(std::time::Duration::from_secs(3600)),
        )
        .await
        .unwrap();
    assert!(
        matches!(turn, RefreshTurn::Yours(turn) if turn.refresh_token.expose_secret() == "refresh-3")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrent_imports_changes_nothing() {
    let world = World::new().await;
    let mut other = document();
    other["organizations"][0]["slug"] = json!("other");
    let (one, two) = tokio::join!(world.import(other.clone()), world.import(other));
    let (one, two) = (one.unwrap().0, two.unwrap().0);
    assert_ne!(one.is_empty(), two.is_empty(), "{one:?} {two:?}");
}
