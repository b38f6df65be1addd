//! Secret settings: values in files, and publicly known values.

use std::path::{Path, PathBuf};

use dispatch_worker::secrets::Keyring;
use secrecy::ExposeSecret;

use crate::support::{Said, TestWorld};

/// Writes each of the world's secrets to a file of its own. Returns the settings and their files.
fn files(world: &TestWorld) -> Vec<(String, PathBuf)> {
    let (database, amqp) = (
        world.database.worker_url.expose_secret(),
        world.amqp_url.expose_secret(),
    );
    let secrets = [
        ("DATABASE_URL", database),
        ("AMQP_URL", amqp),
        ("KEYRING", world.keyring_setting.expose_secret()),
    ];
    let file = |(name, secret): (&str, &str)| {
        let path = world.folder().join(name.to_lowercase());
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        (format!("DISPATCH_{name}"), path)
    };
    secrets.map(file).to_vec()
}

/// Runs a command with a secret in a file, in addition to the variable or in its place.
async fn run(
    world: &TestWorld,
    arguments: &[&str],
    name: &str,
    path: &Path,
    is_beside: bool,
) -> Said {
    let command = world.dispatch(arguments);
    let command = if is_beside {
        command
    } else {
        command.without(name)
    };
    command
        .env(&format!("{name}_FILE"), path.to_str().unwrap())
        .said()
        .await
}

#[tokio::test]
async fn a_secret_setting_may_be_in_a_file_but_not_in_two_places() {
    let world = TestWorld::acme().await;
    for (name, path) in files(&world) {
        let said = run(&world, &["check", "--live"], &name, &path, false).await;
        assert_eq!(said.code, Some(0), "{name}: {said:?}");
        let said = run(&world, &["jobs", "list"], &name, &path, true).await;
        assert_eq!(said.code, Some(2), "{name}: {said:?}");
        let expected =
            format!("expected one of {name} and {name}_FILE, got both; use {name}_FILE alone");
        assert!(said.stderr.contains(&expected), "{said:?}");
        let said = run(
            &world,
            &["jobs", "list"],
            &name,
            Path::new("/run/secrets/nowhere"),
            false,
        )
        .await;
        assert!(
            said.code == Some(2) && said.stderr.contains("/run/secrets/nowhere"),
            "{said:?}"
        );
        // A command that needs no settings does not check them.
        assert_eq!(
            run(&world, &["pipelines"], &name, &path, true).await.code,
            Some(0)
        );
    }
}

/// The keyring of docker-compose.yml.
const KEY: &str = "dev:ZGV2ZWxvcG1lbnQtb25seS1rZXktMzItYnl0ZXMhISE=";

#[tokio::test]
async fn the_key_of_compose_is_refused_if_a_server_is_on_another_machine() {
    let world = TestWorld::new().await;
    let check = async |environment: &[(&str, &str)]| {
        let command = world.dispatch(&["check"]).env("DISPATCH_KEYRING", KEY);
        environment
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value))
            .said()
            .await
    };
    let own = format!("{},{KEY}", Keyring::fresh_setting().expose_secret());
    let (database, amqp) = ("DISPATCH_DATABASE_URL", "DISPATCH_AMQP_URL");
    let (far_database, far_amqp) = (
        "postgres://u:own-canary@db.example/x",
        "amqps://u:own-canary@10.0.0.7/x",
    );
    let compose = "postgres://dispatch:development-only@postgres:5432/dispatch?sslmode=disable";
    let on = ("DISPATCH_DEVELOPMENT", "true");
    let plain = ("DISPATCH_ALLOW_PLAINTEXT_LINKS", "true");
    for (environment, refused) in [
        (vec![], None),
        (
            vec![(database, far_database)],
            Some("expected a key of your own in DISPATCH_KEYRING"),
        ),
        (
            vec![(amqp, far_amqp)],
            Some("expected a key of your own in DISPATCH_KEYRING"),
        ),
        (
            vec![(database, far_database), on],
            Some("expected a key of your own in DISPATCH_KEYRING"),
        ),
        (
            vec![(database, far_database), ("DISPATCH_KEYRING", own.as_str())],
            None,
        ),
        (
            vec![(database, compose), plain],
            Some("default user or password"),
        ),
        (vec![(database, compose), plain, on], None),
    ] {
        let said = check(&environment).await;
        let all = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(
            said.code,
            Some(if refused.is_some() { 2 } else { 0 }),
            "{environment:?}: {all}"
        );
        assert!(
            refused.is_none_or(|refused| all.contains(refused)),
            "{environment:?}: {all}"
        );
        assert_eq!(
            all.contains("DEVELOPMENT"),
            environment.contains(&on),
            "{all}"
        );
        assert!(
            !all.contains("own-canary") && !all.contains("ZGV2"),
            "{all}"
        );
    }
}

#[tokio::test]
async fn a_command_that_opens_the_keyring_refuses_the_key_of_compose_even_if_it_does_not_use_the_remote_server()
 {
    let world = TestWorld::new().await;
    for arguments in [
        &["worker"][..],
        &["keys", "list"],
        &["keys", "rotate", "--yes"],
    ] {
        let command = world.dispatch(arguments).env("DISPATCH_KEYRING", KEY);
        let said = command
            .env("DISPATCH_AMQP_URL", "amqps://u:own@mq.example/x")
            .said()
            .await;
        assert!(
            said.code == Some(2)
                && said
                    .stderr
                    .contains("RabbitMQ at mq.example is not on this machine"),
            "{said:?}"
        );
    }
}
