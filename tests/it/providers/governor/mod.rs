//! The governor: every replica stops calling a destination that is rate-limited or fails, and
//! calls to others continue.

mod hanging;
mod shared;

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::witness::Entry;
use dispatch_worker::job::JobId;
use dispatch_worker::pipelines::messaging::{Event, Notice, Recipient};
use dispatch_worker::store::{CappedCount, NewHold};
use dispatch_worker::tracker::StatusChange;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// The Retry-After; long enough for all jobs to meet the hold on a slow machine.
const ASKED: Duration = Duration::from_secs(20);

/// A registered destination of `acme`: a webhook or a Teams workflow.
pub(crate) struct To {
    pub(crate) id: i64,
    pub(crate) path: String,
}

impl To {
    pub(crate) async fn named(world: &TestWorld, name: &str) -> Self {
        let row = world
            .database
            .rows(&format!(
                "SELECT id, kind FROM destinations WHERE name = '{name}'"
            ))
            .await
            .concat();
        Self {
            id: row[0].parse().unwrap(),
            path: format!("/{}/{name}", row[1]),
        }
    }

    fn scope(&self) -> String {
        format!("acme|webhook|{}", self.id)
    }

    pub(crate) fn requests(&self, world: &TestWorld) -> Vec<Entry> {
        world
            .witness()
            .into_iter()
            .filter(|entry| entry.path == self.path)
            .collect()
    }

    fn fault(&self, fault: FaultKind) -> FaultRule {
        FaultRule::new(fault).path_contains(&self.path)
    }
}

/// Inserts `count` due messages for each of these destinations, alternating between them. Their
/// keys begin with `batch`.
pub(crate) async fn insert_messages(world: &TestWorld, batch: &str, to: &[&To], count: usize) {
    let change = StatusChange {
        group_id: 1,
        organization_id: 1,
        group_short_id: "WEB-1".to_owned(),
        group_title: "Login is slow".to_owned(),
        work_item_id: 17,
        to: "resolved".to_owned(),
    };
    let row = |number: usize, destination_id: i64| {
        let notice = Notice {
            to: Recipient::DestinationId(destination_id),
            happened_at: None,
            event: Event::Status(change.clone()),
        };
        let payload = serde_json::to_string(&notice).unwrap();
        let id = JobId::fresh();
        format!(
            "('{id}', 'messaging', 'tests', '{batch}/{destination_id}/{number}', 'acme', 1, '{payload}', 'ready', 'render_message')"
        )
    };
    let rows: Vec<String> = (0..count)
        .flat_map(|number| to.iter().map(move |to| (number, to.id)))
        .map(|(n, id)| row(n, id))
        .collect();
    let columns = "id, pipeline, source, dedupe_key, organization, schema, payload, state, stage";
    world
        .database
        .rows(&format!(
            "INSERT INTO jobs ({columns}) VALUES {}",
            rows.join(", ")
        ))
        .await;
}

/// Waits until `count` jobs whose keys begin with `batch` are in a state.
pub(crate) async fn wait_until(world: &TestWorld, batch: &str, state: &str, count: usize) {
    let sql = format!(
        "SELECT state || ' ' || count(*) FROM jobs WHERE dedupe_key LIKE '{batch}/%' GROUP BY state"
    );
    wait_for(
        &format!("{count} jobs of {batch} to be {state}"),
        SOON,
        async || {
            let counts = world.database.rows(&sql).await.concat();
            if counts.contains(&format!("{state} {count}")) {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        },
    )
    .await;
}

/// Waits until a query returns a row, for example until a hold is known on every replica.
pub(crate) async fn wait_sql(world: &TestWorld, sql: &str) {
    wait_for(sql, SOON, async || {
        if world.database.rows(sql).await.is_empty() {
            Err("no row yet")
        } else {
            Ok(())
        }
    })
    .await;
}

/// Records with a trigger which jobs are released together after a hold.
async fn watch_steps(world: &TestWorld) {
    const SQL: &str = "
        CREATE TABLE let_go (job uuid, at timestamptz DEFAULT now());
        CREATE FUNCTION take_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            INSERT INTO let_go VALUES (NEW.id);
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER take_down AFTER UPDATE ON jobs FOR EACH ROW WHEN (OLD.wait_reason = 'hold' AND NEW.state = 'ready')
            EXECUTE FUNCTION take_down();";
    world.database.rows(SQL).await;
}

#[tokio::test]
async fn a_429_holds_its_destination_on_every_replica_and_its_jobs_are_released_a_few_at_a_time() {
    const JOBS: usize = 30;
    let world = TestWorld::acme().await;
    watch_steps(&world).await;
    let workers = [
        world.worker(&WorkerOptions::default()),
        world.worker(&WorkerOptions::default()),
    ];
    for worker in &workers {
        worker.ready().await;
    }
    let (held, other) = (
        To::named(&world, acme::KEYED).await,
        To::named(&world, acme::BLIND).await,
    );
    let patience = held
        .fault(FaultKind::RateLimit)
        .times(1)
        .retry_after(ASKED.as_secs());
    world
        .simulator()
        .await
        .client
        .fault(&patience)
        .await
        .unwrap();
    insert_messages(&world, "first", &[&held], 1).await;
    // Every replica polls holds twice a second, so all know the hold after three seconds.
    wait_sql(
        &world,
        "SELECT 1 FROM controls WHERE created_at < now() - interval '3 seconds'",
    )
    .await;
    insert_messages(&world, "held", &[&held], JOBS).await;
    insert_messages(&world, "other", &[&other], JOBS).await;
    wait_until(&world, "held", "waiting", JOBS).await;
    wait_until(&world, "other", "succeeded", JOBS).await;
    is_held_on_both_replicas(&world, &held, JOBS).await;

    for batch in [("first", 1), ("held", JOBS)] {
        wait_until(&world, batch.0, "succeeded", batch.1).await;
    }
    let requests = held.requests(&world);
    let (refused, answered) = requests.split_first().expect("requests");
    assert_eq!((refused.status, answered.len()), (Some(429), JOBS + 1));
    let early: Vec<&Entry> = answered
        .iter()
        .filter(|entry| entry.at - refused.at < ASKED)
        .collect();
    assert!(early.is_empty(), "called during the hold: {early:?}");
    jobs_were_released_a_few_at_a_time(&world, JOBS).await;
    assert_eq!(
        world
            .database
            .one("SELECT sum(unknowns) FROM effects")
            .await,
        "0"
    );
    Checks {
        attempts: &[("deliver_message", "webhook.rate_limited")],
    }
    .hold(&world)
    .await;
}

async fn is_held_on_both_replicas(world: &TestWorld, held: &To, jobs: usize) {
    let in_force = world
        .store()
        .hold_of(&format!("hold:{}", held.scope()))
        .await
        .unwrap()
        .expect("the hold is in force");
    assert_eq!(
        (in_force.kind.as_str(), in_force.waiting),
        ("hold", CappedCount::of(i64::try_from(jobs).unwrap()))
    );
    assert_eq!(
        in_force.reason,
        format!("acme's webhook (destination {}) answered 429", held.id)
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(DISTINCT replica) FROM attempts WHERE error_code = 'governor.held'")
            .await,
        "2"
    );
    let intents = format!(
        "SELECT count(*) FROM effects WHERE target = 'destination:{}'",
        held.id
    );
    assert_eq!(
        world.database.one(&intents).await,
        "1",
        "waiting jobs have stored no intent"
    );
}

async fn jobs_were_released_a_few_at_a_time(world: &TestWorld, jobs: usize) {
    let steps = world
        .database
        .rows("SELECT count(*) FROM let_go GROUP BY at ORDER BY at")
        .await
        .concat();
    let steps: Vec<usize> = steps.iter().map(|step| step.parse().unwrap()).collect();
    // A job that finds no free permit is held and released again.
    let let_go = world
        .database
        .one("SELECT count(DISTINCT job) FROM let_go")
        .await;
    assert_eq!((steps[0], let_go), (4, jobs.to_string()), "{steps:?}");
    assert!(
        steps.windows(2).all(|two| two[1] <= 4.max(2 * two[0])),
        "more than a few at a time: {steps:?}"
    );
    let tries = "SELECT string_agg(DISTINCT attempt::text, ' ') FROM checkpoints WHERE stage = 'deliver_message'";
    assert_eq!(
        world
            .database
            .one(&format!("{tries} AND job_id IN (SELECT job FROM let_go)"))
            .await,
        "1"
    );
}

/// Runs `dispatch holds …` and returns its output.
async fn holds(world: &TestWorld, arguments: &[&str]) -> String {
    let said = world
        .dispatch(&[&["holds"], arguments].concat())
        .said()
        .await;
    assert_eq!(said.code, Some(0), "{said:?}");
    said.stdout
}

#[tokio::test]
async fn an_operator_holds_a_destination_and_releases_its_jobs_early() {
    const JOBS: usize = 6;
    let world = TestWorld::acme().await;
    let to = To::named(&world, acme::KEYED).await;
    let scope = to.scope();
    holds(
        &world,
        &[
            "place",
            &scope,
            "--for",
            "1h",
            "--reason",
            "they repair it",
            "--yes",
        ],
    )
    .await;
    let _worker = world.worker(&WorkerOptions::default());
    insert_messages(&world, "held", &[&to], JOBS).await;
    wait_until(&world, "held", "waiting", JOBS).await;
    let listed = holds(&world, &["list", "--json"]).await;
    assert!(
        listed.contains(&scope)
            && listed.contains("\"waiting\":{\"n\":6,")
            && listed.contains("they repair it"),
        "{listed}"
    );
    assert!(to.requests(&world).is_empty());

    holds(
        &world,
        &["release", &scope, "--reason", "repaired", "--yes"],
    )
    .await;
    wait_until(&world, "held", "succeeded", JOBS).await;
    assert_eq!(to.requests(&world).len(), JOBS);
    assert_eq!(holds(&world, &["list", "--json"]).await.trim(), "[]");
    let audit = world
        .database
        .rows("SELECT who, action, reason FROM audit_log ORDER BY id")
        .await;
    assert_eq!(
        audit,
        [
            ["olga", "hold.place", "they repair it"],
            ["olga", "hold.release", "repaired"]
        ]
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_failing_destination_opens_its_circuit_and_one_successful_call_closes_it() {
    const JOBS: usize = 8;
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let to = To::named(&world, acme::KEYED).await;
    let simulator = &world.simulator().await.client;
    let fault = simulator
        .fault(&to.fault(FaultKind::ServerError))
        .await
        .unwrap();
    insert_messages(&world, "failing", &[&to], JOBS).await;
    let open =
        "SELECT 1 FROM controls WHERE kind = 'circuit' AND reason LIKE '%failed 5 times in a row'";
    wait_sql(&world, open).await;
    let metrics = worker.metrics().await;
    assert!(
        metrics.contains("dispatch_open_circuits{provider=\"webhook\"} 1"),
        "{metrics}"
    );
    simulator.clear_fault(fault).await.unwrap();

    wait_until(&world, "failing", "succeeded", JOBS).await;
    let metrics = worker.metrics().await;
    assert!(
        metrics.contains("dispatch_open_circuits{provider=\"webhook\"} 0"),
        "{metrics}"
    );
    let gap = to
        .requests(&world)
        .windows(2)
        .map(|two| two[1].at - two[0].at)
        .max()
        .expect("several calls");
    assert!(gap >= Duration::from_secs(4), "the longest pause was {gap}");
    Checks {
        attempts: &[("deliver_message", "webhook.server_error")],
    }
    .hold(&world)
    .await;
}

#[tokio::test]
async fn a_shorter_hold_replaces_neither_the_reason_nor_the_author_of_a_longer_one() {
    let world = TestWorld::new().await;
    let store = world.store();
    let place = async |who: &str, seconds: u64| {
        let (reason, length) = (
            format!("{who} wants {seconds} s"),
            Duration::from_secs(seconds),
        );
        let new = NewHold {
            scope: "acme|webhook|1",
            is_circuit: false,
            reason: &reason,
            who,
            length,
        };
        store.place_hold(&new).await.unwrap();
        let holds = store.holds().await.unwrap();
        assert_eq!(holds.len(), 1, "{holds:?}");
        format!("{}: {}", holds[0].who, holds[0].reason)
    };
    assert_eq!(
        place("replica 1", 600).await,
        "replica 1: replica 1 wants 600 s"
    );
    assert_eq!(
        place("replica 2", 5).await,
        "replica 1: replica 1 wants 600 s"
    );
    assert_eq!(
        place("replica 3", 900).await,
        "replica 3: replica 3 wants 900 s"
    );
    for over in [
        "released_at = now()",
        "expires_at = now() - interval '1 second'",
    ] {
        world
            .database
            .rows(&format!("UPDATE controls SET {over}"))
            .await;
        assert_eq!(
            place("replica 4", 5).await,
            "replica 4: replica 4 wants 5 s"
        );
        assert_eq!(
            place("replica 5", 300).await,
            "replica 5: replica 5 wants 300 s"
        );
    }
}
