//! The operations server beside its worker: what others do to it costs the worker nothing, and it answers to its own names only.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::job::JobState;
use reqwest::header::HOST;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::support::{Checks, TestWorld, WorkerOptions, WorkerProcess, acme};

const SOON: Duration = Duration::from_secs(30);
/// Of the worker: enough for its work, and far fewer than the connections.
const DESCRIPTORS: u16 = 160;
const SILENT: usize = 1000;

/// The status of its page `/livez` where it is asked by this name.
async fn alive_as(worker: &WorkerProcess, host: Option<&str>) -> u16 {
    let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
    let asked = http.get(format!("http://{}/livez", worker.operations()));
    let asked = host.into_iter().fold(asked, |asked, host| asked.header(HOST, host));
    asked.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_thousand_silent_connections_to_the_operations_server_take_nothing_from_the_worker() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, maximum: own.maximum }).unwrap();
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions { descriptors: Some(DESCRIPTORS), ..WorkerOptions::default() });
    worker.ready().await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(worker.operations()).await.unwrap());
    }

    // Its work needs more descriptors than it had so far: calls to providers, transactions.
    let event = world.assign(acme::WORK_ITEM, Some(acme::BOB)).await;
    world.publish_job(&acme::job("a", &event)).await;
    world.wait_job_state("a", JobState::Succeeded, SOON).await;
    assert_eq!(alive_as(&worker, None).await, 200, "beside the silent ones");
    assert!(worker.readiness().await.unwrap().0);
    drop(silent);
    assert_eq!(alive_as(&worker, None).await, 200, "after them");
    assert!(!worker.log().contains("cannot accept connections"), "it has never been without descriptors");
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_name_that_is_not_the_server_s_gets_no_page() {
    let world = TestWorld::new().await;
    let environment = BTreeMap::from([("DISPATCH_OPS_HOSTS".to_owned(), "ops.example,10.0.0.7".to_owned())]);
    let worker = world.worker(&WorkerOptions { environment, ..WorkerOptions::default() });
    worker.ready().await;
    for (host, status) in [
        (None, 200),
        (Some("localhost:1"), 200),
        (Some("ops.example"), 200),
        (Some("10.0.0.7:80"), 200),
        (Some("rebound.example:9464"), 421),
        (Some("10.0.0.8"), 421),
    ] {
        assert_eq!(alive_as(&worker, host).await, status, "{host:?}");
    }
}
