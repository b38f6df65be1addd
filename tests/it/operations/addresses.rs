//! Failover between several addresses of Postgres and RabbitMQ.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_worker::broker::Publisher;
use dispatch_worker::fault::{Class, Fault, chain};
use dispatch_worker::job::JobState;
use dispatch_worker::store;
use secrecy::{ExposeSecret, SecretString};

use crate::support::{
    Checks, Proxy, TestDatabase, TestWorld, WorkerOptions, WorkerProcess, acme, run, wait_for,
};

const SOON: Duration = Duration::from_secs(30);
/// The time limit from the loss of an address to the end of a job that is published afterwards.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

/// A worker with two addresses of Postgres and two of RabbitMQ, which has completed a job.
struct Scene {
    world: TestWorld,
    postgres: [Proxy; 2],
    rabbitmq: [Proxy; 2],
    worker: WorkerProcess,
}

impl Scene {
    async fn new() -> Self {
        let world = TestWorld::acme().await;
        let postgres = [
            Proxy::to(&world.database.worker_url).await,
            Proxy::to(&world.database.worker_url).await,
        ];
        let rabbitmq = [
            Proxy::to(&world.amqp_url).await,
            Proxy::to(&world.amqp_url).await,
        ];
        let database = format!(
            "{}?target_session_attrs=read-write",
            postgres[0].url_or(&postgres[1])
        );
        let environment = BTreeMap::from([
            ("DISPATCH_DATABASE_URL".to_owned(), database),
            (
                "DISPATCH_AMQP_URL".to_owned(),
                rabbitmq[0].url_or(&rabbitmq[1]),
            ),
        ]);
        let worker = world.worker(&WorkerOptions {
            environment,
            ..WorkerOptions::default()
        });
        worker.ready().await;
        let scene = Self {
            world,
            postgres,
            rabbitmq,
            worker,
        };
        scene.is_done("before").await;
        scene
    }

    /// Publishes a job and waits until it succeeds.
    async fn is_done(&self, key: &str) {
        let event = self
            .world
            .assign(
                acme::WORK_ITEM,
                Some(if key.len().is_multiple_of(2) {
                    acme::ANN
                } else {
                    acme::BOB
                }),
            )
            .await;
        self.world.publish_job(&acme::job(key, &event)).await;
        self.world
            .wait_job_state(key, JobState::Succeeded, SOON)
            .await;
    }

    /// Asserts that a job that is published now succeeds in time, and checks the guarantees.
    async fn goes_on(self) {
        let stopped = Instant::now();
        self.is_done("after").await;
        assert!(
            stopped.elapsed() < GOES_ON_WITHIN,
            "{:?}",
            stopped.elapsed()
        );
        self.worker.ready().await;
        self.is_done("in the end").await;
        Checks::default().hold(&self.world).await;
    }
}

#[tokio::test]
async fn a_worker_switches_to_the_second_postgres_within_10_s_when_the_first_is_gone() {
    let mut scene = Scene::new().await;
    assert_eq!(
        scene.postgres[1].carried(),
        0,
        "addresses are tried in order"
    );
    scene.postgres[0].stop().await;
    scene.goes_on().await;
}

#[tokio::test]
async fn a_worker_switches_to_the_second_postgres_within_10_s_when_the_first_stops_answering() {
    let scene = Scene::new().await;
    scene.postgres[0].fall_silent();
    scene.goes_on().await;
}

#[tokio::test]
async fn a_worker_switches_to_the_other_rabbitmq_within_10_s_when_one_is_gone() {
    let mut scene = Scene::new().await;
    // Each connection starts with a random address.
    let most = usize::from(scene.rabbitmq[1].carried() > scene.rabbitmq[0].carried());
    let before = scene.rabbitmq[1 - most].carried();
    scene.rabbitmq[most].stop().await;
    let other = &scene.rabbitmq[1 - most];
    wait_for(
        "connections to the other address",
        GOES_ON_WITHIN,
        async || {
            if other.carried() > before {
                Ok(())
            } else {
                Err("there are none")
            }
        },
    )
    .await;
    scene.goes_on().await;
}

#[tokio::test]
async fn an_address_that_accepts_connections_and_never_answers_delays_a_connection_only_briefly() {
    let database = TestDatabase::new().await;
    let (silent, right) = (
        Proxy::to(&database.url).await,
        Proxy::to(&database.url).await,
    );
    silent.fall_silent();
    for (url, limit) in [
        (silent.url_or(&right), 5),
        (right.url_or(&silent), 5),
        (silent.url_or(&right), 2),
    ] {
        let begun = Instant::now();
        let connected = store::connect(SecretString::from(url)).await;
        assert!(connected.is_ok(), "{}", chain(&connected.err().unwrap()));
        assert!(
            begun.elapsed() < Duration::from_secs(limit),
            "{:?}: silent addresses are remembered",
            begun.elapsed()
        );
    }
    let amqp = SecretString::from(run().await.servers.amqp_url.clone());
    let (silent, right) = (Proxy::to(&amqp).await, Proxy::to(&amqp).await);
    silent.fall_silent();
    // Each attempt starts with a random address.
    for _ in 0..4 {
        let begun = Instant::now();
        let connected = Publisher::connect(SecretString::from(silent.url_or(&right))).await;
        assert!(
            connected.is_ok() && begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn the_error_names_each_address_if_none_answers() {
    run().await;
    let error = store::connect(SecretString::from(
        "postgres://u:canary@127.0.0.1:1,localhost:2/x",
    ))
    .await
    .err()
    .unwrap();
    assert_eq!(error.class(), Class::Infrastructure);
    let said = chain(&error);
    assert!(
        said.contains("127.0.0.1:1: ")
            && said.contains("localhost:2: ")
            && !said.contains("canary"),
        "{said}"
    );
    let error = Publisher::connect(SecretString::from(
        "amqp://u:canary@127.0.0.1:1,localhost:2/x",
    ))
    .await
    .err()
    .unwrap();
    assert_eq!(error.class(), Class::Infrastructure);
    let said = chain(&error);
    assert!(
        said.contains("127.0.0.1:1: ")
            && said.contains("localhost:2: ")
            && !said.contains("canary"),
        "{said}"
    );
}

#[tokio::test]
async fn a_read_only_server_is_skipped_if_the_url_requires_a_writable_one() {
    let database = TestDatabase::new().await;
    let url = |asked: &str| {
        SecretString::from(format!(
            "{}?target_session_attrs={asked}",
            database.url.expose_secret()
        ))
    };
    assert!(store::connect(url("read-write")).await.is_ok());
    let error = chain(
        &store::connect(url("read-only"))
            .await
            .err()
            .expect("the server is writable"),
    );
    assert!(error.contains("the server is not read-only"), "{error}");
    database
        .rows(&format!(
            "ALTER DATABASE {} SET default_transaction_read_only = on",
            database.name
        ))
        .await;
    let error = store::connect(url("read-write"))
        .await
        .err()
        .expect("the server is read-only");
    assert!(
        error.is_infrastructure() && chain(&error).contains("the server is read-only"),
        "{error:?}"
    );
    for asked in ["read-only", "any"] {
        assert!(store::connect(url(asked)).await.is_ok(), "{asked}");
    }
}
