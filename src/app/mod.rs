//! Assembles a worker process: connections, lanes, incarnations, drain. The only module that
//! spawns, besides the pool of `store`.

mod assembly;
mod console;
mod incarnation;
mod lanes;
mod sampler;
mod schema;
mod series;
mod spans;
mod tasks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::broker::ByteBudget;
use crate::config::{KeepSettings, Links, NotRight, WorkerSettings};
use crate::fault::StageFault;
use crate::holds;
use crate::job::JobId;
use crate::maintenance::{Duties, duties_of_process, keep as keep_duty};
use crate::ops::{self, HostNames, OpsState};
use crate::readiness::WorkerReadiness;
use crate::store::{Keep, Tables, WRITERS};
use crate::telemetry;
use crate::tracker::{self, ChangedBy, Changes};
use crate::worker::Announcing;
use assembly::{Assembled, assemble};
pub use assembly::{check_providers, keyring, services};
pub use console::run_console;
use incarnation::Process;
use sampler::Sampler;
use schema::wait_for_schema;
#[cfg(feature = "otlp")]
pub use spans::collector;
use tasks::Tasks;

/// The product's part of the engine's transactions.
struct TrackerTables;

type Boxed<'a, V> = std::pin::Pin<Box<dyn Future<Output = Result<V, StageFault>> + Send + 'a>>;

impl Tables for TrackerTables {
    type Changes = Changes;

    fn apply<'a>(
        &'a self,
        tx: &'a tokio_postgres::Transaction<'_>,
        job: JobId,
        changes: &'a Changes,
    ) -> Boxed<'a, Box<RawValue>> {
        Box::pin(async move { Ok(tracker::apply(tx, ChangedBy { job }, changes).await?) })
    }

    fn cause_present<'a>(
        &'a self,
        tx: &'a tokio_postgres::Transaction<'_>,
        key: &'a str,
        observed: i64,
    ) -> Boxed<'a, Option<bool>> {
        Box::pin(async move { Ok(tracker::cause_present(tx, key, observed).await?) })
    }
}

/// Runs a worker until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// Invalid settings, a schema older than this program needs, an address that cannot be listened
/// on.
pub async fn run_worker(links: Links, settings: WorkerSettings) -> anyhow::Result<()> {
    arm_crash_point(&settings)?;
    require_loopback(&settings)?;
    let (started, tasks) = (Instant::now(), Tasks::new());
    let spans = spans::start_export(&links, &settings, &tasks)?;
    let Assembled {
        context,
        holds,
        publishers,
        announcing,
        due_announcements,
    } = assemble(&links, &settings, Arc::clone(&tasks.spawn), spans)?;
    let duties = Arc::new(Duties::default());
    let readiness = Arc::new(WorkerReadiness::new(
        context.store().clone(),
        context.publisher.clone(),
        tasks.drain.clone(),
        Arc::clone(&duties),
    ));
    // Signals and the operations server work also while the worker waits for Postgres.
    let metrics = start_operations(&settings, &readiness, &duties, &tasks).await?;
    series::register(&context.registry);
    let schema = tasks
        .drain
        .run_until_cancelled(wait_for_schema(context.store()))
        .await;
    if schema.transpose()?.is_none() {
        return tasks.finish().await;
    }
    let governor = &context.services.providers.governor;
    // The holds are read before the first job arrives.
    holds::refresh(governor).await;
    let (store, tracker) = (context.store().clone(), context.services.tracker.clone());
    let tables = (store, tracker, Arc::clone(&context.keyring));
    let outgoing = (context.publisher.clone(), due_announcements);
    let keep = keep(&settings.keep);
    for (duty, task) in duties_of_process(tables, outgoing, keep, &duties, &tasks.end) {
        tasks.spawn(duty, task);
    }
    let sampler = Sampler::new(context.store().clone(), Arc::clone(&readiness), metrics);
    let sampling = keep_duty(sampler, Arc::clone(&duties), tasks.end.clone());
    tasks.spawn("samples", sampling);
    for _ in 0..WRITERS {
        let (writer, end) = (Arc::clone(&context.writer), tasks.end.clone());
        tasks.spawn("writer", async move { writer.write_groups(end).await });
    }
    let follow_holds = holds::follow(Arc::clone(governor), tasks.end.clone());
    tasks.spawn("holds", follow_holds);
    for publisher in publishers {
        tasks.spawn("publisher", publisher.run(tasks.end.clone()));
    }
    let announcer = RunningAnnouncer::start(announcing, &tasks);
    let process = Process {
        database_url: links.database_url()?,
        amqp_url: links.amqp_url()?,
        budget: ByteBudget::new(settings.intake_bytes),
        settings,
        context,
        holds,
        readiness,
        duties,
        id: uuid::Uuid::now_v7(),
        spawn: Arc::clone(&tasks.spawn),
        drain: tasks.drain.clone(),
    };
    tracing::info!(ops = %process.settings.ops_listen, start.ms = started.elapsed().as_millis() as u64, "the worker runs");
    process.run_until_drained().await;
    announcer.finish().await;
    tasks.finish().await
}

fn require_loopback(settings: &WorkerSettings) -> anyhow::Result<()> {
    anyhow::ensure!(
        settings.ops_listen.ip().is_loopback(),
        NotRight(
            "the operations server has no authentication: DISPATCH_OPS_LISTEN must be a loopback address"
        )
    );
    Ok(())
}

/// Starts the parts that observe and stop the process: the signal handlers, the upkeep of the
/// metrics and the operations server. Returns the metrics.
async fn start_operations(
    settings: &WorkerSettings,
    readiness: &Arc<WorkerReadiness>,
    duties: &Arc<Duties>,
    tasks: &Tasks,
) -> anyhow::Result<PrometheusHandle> {
    let (listener, hosts) = listen(settings).await?;
    let metrics = telemetry::record_metrics()?;
    let readiness = Arc::<WorkerReadiness>::clone(readiness);
    let router = ops::router(OpsState::new(readiness, metrics.clone()), hosts);
    let end = &tasks.end;
    tasks.spawn(
        "signals",
        tasks::drain_on_signals(tasks.drain.clone(), end.clone()),
    );
    tasks.spawn(
        "metrics upkeep",
        upkeep(metrics.clone(), Arc::clone(duties), end.clone()),
    );
    tasks.spawn(
        "operations server",
        ops::serve(listener, router, end.clone()),
    );
    Ok(metrics)
}

/// Binds the address of the operations server, and returns the listener with the host names that
/// the server accepts.
async fn listen(settings: &WorkerSettings) -> anyhow::Result<(TcpListener, HostNames)> {
    let listener = TcpListener::bind(settings.ops_listen)
        .await
        .with_context(|| {
            format!(
                "the operations server cannot listen on {}",
                settings.ops_listen
            )
        })?;
    Ok((
        listener,
        HostNames::new(settings.ops_listen, &settings.ops_hosts),
    ))
}

/// Every 5 s, folds the samples of histograms into buckets, so that they do not grow until the
/// next scrape, and sets the gauges of late duties.
async fn upkeep(metrics: PrometheusHandle, duties: Arc<Duties>, end: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {
                metrics.run_upkeep();
                drop(duties.standings());
            }
            () = end.cancelled() => return,
        }
    }
}

const fn keep(settings: &KeepSettings) -> Keep {
    const fn days(days: u16) -> std::time::Duration {
        std::time::Duration::from_hours(days as u64 * 24)
    }
    Keep {
        jobs: days(settings.keep_jobs_days),
        parked: days(settings.keep_parked_days),
        audit: days(settings.keep_audit_days),
        history: days(settings.keep_history_days),
        replicas: days(settings.keep_replicas_days),
    }
}

/// The announcer, which runs until the incarnations have drained.
struct RunningAnnouncer {
    /// Tells the announcer that no further events come.
    drained: CancellationToken,
    /// Cancelled when the announcer has ended.
    ended: CancellationToken,
}

impl RunningAnnouncer {
    fn start(announcing: Announcing<TrackerTables>, tasks: &Tasks) -> Self {
        let (drained, ended) = (CancellationToken::new(), CancellationToken::new());
        let (run, guard) = (announcing.run(drained.clone()), ended.clone().drop_guard());
        tasks.spawn("announcer", async move { (run.await, drop(guard)).0 });
        Self { drained, ended }
    }

    /// Gives the announcer a short time to publish the rest: every event is stored and is
    /// published when its row is due.
    async fn finish(self) {
        self.drained.cancel();
        drop(tokio::time::timeout(Duration::from_secs(2), self.ended.cancelled()).await);
    }
}

#[cfg(feature = "devkit")]
fn arm_crash_point(settings: &WorkerSettings) -> anyhow::Result<()> {
    let Some(setting) = &settings.crash_at else {
        return Ok(());
    };
    anyhow::ensure!(
        crate::crash_point::arm(setting),
        NotRight("DISPATCH_CRASH_AT must be stage:point[:n]")
    );
    Ok(())
}

#[cfg(not(feature = "devkit"))]
fn arm_crash_point(_: &WorkerSettings) -> anyhow::Result<()> {
    Ok(())
}
