//! Publishes messages, as a producer does.

use dispatch_worker::broker::{KEY_CONFIGURE, Outgoing};
use dispatch_worker::devkit::simulator::admin::Change;
use dispatch_worker::devkit::simulator::faults::FaultRule;
use dispatch_worker::job::JobId;
use serde_json::{Value, json};

use super::{TestWorld, intake};
use crate::support::acme;

impl TestWorld {
    /// Publishes an intake message.
    pub(crate) async fn publish_job(&self, message: &Value) {
        self.publish_raw(&intake(message.to_string())).await;
    }

    /// Publishes an intake message with AMQP headers.
    pub(crate) async fn publish_with_headers(&self, message: &Value, headers: &[(&str, &str)]) {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        self.publish_raw(&Outgoing {
            headers,
            ..intake(message.to_string())
        })
        .await;
    }

    /// Publishes any message; RabbitMQ must confirm it.
    pub(crate) async fn publish_raw(&self, message: &Outgoing) {
        self.publisher()
            .await
            .publish(message)
            .await
            .expect("RabbitMQ confirms the message");
    }

    /// Publishes the choice of an account for a job that waits for one.
    pub(crate) async fn publish_configure(&self, job: JobId, account: &str) {
        let body = json!({"schema": 1, "job_id": job, "account": account}).to_string();
        self.publish_raw(&Outgoing {
            routing_key: KEY_CONFIGURE.to_owned(),
            ..intake(body)
        })
        .await;
    }

    /// Assigns a work item of `acme` as a person does (`None`: to nobody); returns the
    /// service-hook event.
    pub(crate) async fn assign(&self, work_item: i64, to: Option<&str>) -> Value {
        let change = Change {
            org: acme::ACCOUNT.to_owned(),
            work_item,
            assigned_to: Some(to.map(str::to_owned)),
            by: Some(acme::BOB.to_owned()),
            ..Change::default()
        };
        self.simulator()
            .await
            .client
            .change(&change)
            .await
            .expect("the simulator accepts the change")
    }

    /// Publishes a job about [`acme::WORK_ITEM`] and waits until its `retrieve_user` has met the
    /// fault and is still running.
    pub(crate) async fn publish_held_up(&self, dedupe_key: &str, fault: FaultRule) {
        let simulator = &self.simulator().await.client;
        let id = simulator
            .fault(&fault.path_contains(acme::PROFILE).times(1))
            .await
            .expect("the simulator accepts the fault");
        let event = self.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
        self.publish_job(&acme::job(dedupe_key, &event)).await;
        self.wait_fault_met(id).await;
    }
}
