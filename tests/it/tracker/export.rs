//! A tracker document that is exported and imported again: nothing is lost, nothing changes.

use dispatch_worker::config;
use proptest::prelude::{BoxedStrategy, Strategy, any};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::TestWorld;
use crate::tracker::fixture::{World, document};

/// Each case creates databases, so a run has a few cases by default; `config::test_cases` may set
/// more.
const CASES: u32 = 6;

async fn exported(world: &World, with_secrets: bool) -> Value {
    let export = world
        .tracker
        .export(with_secrets.then_some(&*world.keyring))
        .await
        .expect("it can be exported");
    assert_eq!(export.people_left_out, 0);
    serde_json::to_value(export.document).expect("a document is JSON")
}

/// Exports, imports into the same tables and into empty ones, and compares.
async fn goes_round(document: Value) {
    let first = World::empty().await;
    first.import(document).await.expect("a valid document");
    for with_secrets in [true, false] {
        let export = exported(&first, with_secrets).await;
        let (counts, gone) = first
            .import(export.clone())
            .await
            .expect("an export can be imported");
        assert!(
            counts.is_empty() && gone.is_empty(),
            "importing it where it came from changes nothing: {counts:?} {gone:?}"
        );
        let second = World::empty().await;
        second
            .import(export.clone())
            .await
            .expect("an export can be imported into empty tables");
        assert_eq!(exported(&second, with_secrets).await, export);
    }
}

#[tokio::test]
async fn the_sample_organization_survives_export_and_import_completely() {
    goes_round(document()).await;
    let world = World::empty().await;
    world.import(document()).await.unwrap();
    world
        .sql("UPDATE destinations SET disabled = true WHERE name = 'audit'")
        .await;
    world
        .sql("UPDATE subscriptions SET valid_until = '2099-01-01 00:00:00.123456Z' WHERE id = 1")
        .await;
    let refresh_alone = json!({"name": "robot", "refresh_token": "refresh-2"});
    let only = json!({"organizations": [{"slug": "acme", "name": "Acme", "identities": [refresh_alone.clone()]}]});
    world.import(only).await.unwrap();
    let export = exported(&world, true).await;
    let organization = &export["organizations"][0];
    assert_eq!(organization["identities"][1], refresh_alone);
    assert_eq!(organization["identities"][0]["refresh_token"], "refresh-1");
    assert_eq!(organization["destinations"][0]["disabled"], json!(true));
    assert_eq!(
        organization["projects"][0]["groups"][0]["links"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        organization["teams"][0]["members"],
        json!(["ann@example.com", "bob@example.com"])
    );
    let ends: Vec<&Value> = export["integrations"][0]["hook_secret_digests"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert!(
        ends.len() == 2
            && ends
                .iter()
                .any(|digest| digest["valid_until"] == "2099-01-01T00:00:00.123456Z"),
        "{ends:?}"
    );
    goes_round(export).await;
}

#[tokio::test]
async fn an_export_without_secrets_contains_none_and_its_import_removes_none() {
    let world = World::empty().await;
    world.import(document()).await.unwrap();
    let export = exported(&world, false).await;
    for secret in [
        "access-1",
        "refresh-1",
        "whsec-1",
        "hook-1",
        "v1.",
        "sha256",
    ] {
        assert!(!export.to_string().contains(secret), "{secret}");
    }
    let mut edited = export;
    edited["organizations"][0]["destinations"][1]["default"] = json!(false);
    edited["users"][0]["name"] = json!("Anna");
    world.import(edited).await.unwrap();
    let kept = exported(&world, true).await;
    assert_eq!(
        kept["organizations"][0]["destinations"][1]["secret"],
        "whsec-1"
    );
    assert_eq!(
        kept["organizations"][0]["identities"][0]["access_token"],
        "access-1"
    );
    assert_eq!(world.one("SELECT version FROM identities").await, "1");
}

#[tokio::test]
async fn the_command_prints_secrets_only_on_request_and_is_audited() {
    let world = TestWorld::acme().await;
    let plain = world.dispatch(&["tracker", "export"]).said().await;
    assert!(
        plain.code == Some(0) && !plain.stdout.contains("canary"),
        "{plain:?}"
    );
    assert_eq!(
        world.database.one("SELECT count(*) FROM audit_log").await,
        "0"
    );
    let full = world
        .dispatch(&["tracker", "export", "--with-secrets", "--reason", "backup"])
        .prints_secrets()
        .done()
        .await;
    assert_eq!(
        full["organizations"][0]["identities"][0]["access_token"],
        crate::support::acme::TOKEN
    );
    let audit = world
        .database
        .rows("SELECT action, who, reason FROM audit_log")
        .await;
    assert_eq!(audit, [["tracker.export_secrets", "olga", "backup"]]);
    let shown = world
        .dispatch(&["tracker", "export", "--with-secrets"])
        .on_a_terminal()
        .said()
        .await;
    assert!(
        shown.code == Some(2) && shown.stdout.contains("use `… > FILE`"),
        "{shown:?}"
    );
    assert!(
        !shown.stdout.contains("canary")
            && world.database.one("SELECT count(*) FROM audit_log").await == "1",
        "{shown:?}"
    );
    let other = TestWorld::new().await;
    let counts = other
        .dispatch(&["tracker", "import", "-"])
        .stdin(plain.stdout)
        .done()
        .await;
    assert_eq!(counts["rows"]["issue_groups"], 2);
    let ended = "SELECT bool_and(token_expires_at < now()) FROM identities";
    assert_eq!(
        other.database.one(ended).await,
        "t",
        "jobs of an identity without a token wait for one"
    );
}

/// Generates text with characters that break careless JSON and SQL.
fn text() -> BoxedStrategy<String> {
    proptest::string::string_regex("[a-zA-ZäÖß'\"\\\\{}%$;— \u{1F600}]{1,12}")
        .expect("a pattern")
        .prop_filter("blank", |text| !text.trim().is_empty())
        .boxed()
}

/// Generates a document with valid references: numbers choose among what exists.
fn documents() -> impl Strategy<Value = Value> {
    let users = (1usize..5).prop_flat_map(|n| proptest::collection::vec((text(), 1usize..4), n));
    let organizations = (0usize..4).prop_flat_map(|n| proptest::collection::vec(organization(), n));
    (users, 0usize..4, organizations).prop_map(|(users, accounts, organizations)| {
        let email = |user: usize, n: usize| format!("u{user}.{n}@example.com");
        let people = users.len();
        let users: Vec<Value> = users
            .into_iter()
            .enumerate()
            .map(|(user, (name, emails))| json!({"name": name, "emails": (0..emails).rev().map(|n| email(user, n)).collect::<Vec<_>>()}))
            .collect();
        let integrations: Vec<Value> = (0..accounts)
            .map(|n| json!({"account_id": format!("ACC-{n}"), "account_name": format!("a{n}"), "hook_secrets": vec![format!("s{n}"); n.min(1)]}))
            .collect();
        let any_email = |choice: usize| email(choice % people, 0);
        let organizations: Vec<Value> = organizations
            .into_iter()
            .enumerate()
            .map(|(n, parts)| filled(n, &parts, accounts, &any_email))
            .collect();
        json!({"users": users, "integrations": integrations, "organizations": organizations})
    })
}

/// The random parts of an organization: its texts, flags and choices.
#[derive(Debug, Clone)]
struct Parts {
    name: String,
    flags: Vec<bool>,
    choices: Vec<usize>,
    titles: Vec<String>,
}

fn organization() -> impl Strategy<Value = Parts> {
    let flags = proptest::collection::vec(any::<bool>(), 8);
    let choices = proptest::collection::vec(0usize..1000, 0..8);
    let titles = proptest::collection::vec(text(), 0..4);
    (text(), flags, choices, titles).prop_map(|(name, flags, choices, titles)| Parts {
        name,
        flags,
        choices,
        titles,
    })
}

fn filled(n: usize, parts: &Parts, accounts: usize, email: &dyn Fn(usize) -> String) -> Value {
    let Parts {
        name,
        flags,
        choices,
        titles,
    } = parts;
    let members: std::collections::BTreeSet<String> =
        choices.iter().map(|choice| email(*choice)).collect();
    let mut identity = json!({"name": "bot"});
    if flags[0] {
        identity = json!({"name": "bot", "access_token": name, "expires_at": "2030-01-01T00:00:00.000001Z"});
    }
    let settings = json!({"assignee_inbound": flags[1], "assignee_outbound": flags[2], "status_inbound": flags[3]});
    let installation = |account| {
        json!({"account_id": format!("ACC-{account}"), "settings": settings, "disabled": flags[4],
        "identity": flags[5].then_some("bot")})
    };
    let link = |choice: &usize| json!({"account_id": format!("ACC-{}", choice % accounts.max(1)), "work_item_id": choice + 1});
    let links: Vec<Value> = if accounts == 0 {
        Vec::new()
    } else {
        choices.iter().map(link).collect()
    };
    let group = |(g, title): (usize, &String)| {
        json!({"short_id": format!("G-{g}"), "title": title, "links": links,
        "team": flags[6].then_some("team")})
    };
    let groups: Vec<Value> = titles.iter().enumerate().map(group).collect();
    json!({
        "slug": format!("org-{n}"), "name": name, "identities": [identity],
        "installations": (0..accounts).map(installation).collect::<Vec<_>>(),
        "teams": [{"slug": "team", "members": members}],
        "projects": [{"slug": "web", "name": name, "members": members, "groups": groups}],
        "destinations": [{"name": name, "kind": "webhook", "config": {"url": name, "deep": [1, null, flags]},
            "secret": flags[7].then_some(name), "default": flags[1], "unknown_policy": "hold", "disabled": flags[2]}]
    })
}

#[tokio::test]
async fn any_document_survives_export_and_import() {
    let mut runner = TestRunner::new(Config::default());
    for case in 0..config::test_cases().unwrap_or(CASES) {
        let document = documents()
            .new_tree(&mut runner)
            .expect("a document")
            .current();
        eprintln!("case {case}: {document}");
        goes_round(document).await;
    }
}
