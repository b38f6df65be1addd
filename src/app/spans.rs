//! Where the spans of a worker go.

use super::tasks::Tasks;
use crate::config::{Links, WorkerSettings};
use crate::trace::Spans;

/// Starts the export of spans, if the settings name a collector.
///
/// # Errors
/// Invalid settings.
#[cfg(feature = "otlp")]
pub(super) fn start_export(
    links: &Links,
    settings: &WorkerSettings,
    tasks: &Tasks,
) -> anyhow::Result<Spans> {
    let Some(collector) = collector(links, settings)? else {
        return Ok(Spans::default());
    };
    let (spans, exporter) = crate::otlp::exporter(collector, uuid::Uuid::now_v7().to_string());
    tasks.spawn("span exporter", exporter.run(tasks.end.clone()));
    Ok(spans)
}

#[cfg(not(feature = "otlp"))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "with the feature `otlp`, settings may be invalid"
)]
pub(super) fn start_export(_: &Links, _: &WorkerSettings, _: &Tasks) -> anyhow::Result<Spans> {
    Ok(Spans::default())
}

/// Returns the collector of the settings, without connecting to it.
///
/// # Errors
/// Invalid settings.
#[cfg(feature = "otlp")]
pub fn collector(
    links: &Links,
    settings: &WorkerSettings,
) -> anyhow::Result<Option<crate::otlp::Collector>> {
    use anyhow::Context as _;

    let settings = &settings.otlp;
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(None);
    };
    let collector = crate::otlp::Collector::new(&crate::otlp::CollectorSettings {
        endpoint: endpoint.clone(),
        headers: settings.otlp_headers.clone(),
        ca: settings.otlp_ca.clone(),
        allow_plaintext: links.allow_plaintext_links,
    });
    collector.map(Some).context(crate::config::NotRight(
        "a setting of the export of traces is not valid",
    ))
}
