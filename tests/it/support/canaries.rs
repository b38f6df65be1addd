//! The search for leaked secrets in logs, metrics, tables, messages, and the output of commands.
//! Every world is searched when it ends, whatever its test checks.

use data_encoding::{BASE64_NOPAD, HEXLOWER};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::acme;
use super::database::TestDatabase;
use super::recorder::left_behind;
use super::world::TestWorld;

/// The number of jobs and of dead letters per world that are shown by commands.
const SHOWN: usize = 4;
/// The prefix of secrets that tests create.
const CANARY: &str = "canary-";

/// A secret that must not be found.
struct Secret {
    name: String,
    /// The text itself, in hexadecimal, and in base64 at each of the three alignments.
    forms: Vec<String>,
}

impl Secret {
    fn new(name: &str, text: &str) -> Self {
        let mut forms = vec![text.to_owned(), HEXLOWER.encode(text.as_bytes())];
        forms.extend([0, 1, 2].map(|before| in_base64(text, before)));
        Self {
            name: name.to_owned(),
            forms,
        }
    }

    fn is_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form))
    }
}

/// Returns the base64 characters that depend on the text alone when `before` other bytes precede
/// it.
fn in_base64(text: &str, before: usize) -> String {
    let bytes = [&vec![0; before][..], text.as_bytes()].concat();
    let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    BASE64_NOPAD.encode(&bytes)[first..last].to_owned()
}

/// Returns the places where secrets of a world were found; never the secrets themselves.
pub(super) async fn found(world: &TestWorld) -> Vec<String> {
    world.recorder().await;
    show(world).await;
    let mut found = leaks(&secrets(world), &world.pages().await);
    found.extend(left(world, &world.database).await);
    found
}

/// Does the same as [`found`] after the workers have ended, in what they have left behind.
/// Remaining messages are consumed.
pub(super) fn found_at_the_end(world: &TestWorld) -> Vec<String> {
    let search = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        // The world's own connections belong to the runtime of the test, which is blocked here.
        runtime.block_on(async {
            let mut found = leaks(&secrets(world), &left_behind(&world.amqp_url).await);
            found.extend(left(world, &world.database.with_connections_of_its_own()).await);
            found
        })
    };
    std::thread::scope(|scope| scope.spawn(search).join()).expect("the search does not panic")
}

async fn left(world: &TestWorld, database: &TestDatabase) -> Vec<String> {
    let secrets = secrets(world);
    let mut places = world.logs();
    if let Some(recorder) = world.started_recorder() {
        places.push((
            "the outcome events".to_owned(),
            recorder.recorded(&world.amqp_url).await,
        ));
    }
    let mut found = leaks(&secrets, &places);
    found.extend(rows(database, &secrets).await);
    found
}

/// Returns the secrets of the world. Every canary contains [`CANARY`], so this prefix stands for
/// all of them.
fn secrets(world: &TestWorld) -> Vec<Secret> {
    let password = |url: &SecretString| {
        let url = Url::parse(url.expose_secret()).expect("a URL");
        url.password().expect("a password").to_owned()
    };
    let key = world
        .keyring_setting
        .expose_secret()
        .split_once(':')
        .expect("an id and a key")
        .1
        .to_owned();
    vec![
        Secret::new("the database's password", &password(&world.database.url)),
        Secret::new("RabbitMQ's password", &password(&world.amqp_url)),
        Secret::new("the key of the keyring", &key),
        Secret::new("a canary", CANARY),
    ]
}

/// Returns a line for each secret in each of these places; known canaries are named.
fn leaks(secrets: &[Secret], places: &[(String, String)]) -> Vec<String> {
    let mut leaks = Vec::new();
    for (place, text) in places {
        for secret in secrets.iter().filter(|secret| secret.is_in(text)) {
            leaks.push(format!("{} is in {place}", secret.name));
            let known = acme::CANARIES.iter().filter(|canary| {
                secret.name == "a canary" && Secret::new(canary, canary).is_in(text)
            });
            leaks.extend(known.map(|canary| format!("{canary} is in {place}")));
        }
    }
    leaks
}

/// Searches every column of every table, as text and as bytes.
async fn rows(database: &TestDatabase, secrets: &[Secret]) -> Vec<String> {
    let quoted = |text: &str| text.replace('\'', "''");
    let needle = |name: &str, form: &String| format!("('{}', '{}')", quoted(name), quoted(form));
    let needles: Vec<String> = secrets
        .iter()
        .flat_map(|secret| secret.forms.iter().map(|form| needle(&secret.name, form)))
        .collect();
    let tables = database.rows(TABLES).await.concat();
    assert!(tables.len() > 10, "the tables of the schema: {tables:?}");
    // Each row becomes a text once, not once for each form: a test may have filled the tables.
    let search = |table: &String| {
        format!(
            "SELECT DISTINCT n.name || ' is in the table {table}' FROM needles n \
             JOIN (SELECT t::text AS line FROM {table} t OFFSET 0) l ON strpos(l.line, n.form) > 0"
        )
    };
    let searches: Vec<String> = tables.iter().map(search).collect();
    let (needles, searches) = (needles.join(", "), searches.join(" UNION ALL "));
    database
        .rows(&format!(
            "WITH needles (name, form) AS (VALUES {needles}) {searches}"
        ))
        .await
        .concat()
}

/// Partitions are searched through their parent tables.
const TABLES: &str = "
    SELECT quote_ident(relname) FROM pg_class
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace ORDER BY relname";

/// Runs the commands that show some of the jobs and dead letters, one job for each pipeline and
/// state. Their output is kept in the world's folder.
async fn show(world: &TestWorld) {
    let jobs = format!(
        "SELECT DISTINCT ON (pipeline, state) id FROM jobs ORDER BY pipeline, state, id LIMIT {SHOWN}"
    );
    let letters = format!("SELECT id FROM dead_letters ORDER BY id LIMIT {SHOWN}");
    for job in world.database.rows(&jobs).await.concat() {
        for verb in ["show", "explain"] {
            world.dispatch(&["jobs", verb, &job]).done().await;
        }
    }
    for letter in world.database.rows(&letters).await.concat() {
        world
            .dispatch(&["dead-letters", "show", &letter])
            .done()
            .await;
    }
}

/// Tests of the search itself with planted secrets.
mod planted {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use data_encoding::BASE64;
    use dispatch_worker::broker::{EVENTS, Outgoing, PARKED_QUEUE, WAKE};
    use serde_json::json;

    use super::*;
    use crate::support::world::lanes;
    use crate::support::{WorkerOptions, wait_for};

    #[tokio::test]
    async fn a_canary_is_found_in_every_place() {
        let mut world = TestWorld::acme().await;
        assert!(
            distinct_secrets(&world) >= 12,
            "there are secrets of every kind"
        );
        assert_eq!(
            found(&world).await,
            Vec::<String>::new(),
            "a world without leaks has no findings"
        );
        assert_eq!(world.broken_at_the_end(), Vec::<String>::new());
        plant(&world).await;
        let password = &secrets(&world).remove(0).forms[0];
        let hex = HEXLOWER.encode(acme::TOKEN.as_bytes());
        world
            .database
            .rows(&format!(
                "UPDATE organizations SET name = 'x {password} x' WHERE slug = 'acme'"
            ))
            .await;
        world
            .database
            .rows(&format!(
                "UPDATE integrations SET account_name = '\\x{hex}'"
            ))
            .await;
        let found = found(&world).await;
        for place in [
            "the database's password is in the table organizations",
            "a canary is in the table integrations",
        ] {
            assert!(
                found.iter().any(|line| line == place),
                "{place}: {found:#?}"
            );
        }
        for (canary, place) in [
            (acme::HOOK_SECRET, "worker-9.log"),
            (acme::TOKEN, "command-1.log"),
            (acme::CANARIES[5], "command-1.log"),
            ("a canary", "witness.jsonl"),
            (acme::CANARIES[3], "the outcome events"),
        ] {
            let is_told = |line: &String| {
                line.starts_with(&format!("{canary} is in ")) && line.ends_with(place)
            };
            assert!(found.iter().any(is_told), "{canary}: {place}: {found:#?}");
        }
        let end = world.broken_at_the_end();
        for place in [
            "worker-9.log",
            "the table organizations",
            "message in dispatch.parked",
            "message in dispatch.wake",
        ] {
            assert!(
                end.iter().any(|line| line.contains(place)),
                "{place}: {end:#?}"
            );
        }
        assert!(
            end.iter()
                .any(|line| line.contains("no row has this method and path")),
            "{end:#?}"
        );
        assert!(
            !end.iter().any(|line| line.contains("the outcome events")),
            "they were consumed by the first search: {end:#?}"
        );
        world.is_planted();
    }

    /// Returns the number of distinct secrets, of the servers and of the canaries, without other
    /// forms of the same secret.
    fn distinct_secrets(world: &TestWorld) -> usize {
        let looked_for = secrets(world);
        let servers: Vec<&Secret> = looked_for
            .iter()
            .filter(|secret| secret.name != "a canary")
            .collect();
        let names: Vec<&str> = servers.iter().map(|secret| secret.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "the database's password",
                "RabbitMQ's password",
                "the key of the keyring"
            ]
        );
        let texts = servers.iter().map(|secret| secret.forms[0].as_str());
        let all: BTreeSet<&str> = acme::CANARIES.iter().copied().chain(texts).collect();
        let is_form = |text: &str| {
            acme::CANARIES
                .iter()
                .any(|other| *other != text && Secret::new("", other).is_in(text))
        };
        assert!(
            is_form(acme::WEBHOOK_SECRET),
            "its key is one of the canaries"
        );
        all.into_iter().filter(|text| !is_form(text)).count()
    }

    /// Plants canaries in everything that is written or sent.
    async fn plant(world: &TestWorld) {
        std::fs::write(
            world.folder().join("worker-9.log"),
            format!("a line with {}", acme::HOOK_SECRET),
        )
        .expect("a log");
        world
            .dispatch(&[
                "tracker",
                "export",
                "--with-secrets",
                "--reason",
                "to be found",
            ])
            .done()
            .await;
        let simulator = &world.simulator().await.url;
        reqwest::get(format!("{simulator}/canary-in-a-path"))
            .await
            .expect("the simulator answers");
        let to = |exchange, routing_key: &str, body: &str| Outgoing {
            exchange,
            routing_key: routing_key.to_owned(),
            body: body.into(),
            mandatory: true,
            ..Outgoing::default()
        };
        let event = to(EVENTS, "job.succeeded", acme::CANARIES[3]);
        let lane = lanes()[0];
        for message in [
            event,
            to(WAKE, lane.wake_key, CANARY),
            to("", PARKED_QUEUE, CANARY),
        ] {
            world.publish_raw(&message).await;
        }
    }

    #[test]
    fn a_secret_is_recognized_in_base64_at_any_offset_and_every_canary_is_recognized() {
        for before in ["", "a", "ab", "\0robot\0", "Basic user:"] {
            for behind in ["", "c", "cd"] {
                let text = BASE64.encode(format!("{before}{CANARY}{behind}").as_bytes());
                assert!(
                    Secret::new("", CANARY).is_in(&format!("AUTH PLAIN {text}")),
                    "{before:?} {behind:?}: {text}"
                );
            }
        }
        assert!(!Secret::new("", CANARY).is_in(&BASE64.encode(b"canaries")));
        assert_eq!(
            acme::CANARIES
                .iter()
                .filter(|canary| !Secret::new("", CANARY).is_in(canary))
                .count(),
            0
        );
    }

    #[tokio::test]
    async fn a_click_s_token_stays_hidden_and_every_page_of_a_worker_is_searched() {
        let world = TestWorld::acme().await;
        let worker = world.worker(&WorkerOptions::default());
        worker.ready().await;
        let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
        let mut job = acme::clicked("one", &event);
        job["notify"] = json!([]);
        world.publish_job(&job).await;
        // The simulator does not know the interaction; the answer may fail.
        wait_for("the click to be answered", Duration::from_secs(30), async || {
            let answered = "SELECT count(*) FROM jobs WHERE pipeline = 'messaging' AND state IN ('succeeded', 'parked')";
            if world.database.one(answered).await == "1" { Ok(()) } else { Err("it is not") }
        })
        .await;
        assert_eq!(found(&world).await, Vec::<String>::new());
        let pages = world.pages().await;
        drop(worker);
        let logs = world.logs();
        let kept = &logs
            .iter()
            .find(|(name, _)| name.ends_with("worker-1.pages.log"))
            .expect("its last pages")
            .1;
        for (page, part) in [
            ("/metrics", "dispatch_"),
            ("/readyz", "postgres"),
            ("/ ", "Prometheus"),
        ] {
            assert!(
                pages
                    .iter()
                    .any(|(place, text)| place.contains(page) && text.contains(part)),
                "{page}: {pages:?}"
            );
            assert!(kept.contains(part), "{page} at its end: {kept}");
        }
    }

    #[test]
    fn a_leak_report_never_contains_the_secret() {
        let secrets = [Secret::new("a password", "canary-x")];
        let places = [
            ("a log".to_owned(), "… canary-x …".to_owned()),
            ("another".to_owned(), "canary".to_owned()),
        ];
        assert_eq!(leaks(&secrets, &places), ["a password is in a log"]);
    }
}
