//! Campaigns: the list, the preview before one starts, and one on its way.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Frame;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::campaigns::{CampaignQuery, read_campaign, read_campaigns, read_preview};
use crate::console::call::Call;
use crate::console::parameters::{address, with};
use crate::console::problem::Problem;
use crate::operations::CampaignPreview;
use crate::store::CampaignRow;

/// Answers `/campaigns`.
pub(in crate::console) async fn list(call: Call) -> Result<Response, Problem> {
    let listed = read_campaigns(&call).await?;
    let now = call.reads().now().await?;
    let rows: Vec<Vec<Markup>> = listed.campaigns.iter().map(|row| cells(row, now)).collect();
    let content = html! {
        h1 { "Campaigns" }
        @if rows.is_empty() { p { "None yet. A failure group's page begins one." } }
        @else { (table(&["campaign", "state", "jobs", "good", "bad", "refused", "started by", "when"], &rows)) }
        @if let Some(next) = &listed.next {
            p { a rel="next" data-key="]" href=(address("/campaigns", &with(&call.query, &[("before", Some(next))]))) { "Older campaigns" } }
        }
    };
    Ok(answer::page(
        Frame::of(&call.who).page("Campaigns", &content),
    ))
}

fn cells(row: &CampaignRow, now: OffsetDateTime) -> Vec<Markup> {
    vec![
        html! { a href=(format!("/campaigns/{}", row.id)) { (row.action) " " (row.id) } },
        html! { (row.state) },
        html! { (row.total) },
        html! { (row.good) },
        html! { (row.bad) },
        html! { (row.refused) },
        html! { (row.who) },
        time(row.created_at, now),
    ]
}

/// Answers `/campaigns/preview`.
pub(in crate::console) async fn preview(call: Call) -> Result<Response, Problem> {
    let query: CampaignQuery = call.query()?;
    let preview = read_preview(&call, &query).await?;
    let frame = Frame::of(&call.who);
    let action = query.action.as_deref().unwrap_or("retry");
    let content = html! {
        h1 { "Campaign: " (action) " " (preview.count) " jobs" }
        (report(&preview))
        h2 { "Start" }
        (frame.form("/campaigns", "Start", &html! {
            input type="hidden" name="action" value=(action);
            (hidden(&query))
            p.hint { "It begins after 10 s with one job, then 10, then the rate, and waits for the verdict of each wave." }
            label for="per_second" { "Jobs a second" }
            input #per_second name="per_second" type="number" min="1" max="100" value="5" required;
            label for="stop_at_percent" { "Pause if more than this percentage of a wave fails again" }
            input #stop_at_percent name="stop_at_percent" type="number" min="0" max="100" value="20" required;
            label for="duplicates" { "Effects that may happen twice" }
            input #duplicates name="duplicates" type="number" min="0" value="0" required;
        }))
    };
    Ok(answer::page(frame.still("Campaign", &content)))
}

/// Returns the filter as hidden fields.
fn hidden(query: &CampaignQuery) -> Markup {
    let since = query
        .accepted_since()
        .and_then(|since| since.format(&Rfc3339).ok());
    let state = query.state.map(|state| state.word().to_owned());
    let fields = [
        ("group", &query.group),
        ("code", &query.code),
        ("cause", &query.cause),
        ("state", &state),
        ("organization", &query.organization),
        ("pipeline", &query.pipeline),
        ("source", &query.source),
        ("since", &since),
    ];
    html! {
        @for (name, value) in fields {
            @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
        }
    }
}

fn report(preview: &CampaignPreview) -> Markup {
    let rows: Vec<Vec<Markup>> = preview
        .sample
        .iter()
        .map(|job| {
            vec![
                html! { a.mono href=(format!("/jobs/{}", job.id)) { (job.id) } },
                html! { (job.organization) },
            ]
        })
        .collect();
    html! {
        @if preview.is_partial { p { "Not every job was looked at, so there may be more; the campaign looks at 100,000." } }
        @for refused in &preview.refused { p { (refused.jobs) " would be refused: " (refused.why) "." } }
        @for effect in &preview.effects { p { "◆ " (effect.effects) " effects of class " (effect.class) " may happen twice." } }
        @for hold in &preview.holds { p { "◔ " code { (hold.scope) } " is held: " (hold.reason) "." } }
        h2 { "Some of the jobs" }
        (table(&["job", "organization"], &rows))
    }
}

/// Answers `/campaigns/{number}`.
pub(in crate::console) async fn show(call: Call) -> Result<Response, Problem> {
    let row = read_campaign(&call).await?;
    let items = call.reads().campaign_items(row.id, 0, 100).await?;
    let now = call.reads().now().await?;
    let frame = Frame::of(&call.who);
    let none = html! {};
    let act = |verb: &str, title: &str| {
        frame.form(&format!("/campaigns/{}/{verb}", row.id), title, &none)
    };
    let rows: Vec<Vec<Markup>> = items
        .iter()
        .map(|item| {
            vec![
                html! { (item.n) },
                html! { a.mono href=(format!("/jobs/{}", item.job_id)) { (item.job_id) } },
                html! { (item.state) },
                html! { (item.why.as_deref().unwrap_or_default()) },
            ]
        })
        .collect();
    let content = html! {
        h1 { "Campaign " (row.id) ": " (row.action) " " (row.total) " jobs" }
        p.explain { (row.state) @if let Some(why) = &row.why { ": " (why) } }
        p { progress max=(row.total) value=(row.total - row.open) {} " wave " (row.wave) ", " (row.good) " good, " (row.bad) " bad, " (row.unknown) " unknown, " (row.refused) " refused, " (row.open) " open" }
        @if let Some(since) = row.failed_since.filter(|since| !since.is_zero()) { p { (since) " jobs failed alike since: not included." } }
        p.hint { (row.who) ", " (time(row.created_at, now)) ": " (row.reason) }
        @match row.state.as_str() {
            "planned" | "running" => { (act("pause", "Pause")) (act("abort", "Abort")) }
            "paused" => { (act("resume", "Resume")) (act("abort", "Abort")) }
            _ => {}
        }
        h2 { "Jobs" }
        (table(&["n", "job", "state", "why"], &rows))
        p { a href=(format!("/api/v1/campaigns/{}/report", row.id)) download=(format!("campaign-{}.ndjson", row.id)) { "Export as NDJSON" } }
    };
    Ok(answer::page(frame.page("Campaign", &content)))
}
