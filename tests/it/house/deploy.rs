//! The files of `deploy/`: alerts are checked by `promtool`, every metric that an alert or a panel
//! names is served by a worker that has done nothing yet, and every alert has a runbook.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dispatch_worker::alerts::ALERTS;
use dispatch_worker::devkit::install::{self, Wanted};
use serde_json::Value;
use time::OffsetDateTime;

use super::documents::document;
use crate::support::{TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// The most series of a replica.
const SERIES: usize = 2000;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// Runs `promtool`, which is installed like the servers.
async fn promtool(arguments: &'static [&'static str], input: String) -> Output {
    let run = move || {
        let wanted = Wanted {
            promtool: true,
            ..Wanted::default()
        };
        let programs = install::ensure(wanted, &|_| {}).expect("promtool is installed");
        let mut child = Command::new(programs.promtool.expect("promtool"))
            .args(arguments)
            .current_dir(deploy(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(input.as_bytes())
            .expect("promtool reads its input");
        drop(stdin);
        child.wait_with_output().expect("promtool ends")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn assert_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn the_rules_are_valid_and_each_alert_fires_on_bad_series_only() {
    assert_success(&promtool(&["check", "rules", "alerts.yml"], String::new()).await);
    assert_success(&promtool(&["test", "rules", "alerts_test.yml"], String::new()).await);
    let tests = document("deploy/alerts_test.yml");
    for alert in ALERTS {
        for kind in ["good", "bad"] {
            assert!(
                tests.contains(&format!("  - name: {}, {kind}\n", alert.name)),
                "{} has no {kind} series",
                alert.name
            );
        }
    }
}

/// Returns the value of a key of each alert in the file of alerts.
fn values<'t>(alerts: &'t str, key: &str) -> Vec<&'t str> {
    let prefix = format!("{key}: ");
    let values = alerts
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(&prefix));
    values.map(|value| value.trim_matches('\'')).collect()
}

#[test]
fn every_alert_has_a_runbook_and_a_page_and_the_other_way_round() {
    let alerts = document("deploy/alerts.yml");
    let listed: Vec<&str> = ALERTS.iter().map(|alert| alert.name).collect();
    assert_eq!(values(&alerts, "alert"), listed);
    let summaries: Vec<&str> = ALERTS.iter().map(|alert| alert.summary).collect();
    assert_eq!(values(&alerts, "summary"), summaries);
    let severities: Vec<String> = ALERTS
        .iter()
        .map(|alert| format!("{{severity: {}}}", alert.severity))
        .collect();
    assert_eq!(values(&alerts, "labels"), severities);
    let runbooks = listed.iter().map(|name| format!("runbooks/{name}.md"));
    assert_eq!(values(&alerts, "runbook_url"), runbooks.collect::<Vec<_>>());
    let pages = listed.iter().map(|name| format!("/go/{name}"));
    assert_eq!(values(&alerts, "console"), pages.collect::<Vec<_>>());

    let files = fs::read_dir(deploy("runbooks")).expect("the folder of runbooks");
    let files: BTreeSet<String> = files
        .map(|file| file.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let expected: BTreeSet<String> = listed.iter().map(|name| format!("{name}.md")).collect();
    assert_eq!(files, expected);
    for alert in ALERTS {
        let text = document(&format!("deploy/runbooks/{}.md", alert.name));
        for part in ["## Meaning\n", "## First command\n", "## Safe actions\n"] {
            assert!(text.contains(part), "{} has no `{part}`", alert.name);
        }
    }
}

/// The metrics that a text names.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("dispatch_"))
        .collect()
}

#[tokio::test]
async fn an_idle_worker_serves_every_metric_that_an_alert_or_a_panel_names() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let scrape = wait_for("a scrape of a ready worker", SOON, async || {
        let scrape = worker.metrics().await;
        let is_ready = scrape.contains("\ndispatch_ready 1\n");
        is_ready.then_some(scrape).ok_or("not ready yet")
    })
    .await;
    let series: Vec<&str> = scrape
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(
        series.len() <= SERIES,
        "expected at most {SERIES} series, got {}",
        series.len()
    );
    let served: BTreeSet<&str> = series
        .iter()
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();

    let alerts = document("deploy/alerts.yml");
    let dashboard: Value =
        serde_json::from_str(&document("deploy/grafana/dispatch.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let queries = panels
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .map(|target| target["expr"].as_str().expect("a query"));
    let queries: Vec<&str> = queries.chain(values(&alerts, "expr")).collect();
    let scaled = document("deploy/kubernetes/keda-prometheus.yaml");
    let named: BTreeSet<&str> = queries
        .iter()
        .copied()
        .chain(values(&scaled, "query"))
        .flat_map(metrics_in)
        .collect();
    let missing: Vec<&&str> = named.difference(&served).collect();
    assert!(named.len() > 20, "{named:?}");
    assert!(missing.is_empty(), "not served: {missing:?}");
    let described = document("docs/reference/metrics.md");
    for line in scrape.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).expect("a name");
        assert!(
            described.contains(&format!("| `{name}` |")),
            "{name} is not in the reference"
        );
    }
    assert_success(&promtool(&["check", "metrics"], scrape).await);
}

#[tokio::test]
async fn a_worker_stores_a_sample_as_soon_as_it_is_ready() {
    let world = TestWorld::acme().await;
    let began = OffsetDateTime::now_utc() - time::Duration::minutes(1);
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let stored = wait_for("a sample of a ready worker", SOON, async || {
        let samples = world.store().samples(began).await.expect("samples");
        let found = samples.into_iter().find(|sample| sample.data.ready);
        found.ok_or("there is none yet")
    })
    .await;
    assert_eq!(stored.data.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(stored.data.not_ready, Vec::<String>::new());
    let link = r#"dispatch_link_up{link="postgres"}"#;
    assert_eq!(stored.data.gauges.get(link), Some(&1.0));
}
