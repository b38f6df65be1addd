//! A worker that starts before its servers.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::devkit::ports;

use crate::support::{TestWorld, WorkerOptions};

#[tokio::test]
async fn a_worker_without_postgres_is_not_ready_and_stops_on_sigterm() {
    let world = TestWorld::acme().await;
    let unused = ports::reserve().unwrap();
    let url = format!(
        "postgres://worker:canary-password@127.0.0.1:{}/dispatch",
        unused.number()
    );
    let environment = BTreeMap::from([("DISPATCH_DATABASE_URL".to_owned(), url)]);
    let mut worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    worker.not_ready("no Postgres connection").await;
    worker.terminate();
    let status = worker.wait_exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        worker.log().contains("waiting for Postgres"),
        "{}",
        worker.log()
    );
}
