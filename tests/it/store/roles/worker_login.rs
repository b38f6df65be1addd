//! A migration creates a worker's login; without the right to create roles, it prints the statements
//! for an administrator.

use dispatch_worker::devkit::servers::with_user;
use secrecy::{ExposeSecret, SecretString};

use super::{checked, connected, refusal};
use crate::support::{Dispatch, TestWorld};

#[tokio::test]
async fn a_migration_creates_a_worker_s_login_and_writes_its_password_nowhere() {
    let world = TestWorld::acme().await;
    let name = format!("{}_worker", world.database.name);
    world
        .database
        .rows(&format!(
            "ALTER DATABASE {} SET log_statement = 'all'",
            world.database.name
        ))
        .await;
    let migrate = |password: &str| {
        world
            .dispatch(&["migrate"])
            .env("DISPATCH_WORKER_LOGIN", &format!("{name}:{password}"))
            .env("DISPATCH_USER", "olga")
    };
    let url =
        |password: &str| with_user(world.database.url.expose_secret(), &name, password).unwrap();
    assert_eq!(
        migrate("canary-first").done().await["worker_login"],
        name.as_str()
    );
    let (code, role) = checked(
        world
            .dispatch(&["check", "--live"])
            .env("DISPATCH_DATABASE_URL", &url("canary-first")),
        "role",
    )
    .await;
    assert_eq!(
        (code, role.split(' ').next()),
        (Some(0), Some("ok")),
        "{role}"
    );
    assert_eq!(
        migrate("canary-second").done().await["left"],
        serde_json::json!([])
    );
    assert!(
        connected(&url("canary-first")).await.is_err(),
        "the password was replaced"
    );
    let client = connected(&url("canary-second"))
        .await
        .expect("the new password is accepted");
    assert!(
        refusal(&client, "CREATE TEMP TABLE t ()")
            .await
            .contains("permission denied to create temporary tables")
    );
    let audit = "SELECT action, who, login, address, after ->> 'login' FROM audit_log";
    let row = [
        "migrate.worker_login",
        "olga",
        "postgres",
        "127.0.0.1",
        &name,
    ];
    assert_eq!(world.database.rows(audit).await, [row, row]);

    an_unsuitable_role_and_an_invalid_login_are_refused(&world, &name, migrate("canary-third"))
        .await;
    drop(client);
    world
        .database
        .rows(&format!(
            "ALTER DATABASE {} RESET log_statement; DROP ROLE {name}",
            world.database.name
        ))
        .await;
}

async fn an_unsuitable_role_and_an_invalid_login_are_refused(
    world: &TestWorld,
    name: &str,
    migrate: Dispatch,
) {
    world
        .database
        .rows(&format!("ALTER ROLE {name} CREATEDB"))
        .await;
    let refused = migrate.said().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains(&format!(
            "expected a role for workers alone, got {name}, which may create databases"
        )),
        "{refused:?}"
    );
    let wrong = world
        .dispatch(&["migrate"])
        .env("DISPATCH_WORKER_LOGIN", "canary-without-a-colon")
        .said()
        .await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[tokio::test]
async fn an_owner_without_createrole_migrates_after_an_administrator_runs_the_printed_statement() {
    let world = TestWorld::with_own_servers().await;
    let rename = |from: &str, to: &str| {
        format!("ALTER ROLE dispatch_worker{from} RENAME TO dispatch_worker{to}")
    };
    world.database.rows(&rename("", "_gone")).await;
    world
        .database
        .rows("CREATE ROLE plain LOGIN PASSWORD 'canary-plain'")
        .await;
    world
        .database
        .rows("CREATE DATABASE plain OWNER plain")
        .await;
    let url = with_user(world.database.url.expose_secret(), "plain", "canary-plain").unwrap();
    let url = url.replace(&format!("/{}", world.database.name), "/plain");
    let migrate = || {
        world
            .dispatch(&["migrate"])
            .env("DISPATCH_DATABASE_URL", &url)
    };
    let refused = migrate().said().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("an administrator runs: CREATE ROLE dispatch_worker NOLOGIN; then repeat"),
        "{refused:?}"
    );
    world.database.rows(&rename("_gone", "")).await;
    let done = migrate().done().await;
    assert!(
        done["applied"].as_array().unwrap().len() > 10 && done["left"] == serde_json::json!([]),
        "{done}"
    );
    let (code, role) = checked(
        world
            .dispatch(&["check", "--live"])
            .env("DISPATCH_DATABASE_URL", &url),
        "role",
    )
    .await;
    assert_eq!(code, Some(1));
    for part in [
        "fail",
        "owns the database",
        "tables, one of them",
        "has DELETE on audit_log",
        "dispatch migrate --worker-login",
    ] {
        assert!(role.contains(part), "{part}: {role}");
    }
    let plain = connected(&url).await.unwrap();
    assert!(
        refusal(&plain, "TRUNCATE audit_log")
            .await
            .contains("insert-only"),
        "for the owner as well"
    );
    an_administrator_creates_the_login(&world, &url, migrate()).await;
}

/// The owner may not create a role either: the command prints the statement for it.
async fn an_administrator_creates_the_login(world: &TestWorld, url: &str, migrate: Dispatch) {
    let login = migrate
        .env("DISPATCH_WORKER_LOGIN", "another:canary-another")
        .said()
        .await;
    assert!(
        login
            .stderr
            .contains("CREATE ROLE \"another\" LOGIN IN ROLE dispatch_worker"),
        "{login:?}"
    );
    world
        .database
        .rows("CREATE ROLE another LOGIN PASSWORD 'canary-another' IN ROLE dispatch_worker")
        .await;
    let another = SecretString::from(with_user(url, "another", "canary-another").unwrap());
    let (_, role) = checked(
        world
            .dispatch(&["check", "--live"])
            .env("DISPATCH_DATABASE_URL", another.expose_secret()),
        "role",
    )
    .await;
    assert!(role.starts_with("ok "), "{role}");
    let (_, role) = checked(
        world
            .dispatch(&["check", "--live"])
            .env("DISPATCH_DATABASE_URL", world.database.url.expose_secret()),
        "role",
    )
    .await;
    assert!(
        role.starts_with("fail") && role.contains("is a superuser"),
        "{role}"
    );
}
