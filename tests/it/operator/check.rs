//! `dispatch check` reports each problem under the name of its check.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::broker::{Depth, INTAKE_QUEUE};
use dispatch_worker::devkit::servers::Rights;
use dispatch_worker::job::JobState;
use dispatch_worker::secrets::Keyring;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::{Dispatch, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// Runs the command. Returns its exit code and the name, state and detail of each check.
async fn checked(command: Dispatch) -> (Option<i32>, Vec<(String, String, String)>) {
    let (code, said) = command.answer().await;
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let finding = |finding: &Value| {
        (
            text(&finding["check"]),
            text(&finding["state"]),
            text(&finding["detail"]),
        )
    };
    (
        code,
        said["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .map(finding)
            .collect(),
    )
}

/// Returns the name and detail of the only check that fails. Panics unless the command ends with
/// this exit code.
async fn only_failure(command: Dispatch, right: i32) -> (String, String) {
    let (code, findings) = checked(command).await;
    assert_eq!(code, Some(right), "{findings:?}");
    let failed: Vec<_> = findings
        .into_iter()
        .filter(|(_, state, _)| state == "fail")
        .collect();
    let [(check, _, detail)] = <[_; 1]>::try_from(failed).expect("one failure");
    (check, detail)
}

#[tokio::test]
async fn a_correct_installation_passes_and_every_check_is_listed() {
    let world = TestWorld::acme().await;
    let (code, findings) = checked(world.dispatch(&["check", "--live"])).await;
    assert_eq!(code, Some(0), "{findings:?}");
    let names: Vec<&str> = findings.iter().map(|(check, ..)| check.as_str()).collect();
    assert_eq!(
        names,
        [
            "settings",
            "database_url",
            "amqp_url",
            "keyring",
            "providers",
            "ops_listen",
            "otlp",
            "postgres",
            "postgres_tls",
            "schema",
            "clock",
            "role",
            "rights",
            "sealed_values",
            "rabbitmq",
            "rabbitmq_tls",
            "topology",
            "rabbitmq_rights"
        ]
    );
    let (_, _, sealed) = &findings[13];
    assert!(
        sealed.contains("3 columns"),
        "identities' tokens of both kinds and destinations' secrets: {sealed}"
    );
    let text = world.dispatch(&["check"]).said().await;
    assert_eq!(
        (text.code, text.stdout.lines().count()),
        (Some(0), 8),
        "a heading and a line each: {text:?}"
    );
    assert!(!text.stdout.contains(world.keyring_setting.expose_secret()));
}

const DATABASE: &str = "DISPATCH_DATABASE_URL";
const AMQP: &str = "DISPATCH_AMQP_URL";
const NO_FILE: &str = "/nowhere/ca.pem";

/// Settings, the check that fails, and a part of its detail.
type Invalid = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

const INVALID: &[Invalid] = &[
    (
        &[(DATABASE, "mysql://canary@x")],
        "database_url",
        "postgres://",
    ),
    (
        &[(DATABASE, "postgres://u:canary@db.invalid/x?sslmode=disable")],
        "database_url",
        "sslmode=require",
    ),
    (
        &[(DATABASE, "postgres://canary:canary@db.invalid/x")],
        "database_url",
        "default user or password",
    ),
    (
        &[("DISPATCH_DATABASE_CA", NO_FILE)],
        "database_url",
        "PEM file",
    ),
    (&[(AMQP, "http://canary@x")], "amqp_url", "amqp://"),
    (
        &[(AMQP, "amqp://u:canary@mq.invalid/")],
        "amqp_url",
        "amqps://",
    ),
    (
        &[(AMQP, "amqps://guest:canary@mq.invalid/")],
        "amqp_url",
        "default user or password",
    ),
    (
        &[
            (AMQP, "amqps://u:canary@mq.invalid/"),
            ("DISPATCH_AMQP_CA", NO_FILE),
        ],
        "amqp_url",
        "PEM file",
    ),
    (&[("DISPATCH_AMQP_CA", NO_FILE)], "amqp_url", "amqps://"),
    (
        &[("DISPATCH_KEYRING", "k1:canary")],
        "keyring",
        "32 bytes in base64",
    ),
    (
        &[("DISPATCH_AZURE_DEVOPS_URL", "ftp://canary")],
        "providers",
        "https://",
    ),
    (
        &[("DISPATCH_RATES", "canary")],
        "providers",
        "DISPATCH_RATES",
    ),
    (
        &[("DISPATCH_OPS_LISTEN", "0.0.0.0:9464")],
        "ops_listen",
        "127.0.0.1",
    ),
    (
        &[("DISPATCH_CONCURENCY", "canary")],
        "settings",
        "did you mean DISPATCH_CONCURRENCY?",
    ),
];

#[tokio::test]
async fn invalid_settings_are_reported_without_their_secrets() {
    let world = TestWorld::new().await;
    for (environment, check, right) in INVALID {
        let with = |arguments: &[&str]| {
            environment
                .iter()
                .fold(world.dispatch(arguments), |command, (name, value)| {
                    command.env(name, value)
                })
        };
        let (failed, detail) = only_failure(with(&["check"]), 2).await;
        assert_eq!(failed, *check, "{environment:?}: {detail}");
        assert!(
            detail.contains(right) && (*check == "providers" || !detail.contains("canary")),
            "{detail}"
        );
        // A worker applies the same rules and does not start.
        let said = with(&["worker"]).said().await;
        assert_eq!(said.code, Some(2), "{environment:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_misspelt_setting_is_an_error_only_for_commands_that_take_settings() {
    let world = TestWorld::new().await;
    let misspelt = |arguments: &[&str]| {
        world
            .dispatch(arguments)
            .env("DISPATCH_DATABSE_URL", "canary")
    };
    for arguments in [&["jobs", "list"][..], &["migrate"], &["topology", "check"]] {
        let said = misspelt(arguments).said().await;
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(
            said.stderr.contains(
                "DISPATCH_DATABSE_URL is not a setting (did you mean DISPATCH_DATABASE_URL?)"
            ),
            "{said:?}"
        );
        assert!(!said.stderr.contains("canary"), "{said:?}");
    }
    for arguments in [&["settings"][..], &["pipelines"], &["schema", "job"]] {
        let said = misspelt(arguments).said().await;
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

#[tokio::test]
async fn problems_of_the_servers_are_reported() {
    let world = TestWorld::acme().await;
    let live = || world.dispatch(&["check", "--live"]);
    let other = Keyring::fresh_setting()
        .expose_secret()
        .replace("k1:", "k9:");
    let (check, detail) = only_failure(live().env("DISPATCH_KEYRING", &other), 1).await;
    assert!(
        check == "sealed_values"
            && detail.contains("identities.access_token")
            && detail.contains("key `k1`"),
        "{detail}"
    );

    let url = world.amqp_url.expose_secret();
    let (check, _) = only_failure(
        live().env("DISPATCH_AMQP_URL", &format!("{url}-nowhere")),
        1,
    )
    .await;
    assert_eq!(check, "rabbitmq");
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_delete("dispatch.messaging".into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let (check, detail) = only_failure(live(), 1).await;
    assert!(
        check == "topology"
            && detail.contains("queue dispatch.messaging")
            && detail.contains("declare"),
        "{detail}"
    );
    world.dispatch(&["topology", "declare"]).done().await;

    world
        .database
        .rows("DELETE FROM refinery_schema_history WHERE version > 1")
        .await;
    let (check, detail) = only_failure(live(), 1).await;
    assert!(
        check == "schema" && detail.contains("dispatch migrate"),
        "{detail}"
    );
}

/// Returns the missing rights that a finding lists, one line for each kind.
fn lacking(missing: &str) -> Vec<&str> {
    let names = missing
        .split_once(" lacks ")
        .and_then(|(_, rest)| rest.rsplit_once("; "))
        .expect("a list of missing rights")
        .0;
    names.split("; ").collect()
}

/// Returns the missing rights of a role that a finding lists, as statements that grant them.
fn grants(role: &str, missing: &str) -> Vec<String> {
    let grant = |line: &str| {
        let (name, rights) = line.split_once(": ").expect("a table and rights");
        let kind = match name {
            name if name.ends_with("_seq") => "SEQUENCE ",
            name if name.contains('(') => "FUNCTION ",
            _ => "",
        };
        format!("GRANT {rights} ON {kind}{name} TO {role}")
    };
    lacking(missing).into_iter().map(grant).collect()
}

#[tokio::test]
async fn a_role_with_exactly_the_rights_that_were_reported_missing_runs_jobs() {
    let world = TestWorld::acme().await;
    let role = format!("{}_worker", world.database.name);
    world
        .database
        .rows(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT SELECT ON refinery_schema_history TO {role}"))
        .await;
    let (_, rest) = world.database.url.expose_secret().split_once('@').unwrap();
    let url = format!("postgres://{role}:p@{rest}");
    let as_worker = || {
        world
            .dispatch(&["check", "--live"])
            .env("DISPATCH_DATABASE_URL", &url)
    };
    let (code, findings) = checked(as_worker()).await;
    let missing = findings
        .iter()
        .find(|(check, ..)| check == "rights")
        .map(|(.., detail)| detail.clone())
        .unwrap();
    assert_eq!(code, Some(1), "{findings:?}");
    let grants = grants(&role, &missing);
    for grant in &grants {
        world.database.rows(grant).await;
    }
    let (code, findings) = checked(as_worker()).await;
    assert_eq!(code, Some(0), "{findings:?}");
    assert!(
        findings
            .iter()
            .any(|(check, state, _)| check == "rights" && state == "ok"),
        "{findings:?}"
    );

    world.publish_raw(&intake("not JSON")).await;
    runs_jobs(&world, DATABASE, &url, "permission denied").await;

    world
        .database
        .rows(&format!("REVOKE UPDATE ON jobs FROM {role}"))
        .await;
    let (check, detail) = only_failure(as_worker(), 1).await;
    assert!(
        check == "rights" && detail.contains("jobs: UPDATE"),
        "{detail}"
    );
    world
        .database
        .rows(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

/// A worker with this URL completes a job and stores the dead letter of the message that was
/// published before, and no server refuses it anything.
async fn runs_jobs(world: &TestWorld, setting: &str, url: &str, refusal: &str) {
    let environment = BTreeMap::from([(setting.to_owned(), url.to_owned())]);
    let worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    wait_for("the dead letter", SOON, async || {
        match world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await
            .as_str()
        {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    world.wait_quiet(SOON).await;
    assert!(!worker.log().contains(refusal), "{}", worker.log());
}

/// Returns the names of one kind of missing right that a finding lists, as a pattern for RabbitMQ.
fn pattern(missing: &str, kind: &str) -> String {
    let names = lacking(missing)
        .into_iter()
        .find_map(|line| line.strip_prefix(kind)?.strip_prefix(": "))
        .expect("names");
    format!("^({})$", names.replace(", ", "|").replace('.', "\\."))
}

#[tokio::test]
async fn a_rabbitmq_user_with_exactly_the_rights_that_were_reported_missing_runs_jobs() {
    let world = TestWorld::acme().await;
    let url = world.amqp_user(&Rights::default()).await;
    let as_worker = || live_check(&world, &url);
    world.publish_raw(&intake("not JSON")).await;
    let (check, missing) = only_failure(as_worker(), 1).await;
    assert_eq!(check, "rabbitmq_rights");
    let (read, write) = (pattern(&missing, "read"), pattern(&missing, "write"));
    world
        .amqp_user(&Rights {
            read: &read,
            write: &write,
            ..Rights::default()
        })
        .await;
    let (code, findings) = checked(as_worker()).await;
    assert_eq!(code, Some(0), "{findings:?}");
    let depth = async |queue| {
        world
            .publisher()
            .await
            .depth(queue)
            .await
            .expect("RabbitMQ returns a queue's depth")
    };
    assert_eq!(
        depth(INTAKE_QUEUE).await,
        Depth {
            ready: 1,
            consumers: 0
        },
        "the check consumes nothing"
    );
    assert_eq!(
        depth("canaries").await,
        Depth {
            ready: 0,
            consumers: 0
        },
        "and publishes nothing"
    );

    runs_jobs(&world, AMQP, &url, "ACCESS_REFUSED").await;

    each_missing_right_is_reported(&world, &url, &read, &write).await;
    world.remove_amqp_user().await;
}

async fn each_missing_right_is_reported(world: &TestWorld, url: &str, read: &str, write: &str) {
    for (rights, lacks) in [
        (
            Rights {
                read,
                write: "^dispatch.wake$|^amq",
                ..Rights::default()
            },
            "lacks write: dispatch.events;",
        ),
        (
            Rights {
                read,
                write: "^dispatch",
                ..Rights::default()
            },
            "lacks write: amq.default;",
        ),
        (
            Rights {
                read: "^dispatch\\.[^w]",
                write,
                ..Rights::default()
            },
            "lacks read: dispatch.wake;",
        ),
    ] {
        world.amqp_user(&rights).await;
        let (check, detail) = only_failure(live_check(world, url), 1).await;
        assert!(
            check == "rabbitmq_rights" && detail.contains(lacks),
            "{detail}"
        );
    }
}

/// Returns the live check of a worker that connects to RabbitMQ with this URL.
fn live_check(world: &TestWorld, url: &str) -> Dispatch {
    world.dispatch(&["check", "--live"]).env(AMQP, url)
}
