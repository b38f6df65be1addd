//! The fleet: replicas, lanes, and the replicas that ended; and the pipelines.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::words::{panel, span, table, time};
use crate::console::answer;
use crate::console::api::fleet::read_fleet;
use crate::console::call::Call;
use crate::console::changes::is_death;
use crate::console::problem::Problem;
use crate::console::standing::how_it_ended;
use crate::pipelines::{StageRow, in_largest_unit, pipeline_rows};
use crate::store::{EndedReplica, FleetReplica, LaneRow, Lanes};

/// Answers `/fleet`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let fleet = read_fleet(&call).await?;
    let now = fleet.now;
    let content = html! {
        h1 { "Fleet" }
        @if let Some(versions) = &fleet.versions {
            p.explain { "Workers of " (versions.len()) " versions run: " (versions.join(", ")) "." }
        }
        section #replicas { h2 { "Replicas" } (panel(fleet.replicas.get(), |rows| replicas(rows, now))) }
        section #lanes { h2 { "Lanes" } (panel(fleet.lanes.get(), lanes_and_scale)) }
        section #ended { h2 { "Ended within a day" } (panel(fleet.ended.get(), |rows| ended(rows, now))) }
        p { a href="/pipelines" { "Pipelines and their stages" } }
    };
    Ok(answer::page(Frame::of(&call.who).page("Fleet", &content)))
}

/// Returns the running replicas as a table.
pub(super) fn replicas(replicas: &[FleetReplica], now: OffsetDateTime) -> Markup {
    if replicas.is_empty() {
        return html! { p { "No worker runs. Accepted jobs are safe; nothing moves until one starts." } };
    }
    let rows: Vec<Vec<Markup>> = replicas
        .iter()
        .map(|replica| {
            vec![
                html! { a href=(format!("/jobs?replica={}", replica.row.id)) { (replica.row.id) } },
                html! { (replica.row.version) },
                html! { (replica.row.host) ", process " (replica.row.pid) },
                time(replica.row.started_at, now),
                time(replica.row.lease_until, now),
                html! { (replica.row.running) },
                html! { (replica.permits_used) " of " (replica.permits) },
                links(replica),
                state(replica, now),
            ]
        })
        .collect();
    table(
        &[
            "replica",
            "version",
            "host",
            "started",
            "lease ends",
            "jobs",
            "permits",
            "links",
            "state",
        ],
        &rows,
    )
}

fn links(replica: &FleetReplica) -> Markup {
    if replica.sampled_at.is_none() {
        return html! { "not known yet" };
    }
    html! {
        @if replica.not_ready.iter().any(|check| check == "postgres") { "Postgres away. " }
        @if replica.rabbitmq_away { "RabbitMQ away. " } @else { "RabbitMQ up. " }
        @if !replica.deaf.is_empty() { "Receives nothing: " (replica.deaf.join(", ")) ". " }
        @if let Some(why) = &replica.intake_paused { (why) "." }
    }
}

fn state(replica: &FleetReplica, now: OffsetDateTime) -> Markup {
    let (shape, class, word) = match (replica.row.draining, replica.not_ready.as_slice()) {
        (true, _) => ("◔", "waiting", "drains".to_owned()),
        (false, []) if replica.sampled_at.is_none() => ("◔", "waiting", "starts".to_owned()),
        (false, []) => ("●", "ok", "ready".to_owned()),
        (false, failed) => ("■", "parked", format!("not ready: {}", failed.join(", "))),
    };
    html! {
        span class=(format!("state {class}")) { span aria-hidden="true" { (shape) } " " (word) }
        @if let Some(at) = replica.sampled_at { " " span.hint { "as of " (time(at, now)) } }
    }
}

fn lanes_and_scale(found: &Lanes) -> Markup {
    let scale = &found.scale;
    html! {
        (lanes(&found.lanes))
        p {
            "Replicas needed: " strong { (scale.desired) } ", for " (scale.ready) " ready, " (scale.in_flight) " running and "
            (scale.due_60s) " jobs due within 60 s. " (scale.waits_on_vendor)
            " wait on a vendor and are not counted: more replicas would not help them."
        }
    }
}

/// Returns the lanes as a table.
pub(super) fn lanes(lanes: &[LaneRow]) -> Markup {
    let rows: Vec<Vec<Markup>> = lanes
        .iter()
        .map(|lane| {
            vec![
                html! { a href=(format!("/jobs?pipeline={}", lane.pipeline)) { (lane.lane) } },
                html! { (lane.ready) },
                html! { @if lane.due.is_zero() { "none" } @else { (lane.due) ", the oldest for " (span(lane.oldest_due_seconds as i64)) } },
                html! { (lane.running) },
                html! { (lane.waiting) @if !lane.waits_on_vendor.is_zero() { " (" (lane.waits_on_vendor) " on a vendor)" } },
                html! { (lane.parked) },
                html! { (lane.permits_used) " of " (lane.permits) },
                html! { (lane.consumers) },
                html! { (lane.queued) },
                html! { @match &lane.intake_paused { Some(why) => (why), None => "open" } },
            ]
        })
        .collect();
    table(
        &[
            "lane",
            "ready",
            "due, not woken",
            "running",
            "waiting",
            "parked",
            "permits",
            "consumers",
            "queued",
            "intake",
        ],
        &rows,
    )
}

/// Returns the replicas that have ended as a table.
pub(super) fn ended(replicas: &[EndedReplica], now: OffsetDateTime) -> Markup {
    if replicas.is_empty() {
        return html! { p { "No replica has ended within a day." } };
    }
    let died = replicas.iter().filter(|one| is_death(one.how)).count();
    let rows: Vec<Vec<Markup>> = replicas
        .iter()
        .map(|replica| {
            let class = if is_death(replica.how) {
                "state parked"
            } else {
                "state off"
            };
            vec![
                html! { (replica.id) },
                html! { (replica.version) },
                html! { (replica.host) ", process " (replica.pid) },
                time(replica.ended_at, now),
                html! { (span((replica.ended_at - replica.started_at).whole_seconds())) },
                html! { span class=(class) { (how_it_ended(replica.how)) } },
            ]
        })
        .collect();
    html! {
        p { (replicas.len()) " ended, " (died) " of them died." }
        (table(&["replica", "version", "host", "ended", "ran for", "how"], &rows))
    }
}

/// Answers `/pipelines`.
pub(in crate::console) async fn pipelines(call: Call) -> Result<Response, Problem> {
    let pipelines = pipeline_rows();
    let content = html! {
        h1 { "Pipelines" }
        @for pipeline in &pipelines {
            h2 { (pipeline.pipeline) }
            p { "Lane " strong { (pipeline.lane) } ", queue " code { (pipeline.queue) } }
            (table(
                &["", "stage", "needs", "effect", "attempts", "delays up to", "timeout"],
                &stages(&pipeline.stages),
            ))
        }
    };
    Ok(answer::page(
        Frame::of(&call.who).page("Pipelines", &content),
    ))
}

fn stages(stages: &[StageRow]) -> Vec<Vec<Markup>> {
    let mut order = 0;
    stages
        .iter()
        .map(|stage| {
            order += usize::from(!stage.aside);
            vec![
                html! { @if stage.aside { "aside" } @else { (order) } },
                html! { code { (stage.stage) } },
                html! { (stage.needs.join(", ")) },
                html! { @if let Some(effect) = stage.effect { (effect) } },
                html! { (stage.attempts) },
                html! { (in_largest_unit(stage.first_delay_seconds)) ", " (in_largest_unit(stage.longest_delay_seconds)) },
                html! { (in_largest_unit(stage.timeout_seconds)) },
            ]
        })
        .collect()
}
