//! The fleet: replicas, lanes, the number of replicas needed, charts, and the pipelines.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::console::answer;
use crate::console::call::Call;
use crate::console::pages;
use crate::console::panels::{PanelError, Seen, charts};
use crate::console::problem::Problem;
use crate::console::routes::{Route, reads};
use crate::console::standing;
use crate::pipelines::{PipelineRow, pipeline_rows};
use crate::store::{Charts, EndedReplica, FleetReplica, LaneRow, Lanes, Scale};

/// The age up to which samples are kept.
const TWO_DAYS: time::Duration = time::Duration::hours(48);

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!(
        "fleet",
        "/fleet",
        "Returns replicas, lanes, and the replicas that ended within a day",
        [],
        Fleet,
        fleet,
        pages::fleet::page
    ),
    reads!(
        "replicas",
        "/replicas",
        "Returns the running replicas",
        [],
        Vec<FleetReplica>,
        replicas
    ),
    reads!(
        "lanes",
        "/lanes",
        "Returns the lanes with their jobs, permits and consumers",
        [],
        Vec<LaneRow>,
        lanes
    ),
    reads!(
        "scale",
        "/scale",
        "Returns the number of replicas needed, for autoscalers; what waits on a vendor is not counted",
        [],
        Scale,
        scale
    ),
    reads!("samples", "/samples", "Returns charts of what replicas measured, minute by minute", [
        "since": "the first minute, RFC 3339; at most 48 hours ago, usually an hour"
    ], Charts, samples),
    reads!(
        "pipelines",
        "/pipelines",
        "Returns the pipelines with their lanes and stages in order",
        [],
        Vec<PipelineRow>,
        pipelines,
        pages::fleet::pipelines
    ),
];

/// The fleet. A part that could not be read is null, and `errors` says why.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct Fleet {
    /// The running replicas.
    #[schemars(with = "Option<Vec<FleetReplica>>")]
    pub(in crate::console) replicas: Seen<Vec<FleetReplica>>,
    /// Their versions, if there are several.
    pub(in crate::console) versions: Option<Vec<String>>,
    /// The lanes.
    #[schemars(with = "Option<Lanes>")]
    pub(in crate::console) lanes: Seen<Lanes>,
    /// The replicas that ended within a day, the last first, at most 50.
    #[schemars(with = "Option<Vec<EndedReplica>>")]
    pub(in crate::console) ended: Seen<Vec<EndedReplica>>,
    /// Parts that could not be read.
    pub(in crate::console) errors: Vec<PanelError>,
    /// The database's clock.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub(in crate::console) now: OffsetDateTime,
}

async fn fleet(call: Call) -> Result<Response, Problem> {
    answer::json(&read_fleet(&call).await?)
}

/// Reads the fleet.
///
/// # Errors
/// `postgres_away`, `too_slow`.
pub(in crate::console) async fn read_fleet(call: &Call) -> Result<Fleet, Problem> {
    let (panels, store) = (call.panels(), call.reads());
    let (replicas, lanes, ended, now) = tokio::join!(
        panels.fleet(store),
        panels.lanes(store),
        panels.ended(store),
        store.now()
    );
    let versions = replicas.value().and_then(|rows| standing::versions(rows));
    let versions = versions.map(|names| names.into_iter().map(str::to_owned).collect());
    let errors = [
        replicas.error("replicas"),
        lanes.error("lanes"),
        ended.error("ended"),
    ];
    Ok(Fleet {
        versions,
        errors: errors.into_iter().flatten().collect(),
        replicas,
        lanes,
        ended,
        now: now?,
    })
}

async fn replicas(call: Call) -> Result<Response, Problem> {
    let seen = call.panels().fleet(call.reads()).await;
    answer::json(&*seen.required()?)
}

async fn lanes(call: Call) -> Result<Response, Problem> {
    let seen = call.panels().lanes(call.reads()).await;
    answer::json(&seen.required()?.lanes)
}

async fn scale(call: Call) -> Result<Response, Problem> {
    let seen = call.panels().lanes(call.reads()).await;
    answer::json(&seen.required()?.scale)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
}

async fn samples(call: Call) -> Result<Response, Problem> {
    let Samples { since } = call.query()?;
    let Some(since) = since else {
        let seen = call.panels().charts(call.reads()).await;
        return answer::json(&*seen.required()?);
    };
    let now = call.reads().now().await?;
    if since > now {
        return Err(Problem::invalid_filter(
            "expected a time in the past in `since`, such as an hour ago",
        ));
    }
    let since = since.max(now - TWO_DAYS);
    answer::json(&charts(call.reads(), since, now).await?)
}

async fn pipelines(_: Call) -> Result<Response, Problem> {
    answer::json(&pipeline_rows())
}
