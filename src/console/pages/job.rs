//! One job: why it is not done, and what can be done about it.

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::Frame;
use super::effects::effects;
use super::job_actions::actions;
use super::job_data::data;
use super::jobs::rows;
use super::waterfall::waterfall;
use super::words::{copyable, state, table, time};
use crate::console::answer;
use crate::console::api::job_data::read_data;
use crate::console::api::jobs::read_timeline;
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::operations;
use crate::store::{
    Action, AuditFilter, AuditPage, FollowUps, JobPlaces, JobRow, UnpublishedEvents,
};

/// How many rows of the audit log are shown.
const AUDIT_ROWS: i64 = 50;

/// The query of the page.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drawing {
    /// Whether the waterfall is drawn to scale.
    #[serde(default)]
    scale: bool,
}

/// Answers `/jobs/{id}`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let drawing: Drawing = call.query()?;
    let timeline = read_timeline(&call).await?;
    let row = &timeline.job;
    let explained = operations::explain(call.reads(), row, call.who.audience()).await?;
    let places = call.reads().job_places(row.id).await?;
    let data_of_job = read_data(&call, row.id).await?;
    let events = call.reads().unpublished_events(row.id).await?;
    let audit = audit_of(&call, row).await?;
    let title = format!("{} {}", row.source, row.dedupe_key);
    let content = html! {
        header data-part="head" {
            h1 { (state(row.state)) " " (title) }
            p.explain #explain { (explained.explanation) }
        }
        (actions(&timeline, &call.who))
        section #facts data-part="facts" { (facts(row, places.as_ref(), &call.headers)) }
        section #waterfall data-part="waterfall" { h2 { "What it did and waited for" } (waterfall(&timeline, drawing.scale)) (ends(&timeline.ends, row)) }
        section #effects data-part="effects" { h2 { "Effects" } (effects(&timeline, call.who.may(Action::MarkEffect))) }
        section #follow-ups data-part="follow-ups" { (follow_ups(&timeline.follow_ups, row)) }
        section #data data-part="data" { h2 { "Input and outputs" } (data(&data_of_job, row, &call.who)) }
        section #events data-part="events" { h2 { "Events not published yet" } (unpublished(&events, row)) }
        section #audit data-part="audit" { h2 { "What people did" } (audit_table(&audit, row)) }
    };
    Ok(answer::page(Frame::of(&call.who).page(&title, &content)))
}

async fn audit_of(call: &Call, row: &JobRow) -> Result<AuditPage, Problem> {
    let filter = AuditFilter {
        job: Some(row.id),
        ..AuditFilter::default()
    };
    Ok(call.reads().audit_rows(&filter, None, AUDIT_ROWS).await?)
}

fn facts(row: &JobRow, places: Option<&JobPlaces>, headers: &HeaderMap) -> Markup {
    html! {
        dl.facts {
            dt { "Organization" } dd { a href=(format!("/jobs?organization={}", row.organization)) { (row.organization) } }
            dt { "Pipeline, stage" } dd { (row.pipeline) ", " (row.stage) }
            dt { "Attempt, generation, epoch" } dd { (row.attempt) ", " (row.generation) ", " (row.epoch) }
            dt { "Accepted" } dd { (time(row.created_at, row.now)) }
            @if let Some(parent) = row.parent { dt { "Follow-up of" } dd { a.mono href=(format!("/jobs/{parent}")) { (parent) } } }
            @if let Some(owner) = row.owner { dt { "Replica" } dd { (owner) } }
            @if let Some(deadline) = row.deadline { dt { "Deadline" } dd { (time(deadline, row.now)) } }
            @if let Some(code) = &row.error_code {
                dt { "Last failure" }
                dd { code { (code) } " " (row.error_message.as_deref().unwrap_or_default()) }
            }
            @if let Some(hint) = &row.error_hint { dt { "What to do" } dd { (hint) } }
            @if let Some(places) = places { (appears(places)) }
        }
        details {
            summary { "To copy" }
            (copies(row, places.and_then(|places| places.trace.as_deref()), headers))
        }
    }
}

/// Links to the failure group and the campaigns.
fn appears(places: &JobPlaces) -> Markup {
    html! {
        @if let Some(group) = &places.group {
            dt { "Failure group" } dd { a.mono href=(format!("/groups/{group}")) { (group) } }
        }
        @if !places.campaigns.is_empty() {
            dt { "Campaigns" }
            dd {
                @for one in &places.campaigns {
                    a href=(format!("/campaigns/{}", one.campaign)) { (one.action) " " (one.campaign) } " (" (one.state) "; this job: " (one.item)
                    @if let Some(why) = &one.why { ", " (why) } ") "
                }
            }
        }
    }
}

/// Texts for other tools. A token is never part of them.
fn copies(row: &JobRow, trace: Option<&str>, headers: &HeaderMap) -> Markup {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let scheme = if host
        .is_some_and(|host| host.starts_with("127.0.0.1") || host.starts_with("localhost"))
    {
        "http"
    } else {
        "https"
    };
    let curl = format!(
        "curl -H \"Authorization: Bearer $TOKEN\" {scheme}://{}/api/v1/jobs/{}",
        host.unwrap_or("localhost"),
        row.id
    );
    html! {
        dl.facts {
            dt { "Id" } dd { (copyable("Id", &row.id.to_string())) }
            dt { "Key" } dd { (copyable("Key", &row.dedupe_key)) }
            @if let Some(trace) = trace { dt { "Trace" } dd { (copyable("Trace", trace)) } }
            dt { "Command" } dd { (copyable("Command", &format!("dispatch jobs show {}", row.id))) }
            dt { "API" } dd { (copyable("API", &curl)) }
            dt { "Log lines with" } dd { (copyable("Log lines with", &format!("\"job.id\":\"{}\"", row.id))) }
        }
    }
}

fn ends(ends: &[crate::store::EndMark], row: &JobRow) -> Markup {
    if ends.is_empty() {
        return html! {};
    }
    let rows: Vec<Vec<Markup>> = ends
        .iter()
        .map(|end| {
            vec![
                html! { (end.replica) },
                html! { @if end.ended_well { "ended" } @else { "died" } },
                time(end.at, row.now),
            ]
        })
        .collect();
    html! { div #ends { (table(&["replica", "how", "when"], &rows)) } }
}

fn follow_ups(found: &FollowUps, row: &JobRow) -> Markup {
    if found.states.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Follow-ups" }
        p.chips {
            @for one in &found.states {
                a href=(format!("/jobs?parent={}&state={}", row.id, one.state)) { (state(one.state)) " " (one.jobs) }
            }
        }
        @if found.worst.is_empty() { p { "All of them are done." } } @else { (rows(&found.worst)) }
    }
}

fn unpublished(found: &UnpublishedEvents, row: &JobRow) -> Markup {
    let rows: Vec<Vec<Markup>> = found
        .events
        .iter()
        .map(|event| {
            vec![
                html! { (event.event.as_deref().unwrap_or(&event.routing_key)) @if event.reply_only { ", reply only" } },
                time(event.created_at, row.now),
                time(event.publish_after, row.now),
                html! { (event.tries) },
            ]
        })
        .collect();
    html! {
        @if rows.is_empty() { p { "None." } } @else { (table(&["event", "stored", "published after", "refused"], &rows)) }
        @if found.is_partial { p.hint { "Looked at the newest 2,000 events of all jobs; older ones wait too." } }
    }
}

fn audit_table(page: &AuditPage, row: &JobRow) -> Markup {
    if page.rows.is_empty() {
        return html! { p { "Nothing." } };
    }
    let rows: Vec<Vec<Markup>> = page
        .rows
        .iter()
        .map(|one| {
            vec![
                html! { span id=(format!("action-{}", one.id)) { (one.action) } },
                html! { (one.who) " (" (one.role) ")" },
                html! { (one.reason.as_deref().unwrap_or_default()) },
                time(one.at, row.now),
            ]
        })
        .collect();
    html! {
        (table(&["action", "who", "reason", "when"], &rows))
        @if page.next.is_some() { p { a href=(format!("/audit?job={}", row.id)) { "Older rows" } } }
    }
}
