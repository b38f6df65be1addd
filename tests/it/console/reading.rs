//! Lists: cursors, filters with several values, searches and exports.

use dispatch_worker::store::Role;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, COOKIE, LINK, LOCATION};
use serde_json::{Value, json};

use crate::support::{ConsoleProcess, TestWorld};

/// Six parked and waiting jobs of two organizations, two of them older than an hour; and enough
/// rows of every other list for three pages.
const FILL: &str = "
    INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage, wait_reason, wait_key,
        error_code, error_message, fingerprint, first_failed_at)
    SELECT (left(first_job_id_of(now() - CASE WHEN n <= 2 THEN interval '3 hours' ELSE interval '1 minute' END)::text, 24)
            || lpad(to_hex(n), 12, '0'))::uuid,
        'dispatch', 'shop', 'k-' || n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'globex' END, 1, '{}',
        CASE WHEN n <= 3 THEN 'parked' ELSE 'waiting' END, 'check_account', CASE WHEN n > 3 THEN 'configuration' END,
        CASE WHEN n > 3 THEN 'k' END, CASE WHEN n <= 3 THEN 'slack.x' END, CASE WHEN n <= 3 THEN 'no room' END,
        CASE WHEN n <= 3 THEN 'f-1' END, CASE WHEN n <= 3 THEN now() END
    FROM generate_series(1, 6) n;
    INSERT INTO job_keys (source, dedupe_key, job_id, digest) SELECT source, dedupe_key, id, sha256('x') FROM jobs;
    INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample, last_seen_at)
        SELECT 'f-' || n, 'dispatch', 'check_account', 'slack.x', 'text', now() - n * interval '1 second' FROM generate_series(1, 3) n;
    INSERT INTO dead_letters (code, detail, routing_key, headers, sealed_body, body_bytes, body_sha256, source)
        SELECT 'not_json', '', 'job', '{}', '', 0, '', 'shop' FROM generate_series(1, 3);
    INSERT INTO audit_log (who, role, action) SELECT 'lena', 'operator', 'retry' FROM generate_series(1, 3);
    INSERT INTO campaigns (action, filter, who, role, reason, per_second, stop_at_percent, total, next_at)
        SELECT 'retry', '{}', 'olga', 'operator', 'text', 5, 20, 3, now() + interval '1 day' FROM generate_series(1, 3);
    INSERT INTO campaign_items (campaign, n, job_id) SELECT c, row_number() OVER (PARTITION BY c ORDER BY id), id
        FROM jobs CROSS JOIN generate_series(1, 2) c WHERE dedupe_key <= 'k-3'";

async fn filled() -> (TestWorld, ConsoleProcess, String) {
    let world = TestWorld::new().await;
    world.database.rows(FILL).await;
    let console = world.console().await;
    let token = world.token(Role::Viewer, "ann", &[]).await;
    (world, console, token)
}

async fn keys(console: &ConsoleProcess, token: &str, query: &str) -> Vec<String> {
    let page = console.json(token, &format!("/jobs?{query}")).await;
    let jobs = page["jobs"].as_array().unwrap().iter();
    jobs.map(|job| job["dedupe_key"].as_str().unwrap().to_owned())
        .collect()
}

/// Asserts that a request is refused as a wrong filter, and returns the problem.
async fn refused(console: &ConsoleProcess, token: &str, path: &str) -> Value {
    let answer = console.get(token, path).await;
    assert_eq!(answer.status(), 400, "{path}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "invalid_filter", "{path}");
    problem
}

#[tokio::test]
async fn a_cursor_is_good_for_the_list_that_it_was_made_for_and_for_no_other() {
    let (_world, console, token) = filled().await;
    for (path, rows, cursor, filter, other) in [
        ("/jobs", "jobs", "before", "state=parked", "state=waiting"),
        (
            "/dead-letters",
            "letters",
            "before",
            "source=shop",
            "code=not_json",
        ),
        ("/audit", "rows", "before", "who=lena", "action=retry"),
        (
            "/groups",
            "groups",
            "before",
            "pipeline=dispatch",
            "code=slack.*",
        ),
        ("/campaigns", "campaigns", "before", "", "/items"),
        ("/campaigns/1/items", "items", "after", "", "/2"),
    ] {
        let mut seen = Vec::new();
        let mut query = format!("{filter}&limit=1");
        loop {
            let page = console.json(&token, &format!("{path}?{query}")).await;
            seen.extend(page[rows].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else {
                break;
            };
            // Another number of rows is no other list.
            query = format!("{filter}&limit=2&{cursor}={next}");
            let elsewhere = match other {
                "/items" => format!("/campaigns/1/items?after={next}"),
                "/2" => format!("/campaigns/2/items?after={next}"),
                other => format!("{path}?{other}&{cursor}={next}"),
            };
            let problem = refused(&console, &token, &elsewhere).await;
            let hint = problem["hint"].as_str().unwrap();
            assert!(hint.contains("Start without a cursor"), "{problem}");
            for damaged in [&next[1..], &next[..next.len() - 1], "", ".", "%00", "é"] {
                let damaged = format!("{path}?{filter}&{cursor}={damaged}");
                refused(&console, &token, &damaged).await;
            }
        }
        assert_eq!(seen.len(), 3, "{path}: {seen:?}");
        seen.dedup();
        assert_eq!(seen.len(), 3, "{path}: {seen:?}");
    }
}

#[tokio::test]
async fn several_values_of_a_filter_are_either_and_several_filters_are_both() {
    let (_world, console, token) = filled().await;
    for (query, expected) in [
        ("state=parked&state=waiting", "k-6 k-5 k-4 k-3 k-2 k-1"),
        (
            "state=parked&state=waiting&organization=acme",
            "k-6 k-4 k-2",
        ),
        (
            "state=parked&organization=acme&organization=globex",
            "k-3 k-2 k-1",
        ),
        ("state=parked&state=parked&state=running", "k-3 k-2 k-1"),
        ("state=succeeded&state=waiting", "k-6 k-5 k-4"),
        ("code=slack.*&code=discord.y", "k-3 k-2 k-1"),
        (
            "source=shop&source=x&stage=check_account&group=f-1",
            "k-3 k-2 k-1",
        ),
        ("pipeline=messaging&pipeline=assignee_sync", ""),
        ("since=2h", "k-6 k-5 k-4 k-3"),
        ("since=2h&state=parked", "k-3"),
        ("key=k-5", "k-5"),
        ("item=17", ""),
    ] {
        assert_eq!(
            keys(&console, &token, query).await.join(" "),
            expected,
            "{query}"
        );
    }
    let long = format!("key={}", "x".repeat(300));
    let codes: Vec<String> = (0..11).map(|n| format!("code=slack.x_{n}")).collect();
    let codes = codes.join("&");
    for (query, part) in [
        ("group=f-1&group=f-2", "one value of `group`, got 2"),
        ("key=a&key=b", "one value of `key`, got 2"),
        ("state=parked&state=red", "`state`: unknown variant"),
        ("since=yesterday", "`since`: expected an age"),
        ("since=91d", "`since`: expected an age"),
        ("since=2026-02-30T00:00:00Z", "`since`: expected an age"),
        ("item=99999999999999999999", "`item`: number too large"),
        ("key=a%00b", "NUL"),
        ("q=a%00b", "NUL"),
        (long.as_str(), "at most 255 characters of `key`"),
        (codes.as_str(), "at most 10 values of `code`, got 11"),
    ] {
        let problem = refused(&console, &token, &format!("/jobs?{query}")).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_search_is_written_into_the_address_and_links_keep_it() {
    let (_world, console, token) = filled().await;
    let cookie = console.sign_in(&token).await;
    let page = async |path: &str| {
        let asked = console.request(Method::GET, path).header(COOKIE, &cookie);
        asked.send().await.unwrap()
    };
    for (search, query) in [
        ("17", "item=17"),
        ("k-5", "key=k-5"),
        (
            "state:parked state:waiting since:30m",
            "state=parked&state=waiting&since=30m",
        ),
    ] {
        let search = serde_urlencoded::to_string([("q", search)]).unwrap();
        let found = page(&format!("/jobs?{search}")).await;
        assert_eq!(found.status(), 303);
        assert_eq!(found.headers()[LOCATION], format!("/jobs?{query}"));
    }
    let found = page("/jobs?key=k-5").await.text().await.unwrap();
    assert!(found.contains(">k-5<") && !found.contains(">k-4<"));
    for wrong in ["since:2w", "99999999999999999999", "%00", &"x".repeat(300)] {
        let found = page(&format!("/jobs?q={wrong}")).await;
        assert_eq!(found.status(), 400, "{wrong}");
    }

    let first = page("/jobs?state=parked&state=waiting&limit=4").await;
    let first = first.text().await.unwrap();
    assert!(first.contains(">k-3<") && !first.contains(">k-2<"));
    let (link, _) = first
        .split_once("\" rel=\"next\"")
        .expect("a link to older jobs");
    let (_, link) = link.rsplit_once("href=\"").unwrap();
    let older = page(&link.replace("&amp;", "&"))
        .await
        .text()
        .await
        .unwrap();
    assert!(
        older.contains(">k-2<") && !older.contains(">k-3<"),
        "{link}"
    );
}

#[tokio::test]
async fn an_export_is_lines_that_lead_to_the_rest_and_is_audited() {
    let (world, console, token) = filled().await;
    for (path, rows) in [
        ("/audit/export?action=retry", 3),
        ("/campaigns/1/report?", 3),
    ] {
        let mut lines: Vec<Value> = Vec::new();
        let mut next = Some(format!("/api/v1{path}&limit=2"));
        while let Some(asked) = next {
            let answer = console.request(Method::GET, &asked).bearer_auth(&token);
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status(), 200, "{asked}");
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/x-ndjson");
            let link = answer.headers().get(LINK);
            next = link.map(|link| {
                let link = link.to_str().unwrap().strip_suffix(">; rel=\"next\"");
                link.unwrap().trim_start_matches('<').to_owned()
            });
            let text = answer.text().await.unwrap();
            assert!(text.ends_with('\n'), "{text}");
            lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
        }
        assert_eq!(lines.len(), rows, "{lines:?}");
        lines.dedup();
        assert_eq!(lines.len(), rows, "{lines:?}");
    }
    let cookie = console.sign_in(&token).await;
    let shown = console.page(&cookie, "/audit?who=lena&limit=1").await;
    let link = "/api/v1/audit/export?who=lena";
    assert!(shown.contains(&format!("href=\"{link}\" download")));
    let saved = console.page(&cookie, &format!("{link}&since=2h")).await;
    assert_eq!(saved.lines().count(), 3, "{saved}");

    for wrong in [
        "/audit/export?limit=10001",
        "/audit/export?since=2w",
        "/campaigns/1/report?after=1",
    ] {
        refused(&console, &token, wrong).await;
    }
    let told = "SELECT action, who, role, after->>'path', (after->>'rows')::int FROM audit_log WHERE action LIKE '%.export' ORDER BY id";
    let row = |action: &str, path: &str, rows: &str| {
        [action, "ann", "viewer", path, rows]
            .map(str::to_owned)
            .to_vec()
    };
    assert_eq!(
        world.database.rows(told).await,
        [
            row("audit.export", "/audit/export", "2"),
            row("audit.export", "/audit/export", "1"),
            row("campaign.export", "/campaigns/1/report", "2"),
            row("campaign.export", "/campaigns/1/report", "1"),
            row("audit.export", "/audit/export", "3"),
        ]
    );
    let document = console.json(&token, "/openapi.json").await;
    let export = &document["paths"]["/api/v1/audit/export"]["get"];
    assert_eq!(export["x-audit-action"], json!("audit.export"));
    let content = &export["responses"]["200"]["content"]["application/x-ndjson"];
    assert!(content["x-item-schema"].is_object(), "{export}");
}
