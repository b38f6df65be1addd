//! The list of jobs.

use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::words::{state, table, time};
use crate::console::answer;
use crate::console::api::jobs::{JobPage, JobQuery, page_of_jobs};
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::job::{JobId, JobState};
use crate::store::JobRow;

/// The words of a search.
const WORDS: [&str; 13] = [
    "state",
    "organization",
    "source",
    "pipeline",
    "parent",
    "code",
    "group",
    "key",
    "replica",
    "cause",
    "stage",
    "since",
    "item",
];

/// What a person types into the search field.
#[derive(serde::Deserialize)]
struct Search {
    q: String,
}

/// Answers `/jobs`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    if let Ok(Search { q }) = call.query::<Search>() {
        return Ok(answer::see_other(&target(&q)?));
    }
    let query: JobQuery = call.query()?;
    let page = page_of_jobs(&call, &query).await?;
    let content = html! {
        h1 { "Jobs" }
        (chips(&query))
        section #jobs data-part="jobs" {
            @if page.jobs.is_empty() { (nothing(&page)) } @else { (rows(&page.jobs)) }
            (more(&query, &page))
        }
    };
    Ok(answer::page(Frame::of(&call.who).page("Jobs", &content)))
}

/// Returns where a search leads: to a job, or to a list with the filter in its address.
fn target(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if let Ok(id) = text.parse::<JobId>() {
        return Ok(format!("/jobs/{id}"));
    }
    let mut fields = Vec::new();
    for word in text.split_whitespace() {
        let (name, value) = word.split_once(':').ok_or_else(|| {
            Problem::invalid_filter(format!(
                "expected the id of a job, or words such as state:parked and org:acme, got `{word}`"
            ))
        })?;
        let name = if name == "org" { "organization" } else { name };
        if !WORDS.contains(&name) {
            return Err(Problem::invalid_filter(format!(
                "expected one of {}, got `{name}`",
                WORDS.join(", ")
            )));
        }
        fields.push((name, value));
    }
    let query = serde_urlencoded::to_string(fields)
        .map_err(|error| Problem::internal(error.to_string()))?;
    Ok(format!("/jobs?{query}"))
}

/// Returns the states as links, the chosen one marked, and the other filters.
fn chips(query: &JobQuery) -> Markup {
    let link = |state: Option<JobState>| {
        let changed = JobQuery {
            state,
            before: None,
            ..query.clone()
        };
        address(&changed)
    };
    html! {
        p.chips {
            a href=(link(None)) aria-current=[query.state.is_none().then_some("true")] { "all" }
            @for one in [JobState::Ready, JobState::Running, JobState::Waiting, JobState::Parked, JobState::Succeeded, JobState::Cancelled] {
                a href=(link(Some(one))) aria-current=[(query.state == Some(one)).then_some("true")] { (state(one)) }
            }
            @for (name, value) in [("organization", &query.organization), ("source", &query.source), ("pipeline", &query.pipeline), ("code", &query.code), ("group", &query.group), ("key", &query.key), ("cause", &query.cause), ("stage", &query.stage)] {
                @if let Some(value) = value { span.chip { (name) ": " (value) } }
            }
        }
    }
}

fn address(query: &JobQuery) -> String {
    let query = serde_urlencoded::to_string(query).unwrap_or_default();
    if query.is_empty() {
        "/jobs".to_owned()
    } else {
        format!("/jobs?{query}")
    }
}

fn nothing(page: &JobPage) -> Markup {
    match page.stopped {
        Some(stopped) => html! {
            p { "Looked at " (stopped.looked) " jobs; none match. Older jobs were not looked at." }
        },
        None => html! { p { "No job matches." } },
    }
}

/// Returns the jobs as a table.
pub(super) fn rows(jobs: &[JobRow]) -> Markup {
    let rows: Vec<Vec<Markup>> = jobs.iter().map(row).collect();
    table(
        &[
            "job",
            "state",
            "stage",
            "why",
            "organization",
            "source and key",
            "accepted",
        ],
        &rows,
    )
}

fn row(job: &JobRow) -> Vec<Markup> {
    let id = job.id.to_string();
    let short = id.get(..13).unwrap_or(&id);
    vec![
        html! { a.mono href=(format!("/jobs/{id}")) title=(id) { (short) "…" } },
        state(job.state),
        html! { (job.stage) @if job.attempt > 1 { ", attempt " (job.attempt) } },
        html! { (why(job)) },
        html! { (job.organization) },
        html! { (job.source) " " span.mono { (job.dedupe_key) } },
        time(job.created_at, job.now),
    ]
}

fn why(job: &JobRow) -> String {
    match (job.state, &job.wait_reason, &job.error_code) {
        (JobState::Waiting, Some(reason), _) => match &job.wait_key {
            Some(key) => format!("{reason}: {key}"),
            None => reason.clone(),
        },
        (JobState::Succeeded | JobState::Cancelled, ..) => String::new(),
        (_, _, Some(code)) => code.clone(),
        _ => String::new(),
    }
}

fn more(query: &JobQuery, page: &JobPage) -> Markup {
    let Some(next) = page.next else {
        return html! {};
    };
    let older = JobQuery {
        before: Some(next),
        ..query.clone()
    };
    html! { p { a.next href=(address(&older)) rel="next" data-key="]" { "Older jobs" } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_leads_to_a_job_or_to_a_list_with_the_filter_in_its_address() {
        let id = "0195612e-9a00-7000-8000-000000000001";
        assert_eq!(target(id).unwrap(), format!("/jobs/{id}"));
        assert_eq!(
            target("state:parked org:acme").unwrap(),
            "/jobs?state=parked&organization=acme"
        );
        assert_eq!(target("source:a&b").unwrap(), "/jobs?source=a%26b");
        for wrong in ["parked", "colour:red"] {
            assert_eq!(target(wrong).unwrap_err().code, "invalid_filter");
        }
    }
}
