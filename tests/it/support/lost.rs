//! Jobs that park since their destination does not exist, and the repair.

use std::time::Duration;

use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use super::acme;
use super::world::TestWorld;

const SOON: Duration = Duration::from_secs(60);

impl TestWorld {
    /// Publishes a job whose destination `new` does not exist, and waits until it is parked.
    pub(crate) async fn publish_lost(&self, key: &str) {
        let mut message = acme::job(key, &Value::Null);
        (message["events"], message["notify"]) = (json!([]), json!(["new"]));
        self.publish_job(&message).await;
        self.wait_job_state(key, JobState::Parked, SOON).await;
    }

    /// Registers the destination `new`, a webhook.
    pub(crate) async fn register_new(&self) {
        let url = format!("{}/webhook/{}", self.simulator().await.url, acme::KEYED);
        let config = json!({"url": url, "honours_webhook_id": true}).to_string();
        let named = [
            "destinations",
            "register",
            "--organization",
            "acme",
            "--name",
            "new",
            "--kind",
            "webhook",
            "--yes",
        ];
        let line = [&named[..], &["--config", &config, "--secret-file", "-"]].concat();
        let register = self.dispatch(&line).stdin(acme::WEBHOOK_SECRET);
        register.done().await;
    }
}
