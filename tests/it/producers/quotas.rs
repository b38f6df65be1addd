//! Messages of a producer over its quota are refused, nothing is stored beyond the quota, and
//! others are not affected.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::broker::{KEY_CANCEL, Outgoing, Publisher};
use dispatch_worker::devkit::servers::PRODUCER_RIGHTS;
use dispatch_worker::job::JobState;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// The source of the producer that sends too much, to an organization of its own.
const GREEDY: &str = "greedy";

/// A world with the organization `globex` and its producer, whose name is that of the world's
/// database.
struct Greedy {
    world: TestWorld,
    publisher: Publisher,
}

impl Greedy {
    async fn new() -> Self {
        let world = TestWorld::acme().await;
        world
            .database
            .rows("INSERT INTO organizations (slug, name) VALUES ('globex', 'Globex')")
            .await;
        let url = SecretString::from(world.amqp_user(&PRODUCER_RIGHTS).await);
        let register = [
            "producers",
            "register",
            &world.database.name,
            "--source",
            GREEDY,
            "--organization",
            "globex",
            "--yes",
        ];
        world.dispatch(&register).done().await;
        let publisher = Publisher::connect(&url)
            .await
            .expect("RabbitMQ accepts the producer");
        Self { world, publisher }
    }

    async fn publish(&self, messages: Vec<Outgoing>) {
        assert!(
            self.publisher
                .publish_all(&messages)
                .await
                .iter()
                .all(Result::is_ok)
        );
    }

    /// Counts the producer's rows of a table that meet a condition.
    async fn rows(&self, table: &str, condition: &str) -> usize {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE producer = '{}' AND {condition}",
            self.world.database.name
        );
        self.world
            .database
            .one(&sql)
            .await
            .parse()
            .expect("a number")
    }

    async fn unfinished(&self) -> usize {
        self.rows("jobs", "finished_at IS NULL").await
    }

    async fn letters(&self) -> usize {
        self.rows("dead_letters", "resolved_at IS NULL").await
    }

    /// Publishes a job of another producer and waits until it succeeds.
    async fn others_run(&self, key: &str) {
        let event = self.world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
        self.world.publish_job(&acme::job(key, &event)).await;
        self.world
            .wait_job_state(key, JobState::Succeeded, SOON)
            .await;
    }

    /// Waits until the producer has these numbers of unfinished jobs and of open dead letters.
    async fn come_to(&self, jobs: usize, letters: usize) {
        wait_for(
            &format!("{jobs} jobs and {letters} dead letters"),
            SOON,
            async || match (self.unfinished().await, self.letters().await) {
                there if there == (jobs, letters) => Ok(()),
                there => Err(format!("{there:?}")),
            },
        )
        .await;
    }
}

/// Returns the options of a worker with these quotas of each producer and of each organization.
fn with(producer: &str, organization: &str) -> WorkerOptions {
    let quotas = [("PRODUCER", producer), ("ORGANIZATION", organization)];
    let environment: BTreeMap<_, _> = quotas
        .map(|(holder, quotas)| (format!("DISPATCH_{holder}_QUOTAS"), quotas.to_owned()))
        .into();
    WorkerOptions {
        environment,
        ..WorkerOptions::default()
    }
}

/// Returns a job of `globex` that waits for an account, unless it is for later.
fn job(key: &str, later: bool, padding: usize) -> Value {
    let mut job = json!({"schema": 1, "source": GREEDY, "dedupe_key": key, "organization": "globex", "identity": "bot"});
    if later {
        job["not_before"] = json!(
            (time::OffsetDateTime::now_utc() + time::Duration::days(3))
                .date()
                .to_string()
                + "T00:00:00Z"
        );
    }
    if padding > 0 {
        job["events"] = json!([{"payload": "x".repeat(padding)}]);
    }
    job
}

fn jobs(number: usize, later: bool, padding: usize) -> Vec<Outgoing> {
    (0..number)
        .map(|n| intake(job(&format!("job-{n}"), later, padding).to_string()))
        .collect()
}

fn cancel(key: &str) -> Outgoing {
    let body = json!({"schema": 1, "source": GREEDY, "dedupe_key": key}).to_string();
    Outgoing {
        routing_key: KEY_CANCEL.to_owned(),
        ..intake(body)
    }
}

#[tokio::test]
async fn jobs_for_later_over_the_quota_are_refused_and_others_run() {
    let greedy = Greedy::new().await;
    let listener = Listener::new(&greedy.world).await;
    listener.queue("refused", Some("message.refused")).await;
    let _worker = greedy.world.worker(&with("later=5,dead_letters=10", ""));
    let messages = jobs(12, true, 0);
    greedy.publish(messages.clone()).await;
    greedy.others_run("meanwhile").await;
    greedy.come_to(5, 7).await;
    let (_, refused) = listener.next("refused").await;
    let name = &greedy.world.database.name;
    assert_eq!(
        (&refused["code"], &refused["producer"]),
        (&json!("quota"), &json!(name)),
        "{refused}"
    );
    let detail = format!(
        "expected at most 5 jobs for later of producer {name:?}, got 6 with this one; use fewer jobs with"
    );
    assert!(
        refused["detail"].as_str().unwrap().starts_with(&detail),
        "{refused}"
    );

    // A message whose job exists creates no new job: it is not refused, however full the quota is.
    let key = greedy
        .world
        .database
        .one("SELECT dedupe_key FROM jobs WHERE source = 'greedy' LIMIT 1")
        .await;
    greedy
        .publish(
            messages
                .iter()
                .filter(|one| String::from_utf8_lossy(&one.body).contains(&format!("{key:?}")))
                .cloned()
                .collect(),
        )
        .await;
    greedy.others_run("behind it").await;
    greedy.come_to(5, 7).await;

    // When some jobs have ended, the quota has room again; a worker may still refuse for two
    // seconds, so messages are replayed.
    greedy
        .world
        .database
        .rows("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE source = 'greedy'")
        .await;
    wait_for("five jobs to be accepted again", SOON, async || {
        let said = greedy
            .world
            .dispatch(&["dead-letters", "replay", "--all", "--yes", "--limit", "5"])
            .said()
            .await;
        match greedy.unfinished().await {
            5 => Ok(()),
            other => Err(format!("{other} are unfinished: {said:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn waiting_jobs_never_exceed_their_quota() {
    let greedy = Greedy::new().await;
    let worker = greedy.world.worker(&with("waiting=6", ""));
    greedy.publish(jobs(40, false, 0)).await;
    greedy.others_run("meanwhile").await;
    greedy.come_to(6, 34).await;
    assert_eq!(greedy.rows("dead_letters", "code = 'quota'").await, 34);
    let metrics = worker.metrics().await;
    assert!(
        metrics.contains(r#"dispatch_quota_refusals_total{kind="waiting",by="producer"} 34"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn jobs_over_a_quota_in_bytes_or_of_open_jobs_are_refused() {
    let greedy = Greedy::new().await;
    let _worker = greedy.world.worker(&with("later=1000/20KiB,open=3", ""));
    greedy.publish(jobs(10, true, 6000)).await;
    greedy.come_to(3, 7).await;
    let bytes = greedy
        .world
        .database
        .one("SELECT sum(bytes) FROM jobs WHERE source = 'greedy'")
        .await;
    assert!(
        (18_000..=20_480).contains(&bytes.parse::<usize>().unwrap()),
        "{bytes}"
    );

    // These open jobs never run: their pipeline is unknown.
    let fill = format!(
        "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, producer)
            SELECT gen_random_uuid(), 'nobody', 's', 'k' || n, 'globex', 1, '{{}}', 'ready', 'first', '{}' FROM generate_series(1, 3) n",
        greedy.world.database.name
    );
    greedy.world.database.rows(&fill).await;
    wait_for("the open jobs to be counted", SOON, async || {
        greedy.publish(vec![intake(job("one-more", false, 0).to_string())]).await;
        let sql =
            "SELECT count(*) FROM dead_letters WHERE dedupe_key = 'one-more' AND detail LIKE 'expected at most 3 open jobs%'";
        match greedy.world.database.one(sql).await.as_str() {
            "0" => Err("it is not refused"),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn two_workers_together_do_not_exceed_a_quota() {
    let greedy = Greedy::new().await;
    let options = with("later=20,dead_letters=5", "");
    let workers = [greedy.world.worker(&options), greedy.world.worker(&options)];
    for worker in &workers {
        worker.ready().await;
    }
    greedy.publish(jobs(200, true, 0)).await;
    greedy.others_run("meanwhile").await;
    greedy.world.wait_quiet(SOON).await;
    let (jobs, letters) = (greedy.unfinished().await, greedy.letters().await);
    assert!(
        (10..=20).contains(&jobs) && (2..=5).contains(&letters),
        "{jobs} jobs, {letters} dead letters"
    );
}

#[tokio::test]
async fn the_quota_of_an_organization_covers_all_producers_and_does_not_affect_another_organization()
 {
    let greedy = Greedy::new().await;
    let _worker = greedy.world.worker(&with("", "later=4"));
    let others: Vec<_> = (0..10)
        .map(|n| {
            let mut job = job(&format!("other-{n}"), true, 0);
            job["source"] = json!(acme::SOURCE);
            intake(job.to_string())
        })
        .collect();
    greedy.publish(jobs(10, true, 0)).await;
    assert!(
        greedy
            .world
            .publisher()
            .await
            .publish_all(&others)
            .await
            .iter()
            .all(Result::is_ok)
    );
    greedy.others_run("meanwhile").await;
    let count = "SELECT (SELECT count(*) FROM jobs WHERE organization = 'globex') || ' and ' || count(*) FROM dead_letters";
    wait_for(
        "four jobs and sixteen dead letters",
        SOON,
        async || match greedy.world.database.one(count).await.as_str() {
            "4 and 16" => Ok(()),
            other => Err(other.to_owned()),
        },
    )
    .await;
    let details = greedy
        .world
        .database
        .one("SELECT DISTINCT split_part(detail, ',', 1) FROM dead_letters")
        .await;
    assert_eq!(
        details,
        "expected at most 4 jobs for later of organization \"globex\""
    );
    let usage = greedy
        .world
        .dispatch(&["producers", "usage", "--organization", "globex"])
        .done()
        .await;
    assert_eq!(
        (&usage[0]["holder"], &usage[0]["used"]["later"]["rows"]),
        (&json!("organization/globex"), &json!(4)),
        "{usage}"
    );
}

#[tokio::test]
async fn a_burst_of_refused_messages_leaves_few_rows_and_few_announcements() {
    let greedy = Greedy::new().await;
    let listener = Listener::new(&greedy.world).await;
    listener.queue("refused", Some("message.refused")).await;
    let _worker = greedy.world.worker(&with("dead_letters=3", ""));
    greedy.publish(vec![intake("no JSON"); 500]).await;
    greedy.others_run("meanwhile").await;
    greedy.world.wait_quiet(SOON).await;
    greedy.come_to(0, 3).await;
    let mut announced = Vec::new();
    while let Some((_, refused)) = listener.try_next("refused").await {
        announced.push(refused);
    }
    let (kept, other): (Vec<_>, Vec<_>) = announced
        .iter()
        .partition(|refused| refused.get("dead_letter_id").is_some());
    assert!(
        kept.len() == 3 && (1..30).contains(&other.len()),
        "{announced:?}"
    );
    assert!(
        other.iter().all(|refused| refused["code"] == "not_json"),
        "{announced:?}"
    );
    assert!(
        other[0]["detail"]
            .as_str()
            .unwrap()
            .ends_with("the producer's dead letters are over quota"),
        "{announced:?}"
    );
    greedy
        .world
        .dispatch(&["dead-letters", "discard", "--all", "--yes"])
        .done()
        .await;
    wait_for("a dead letter to be stored again", SOON, async || {
        greedy.publish(vec![intake("no JSON")]).await;
        if greedy.letters().await > 0 {
            Ok(())
        } else {
            Err("none is stored")
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_over_the_quota_in_bytes_keeps_hash_size_and_code_and_cannot_be_replayed() {
    let greedy = Greedy::new().await;
    let _worker = greedy.world.worker(&with("dead_letters=20/10KiB", ""));
    greedy.publish(vec![intake("x".repeat(3000)); 6]).await;
    greedy.come_to(0, 6).await;
    let sql = "SELECT id, code, body_bytes, encode(body_sha256, 'hex') = encode(sha256(repeat('x', 3000)::bytea), 'hex'), headers
        FROM dead_letters WHERE sealed_body IS NULL ORDER BY id";
    let without = greedy.world.database.rows(sql).await;
    assert_eq!(without.len(), 4);
    assert_eq!(without[0][1..], ["not_json", "3000", "t", "{}"]);
    let kept = greedy
        .world
        .database
        .one("SELECT sum(octet_length(sealed_body)) FROM dead_letters")
        .await;
    assert!(kept.parse::<usize>().unwrap() <= 10 * 1024, "{kept}");
    let shown = greedy
        .world
        .dispatch(&["dead-letters", "show", &without[0][0]])
        .done()
        .await;
    assert_eq!(
        (&shown["code"], &shown["body_bytes"]),
        (&json!("not_json"), &json!(3000))
    );
    for arguments in [
        &["dead-letters", "replay", &without[0][0], "--yes"][..],
        &["dead-letters", "show", &without[0][0], "--raw"],
    ] {
        let said = format!("{:?}", greedy.world.dispatch(arguments).said().await);
        assert!(said.contains("whose body was not kept"), "{said}");
    }
}

#[tokio::test]
async fn cancels_that_arrive_before_their_jobs_are_stored_up_to_the_quota() {
    let greedy = Greedy::new().await;
    let _worker = greedy.world.worker(&with("keys=2", ""));
    greedy
        .publish((0..8).map(|n| cancel(&format!("never-{n}"))).collect())
        .await;
    greedy.come_to(0, 6).await;
    assert_eq!(greedy.rows("job_keys", "job_id IS NULL").await, 2);
    assert_eq!(greedy.rows("dead_letters", "code = 'quota'").await, 6);
    greedy
        .publish(vec![intake(job("there", true, 0).to_string())])
        .await;
    greedy.come_to(1, 6).await;
    // A cancel of a job that exists uses no quota.
    greedy.publish(vec![cancel("there")]).await;
    greedy.come_to(0, 6).await;
    assert_eq!(greedy.rows("jobs", "state = 'cancelled'").await, 1);
}
