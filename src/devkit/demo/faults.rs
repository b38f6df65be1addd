//! The injected faults, and the number of requests that each has affected.

use super::world::FEED;
use crate::devkit::simulator::client::SimulatorClient;
use crate::devkit::simulator::faults::{FaultKind, FaultRule};
use crate::devkit::simulator::witness::Provider;

/// An injected fault.
struct Planned {
    /// Description.
    what: &'static str,
    id: u64,
    /// Requests that it had affected when it was removed.
    hits: Option<u64>,
}

pub(super) struct Faults {
    simulator: SimulatorClient,
    planned: Vec<Planned>,
}

const OUTAGE: &str = "Discord answers 503";
/// The fault that slows requests down, so that a worker can be killed meanwhile.
const SLOW: &str = "Azure DevOps answers slowly";
/// The duration of such a request, in milliseconds.
const SLOW_MILLIS: u64 = 1500;

impl Faults {
    pub(super) const fn new(simulator: SimulatorClient) -> Self {
        Self {
            simulator,
            planned: Vec::new(),
        }
    }

    /// Injects the faults: most of them for the next few requests, the Discord outage until
    /// [`Faults::end_outage`]. The oldest fault that matches a request applies, so the lost
    /// answers come before the outage.
    pub(super) async fn outage(&mut self) -> anyhow::Result<()> {
        let (lost, devops) = (FaultKind::LoseAnswer, Provider::AzureDevops);
        let discord = |fault| {
            FaultRule::new(fault)
                .provider(Provider::Discord)
                .method("POST")
        };
        let webhook = |path: &str| {
            FaultRule::new(lost)
                .provider(Provider::Webhook)
                .path_contains(path)
                .times(1)
        };
        for (what, rule) in [
            (
                "Discord posts a message and the answer is lost",
                discord(lost).times(2),
            ),
            (OUTAGE, discord(FaultKind::ServerError)),
            (
                "the answer of a webhook receiver that dedupes is lost",
                webhook("/webhook/ledger"),
            ),
            (
                "the answer of a webhook receiver that does not dedupe is lost",
                webhook(&format!("/webhook/{FEED}")),
            ),
            (
                "a work item is patched and the answer is lost",
                FaultRule::new(lost)
                    .provider(devops)
                    .method("PATCH")
                    .times(2),
            ),
            (
                "Azure DevOps answers 429",
                FaultRule::new(FaultKind::RateLimit)
                    .provider(devops)
                    .path_contains("workitemsbatch")
                    .times(3)
                    .retry_after(1),
            ),
            (
                "Azure DevOps drops connections",
                FaultRule::new(FaultKind::Refuse)
                    .provider(devops)
                    .path_contains("/profile/")
                    .times(2),
            ),
        ] {
            self.plan(what, &rule).await?;
        }
        Ok(())
    }

    /// Returns the number of requests that the outage has affected.
    pub(super) async fn outage_hits(&self) -> anyhow::Result<u64> {
        self.hits_of(OUTAGE).await
    }

    /// Ends the Discord outage.
    pub(super) async fn end_outage(&mut self) -> anyhow::Result<()> {
        self.end(OUTAGE).await
    }

    /// Slows down requests for work items, so that they are in flight when a worker is killed.
    pub(super) async fn slow(&mut self) -> anyhow::Result<()> {
        let rule = FaultRule::new(FaultKind::Slow)
            .provider(Provider::AzureDevops)
            .path_contains("workitemsbatch");
        self.plan(SLOW, &rule.millis(SLOW_MILLIS)).await
    }

    /// Returns the number of slow requests.
    pub(super) async fn slow_hits(&self) -> anyhow::Result<u64> {
        self.hits_of(SLOW).await
    }

    /// Ends the slow requests.
    pub(super) async fn end_slow(&mut self) -> anyhow::Result<()> {
        self.end(SLOW).await
    }

    /// Returns the number of requests that each fault has affected.
    pub(super) async fn met(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let listed = self.simulator.faults().await?;
        let hits = |planned: &Planned| {
            let now = listed
                .iter()
                .find(|report| report.id == planned.id)
                .map_or(0, |report| report.hits);
            (planned.what, planned.hits.unwrap_or(now))
        };
        Ok(self.planned.iter().map(hits).collect())
    }

    async fn plan(&mut self, what: &'static str, rule: &FaultRule) -> anyhow::Result<()> {
        let id = self.simulator.fault(rule).await?;
        self.planned.push(Planned {
            what,
            id,
            hits: None,
        });
        Ok(())
    }

    async fn hits_of(&self, what: &str) -> anyhow::Result<u64> {
        Ok(self
            .met()
            .await?
            .into_iter()
            .filter(|(name, _)| *name == what)
            .map(|(_, hits)| hits)
            .sum())
    }

    async fn end(&mut self, what: &str) -> anyhow::Result<()> {
        let hits = self.hits_of(what).await?;
        for planned in self
            .planned
            .iter_mut()
            .filter(|planned| planned.what == what)
        {
            planned.hits = Some(hits);
            self.simulator.clear_fault(planned.id).await?;
        }
        Ok(())
    }
}
