//! Assembles a worker process: connections, lanes, incarnations, drain. The only module that
//! spawns, besides the pool of `store`.

mod incarnation;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{ByteBudget, PublisherSupervisor, checked, publisher};
use crate::config::{KeepSettings, Links, NotRight, ProviderLinks, WorkerSettings};
use crate::engine::{Lane, Spawn};
use crate::fault::StageFault;
use crate::holds::{self, StoredHolds};
use crate::job::JobId;
use crate::maintenance::{Duties, duties_of_process};
use crate::message::SCHEMA;
use crate::ops::{self, HostNames, OpsState};
use crate::pipelines::{self, Dispatch, Services};
use crate::providers::azure_devops::Hosts;
use crate::providers::entra::EntraSettings;
use crate::providers::governor::{Governor, Holds, Lanes, Rates};
use crate::providers::{ProviderSettings, Providers};
use crate::readiness::WorkerReadiness;
use crate::reconnect::Reconnect;
use crate::secrets::Keyring;
use crate::store::{self, Keep, Store, StoreError, Tables, WRITERS, Writer};
use crate::telemetry;
use crate::tracker::{self, ChangedBy, Changes, Tracker};
use crate::worker::{self, Admission, Announcing, DueAnnouncements, WorkerContext, announcer};
use incarnation::Process;

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
    anyhow::ensure!(
        settings.ops_listen.ip().is_loopback(),
        NotRight(
            "the operations server has no authentication: DISPATCH_OPS_LISTEN must be a loopback address"
        )
    );
    let (started, tasks) = (Instant::now(), TaskTracker::new());
    let (drain, end) = (CancellationToken::new(), CancellationToken::new());
    let spawn = spawner(&tasks);
    let Made {
        context,
        holds,
        publishers,
        announcing,
        due_announcements,
    } = made(&links, &settings, Arc::clone(&spawn))?;
    let duties = Arc::new(Duties::default());
    let readiness = Arc::new(WorkerReadiness::new(
        context.store().clone(),
        context.publisher.clone(),
        drain.clone(),
        Arc::clone(&duties),
    ));
    let (listener, hosts) = listen(&settings).await?;
    let metrics = telemetry::record_metrics()?;
    let router = ops::router(
        OpsState::new(Arc::clone(&readiness) as _, metrics.clone()),
        hosts,
    );
    let (ops_end, upkeep_end) = (end.clone(), end.clone());
    // Signals and the operations server work also while the worker waits for Postgres.
    spawn("signals", Box::pin(signals(drain.clone(), end.clone())));
    spawn(
        "metrics upkeep",
        Box::pin(upkeep(metrics, Arc::clone(&duties), upkeep_end)),
    );
    spawn(
        "operations server",
        Box::pin(ops::serve(listener, router, ops_end)),
    );
    if drain
        .run_until_cancelled(wait_for_schema(context.store()))
        .await
        .transpose()?
        .is_none()
    {
        return goodbye(&tasks, &end).await;
    }
    // The holds are read before the first job arrives.
    holds::look(&context.services.providers.governor).await;
    let tables = (
        context.store().clone(),
        context.services.tracker.clone(),
        Arc::clone(&context.keyring),
    );
    for (duty, task) in duties_of_process(
        tables,
        due_announcements,
        keep(&settings.keep),
        &duties,
        &end,
    ) {
        spawn(duty, task);
    }
    for _ in 0..WRITERS {
        let (writer, end) = (Arc::clone(&context.writer), end.clone());
        spawn(
            "writer",
            Box::pin(async move { writer.write_groups(end).await }),
        );
    }
    spawn(
        "holds",
        Box::pin(holds::follow(
            Arc::clone(&context.services.providers.governor),
            end.clone(),
        )),
    );
    for publisher in publishers {
        spawn("publisher", Box::pin(publisher.run(end.clone())));
    }
    let (drained, told) = (CancellationToken::new(), CancellationToken::new());
    let (run, over) = (announcing.run(drained.clone()), told.clone().drop_guard());
    spawn(
        "announcer",
        Box::pin(async move { (run.await, drop(over)).0 }),
    );
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
        spawn,
        drain: drain.clone(),
    };
    tracing::info!(ops = %process.settings.ops_listen, start.ms = started.elapsed().as_millis() as u64, "the worker runs");
    let mut reconnect = Reconnect::default();
    while !drain.is_cancelled() {
        if process.incarnation().await {
            reconnect.reset();
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(reconnect.next_delay()) => {}
            () = drain.cancelled() => {}
        }
    }
    // The announcer gets a short time for the rest: every event is stored and is published when
    // its row is due.
    drained.cancel();
    drop(tokio::time::timeout(std::time::Duration::from_secs(2), told.cancelled()).await);
    goodbye(&tasks, &end).await
}

/// Cancels everything that still runs, and waits for it for a limited time.
async fn goodbye(tasks: &TaskTracker, end: &CancellationToken) -> anyhow::Result<()> {
    end.cancel();
    tasks.close();
    // Long enough for refreshed tokens to be saved.
    drop(tokio::time::timeout(std::time::Duration::from_secs(6), tasks.wait()).await);
    tracing::info!("drained");
    Ok(())
}

/// The context of a worker, and the parts that must be spawned for it.
struct Made {
    context: WorkerContext<Dispatch, TrackerTables>,
    holds: Arc<StoredHolds>,
    publishers: [PublisherSupervisor; 3],
    announcing: Announcing<TrackerTables>,
    due_announcements: DueAnnouncements,
}

/// Returns the keyring of the settings. The published one of docker-compose.yml is refused where
/// Postgres or RabbitMQ is on another machine, even if the caller connects to only one of them.
///
/// # Errors
/// Invalid settings.
pub fn keyring(links: &Links) -> anyhow::Result<Keyring> {
    let keyring = Keyring::parse(links.keyring()?)?;
    if links.seals_with_published_key() {
        links
            .database_url()
            .ok()
            .map(|url| store::pool(url, 1))
            .transpose()?;
        links.amqp_url().ok().map(checked).transpose()?;
    }
    Ok(keyring)
}

fn made(links: &Links, settings: &WorkerSettings, spawn: Spawn) -> anyhow::Result<Made> {
    let keyring = Arc::new(keyring(links)?);
    let pool = store::pool(links.database_url()?, usize::from(settings.pool_size))?;
    let registry = Arc::new(pipelines::registry());
    let first_stages = registry
        .iter()
        .map(|pipeline| (pipeline.name, pipeline.first()))
        .collect();
    let store = Store::new(pool.clone());
    let holds = Arc::new(StoredHolds::new(store.clone()));
    let concurrency = |lane: Lane| settings.concurrency_of(lane.name);
    let lanes = Lanes {
        dispatch: concurrency(pipelines::DISPATCH),
        assignee_sync: concurrency(pipelines::ASSIGNEE_SYNC),
        messaging: concurrency(pipelines::MESSAGING),
    };
    let tracker = Tracker::new(pool, Arc::clone(&keyring));
    let providers = providers(
        Arc::<StoredHolds>::clone(&holds),
        lanes,
        &settings.providers,
    )?;
    let services = Arc::new(Services {
        tracker,
        providers,
        spawn,
    });
    let amqp = checked(links.amqp_url()?)?;
    // Three connections, because RabbitMQ stops reading a whole connection when one queue cannot
    // keep up.
    let (wake_ups, publishes) = publisher(&amqp, "publisher");
    let (events, publishes_events) = publisher(&amqp, "events");
    let (replies, publishes_replies) = publisher(&amqp, "replies");
    let writer = Arc::new(Writer::new(
        store,
        store::writers_pool(links.database_url()?)?,
        TrackerTables,
        first_stages,
    ));
    let outgoing = worker::EventLinks { events, replies };
    let (announcer, announcing, due_announcements) =
        announcer(outgoing, Arc::clone(&writer), settings.longest_event());
    let (running, stamps) = (Arc::default(), Arc::default());
    let known_schema = SCHEMA;
    let admission = Arc::new(Admission::new(settings.trust_producers));
    let publisher = wake_ups;
    let context = WorkerContext {
        writer,
        registry,
        services,
        keyring,
        publisher,
        announcer,
        known_schema,
        admission,
        running,
        stamps,
    };
    Ok(Made {
        context,
        holds,
        publishers: [publishes, publishes_events, publishes_replies],
        announcing,
        due_announcements,
    })
}

/// Returns the services of stages, for a command that does the same as a stage.
///
/// # Errors
/// Invalid settings. Nothing is connected yet.
pub fn services(links: &Links, settings: &ProviderLinks) -> anyhow::Result<Services> {
    let keyring = Arc::new(keyring(links)?);
    let pool = store::pool(links.database_url()?, COMMAND_CONNECTIONS)?;
    let holds = Arc::new(StoredHolds::new(Store::new(pool.clone())));
    let providers = providers(holds, Lanes::all(1), settings)?;
    // A command waits for its own work, so the tracker of spawned work is not awaited.
    Ok(Services {
        tracker: Tracker::new(pool, keyring),
        providers,
        spawn: spawner(&TaskTracker::new()),
    })
}

/// Checks the providers' settings, without calling a provider.
///
/// # Errors
/// The first invalid setting.
pub fn check_providers(settings: &ProviderLinks) -> anyhow::Result<()> {
    providers(Arc::new(holds::Unkept), Lanes::all(1), settings).map(drop)
}

/// The connections of a command: one for the tracker, one for the holds.
const COMMAND_CONNECTIONS: usize = 2;

fn providers(
    holds: Arc<dyn Holds>,
    lanes: Lanes,
    settings: &ProviderLinks,
) -> anyhow::Result<Providers> {
    // An error means that the same provider is already installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let made = || {
        let rates = Rates::parse(&settings.rates).context("DISPATCH_RATES")?;
        anyhow::Ok(Providers::new(
            &provider_settings(settings),
            Arc::new(Governor::new(rates, lanes, holds)),
        )?)
    };
    made().context(NotRight("a setting of a provider is not valid"))
}

fn provider_settings(settings: &ProviderLinks) -> ProviderSettings {
    ProviderSettings {
        hosts: Hosts {
            profile: settings.azure_devops_profile_url.clone(),
            accounts: None,
            graph: settings.azure_devops_graph_url.clone(),
            search: settings.azure_devops_search_url.clone(),
            core: settings.azure_devops_url.clone(),
        },
        entra: EntraSettings {
            token_url: settings.entra_token_url.clone(),
            client_id: settings.entra_client_id.clone(),
            client_secret: settings.entra_client_secret.clone(),
        },
        urls: settings.api_urls.clone(),
        smtp_server: settings.smtp_url.clone(),
        allow_http_loopback: settings.allow_http_loopback,
        call_timeout: std::time::Duration::from_secs(settings.call_seconds),
    }
}

/// Waits for Postgres, then checks that its schema is new enough for this program.
async fn wait_for_schema(store: &Store) -> anyhow::Result<()> {
    let mut reconnect = Reconnect::default();
    let (found, needed) = loop {
        match store.schema_version().await {
            Err(error) if error.is_infrastructure() => {
                tracing::warn!(error = crate::fault::chain(&error), "waiting for Postgres");
                tokio::time::sleep(reconnect.next_delay()).await;
            }
            answer => {
                break answer.context("the schema cannot be read; run `dispatch migrate` first")?;
            }
        }
    };
    anyhow::ensure!(
        found >= needed,
        "the schema is at V{found} and this program needs V{needed}; run `dispatch migrate`"
    );
    warn_of_power(store).await;
    Ok(())
}

/// Warns if the worker's role has more rights in Postgres than a worker needs. The worker runs
/// nevertheless.
async fn warn_of_power(store: &Store) {
    let looked = async {
        let role = store.session().await?.user;
        let excess = store.excess_of(&role).await?;
        Ok::<_, StoreError>((role, excess))
    };
    match looked.await {
        Ok((_, excess)) if excess.is_empty() => {}
        Ok((role, excess)) => tracing::warn!(
            role,
            excess = excess.join("; "),
            "the worker's role in Postgres can do more than a worker needs; use a login of `dispatch migrate --worker-login`"
        ),
        Err(error) => tracing::warn!(
            error = crate::fault::chain(&error),
            "the rights of the worker's role cannot be read"
        ),
    }
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

/// Waits for signals: the first one drains the worker, the second one ends the process.
async fn signals(drain: CancellationToken, end: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!(
            "the signal handlers cannot be installed: the worker does not drain on SIGTERM or SIGINT"
        );
        return;
    };
    for last in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end.cancelled() => return,
        }
        if last {
            tracing::warn!("a second signal arrived; the process ends at once");
            std::process::exit(1);
        }
        tracing::info!("the worker drains: it finishes the stages in hand and takes nothing new");
        drain.cancel();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
fn spawner(tasks: &TaskTracker) -> Spawn {
    use tracing::Instrument;
    let tasks = tasks.clone();
    Arc::new(move |name, work| {
        tokio::spawn(tasks.track_future(work.instrument(tracing::debug_span!("run", name))));
    })
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
