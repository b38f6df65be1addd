//! The operations server and its worker: its clients do not disturb the worker, and it answers
//! only to its own host names.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::job::JobState;
use reqwest::header::HOST;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::support::{Checks, TestWorld, WorkerOptions, WorkerProcess, acme};

const SOON: Duration = Duration::from_secs(30);
/// The worker's limit of file descriptors: enough for its work, and far fewer than the
/// connections.
const DESCRIPTORS: u16 = 160;
const SILENT: usize = 1000;

/// Returns the status of `/livez` when requested with this `Host`.
async fn alive_as(worker: &WorkerProcess, host: Option<&str>) -> u16 {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(SOON)
        .build()
        .unwrap();
    let asked = http.get(format!("http://{}/livez", worker.operations()));
    let asked = host
        .into_iter()
        .fold(asked, |asked, host| asked.header(HOST, host));
    asked.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_thousand_silent_connections_to_the_operations_server_do_not_disturb_the_worker() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: own.maximum,
            maximum: own.maximum,
        },
    )
    .unwrap();
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions {
        descriptors: Some(DESCRIPTORS),
        ..WorkerOptions::default()
    });
    worker.ready().await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(worker.operations()).await.unwrap());
    }

    // A job needs more descriptors than the worker has used so far: for calls to providers and
    // transactions.
    let event = world.assign(acme::WORK_ITEM, Some(acme::BOB)).await;
    world.publish_job(&acme::job("a", &event)).await;
    world.wait_job_state("a", JobState::Succeeded, SOON).await;
    assert_eq!(
        alive_as(&worker, None).await,
        200,
        "while the silent connections are open"
    );
    assert!(worker.readiness().await.unwrap().0);
    drop(silent);
    assert_eq!(
        alive_as(&worker, None).await,
        200,
        "after the silent connections are closed"
    );
    assert!(
        !worker.log().contains("cannot accept connections"),
        "it never runs out of descriptors"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_request_with_an_unknown_host_name_is_answered_with_421() {
    let world = TestWorld::new().await;
    let environment = BTreeMap::from([(
        "DISPATCH_OPS_HOSTS".to_owned(),
        "ops.example,10.0.0.7".to_owned(),
    )]);
    let worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
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
