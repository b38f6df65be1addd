//! Filters of requests, on changed ones.

use reqwest::StatusCode;

use super::api::campaigns::CampaignQuery;
use super::api::controls::ControlQuery;
use super::api::dead_letters::LetterQuery;
use super::api::jobs::JobQuery;
use super::api::overview::AuditQuery;
use super::problem::Problem;
use super::{parameters, query};
use crate::fuzz;

const QUERIES: &[&[u8]] = &[
    b"state=parked&state=waiting&organization=acme&code=slack.*&limit=50&item=17",
    b"parent=0195612e-9a00-7000-8000-000000000001&since=2026-01-01T00:00:00Z&replica=7&key=a%20b",
    b"group=f-1&cause=identity:7&stage=check_account&pipeline=dispatch&source=hooks&before=c29tZQ",
    b"all=true&code=invalid_json&source=hooks&before=17",
    b"who=olga&action=hold.place&since=2h&job=0195612e-9a00-7000-8000-000000000001",
    b"action=retry&state=parked&group=f-1&scope=organization%3Aacme&refresh=30",
];

/// Checks that a refusal says what was expected, and is short enough for a page.
fn check<T>(read: Result<T, Problem>) -> Option<T> {
    read.map_err(|problem| {
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST, "{problem:?}");
        assert!(!problem.detail.is_empty() && problem.detail.len() < 20_000);
    })
    .ok()
}

#[test]
fn a_filter_is_read_or_refused_with_a_reason() {
    let mut read = 0_u64;
    fuzz::run("filters", QUERIES, |input| {
        let text = String::from_utf8_lossy(input);
        if let Some(Ok(filter)) = check(query::parse::<JobQuery>(&text)).map(JobQuery::filter) {
            assert!((1..=query::MOST).contains(&filter.limit));
            read += 1;
        }
        if let Some(audit) = check(query::parse::<AuditQuery>(&text)) {
            audit.filter();
        }
        if let Some(campaign) = check(query::parse::<CampaignQuery>(&text)) {
            campaign.accepted_since();
        }
        check(query::parse::<LetterQuery>(&text));
        check(query::parse::<ControlQuery>(&text));
    });
    assert!(read > 0, "queries that are read are among them");
}

#[test]
fn a_query_is_rewritten_without_a_change_of_its_other_parameters() {
    fuzz::run("queries", QUERIES, |input| {
        let text = String::from_utf8_lossy(input);
        let changed = parameters::with(&text, &[("before", Some("1"))]);
        let others = |query: &str| -> Vec<(String, String)> {
            let pairs = parameters::pairs(query).into_iter();
            pairs.filter(|(name, _)| name != "before").collect()
        };
        assert_eq!(others(&changed), others(&text));
        query::refresh(&text);
        query::without_refresh(&text);
    });
}
