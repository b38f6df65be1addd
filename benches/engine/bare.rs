//! Loops without an engine: receive a message, store a row for each stage, publish a follow-up,
//! ack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use dispatch_worker::store;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};
use secrecy::ExposeSecret;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Figures, Place, STAGES, Setting, quantile, wal};

/// How rows are stored.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Commits {
    /// Two writers, each of which commits all rows that arrived during its last flush.
    Grouped,
    /// A transaction for each stage.
    Single,
}

const IN: &str = "in";
const OUT: &str = "out";
const ROWS: usize = 1000;
const CONNECTIONS: usize = 32;

/// A row to store, and the channel that reports that it is stored.
type Asked = (Uuid, i32, oneshot::Sender<()>);

enum Rows {
    Grouped(mpsc::Sender<Asked>),
    Single(Pool),
}

impl Rows {
    async fn store(&self, job: Uuid, stage: i32) {
        match self {
            Self::Grouped(writers) => {
                let (done, stored) = oneshot::channel();
                writers.send((job, stage, done)).await.unwrap();
                stored.await.unwrap();
            }
            Self::Single(pool) => {
                let mut client = pool.get().await.unwrap();
                let tx = client.transaction().await.unwrap();
                let upsert = "INSERT INTO bare_jobs VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET stage = excluded.stage";
                let upsert = tx.prepare_cached(upsert).await.unwrap();
                tx.execute(&upsert, &[&job, &stage]).await.unwrap();
                let insert = tx
                    .prepare_cached("INSERT INTO bare_checkpoints (job_id, stage) VALUES ($1, $2)")
                    .await
                    .unwrap();
                tx.execute(&insert, &[&job, &stage]).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
    }
}

/// Runs all jobs of the setting.
pub(crate) async fn run(setting: &Setting<'_>, commits: Commits) -> Figures {
    let name = if commits == Commits::Grouped {
        "bare_grouped"
    } else {
        "bare_single"
    };
    let place = setting.place(name).await;
    let pool = store::pool(&place.database_url, CONNECTIONS).unwrap();
    let client = pool.get().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE bare_jobs (id uuid PRIMARY KEY, stage int) WITH (fillfactor = 70);
             CREATE TABLE bare_checkpoints (job_id uuid, stage int, PRIMARY KEY (job_id, stage))",
        )
        .await
        .unwrap();
    let channel = filled(&place, setting).await;
    let mut writers = JoinSet::new();
    let rows = Arc::new(match commits {
        Commits::Grouped => Rows::Grouped(start_writers(&pool, &mut writers)),
        Commits::Single => Rows::Single(pool.clone()),
    });
    let before = wal(&client).await;
    let began = Instant::now();
    let mut times = work(setting, &channel, &rows).await;
    let took = began.elapsed();
    let wal = wal(&client).await - before;
    times.sort();
    Figures {
        took,
        p50: quantile(&times, 0.5),
        p99: quantile(&times, 0.99),
        wal,
    }
}

/// Declares the queues and publishes all jobs to one of them. Returns the channel.
async fn filled(place: &Place, setting: &Setting<'_>) -> Channel {
    let connection = Connection::connect(
        place.amqp_url.expose_secret(),
        ConnectionProperties::default(),
    )
    .await
    .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let mut quorum = FieldTable::default();
    quorum.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    for queue in [IN, OUT] {
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), quorum.clone())
            .await
            .unwrap();
    }
    let mut sent = Vec::with_capacity(setting.jobs);
    for _ in 0..setting.jobs {
        sent.push(publish(&channel, IN, Uuid::now_v7()).await);
    }
    for confirm in sent {
        confirm.await.unwrap();
    }
    // The connection lives as long as its channel.
    channel
}

async fn publish(channel: &Channel, queue: &str, job: Uuid) -> PublisherConfirm {
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel
        .basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            job.as_bytes(),
            properties,
        )
        .await
        .unwrap()
}

fn start_writers(pool: &Pool, writers: &mut JoinSet<()>) -> mpsc::Sender<Asked> {
    let (sender, asked) = mpsc::channel::<Asked>(10_000);
    let asked = Arc::new(tokio::sync::Mutex::new(asked));
    for _ in 0..2 {
        let (pool, asked) = (pool.clone(), Arc::clone(&asked));
        writers.spawn(async move {
            let client = pool.get().await.unwrap();
            let jobs = client
                .prepare("INSERT INTO bare_checkpoints SELECT * FROM unnest($1::uuid[], $2::int[])")
                .await
                .unwrap();
            loop {
                let mut group = Vec::new();
                if asked.lock().await.recv_many(&mut group, ROWS).await == 0 {
                    return;
                }
                let ids: Vec<Uuid> = group.iter().map(|(job, ..)| *job).collect();
                let stages: Vec<i32> = group.iter().map(|(_, stage, _)| *stage).collect();
                client.execute(&jobs, &[&ids, &stages]).await.unwrap();
                group
                    .into_iter()
                    .for_each(|(.., done)| done.send(()).unwrap());
            }
        });
    }
    sender
}

/// Runs all jobs. Returns how long each took.
async fn work(setting: &Setting<'_>, channel: &Channel, rows: &Arc<Rows>) -> Vec<Duration> {
    let prefetch = u16::try_from(setting.in_flight).unwrap();
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .unwrap();
    let mut deliveries = channel
        .basic_consume(
            IN.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let permits = Arc::new(Semaphore::new(setting.in_flight));
    let mut running = JoinSet::new();
    for _ in 0..setting.jobs {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        let (rows, channel) = (Arc::clone(rows), channel.clone());
        running.spawn(async move {
            let began = Instant::now();
            let job = Uuid::from_slice(&delivery.data).unwrap();
            for stage in 0..STAGES {
                rows.store(job, i32::try_from(stage).unwrap()).await;
            }
            publish(&channel, OUT, Uuid::now_v7()).await.await.unwrap();
            delivery
                .acker
                .ack(BasicAckOptions::default())
                .await
                .unwrap();
            drop(permit);
            began.elapsed()
        });
    }
    running.join_all().await
}
