//! Secrets that must not be found: in logs, metrics, tables, messages, or in what commands show. Every world is searched at its
//! end, whatever its test has looked at.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use dispatch_worker::broker::EVENTS;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::acme;
use super::database::TestDatabase;
use super::world::TestWorld;

/// So many jobs and dead letters of a world are shown by commands.
const SHOWN: usize = 4;
const QUEUE: &str = "canaries";

/// A queue for every outcome event of a world. It is connected to anew each time: servers may be killed meanwhile.
pub(super) struct Ear;

impl Ear {
    pub(super) async fn new(amqp_url: &SecretString) -> Self {
        let (connection, channel) = open(amqp_url).await;
        let (durable, arguments) = (QueueDeclareOptions::durable(), FieldTable::default());
        channel.queue_declare(QUEUE.into(), durable, arguments.clone()).await.expect("a queue");
        let binding = QueueBindOptions::default();
        channel.queue_bind(QUEUE.into(), EVENTS.into(), "#".into(), binding, arguments).await.expect("a binding");
        connection.close(200, "done".into()).await.expect("RabbitMQ says goodbye");
        Self
    }

    /// What has come since the last time, properties and bodies.
    async fn heard(&self, amqp_url: &SecretString) -> String {
        let (connection, channel) = open(amqp_url).await;
        let mut heard = String::new();
        while let Some(got) = channel.basic_get(QUEUE.into(), BasicGetOptions { no_ack: true }).await.expect("RabbitMQ answers") {
            let body = String::from_utf8_lossy(&got.delivery.data);
            writeln!(heard, "{} {:?} {body}", got.delivery.routing_key, got.delivery.properties).expect("text takes text");
        }
        connection.close(200, "done".into()).await.expect("RabbitMQ says goodbye");
        heard
    }
}

async fn open(amqp_url: &SecretString) -> (Connection, Channel) {
    let url = amqp_url.expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("RabbitMQ takes a consumer");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// Where secrets of a world were found; never the secrets themselves.
pub(super) async fn found(world: &TestWorld) -> Vec<String> {
    world.ear().await;
    let mut places = world.pages().await;
    places.extend(shown(world).await);
    let mut found = leaks(&secrets(world), &places);
    found.extend(left(world, &world.database).await);
    found
}

/// As [`found`], once its workers are gone: in what they have left behind.
pub(super) fn found_at_the_end(world: &TestWorld) -> Vec<String> {
    let search = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // The world's own connections belong to the test's runtime, which this waits in.
        runtime.block_on(async { left(world, &world.database.with_connections_of_its_own()).await })
    };
    std::thread::scope(|scope| scope.spawn(search).join()).expect("a search that ends")
}

async fn left(world: &TestWorld, database: &TestDatabase) -> Vec<String> {
    let secrets = secrets(world);
    let mut places = world.logs();
    if let Some(ear) = world.has_ear() {
        places.push(("the outcome events".to_owned(), ear.heard(&world.amqp_url).await));
    }
    let mut found = leaks(&secrets, &places);
    found.extend(rows(database, &secrets).await);
    found
}

/// The world's secrets, and a name for each.
fn secrets(world: &TestWorld) -> Vec<(String, String)> {
    let password = |url: &SecretString| {
        let url = Url::parse(url.expose_secret()).expect("a URL");
        url.password().expect("a password").to_owned()
    };
    let key = world.keyring_setting.expose_secret().split_once(':').expect("an id and a key").1.to_owned();
    let mut secrets = vec![
        ("the database's password".to_owned(), password(&world.database.url)),
        ("RabbitMQ's password".to_owned(), password(&world.amqp_url)),
        ("the key of the keyring".to_owned(), key),
        // Of any test's own making.
        ("a canary".to_owned(), "canary-".to_owned()),
    ];
    secrets.extend(acme::CANARIES.iter().map(|canary| ((*canary).to_owned(), (*canary).to_owned())));
    secrets
}

/// The secrets that stand in these places.
fn leaks(secrets: &[(String, String)], places: &[(String, String)]) -> Vec<String> {
    let in_place = |(place, text): &(String, String)| {
        let named: Vec<String> =
            secrets.iter().filter(|(_, secret)| text.contains(secret)).map(|(name, _)| format!("{name} is in {place}")).collect();
        named
    };
    places.iter().flat_map(in_place).collect()
}

/// Secrets in any column of any table, as text or as bytes.
async fn rows(database: &TestDatabase, secrets: &[(String, String)]) -> Vec<String> {
    let needle = |(name, secret): &(String, String)| {
        let quoted = |text: &str| text.replace('\'', "''");
        format!("('{}', '{}', '{}')", quoted(name), quoted(secret), HEXLOWER.encode(secret.as_bytes()))
    };
    let needles: Vec<String> = secrets.iter().map(needle).collect();
    let tables = database.rows(TABLES).await.concat();
    assert!(tables.len() > 10, "the tables of the schema: {tables:?}");
    let search = |table: &String| {
        format!(
            "SELECT n.name || ' is in the table {table}' FROM needles n WHERE EXISTS (SELECT FROM {table} t \
             WHERE strpos(t::text, n.plain) > 0 OR strpos(t::text, n.hex) > 0)"
        )
    };
    let searches: Vec<String> = tables.iter().map(search).collect();
    let (needles, searches) = (needles.join(", "), searches.join(" UNION ALL "));
    database.rows(&format!("WITH needles (name, plain, hex) AS (VALUES {needles}) {searches}")).await.concat()
}

/// Partitions are searched with the table that they are of.
const TABLES: &str = "
    SELECT quote_ident(relname) FROM pg_class
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace ORDER BY relname";

/// What commands say of some of the jobs and dead letters, a job for each pipeline and state.
async fn shown(world: &TestWorld) -> Vec<(String, String)> {
    let jobs = format!("SELECT DISTINCT ON (pipeline, state) id FROM jobs ORDER BY pipeline, state, id LIMIT {SHOWN}");
    let letters = format!("SELECT id FROM dead_letters ORDER BY id LIMIT {SHOWN}");
    let mut commands: Vec<Vec<String>> = Vec::new();
    for job in world.database.rows(&jobs).await.concat() {
        commands.extend(["show", "explain"].map(|verb| vec!["jobs".to_owned(), verb.to_owned(), job.clone()]));
    }
    for letter in world.database.rows(&letters).await.concat() {
        commands.push(vec!["dead-letters".to_owned(), "show".to_owned(), letter]);
    }
    let mut shown = Vec::new();
    for command in commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let answer: Value = world.dispatch(&arguments).done().await;
        shown.push((format!("the answer to `dispatch {}`", command.join(" ")), answer.to_string()));
    }
    shown
}

/// A search that finds nothing must be one that would.
mod planted {
    use std::time::Duration;

    use dispatch_worker::broker::Outgoing;
    use serde_json::json;

    use super::*;
    use crate::support::{WorkerOptions, wait_for};

    #[tokio::test]
    async fn a_canary_is_found_wherever_it_is() {
        let mut world = TestWorld::acme().await;
        assert!(secrets(&world).len() > 12, "canaries of every kind");
        assert_eq!(found(&world).await, Vec::<String>::new(), "an honest world is not blamed");
        assert_eq!(found_at_the_end(&world), Vec::<String>::new());
        let password = secrets(&world).remove(0).1;
        let hex = HEXLOWER.encode(acme::TOKEN.as_bytes());
        world.database.rows(&format!("UPDATE organizations SET name = 'x {password} x' WHERE slug = 'acme'")).await;
        world.database.rows(&format!("UPDATE integrations SET account_name = '\\x{hex}'")).await;
        std::fs::write(world.folder().join("worker-9.log"), format!("a line with {}", acme::HOOK_SECRET)).expect("a log");
        world.ear().await;
        let event = Outgoing { exchange: EVENTS, routing_key: "job.succeeded".to_owned(), ..Outgoing::default() };
        world.publish_raw(&Outgoing { body: acme::CANARIES[3].into(), mandatory: true, ..event }).await;
        let found = found(&world).await;
        for place in ["the database's password is in the table organizations", "is in the table integrations", "worker-9.log"] {
            assert!(found.iter().any(|line| line.contains(place)), "{place}: {found:#?}");
        }
        assert!(found.contains(&format!("{} is in the outcome events", acme::CANARIES[3])), "{found:#?}");
        // Each but the password is a canary, too.
        assert_eq!(found.len(), 7, "{found:#?}");
        // The events were heard.
        assert_eq!(found_at_the_end(&world).len(), 5);
        world.may_leak();
    }

    #[tokio::test]
    async fn a_click_s_token_stays_hidden_and_every_page_of_a_worker_is_looked_through() {
        let world = TestWorld::acme().await;
        let worker = world.worker(&WorkerOptions::default());
        worker.ready().await;
        let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
        let mut job = acme::clicked("one", &event);
        job["notify"] = json!([]);
        world.publish_job(&job).await;
        // Whether there is anybody behind the click or not.
        wait_for("the click to be answered", Duration::from_secs(30), async || {
            let answered = "SELECT count(*) FROM jobs WHERE pipeline = 'messaging' AND state IN ('succeeded', 'parked')";
            if world.database.one(answered).await == "1" { Ok(()) } else { Err("it is not") }
        })
        .await;
        assert_eq!(found(&world).await, Vec::<String>::new());
        let pages = world.pages().await;
        for (page, part) in [("/metrics", "dispatch_"), ("/readyz", "postgres"), ("/ ", "Prometheus")] {
            assert!(pages.iter().any(|(place, text)| place.contains(page) && text.contains(part)), "{page}: {pages:?}");
        }
    }

    #[test]
    fn a_secret_is_never_told_with_its_place() {
        let secrets = [("a password".to_owned(), "canary-x".to_owned())];
        let places = [("a log".to_owned(), "… canary-x …".to_owned()), ("another".to_owned(), "canary".to_owned())];
        assert_eq!(leaks(&secrets, &places), ["a password is in a log"]);
    }
}
