//! Failure groups, and one of them with what is different about its jobs.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::groups::{GroupList, read_group, read_groups};
use crate::console::call::Call;
use crate::console::parameters::{address, with};
use crate::console::problem::Problem;
use crate::store::{FailureGroup, GroupDifference};

/// Answers `/groups`.
pub(in crate::console) async fn list(call: Call) -> Result<Response, Problem> {
    let listed = read_groups(&call).await?;
    let now = call.reads().now().await?;
    let content = html! {
        h1 { "Failure groups" }
        @if listed.groups.is_empty() { p { "No failure matches." } } @else { (group_rows(&listed.groups, now)) }
        (more(&call.query, &listed))
    };
    Ok(answer::page(
        Frame::of(&call.who).page("Failure groups", &content),
    ))
}

/// Returns failure groups as a table.
pub(super) fn group_rows(groups: &[FailureGroup], now: OffsetDateTime) -> Markup {
    let rows: Vec<Vec<Markup>> = groups
        .iter()
        .map(|group| {
            vec![
                html! { a href=(format!("/groups/{}", group.fingerprint)) { code { (group.error_code) } } " " (group.sample) },
                html! { (group.status.word()) },
                html! { (group.pipeline) ", " (group.stage) },
                html! { (group.parked) },
                html! { (group.retrying) },
                html! { (group.most_hit.join(", ")) },
                html! { (group.trend.last_hour) " / " (group.trend.hour_before) },
                time(group.last_seen_at, now),
            ]
        })
        .collect();
    table(
        &[
            "failure",
            "status",
            "stage",
            "parked",
            "retrying",
            "organizations",
            "this hour / before",
            "last seen",
        ],
        &rows,
    )
}

fn more(query: &str, listed: &GroupList) -> Markup {
    let Some(next) = &listed.next else {
        return html! {};
    };
    let older = address("/groups", &with(query, &[("before", Some(next))]));
    html! { p { a rel="next" data-key="]" href=(older) { "Older groups" } } }
}

/// Answers `/groups/{fingerprint}`.
pub(in crate::console) async fn show(call: Call) -> Result<Response, Problem> {
    let group = read_group(&call).await?;
    let now = call.reads().now().await?;
    let difference = call.reads().group_difference(&group.fingerprint).await?;
    let frame = Frame::of(&call.who);
    let campaign = format!(
        "/campaigns/preview?action=retry&group={}",
        group.fingerprint
    );
    let jobs = format!("/jobs?group={}", group.fingerprint);
    let content = html! {
        h1 { code { (group.error_code) } " at " (group.stage) }
        p.explain { (group.sample) }
        nav.actions aria-label="Actions" {
            a.button href=(campaign) data-key="r" { "Retry all: preview" }
            a.button href=(jobs) { "Its jobs" }
        }
        (facts(&group, now))
        h2 { "What is different" }
        (differences(difference.as_ref()))
        h2 { "Note" }
        (frame.form(&format!("/groups/{}/note", group.fingerprint), "Save", &html! {
            label for="owner" { "Owner" }
            input #owner name="owner" maxlength="64" value=(group.owner.as_deref().unwrap_or_default());
            label for="note" { "Note" }
            textarea #note name="note" maxlength="2000" { (group.note.as_deref().unwrap_or_default()) }
        }))
    };
    Ok(answer::page(frame.page(&group.error_code, &content)))
}

fn facts(group: &FailureGroup, now: OffsetDateTime) -> Markup {
    html! {
        dl.facts {
            dt { "Status" } dd { (group.status.word()) }
            dt { "Parked, still retrying" } dd { (group.parked) ", " (group.retrying) }
            dt { "Organizations" } dd { (group.organizations) ": " (group.most_hit.join(", ")) }
            dt { "First seen" } dd { (time(group.first_seen_at, now)) @if let Some(version) = &group.first_version { " on version " (version) } }
            dt { "Last seen" } dd { (time(group.last_seen_at, now)) }
            dt { "Attempts" } dd { (group.trend.last_hour) " in the last hour, " (group.trend.hour_before) " in the hour before" }
            @if let Some(until) = group.muted_until { dt { "Muted until" } dd { (time(until, now)) } }
        }
    }
}

fn differences(difference: Option<&GroupDifference>) -> Markup {
    let Some(difference) = difference else {
        return html! { p { "Nothing is known." } };
    };
    let percent = |share: f64| html! { (format!("{:.0} %", share * 100.0)) };
    let rows: Vec<Vec<Markup>> = difference
        .differences
        .iter()
        .map(|one| {
            vec![
                html! { (one.dimension.word()) },
                html! { (one.value) },
                percent(one.in_group),
                percent(one.in_others),
            ]
        })
        .collect();
    html! {
        p { (difference.jobs_in_group) " jobs of the group against " (difference.other_jobs) " that passed the stage." }
        (table(&["property", "value", "of the group", "of the others"], &rows))
    }
}
