//! The worker's own line with stages that do nothing, assembled as in `app`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use dispatch_worker::broker::{
    ByteBudget, EXCHANGE, INTAKE_QUEUE, KEY_JOB, LaneInput, Outgoing, Publisher, QueueConsumer,
    publisher, topology,
};
use dispatch_worker::engine::{
    Context, Lane, Pipeline, Product, Registry, Spawn, Stage, StageOutcome,
};
use dispatch_worker::fault::StageFault;
use dispatch_worker::job::JobId;
use dispatch_worker::maintenance::Incarnation;
use dispatch_worker::quota::producer_quotas;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::{self, Backlog, Controls, NewReplica, Store, Tables, WRITERS, Writer};
use dispatch_worker::tls_policy::Endpoint;
use dispatch_worker::worker::{
    Admission, EventLinks, IntakeThrottle, LaneLimiter, LaneRun, QuotaLimits, Quotas, Worker,
    WorkerContext, announcer, beat, begin, prefetch,
};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Figures, Place, Setting, wal};

/// The names of the stages, which do nothing.
const NAMES: [&str; crate::STAGES] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
];
const LANE: Lane = Lane {
    name: "dispatch",
    queue: "dispatch.wake",
    wake_key: "wake.dispatch",
};
const CONNECTIONS: usize = 16;
const MANY: u32 = 10_000_000;
/// Jobs per second, and the duration, of the run under light load.
const LIGHT: (u32, Duration) = (50, Duration::from_secs(10));

fn replica() -> NewReplica {
    NewReplica {
        version: "0".to_owned(),
        host: "h".to_owned(),
        pid: 1,
        process: uuid::Uuid::now_v7(),
        lanes: vec![LANE.name.to_owned()],
    }
}

fn without_limits() -> QuotaLimits {
    let many = producer_quotas("open=10000000,later=10000000,waiting=10000000").unwrap();
    QuotaLimits {
        producer: many,
        organization: many,
    }
}

struct Nothing;

impl Product for Nothing {
    type Services = ();
    type Changes = ();
}

struct Idle<const N: usize>;

impl<const N: usize> Stage for Idle<N> {
    type Product = Nothing;

    const NAME: &'static str = NAMES[N];
    type Output = usize;

    async fn run(&self, _: &Context<'_, Nothing>) -> Result<StageOutcome<usize, ()>, StageFault> {
        Ok(StageOutcome::of(N))
    }
}

struct NoTables;

type Boxed<'a, V> = Pin<Box<dyn Future<Output = Result<V, StageFault>> + Send + 'a>>;

impl Tables for NoTables {
    type Changes = ();

    fn apply<'a>(
        &'a self,
        _: &'a tokio_postgres::Transaction<'_>,
        _: JobId,
        (): &'a (),
    ) -> Boxed<'a, Box<RawValue>> {
        Box::pin(std::future::ready(Ok(RawValue::NULL.to_owned())))
    }

    fn cause_present<'a>(
        &'a self,
        _: &'a tokio_postgres::Transaction<'_>,
        _: &'a str,
        _: i64,
    ) -> Boxed<'a, Option<bool>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// A pipeline of the stages that do nothing.
fn idle() -> Pipeline<Nothing> {
    Pipeline::new("dispatch", LANE)
        .then(Idle::<0>)
        .then(Idle::<1>)
        .then(Idle::<2>)
        .then(Idle::<3>)
        .then(Idle::<4>)
        .then(Idle::<5>)
        .then(Idle::<6>)
        .then(Idle::<7>)
        .then(Idle::<8>)
        .then(Idle::<9>)
}

/// A running worker and its [`Place`].
struct Bench {
    place: Place,
    pool: Pool,
    end: CancellationToken,
    tasks: TaskTracker,
}

/// Runs all jobs of the setting, from a full queue.
pub(crate) async fn run(setting: &Setting<'_>) -> Figures {
    let bench = Bench::at(setting.place("engine").await).await;
    bench.publish(0..setting.jobs).await;
    let client = bench.pool.get().await.unwrap();
    let before = wal(&client).await;
    bench.start(setting.in_flight).await;
    bench.done(setting.jobs).await;
    let wal = wal(&client).await - before;
    bench
        .figures(
            wal,
            "(SELECT min(started_at) FROM checkpoints c WHERE c.job_id = j.id)",
        )
        .await
}

/// Runs a few jobs, one after the other.
pub(crate) async fn light(setting: &Setting<'_>) -> Figures {
    let bench = Bench::at(setting.place("light").await).await;
    bench.start(setting.in_flight).await;
    let jobs = usize::try_from(LIGHT.0).unwrap() * usize::try_from(LIGHT.1.as_secs()).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LIGHT.0);
    for job in 0..jobs {
        ticks.tick().await;
        bench.publish(job..job + 1).await;
    }
    bench.done(jobs).await;
    bench.figures(0.0, "created_at").await
}

impl Bench {
    async fn at(place: Place) -> Self {
        store::migrate(&place.database_url).await.unwrap();
        topology::declare(&place.amqp_url, &[LANE], topology::Outdated::Remove)
            .await
            .unwrap();
        let pool = store::pool(&place.database_url, CONNECTIONS).unwrap();
        let organization = "INSERT INTO organizations (slug, name) VALUES ('o', 'O')";
        pool.get()
            .await
            .unwrap()
            .batch_execute(organization)
            .await
            .unwrap();
        Self {
            place,
            pool,
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    async fn publish(&self, jobs: std::ops::Range<usize>) {
        let publisher = Publisher::connect(&self.place.amqp_url).await.unwrap();
        let message = |job: usize| {
            let body = json!({"schema": 1, "source": "bench", "dedupe_key": job.to_string(), "organization": "o"});
            let (routing_key, body) = (KEY_JOB.to_owned(), body.to_string().into_bytes());
            Outgoing {
                exchange: EXCHANGE,
                routing_key,
                mandatory: true,
                body,
                ..Outgoing::default()
            }
        };
        let messages: Vec<Outgoing> = jobs.map(message).collect();
        for window in messages.chunks(1000) {
            assert!(
                publisher
                    .publish_all(window)
                    .await
                    .iter()
                    .all(Result::is_ok)
            );
        }
    }

    async fn start(&self, in_flight: usize) {
        let context = self.context();
        let endpoint = Endpoint::from(&self.place.database_url);
        let (heartbeat, lease) = begin(&endpoint, &replica(), &self.spawner()).await.unwrap();
        let end = || self.end.clone();
        let heartbeat = beat(heartbeat, Arc::clone(&lease), end(), end());
        self.spawn("heartbeat", heartbeat);
        let throttle = Arc::new(IntakeThrottle::new(in_flight, MANY, Backlog::default()));
        let quotas = Arc::new(Quotas::new(
            context.store().clone(),
            lease.replica(),
            without_limits(),
        ));
        let worker = Arc::new(Worker::new(
            context.clone(),
            Arc::clone(&lease),
            end(),
            Arc::clone(&throttle),
            Arc::clone(&quotas),
        ));
        let limiter = Arc::new(LaneLimiter::with_intake(LANE, in_flight));
        let (_, fixed) = watch::channel(prefetch(in_flight));
        self.serve(LANE.queue, fixed, &worker, &limiter);
        self.serve(INTAKE_QUEUE, throttle.prefetch(), &worker, &limiter);
        let incarnation = Incarnation {
            context,
            lease,
            limiters: vec![limiter],
            throttle,
            quotas,
        };
        for (duty, task) in incarnation.duties(&Arc::default(), &self.end) {
            self.spawn(duty, task);
        }
    }

    /// Builds the context of the worker, and starts its writers, publishers and announcer.
    fn context(&self) -> WorkerContext<Nothing, NoTables> {
        let writer = Arc::new(Writer::new(
            Store::new(self.pool.clone()),
            store::writers_pool(&self.place.database_url).unwrap(),
            NoTables,
            [("dispatch", NAMES[0])].into(),
        ));
        for _ in 0..WRITERS {
            let (writer, end) = (Arc::clone(&writer), self.end.clone());
            self.spawn("writer", async move { writer.write_groups(end).await });
        }
        let [publisher, events, replies] = ["publisher", "events", "replies"].map(|link| {
            let (publisher, supervisor) = publisher(&self.place.amqp_url, link);
            self.spawn(link, supervisor.run(self.end.clone()));
            publisher
        });
        let links = EventLinks { events, replies };
        let (announcer, announcing, due) =
            announcer(links, Arc::clone(&writer), Duration::from_secs(3600));
        // Events that the writers do not publish stay unpublished: the benchmark ends before they
        // are due.
        drop(due);
        self.spawn("announcer", announcing.run(self.end.clone()));
        // No control is in force, and none is read.
        let controls = Arc::new(Controls::new(writer.store().clone()));
        WorkerContext {
            writer,
            registry: Arc::new(Registry::new(idle(), Vec::new())),
            services: Arc::new(()),
            keyring: Arc::new(Keyring::parse(&Keyring::fresh_setting()).unwrap()),
            publisher,
            announcer,
            known_schema: 1,
            admission: Arc::new(Admission::new(true)),
            controls,
            running: Arc::default(),
            stamps: Arc::default(),
            spans: dispatch_worker::trace::Spans::default(),
        }
    }

    /// Starts the consumer and the lane loop of one queue.
    fn serve(
        &self,
        queue: &'static str,
        prefetch: watch::Receiver<u16>,
        worker: &Arc<Worker<Nothing, NoTables>>,
        limiter: &Arc<LaneLimiter>,
    ) {
        let (deliveries, received) = mpsc::channel(64);
        let (last_received, _) = watch::channel(Instant::now());
        let input = LaneInput {
            queue,
            prefetch,
            deliveries,
            last_received,
        };
        let consumer = QueueConsumer::new(&self.place.amqp_url, input, ByteBudget::new(64 << 20));
        self.spawn("consumer", consumer.run(self.end.clone(), self.end.clone()));
        let run = LaneRun {
            worker: Arc::clone(worker),
            limiter: Arc::clone(limiter),
            deliveries: received,
            in_hand: TaskTracker::new(),
            spawn: self.spawner(),
        };
        self.spawn("lane", run.serve());
    }

    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.spawner()(name, Box::pin(work));
    }

    fn spawner(&self) -> Spawn {
        let tasks = self.tasks.clone();
        Arc::new(move |_, work| drop(tasks.spawn(work)))
    }

    /// Waits until this many jobs have succeeded. It polls rarely, because polling uses part of
    /// the machine.
    async fn done(&self, jobs: usize) {
        let client = self.pool.get().await.unwrap();
        let mut polls = tokio::time::interval(Duration::from_millis(250));
        let done = "SELECT count(*) FROM jobs WHERE state = 'succeeded'";
        while client.query_one(done, &[]).await.unwrap().get::<_, i64>(0)
            < i64::try_from(jobs).unwrap()
        {
            polls.tick().await;
        }
    }

    /// Stops the worker. Returns how long jobs took from `since`, and how long all of them took
    /// from the worker's start.
    async fn figures(self, wal: f64, since: &str) -> Figures {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let client = self.pool.get().await.unwrap();
        let sql = format!(
            "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - {since})::float8),
                extract(epoch FROM max(finished_at) - (SELECT min(started_at) FROM replicas))::float8
             FROM jobs j WHERE state = 'succeeded'"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        let (quantiles, took): (Vec<f64>, f64) = (row.get(0), row.get(1));
        let [p50, p99, took] = [quantiles[0], quantiles[1], took].map(Duration::from_secs_f64);
        Figures {
            took,
            p50,
            p99,
            wal,
        }
    }
}
