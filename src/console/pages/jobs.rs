//! The list of jobs.

use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::words::{exact_time, state, table, time};
use crate::console::answer;
use crate::console::api::jobs::{JobPage, JobQuery, page_of_jobs};
use crate::console::call::Call;
use crate::console::parameters::{address, pairs, with};
use crate::console::problem::Problem;
use crate::console::query;
use crate::escape::Escaped;
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
    let chips = chips(&call.query, &query.state);
    let page = page_of_jobs(&call, query).await?;
    let content = html! {
        h1 { "Jobs" }
        (chips)
        section #jobs data-part="jobs" {
            @if page.jobs.is_empty() { (nothing(&page)) } @else { (rows(&page.jobs)) }
            (more(&call.query, &page))
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
    let fields: Vec<(&str, &str)> = text
        .split_whitespace()
        .map(field)
        .collect::<Result<_, _>>()?;
    let query = serde_urlencoded::to_string(fields)
        .map_err(|error| Problem::internal(error.to_string()))?;
    // What is wrong with a search is said at once, not by the page that it leads to.
    query::parse::<JobQuery>(&query)?.filter()?;
    Ok(address("/jobs", &query))
}

/// Returns the parameter that a word of a search stands for: `state:parked`, the number of a work
/// item, or a dedupe key.
fn field(word: &str) -> Result<(&str, &str), Problem> {
    let Some((name, value)) = word.split_once(':') else {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        return Ok((if is_number { "item" } else { "key" }, word));
    };
    let name = if name == "org" { "organization" } else { name };
    if WORDS.contains(&name) {
        Ok((name, value))
    } else {
        Err(Problem::invalid_filter(format!(
            "expected one of {}, got `{name}`",
            WORDS.join(", ")
        ))
        .hint("Correct the word; write key:… for a dedupe key with a colon in it."))
    }
}

/// Returns the states as links, the chosen ones marked, and the other filters.
fn chips(query: &str, states: &[JobState]) -> Markup {
    let link = |state: Option<JobState>| {
        let state = state.map(JobState::word);
        address("/jobs", &with(query, &[("before", None), ("state", state)]))
    };
    html! {
        p.chips {
            a href=(link(None)) aria-current=[states.is_empty().then_some("true")] { "all" }
            @for one in [JobState::Ready, JobState::Running, JobState::Waiting, JobState::Parked, JobState::Succeeded, JobState::Cancelled] {
                a href=(link(Some(one))) aria-current=[states.contains(&one).then_some("true")] { (state(one)) }
            }
            @for (name, value) in pairs(query) {
                @if !["state", "before", "limit"].contains(&name.as_str()) { span.chip { (name) ": " (Escaped(&value)) } }
            }
        }
    }
}

fn nothing(page: &JobPage) -> Markup {
    match page.looked {
        Some(looked) => html! {
            p { "Looked at " (looked.jobs) " jobs, back to " (exact_time(looked.back_to)) "; none match. Older jobs were not looked at." }
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

fn more(query: &str, page: &JobPage) -> Markup {
    let Some(next) = &page.next else {
        return html! {};
    };
    let older = address("/jobs", &with(query, &[("before", Some(next))]));
    html! { p { a.next href=(older) rel="next" data-key="]" { "Older jobs" } } }
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
        for (search, query) in [
            ("source:a&b", "source=a%26b"),
            ("state:parked state:waiting", "state=parked&state=waiting"),
            ("17", "item=17"),
            ("shop-7", "key=shop-7"),
            ("key:shop:7 since:2h", "key=shop%3A7&since=2h"),
            (
                "since:2026-11-29T12:00:00Z org:acme",
                "since=2026-11-29T12%3A00%3A00Z&organization=acme",
            ),
        ] {
            assert_eq!(target(search).unwrap(), format!("/jobs?{query}"));
        }
        assert_eq!(target(" ").unwrap(), "/jobs");
    }

    #[test]
    fn a_search_that_cannot_be_understood_says_what_is_expected() {
        let long = "x".repeat(300);
        for (wrong, part) in [
            ("colour:red", "expected one of state"),
            ("state:red", "`state`: unknown variant"),
            ("since:yesterday", "`since`: expected an age"),
            ("since:91d", "`since`: expected an age"),
            ("99999999999999999999", "`item`: number too large"),
            ("one two", "one value of `key`, got 2"),
            ("group:f-1 group:f-2", "one value of `group`, got 2"),
            ("a\0b", "NUL"),
            (long.as_str(), "at most 255 characters of `key`"),
        ] {
            let problem = target(wrong).unwrap_err();
            assert_eq!(problem.code, "invalid_filter", "{wrong}");
            assert!(problem.detail.contains(part), "{wrong}: {}", problem.detail);
        }
    }
}
