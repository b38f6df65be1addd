//! Queues of subscribers and producers that refuse or never confirm messages: they delay no one
//! else, and their messages are dropped after a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_worker::broker::Outgoing;
use dispatch_worker::devkit::guard::Command;
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use crate::operations::isolation::{busy_and_idle, kill_and_measure};
use crate::support::{
    Checks, Listener, TestWorld, WorkerOptions, WorkerProcess, acme, intake, wait_for,
};

const SOON: Duration = Duration::from_secs(30);
/// The limit for a message that nothing delays.
const PROMPTLY: Duration = Duration::from_secs(5);
const JOBS: usize = 40;
/// A queue that never confirms after [`Command::SuspendQueues`].
const SUSPENDED: &str = "answers.suspended";

/// Publishes a job that retrieves its user and changes nothing.
async fn publish(world: &TestWorld, key: &str, reply_to: Option<&str>) {
    let mut message = acme::job(key, &Value::Null);
    (message["events"], message["notify"]) = (json!([]), json!([]));
    let reply_to = reply_to.map(str::to_owned);
    world
        .publish_raw(&Outgoing {
            reply_to,
            ..intake(message.to_string())
        })
        .await;
}

/// The number of copies of each event that arrived at a queue, by job and event.
#[derive(Default)]
struct Received(BTreeMap<(String, String), usize>);

impl Received {
    async fn take(&mut self, listener: &Listener, queue: &str) {
        while let Some((_, event)) = listener.try_next(queue).await {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            *self
                .0
                .entry((text("dedupe_key"), text("event")))
                .or_default() += 1;
        }
    }

    /// Asserts that the acceptance and the success of each job arrived at least once and at most
    /// three times.
    fn is_each_at_most_three_times(&self, jobs: usize) {
        assert_eq!(self.0.len(), 2 * jobs, "{:?}", self.0);
        assert!(
            self.0.values().all(|copies| (1..=3).contains(copies)),
            "{:?}",
            self.0
        );
    }
}

/// Returns the value of a metric's line, or 0 if there is none.
async fn metric(worker: &WorkerProcess, line: &str) -> String {
    let metrics = worker.metrics().await;
    let value = metrics
        .lines()
        .find_map(|found| found.strip_prefix(line))
        .unwrap_or("0");
    value.trim().to_owned()
}

#[tokio::test]
async fn a_full_subscriber_queue_causes_at_most_three_copies_elsewhere_and_its_events_are_dropped()
{
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.full_queue("full", Some("#")).await;
    listener.queue("watch", Some("#")).await;
    let worker = world.worker(&WorkerOptions::default());
    for number in 0..JOBS {
        publish(&world, &format!("job-{number}"), None).await;
    }
    let mut received = Received::default();
    for number in 0..JOBS {
        world
            .wait_job_state(&format!("job-{number}"), JobState::Succeeded, SOON)
            .await;
    }
    world.wait_quiet(SOON).await;
    received.take(&listener, "watch").await;
    received.is_each_at_most_three_times(JOBS);
    let dropped = metric(
        &worker,
        "dispatch_events_dropped_total{what=\"event\",why=\"refused\"}",
    )
    .await;
    assert_eq!(dropped, (2 * JOBS).to_string());
    let jobs = world
        .database
        .rows("SELECT id::text FROM jobs")
        .await
        .concat();
    wait_for(
        "a log line that names jobs whose events are dropped",
        SOON,
        async || {
            let log = worker.log();
            let mut lines = log
                .lines()
                .filter(|line| line.contains("WARN") && line.contains("are dropped"));
            if lines.any(|line| jobs.iter().any(|job| line.contains(job))) {
                Ok(())
            } else {
                Err("there is none")
            }
        },
    )
    .await;
    Checks::default().hold(&world).await;
}

/// A worker and a queue that confirms nothing, [`SUSPENDED`], which is bound to all events if
/// `events` is set. Jobs reply to it or to `answers`; `watch` receives all events of jobs.
pub(crate) struct Scene {
    pub(crate) world: TestWorld,
    pub(crate) worker: WorkerProcess,
    listener: Listener,
}

impl Scene {
    pub(crate) async fn new(events: bool) -> Self {
        let world = TestWorld::with_own_servers().await;
        let listener = Listener::new(&world).await;
        listener.queue("watch", Some("job.#")).await;
        listener.queue("answers", None).await;
        listener.lasting_queue(SUSPENDED).await;
        listener.bind(SUSPENDED, events.then_some("#")).await;
        let worker = world.worker(&WorkerOptions::default());
        worker.ready().await;
        world.server_command(Command::SuspendQueues).await;
        Self {
            world,
            worker,
            listener,
        }
    }

    /// Publishes a job whose replies are never confirmed.
    pub(crate) async fn publish_to_suspended(&self, key: &str) {
        publish(&self.world, key, Some(SUSPENDED)).await;
    }

    /// Waits until a reply to [`SUSPENDED`] has timed out once.
    pub(crate) async fn wait_unconfirmed(&self) {
        wait_for("a reply to time out", SOON, async || {
            let tried = "SELECT count(*) FROM announcements WHERE reply_tries > 0";
            let tried = self.world.database.one(tried).await;
            if tried == "0" {
                Err("it is still in flight")
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// Makes every announcement so old that it is dropped, waits until none is left, and resumes
    /// the queues.
    pub(crate) async fn end(&self) {
        self.world
            .database
            .rows("UPDATE announcements SET created_at = now() - interval '25 hours'")
            .await;
        wait_for(
            "the old announcements to be dropped",
            SOON,
            async || match self
                .world
                .database
                .one("SELECT count(*) FROM announcements")
                .await
                .as_str()
            {
                "0" => Ok(()),
                some => Err(format!("{some} are left")),
            },
        )
        .await;
        // RabbitMQ's management API waits for a suspended queue.
        self.world.server_command(Command::ResumeQueues).await;
        self.world.wait_quiet(SOON).await;
    }

    /// Asserts that a job's replies and events arrive promptly.
    async fn is_prompt(&self, key: &str) {
        let published = Instant::now();
        publish(&self.world, key, Some("answers")).await;
        for event in ["job.accepted", "job.succeeded"] {
            let (_, reply) = self.listener.next("answers").await;
            assert_eq!(
                (&reply["event"], &reply["dedupe_key"]),
                (&json!(event), &json!(key)),
                "{reply}"
            );
            wait_for(&format!("{event} of {key}"), SOON, async || {
                match self.listener.try_next("watch").await {
                    Some((_, received))
                        if received["event"] == event && received["dedupe_key"] == key =>
                    {
                        Ok(())
                    }
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        let took = published.elapsed();
        assert!(took < PROMPTLY, "{key} took {took:?}");
    }

    /// Publishes [`JOBS`] jobs and asserts that their events arrive promptly once they have
    /// succeeded.
    async fn publish_and_receive(&self, when: &str, received: &mut Received) {
        let (keys, before) = (
            (0..JOBS).map(|number| format!("{number} {when}")),
            received.0.len(),
        );
        for key in keys.clone() {
            publish(&self.world, &key, None).await;
        }
        for key in keys {
            self.world
                .wait_job_state(&key, JobState::Succeeded, SOON)
                .await;
        }
        let succeeded = Instant::now();
        while received.0.len() < before + 2 * JOBS {
            assert!(
                succeeded.elapsed() < PROMPTLY,
                "{when}: {} events of {}",
                received.0.len() - before,
                2 * JOBS
            );
            received.take(&self.listener, "watch").await;
        }
    }

    /// Asserts that no connection was replaced.
    async fn has_not_reconnected(&self) {
        let metrics = self.worker.metrics().await;
        for link in ["publisher", "events", "replies"] {
            let line = format!("dispatch_reconnects_total{{link=\"{link}\"}} 0\n");
            assert!(metrics.contains(&line), "{metrics}");
        }
        assert!(self.worker.readiness().await.unwrap().0);
    }
}

#[tokio::test]
async fn a_reply_queue_that_never_confirms_delays_no_other_reply_no_event_no_job_and_no_takeover() {
    let scene = Scene::new(false).await;
    scene.publish_to_suspended("bad").await;
    scene
        .world
        .wait_job_state("bad", JobState::Succeeded, PROMPTLY)
        .await;
    scene.is_prompt("while it is waited for").await;
    scene.wait_unconfirmed().await;
    for number in 0..20 {
        scene.publish_to_suspended(&format!("bad-{number}")).await;
    }
    scene.is_prompt("while it is left alone").await;
    scene
        .world
        .wait_job_state("bad-19", JobState::Succeeded, SOON)
        .await;
    let (busy, idle) = busy_and_idle(&scene.world).await;
    kill_and_measure(&scene.world, busy).await;
    let left = scene
        .world
        .database
        .one("SELECT count(*) FROM announcements WHERE reply_tries > 1")
        .await;
    assert_eq!(
        left, "0",
        "a queue that does not confirm is not tried again"
    );
    scene.has_not_reconnected().await;
    scene.end().await;
    let mut dropped = 0;
    for worker in [&scene.worker, &idle] {
        let line = "dispatch_events_dropped_total{what=\"reply\",why=\"too_old\"}";
        dropped += metric(worker, line).await.parse::<u32>().expect("a count");
    }
    assert_eq!(dropped, 42, "two replies of each of 21 jobs");
    wait_for(
        "the hanging jobs of the other workers to be done",
        SOON,
        async || {
            // A job that waits for the end of a hold is ready again afterwards.
            let unfinished = "SELECT count(*) FROM jobs WHERE finished_at IS NULL";
            match scene.world.database.one(unfinished).await.as_str() {
                "0" => Ok(()),
                some => Err(format!("{some} are unfinished")),
            }
        },
    )
    .await;
    // The jobs that the other workers had in hand hung until their calls timed out.
    Checks {
        attempts: &[("retrieve_user", "azure_devops.timed_out")],
    }
    .hold(&scene.world)
    .await;
}

#[tokio::test]
async fn a_subscriber_queue_that_never_confirms_withholds_no_event_from_another() {
    let scene = Scene::new(true).await;
    let mut received = Received::default();
    scene.publish_and_receive("at first", &mut received).await;
    wait_for("events to time out", SOON, async || {
        let tried = "SELECT count(*) FROM announcements WHERE tries > 0";
        if scene.world.database.one(tried).await == "0" {
            Err("they are still in flight")
        } else {
            Ok(())
        }
    })
    .await;
    for wave in 0..3 {
        scene
            .publish_and_receive(&format!("later, {wave}"), &mut received)
            .await;
    }
    received.is_each_at_most_three_times(4 * JOBS);
    wait_for(
        "events that were repeated and are not confirmed yet",
        SOON,
        async || {
            let repeated = "SELECT count(*) FROM announcements WHERE tries = 2";
            if scene.world.database.one(repeated).await == "0" {
                Err("there are none")
            } else {
                Ok(())
            }
        },
    )
    .await;
    scene.has_not_reconnected().await;
    scene.end().await;
    received.take(&scene.listener, "watch").await;
    received.is_each_at_most_three_times(4 * JOBS);
    Checks::default().hold(&scene.world).await;
}
