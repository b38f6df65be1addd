//! Builds the parts of a worker from its settings, and those that a command shares with it.

use std::sync::Arc;

use anyhow::Context as _;
use tokio_util::task::TaskTracker;

use super::TrackerTables;
use super::tasks::spawner;
use crate::broker::{PublisherSupervisor, checked, publisher};
use crate::config::{Links, NotRight, ProviderLinks, WorkerSettings};
use crate::engine::{Lane, Spawn};
use crate::holds::{self, StoredHolds};
use crate::message::SCHEMA;
use crate::pipelines::configuration_link::ConfigurationLinks;
use crate::pipelines::{self, Dispatch, Services};
use crate::providers::azure_devops::Hosts;
use crate::providers::entra::EntraSettings;
use crate::providers::governor::{Governor, Holds, Lanes, Rates};
use crate::providers::{ProviderSettings, Providers};
use crate::secrets::Keyring;
use crate::store::{self, Controls, Store, Writer};
use crate::trace::Spans;
use crate::tracker::{SealedTracker, Tracker};
use crate::worker::{self, Admission, Announcing, DueAnnouncements, WorkerContext, announcer};

/// The context of a worker, and the parts that must be spawned for it.
pub(super) struct Assembled {
    pub(super) context: WorkerContext<Dispatch, TrackerTables>,
    pub(super) holds: Arc<StoredHolds>,
    pub(super) publishers: [PublisherSupervisor; 3],
    pub(super) announcing: Announcing<TrackerTables>,
    pub(super) due_announcements: DueAnnouncements,
}

pub(super) fn assemble(
    links: &Links,
    settings: &WorkerSettings,
    spawn: Spawn,
    spans: Spans,
) -> anyhow::Result<Assembled> {
    let keyring = Arc::new(keyring(links)?);
    let pool = store::pool(links.database_url()?, usize::from(settings.pool_size))?;
    let registry = Arc::new(pipelines::registry());
    let first_stages = registry
        .iter()
        .map(|pipeline| (pipeline.name, pipeline.first()))
        .collect();
    let store = Store::new(pool.clone());
    let controls = Arc::new(Controls::new(store.clone()));
    let holds = Arc::new(StoredHolds::new(store.clone(), Arc::clone(&controls)));
    let concurrency = |lane: Lane| settings.concurrency_of(lane.name);
    let lanes = Lanes {
        dispatch: concurrency(pipelines::DISPATCH),
        assignee_sync: concurrency(pipelines::ASSIGNEE_SYNC),
        messaging: concurrency(pipelines::MESSAGING),
    };
    let tracker = Tracker::new(pool);
    let providers = providers(
        Arc::<StoredHolds>::clone(&holds),
        lanes,
        &settings.providers,
    )?;
    let services = Arc::new(Services {
        links: ConfigurationLinks::new(Arc::clone(&keyring), settings.console_url.clone()),
        sealed: SealedTracker::new(tracker.clone(), Arc::clone(&keyring)),
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
        controls,
        running,
        stamps,
        spans,
    };
    Ok(Assembled {
        context,
        holds,
        publishers: [publishes, publishes_events, publishes_replies],
        announcing,
        due_announcements,
    })
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

/// Returns the services of stages, for a command that does the same as a stage.
///
/// # Errors
/// Invalid settings. Nothing is connected yet.
pub fn services(links: &Links, settings: &ProviderLinks) -> anyhow::Result<Services> {
    let keyring = Arc::new(keyring(links)?);
    let pool = store::pool(links.database_url()?, COMMAND_CONNECTIONS)?;
    let store = Store::new(pool.clone());
    let controls = Arc::new(Controls::new(store.clone()));
    let holds = Arc::new(StoredHolds::new(store, controls));
    let providers = providers(holds, Lanes::all(1), settings)?;
    // A command waits for its own work, so the tracker of spawned work is not awaited.
    let tracker = Tracker::new(pool);
    Ok(Services {
        links: ConfigurationLinks::new(Arc::clone(&keyring), None),
        sealed: SealedTracker::new(tracker.clone(), keyring),
        tracker,
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
