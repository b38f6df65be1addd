//! Outgoing requests: they use no proxy and reach no private address.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use dispatch_worker::job::JobState;
use serde_json::json;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// Variables that people set for commands in a shell; workers ignore them.
const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let environment: BTreeMap<String, String> = PROXY_VARIABLES
        .iter()
        .map(|name| ((*name).to_owned(), url.clone()))
        .collect();
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert_eq!(
        proxy.accept().unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "something connected to the proxy"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_destination_with_a_private_address_is_not_called_and_parks_its_message() {
    let world = TestWorld::acme().await;
    let mut document = acme::document(&world.simulator().await.url);
    let destinations = &mut document.organizations[0].destinations;
    let mut inner = destinations
        .iter()
        .find(|destination| destination.name == acme::BLIND)
        .unwrap()
        .clone();
    inner.name = "inner".to_owned();
    inner.config = json!({"url": "https://2852039166/latest/meta-data/"});
    destinations.push(inner);
    world.import(&document).await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    let mut job = acme::job("one", &event);
    job["notify"] = json!(["inner"]);
    world.publish_job(&job).await;
    let said = wait_for("the message to be parked", SOON, async || {
        let rows = world
            .database
            .rows("SELECT error_code, error_message FROM jobs WHERE pipeline = 'messaging' AND state = 'parked'")
            .await;
        rows.first().cloned().ok_or("it is not parked")
    })
    .await;
    assert_eq!(said[0], "webhook.bad_config");
    assert!(
        said[1].contains("metadata service") && said[1].contains("expected"),
        "{said:?}"
    );
    Checks {
        attempts: &[("deliver_message", "webhook.bad_config")],
    }
    .hold(&world)
    .await;
}
