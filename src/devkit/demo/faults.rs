//! What goes wrong on purpose, and whether it has.

use super::world::FEED;
use crate::devkit::simulator::client::SimulatorClient;
use crate::devkit::simulator::faults::{FaultKind, FaultRule};
use crate::devkit::simulator::witness::Provider;

/// A fault brought into force.
struct Planned {
    /// For people.
    what: &'static str,
    id: u64,
    /// Requests it had met when it was ended.
    hits: Option<u64>,
}

/// All faults of the run.
pub(super) struct Faults {
    simulator: SimulatorClient,
    planned: Vec<Planned>,
}

/// Discord answers nothing but this for a while.
const OUTAGE: &str = "Discord answers 503";
/// Long enough to be killed meanwhile.
const SLOW: &str = "Azure DevOps is slow to tell of work items";
/// How long that call takes, in milliseconds.
const SLOW_MILLIS: u64 = 1500;

impl Faults {
    pub(super) const fn new(simulator: SimulatorClient) -> Self {
        Self { simulator, planned: Vec::new() }
    }

    /// Providers fail: most of them for the next few calls, Discord until [`Faults::end_outage`]. The oldest fault that fits a
    /// request is the one it meets, so the lost answers come before the outage.
    pub(super) async fn outage(&mut self) -> anyhow::Result<()> {
        let (lost, devops) = (FaultKind::LoseAnswer, Provider::AzureDevops);
        let discord = |fault| FaultRule::new(fault).provider(Provider::Discord).method("POST");
        let webhook = |path: &str| FaultRule::new(lost).provider(Provider::Webhook).path_contains(path).times(1);
        for (what, rule) in [
            ("Discord posts a message and its answer is lost", discord(lost).times(2)),
            (OUTAGE, discord(FaultKind::ServerError)),
            ("a webhook receiver that dedupes loses its answer", webhook("/webhook/ledger")),
            ("a webhook receiver that does not dedupe loses its answer", webhook(&format!("/webhook/{FEED}"))),
            ("a work item is patched and the answer is lost", FaultRule::new(lost).provider(devops).method("PATCH").times(2)),
            (
                "Azure DevOps answers 429",
                FaultRule::new(FaultKind::RateLimit).provider(devops).path_contains("workitemsbatch").times(3).retry_after(1),
            ),
            (
                "Azure DevOps drops connections",
                FaultRule::new(FaultKind::Refuse).provider(devops).path_contains("/profile/").times(2),
            ),
        ] {
            self.plan(what, &rule).await?;
        }
        Ok(())
    }

    /// How many requests have met the outage.
    pub(super) async fn outage_hits(&self) -> anyhow::Result<u64> {
        self.hits_of(OUTAGE).await
    }

    /// Discord is well again.
    pub(super) async fn end_outage(&mut self) -> anyhow::Result<()> {
        self.end(OUTAGE).await
    }

    /// The next calls for work items take long enough to be in hand when a worker is killed.
    pub(super) async fn slow(&mut self) -> anyhow::Result<()> {
        let rule = FaultRule::new(FaultKind::Slow).provider(Provider::AzureDevops).path_contains("workitemsbatch");
        self.plan(SLOW, &rule.millis(SLOW_MILLIS)).await
    }

    /// How many calls are or were slow.
    pub(super) async fn slow_hits(&self) -> anyhow::Result<u64> {
        self.hits_of(SLOW).await
    }

    /// Everything is as fast as before.
    pub(super) async fn end_slow(&mut self) -> anyhow::Result<()> {
        self.end(SLOW).await
    }

    /// How many requests met each fault.
    pub(super) async fn met(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let listed = self.simulator.faults().await?;
        let hits = |planned: &Planned| {
            let now = listed.iter().find(|report| report.id == planned.id).map_or(0, |report| report.hits);
            (planned.what, planned.hits.unwrap_or(now))
        };
        Ok(self.planned.iter().map(hits).collect())
    }

    async fn plan(&mut self, what: &'static str, rule: &FaultRule) -> anyhow::Result<()> {
        let id = self.simulator.fault(rule).await?;
        self.planned.push(Planned { what, id, hits: None });
        Ok(())
    }

    async fn hits_of(&self, what: &str) -> anyhow::Result<u64> {
        Ok(self.met().await?.into_iter().filter(|(name, _)| *name == what).map(|(_, hits)| hits).sum())
    }

    async fn end(&mut self, what: &str) -> anyhow::Result<()> {
        let hits = self.hits_of(what).await?;
        for planned in self.planned.iter_mut().filter(|planned| planned.what == what) {
            planned.hits = Some(hits);
            self.simulator.clear_fault(planned.id).await?;
        }
        Ok(())
    }
}
