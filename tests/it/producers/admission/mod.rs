//! Producers: RabbitMQ identifies the producer of a message, and a message may name only what its
//! producer may use.

mod rabbitmq_rights;
mod refusals;

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::broker::{EXCHANGE, KEY_CANCEL, KEY_CONFIGURE, KEY_JOB, Outgoing, Publisher};
use dispatch_worker::devkit::servers::PRODUCER_RIGHTS;
use dispatch_worker::job::{JobId, JobState};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// The source of the producer `mallory`, which belongs to another tenant.
const OTHERS: &str = "mallory-hooks";

/// Returns a world with a second organization, and the publisher and URL of a producer that is
/// registered for it.
async fn with_mallory() -> (TestWorld, Publisher, SecretString) {
    let world = TestWorld::acme().await;
    world
        .database
        .rows("INSERT INTO organizations (slug, name) VALUES ('globex', 'Globex')")
        .await;
    let url = SecretString::from(world.amqp_user(&PRODUCER_RIGHTS).await);
    let user = world.database.name.clone();
    let register = [
        "producers",
        "register",
        &user,
        "--source",
        OTHERS,
        "--organization",
        "globex",
        "--yes",
    ];
    let arguments = [&register[..], &["--reply-queue", "reply.mallory.*"]].concat();
    world.dispatch(&arguments).done().await;
    let publisher = Publisher::connect(&url)
        .await
        .expect("RabbitMQ accepts the producer");
    (world, publisher, url)
}

fn job(source: &str, key: &str, organization: &str) -> Value {
    json!({"schema": 1, "source": source, "dedupe_key": key, "organization": organization, "identity": "bot"})
}

/// Waits until there are this many dead letters. Returns their codes, oldest first.
async fn codes(world: &TestWorld, count: usize) -> Vec<String> {
    wait_for(&format!("{count} dead letters"), SOON, async || {
        let codes = world
            .database
            .rows("SELECT code FROM dead_letters ORDER BY id")
            .await
            .concat();
        if codes.len() >= count {
            Ok(codes)
        } else {
            Err(format!("{codes:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_producer_cannot_act_for_another_or_read_the_data_of_another() {
    let (world, mallory, _) = with_mallory().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("message.refused")).await;
    listener.queue("victims-queue", None).await;
    let _worker = world.worker(&WorkerOptions::default());
    world
        .publish_job(&job(acme::SOURCE, "victim", "acme"))
        .await;
    let victim = world
        .wait_job_state("victim", JobState::Waiting, SOON)
        .await;
    let attempts = forbidden(victim.id);
    for (number, (message, code)) in attempts.iter().enumerate() {
        mallory
            .publish(message)
            .await
            .expect("RabbitMQ accepts the message");
        assert_eq!(
            codes(&world, number + 1).await.last().map(String::as_str),
            Some(*code),
            "attempt {number}"
        );
        let refused = listener.next("watch").await.1;
        assert_eq!(
            (&refused["code"], &refused["producer"]),
            (&json!(code), &json!(world.database.name)),
            "{refused}"
        );
        let source = refused.get("source").and_then(Value::as_str);
        assert!(
            source.is_none_or(|source| source == OTHERS),
            "a refusal never names the source of another: {refused}"
        );
    }
    assert!(
        listener.try_next("victims-queue").await.is_none(),
        "the worker does not write to a queue of another producer"
    );
    assert_eq!(
        world
            .wait_job_state("victim", JobState::Waiting, SOON)
            .await
            .epoch,
        victim.epoch
    );
    world.publish_job(&job(acme::SOURCE, "later", "acme")).await;
    world.publish_job(&job(acme::SOURCE, "taken", "acme")).await;
    for key in ["later", "taken"] {
        world.wait_job_state(key, JobState::Waiting, SOON).await;
    }
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE organization = 'globex'")
            .await,
        "0"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM audit_log WHERE role = 'producer'")
            .await,
        "0"
    );
}

/// Returns messages of a producer that name what belongs to others, each with the code of its dead
/// letter.
fn forbidden(victim: JobId) -> Vec<(Outgoing, &'static str)> {
    let control = |key: &str, body: Value| Outgoing {
        routing_key: key.to_owned(),
        ..intake(body.to_string())
    };
    let mut interaction = job(OTHERS, "click", "globex");
    interaction["interaction"] = json!({"application_id": "17", "token": "t"});
    let to_victim = Some("victims-queue".to_owned());
    vec![
        (
            intake(job(acme::SOURCE, "taken", "globex").to_string()),
            "not_permitted",
        ),
        (
            intake(job(OTHERS, "spy", "acme").to_string()),
            "not_permitted",
        ),
        (
            Outgoing {
                reply_to: to_victim.clone(),
                ..intake(job(OTHERS, "write", "globex").to_string())
            },
            "not_permitted",
        ),
        (
            Outgoing {
                reply_to: to_victim,
                ..intake("no JSON")
            },
            "not_json",
        ),
        (intake(interaction.to_string()), "not_permitted"),
        (
            intake(json!({"source": acme::SOURCE, "dedupe_key": "victim"}).to_string()),
            "missing_field",
        ),
        (
            control(
                KEY_CANCEL,
                json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "victim"}),
            ),
            "not_permitted",
        ),
        (
            control(
                KEY_CANCEL,
                json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "later"}),
            ),
            "not_permitted",
        ),
        (
            control(
                KEY_CONFIGURE,
                json!({"schema": 1, "job_id": victim, "account": acme::account_id()}),
            ),
            "no_such_job",
        ),
    ]
}

#[tokio::test]
async fn actions_of_a_producer_are_recorded_under_its_rabbitmq_user() {
    let (world, mallory, _) = with_mallory().await;
    let _worker = world.worker(&WorkerOptions::default());
    let message = Outgoing {
        app_id: Some("somebody else".to_owned()),
        ..intake(job(OTHERS, "own", "globex").to_string())
    };
    mallory.publish(&message).await.unwrap();
    let cancel = json!({"schema": 1, "source": OTHERS, "dedupe_key": "own"}).to_string();
    let cancel = Outgoing {
        routing_key: KEY_CANCEL.to_owned(),
        app_id: message.app_id.clone(),
        ..intake(cancel)
    };
    mallory.publish(&cancel).await.unwrap();
    wait_for("the job to be cancelled", SOON, async || {
        let state = world.database.rows("SELECT state FROM jobs").await.concat();
        if state == ["cancelled"] {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await;
    let name = world.database.name.as_str();
    assert_eq!(world.database.one("SELECT producer FROM jobs").await, name);
    assert_eq!(
        world
            .database
            .one("SELECT who FROM audit_log WHERE action = 'cancel'")
            .await,
        name
    );
    assert_eq!(
        world.database.one("SELECT producer FROM job_keys").await,
        name
    );
}

#[tokio::test]
async fn a_producer_is_refused_before_its_registration_and_after_its_removal() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let url = SecretString::from(world.amqp_user(&PRODUCER_RIGHTS).await);
    let (user, publisher) = (
        world.database.name.as_str(),
        Publisher::connect(&url).await.unwrap(),
    );
    publisher
        .publish(&intake(job(OTHERS, "one", "acme").to_string()))
        .await
        .unwrap();
    nameless(&world).await;
    let mut refused = codes(&world, 2).await;
    refused.sort_unstable();
    assert_eq!(refused, ["no_user_id", "unknown_producer"]);
    fn list<'a>(of: &[&'a str]) -> Vec<&'a str> {
        [&["producers"], of].concat()
    }
    let register = list(&[
        "register",
        user,
        "--source",
        OTHERS,
        "--organization",
        "acme",
        "--yes",
        "--reason",
        "ticket 1",
    ]);
    assert_eq!(world.dispatch(&register).done().await["changed"], true);
    assert_eq!(world.dispatch(&register).done().await["changed"], false);
    publisher
        .publish(&intake(job(OTHERS, "one", "acme").to_string()))
        .await
        .unwrap();
    wait_for("the job", SOON, async || accepted(&world, "one").await).await;
    let listed = world.dispatch(&list(&["list"])).done().await;
    assert!(
        listed
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == user && one["sources"] == json!([OTHERS])),
        "{listed}"
    );
    assert_eq!(
        world
            .dispatch(&list(&["remove", user, "--yes"]))
            .done()
            .await["removed"],
        true
    );
    assert_eq!(
        world
            .dispatch(&list(&["remove", user, "--yes"]))
            .said()
            .await
            .code,
        Some(1)
    );
    registration_and_removal_are_audited(&world).await;
    messages_are_refused_again(&world, &publisher).await;
    worker.kill9().await;
    a_worker_that_trusts_producers_accepts_a_nameless_job(&world).await;
}

async fn registration_and_removal_are_audited(world: &TestWorld) {
    let sql = "SELECT action, who, coalesce(reason, '') FROM audit_log WHERE action LIKE 'producer.%' ORDER BY id";
    let audited = world.database.rows(sql).await;
    assert_eq!(
        audited,
        [
            ["producer.register", "olga", "ticket 1"],
            ["producer.remove", "olga", ""]
        ]
    );
}

/// Returns whether there is a job with this key.
async fn accepted(world: &TestWorld, key: &str) -> Result<(), &'static str> {
    let row = world
        .store()
        .job_by_key(OTHERS, key)
        .await
        .expect("Postgres answers");
    row.map(|_| ()).ok_or("there is no such job")
}

/// Publishes until a message is refused.
async fn messages_are_refused_again(world: &TestWorld, publisher: &Publisher) {
    let number = std::cell::Cell::new(0);
    wait_for("the removal to take effect", SOON, async || {
        number.set(number.get() + 1);
        publisher
            .publish(&intake(
                job(OTHERS, &number.get().to_string(), "acme").to_string(),
            ))
            .await
            .unwrap();
        let codes = world
            .database
            .rows("SELECT code FROM dead_letters ORDER BY id")
            .await
            .concat();
        if codes.len() > 2 {
            Ok(())
        } else {
            Err(format!("{codes:?}"))
        }
    })
    .await;
}

async fn a_worker_that_trusts_producers_accepts_a_nameless_job(world: &TestWorld) {
    let trusting = BTreeMap::from([("DISPATCH_TRUST_PRODUCERS".to_owned(), "true".to_owned())]);
    let _worker = world.worker(&WorkerOptions {
        environment: trusting,
        ..WorkerOptions::default()
    });
    nameless(world).await;
    wait_for("the job without a `user_id`", SOON, async || {
        accepted(world, "nameless").await
    })
    .await;
}

/// Publishes a job without the property `user_id`.
async fn nameless(world: &TestWorld) {
    let channel = connected(world.amqp_url.expose_secret()).await;
    let properties = BasicProperties::default().with_content_type("application/json".into());
    let body = job(OTHERS, "nameless", "acme").to_string();
    confirmed(&channel, EXCHANGE, KEY_JOB, body.as_bytes(), properties)
        .await
        .expect("RabbitMQ accepts the message");
}

async fn connected(url: &str) -> Channel {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("RabbitMQ accepts the producer");
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    channel
}

async fn confirmed(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<(), String> {
    let options = BasicPublishOptions::default();
    let sent = channel
        .basic_publish(exchange.into(), key.into(), options, body, properties)
        .await;
    let confirm = sent.map_err(|error| error.to_string())?;
    confirm.await.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_cancel_takes_effect_while_a_full_backlog_pauses_intake() {
    let world = TestWorld::acme().await;
    let environment = BTreeMap::from([("DISPATCH_BACKLOG_LIMIT".to_owned(), "1".to_owned())]);
    let worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    world.publish_raw(&intake("no JSON")).await;
    wait_for("intake to be paused", SOON, async || {
        let paused = worker.log().contains("new messages stay in RabbitMQ");
        if paused {
            Ok(())
        } else {
            Err("it is not paused")
        }
    })
    .await;
    let id = "0198c0de-0000-7000-8000-000000000001";
    world
        .database
        .rows(&format!(
            "INSERT INTO jobs (id, pipeline, stage, source, dedupe_key, organization, schema, payload, state, wait_reason, wait_key)
             VALUES ('{id}', 'dispatch', 'check_account', '{source}', 'one', 'acme', 1, '{{}}', 'waiting', 'hold', 'hold:x');
             INSERT INTO job_keys (source, dedupe_key, job_id, digest) VALUES ('{source}', 'one', '{id}', sha256('x'))",
            source = acme::SOURCE
        ))
        .await;
    let cancel = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "one"}).to_string();
    world
        .publish_raw(&Outgoing {
            routing_key: KEY_CANCEL.to_owned(),
            ..intake(cancel)
        })
        .await;
    world.wait_job_state("one", JobState::Cancelled, SOON).await;
}
