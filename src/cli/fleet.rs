//! `dispatch replicas` and `dispatch lanes`: the fleet, as the console shows it.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;
use serde::Serialize;

use super::connect;
use super::output::{Output, or_dash, plain, rendered, when};
use crate::config::Links;
use crate::pipelines;
use crate::store::{EndedReplica, FleetReplica, LaneRow, PipelineLanes};

/// The age up to which a replica's end is listed.
const A_DAY: time::Duration = time::Duration::DAY;
/// Most replicas that have ended.
const ENDED: i64 = 50;

/// List the running replicas with their faults, and those that ended within a day
#[derive(Debug, Args)]
pub(super) struct Replicas {
    #[command(flatten)]
    links: Links,
}

/// List the lanes with their jobs, permits and consumers, and the number of replicas needed
#[derive(Debug, Args)]
pub(super) struct Lanes {
    #[command(flatten)]
    links: Links,
}

#[derive(Serialize)]
struct Listed {
    running: Vec<FleetReplica>,
    ended: Vec<EndedReplica>,
}

impl Replicas {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let since = store.now().await? - A_DAY;
        let listed = Listed {
            running: store.fleet().await?,
            ended: store.ended_replicas(since, ENDED).await?,
        };
        output.answer(&listed, || text(output, &listed))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Lanes {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let lanes = store
            .lanes(&PipelineLanes::of(&pipelines::registry()))
            .await?;
        output.answer(&lanes, || {
            let scale = &lanes.scale;
            format!(
                "{}\n\nreplicas needed: {} (ready {}, running {}, due within 60 s {}; {} wait on a vendor and are not counted)",
                of_lanes(output, &lanes.lanes),
                scale.desired,
                scale.ready,
                scale.in_flight,
                scale.due_60s,
                scale.waits_on_vendor
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(output: Output, listed: &Listed) -> String {
    let running = if listed.running.is_empty() {
        "no replica runs".to_owned()
    } else {
        running(output, &listed.running)
    };
    if listed.ended.is_empty() {
        return format!("{running}\n\nnone has ended within a day");
    }
    format!("{running}\n\n{}", ended(output, &listed.ended))
}

fn running(output: Output, replicas: &[FleetReplica]) -> String {
    let headings = [
        "replica", "version", "host", "started", "jobs", "permits", "state",
    ];
    let mut table = output.table(&headings);
    for replica in replicas {
        table.add_row([
            Cell::new(replica.row.id),
            Cell::new(plain(&replica.row.version)),
            Cell::new(plain(&replica.row.host)),
            Cell::new(when(replica.row.started_at)),
            Cell::new(replica.row.running),
            Cell::new(format!("{} of {}", replica.permits_used, replica.permits)),
            Cell::new(plain(&state(replica))),
        ]);
    }
    rendered(table)
}

fn state(replica: &FleetReplica) -> String {
    if replica.row.draining {
        return "drains".to_owned();
    }
    match (replica.sampled_at, replica.not_ready.as_slice()) {
        (None, _) => "no sample yet".to_owned(),
        (Some(_), []) => "ready".to_owned(),
        (Some(_), failed) => format!("not ready: {}", failed.join(", ")),
    }
}

fn ended(output: Output, replicas: &[EndedReplica]) -> String {
    let mut table = output.table(&["replica", "version", "host", "ended", "how"]);
    for replica in replicas {
        table.add_row([
            Cell::new(replica.id),
            Cell::new(plain(&replica.version)),
            Cell::new(plain(&replica.host)),
            Cell::new(when(replica.ended_at)),
            Cell::new(replica.how.word()),
        ]);
    }
    rendered(table)
}

fn of_lanes(output: Output, lanes: &[LaneRow]) -> String {
    let headings = [
        "lane",
        "ready",
        "due",
        "oldest due",
        "running",
        "waiting",
        "parked",
        "permits",
        "consumers",
        "queued",
        "intake",
    ];
    let mut table = output.table(&headings);
    for lane in lanes {
        table.add_row([
            Cell::new(&lane.lane),
            Cell::new(lane.ready),
            Cell::new(lane.due),
            Cell::new(format!("{:.0} s", lane.oldest_due_seconds)),
            Cell::new(lane.running),
            Cell::new(lane.waiting),
            Cell::new(lane.parked),
            Cell::new(format!("{} of {}", lane.permits_used, lane.permits)),
            Cell::new(lane.consumers),
            Cell::new(lane.queued),
            Cell::new(or_dash(lane.intake_paused.as_deref())),
        ]);
    }
    rendered(table)
}
