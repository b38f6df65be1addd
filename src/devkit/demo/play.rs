//! The run: waves of jobs, an outage, a killed worker, and the wait until all jobs have ended.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use deadpool_postgres::{Client, Pool};

use super::faults::Faults;
use super::fleet::{Fleet, until};
use super::progress::Progress;
use super::script::{self, CONFIGURED, JOBS, LEFT_WAITING, PARKED};
use super::summary::Summary;
use super::traffic::{SOURCE, Traffic};
use super::verify::{self, Check};
use super::world::{Tenant, World};
use crate::broker::Publisher;
use crate::devkit::simulator::witness;
use crate::job::{JobId, JobState, WaitReason};
use crate::operations;
use crate::pipelines::dispatch;
use crate::store::{self, ActionResult, Actor, Role, Store, Target};

/// The minimum duration of the outage, longer than the delay of a first retry.
const OUTAGE: Duration = Duration::from_millis(2500);
/// The minimum number of requests that fail during the outage.
const OUTAGE_HITS: u64 = 3;
/// The minimum number of jobs that a worker has in hand when it is killed.
const IN_HAND: i64 = 3;
/// The number of messages that are sent again unchanged.
const REPEATED: usize = 10;
/// The time limit for a single condition.
const CONDITION_LIMIT: Duration = Duration::from_secs(30);
/// The time without progress after which the run is over, even if the result is not as planned.
const STILL: Duration = Duration::from_secs(3);

pub(super) struct Play<'a> {
    fleet: &'a mut Fleet,
    traffic: Traffic<'a>,
    faults: Faults,
    pool: Pool,
    store: Store,
    progress: &'a Progress,
    /// The time by which all jobs must have ended.
    deadline: Instant,
    refused: usize,
}

/// Counts of jobs by their progress.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Standing {
    requests: i64,
    /// Published jobs that do not continue by themselves.
    ended: i64,
    /// Jobs that are due or running, or become due, at the latest when the hold of their
    /// destination ends.
    moving: i64,
    configuration: i64,
    parked: i64,
}

impl Standing {
    const fn is_as_planned(&self) -> bool {
        self.ended == JOBS as i64
            && self.configuration == LEFT_WAITING as i64
            && self.parked == PARKED as i64
    }
}

impl<'a> Play<'a> {
    /// Prepares the run; jobs must have ended by `deadline`.
    pub(super) async fn new(
        fleet: &'a mut Fleet,
        world: &'a World,
        progress: &'a Progress,
        deadline: Instant,
    ) -> anyhow::Result<Self> {
        let pool = store::pool(&fleet.links.database_url, 4)?;
        let store = Store::new(pool.clone());
        let publisher = Publisher::connect(&fleet.links.producer_amqp_url).await?;
        let simulator = fleet.simulator.client.clone();
        let traffic = Traffic::new(publisher, simulator.clone(), world);
        Ok(Self {
            fleet,
            traffic,
            faults: Faults::new(simulator),
            pool,
            store,
            progress,
            deadline,
            refused: 0,
        })
    }

    /// Runs from the first wave to the end of the last job, and shows the progress.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        let (store, progress) = (self.store.clone(), self.progress);
        tokio::select! {
            played = self.waves() => played,
            Err(error) = watch(&store, progress) => Err(error),
        }
    }

    async fn waves(&mut self) -> anyhow::Result<()> {
        self.traffic.wave(script::first_wave()).await?;
        self.progress
            .say(&format!("{} jobs published", self.traffic.jobs));
        self.wait_for(self.traffic.jobs / 2).await?;
        self.refuse().await?;
        self.outage().await?;
        self.kill().await?;
        self.traffic.wave(script::fourth_wave()).await?;
        self.wait_for(self.traffic.jobs * 3 / 4).await?;
        let own = self.traffic.own_writes(JOBS).await?;
        self.progress.say(&format!(
            "{} jobs published, {own} of them for the worker's own writes",
            self.traffic.jobs
        ));
        self.wait_for_all().await
    }

    /// Publishes messages that cannot become jobs, one of them with the key of an existing job.
    async fn refuse(&mut self) -> anyhow::Result<()> {
        let key = self.traffic.first_key()?.to_owned();
        let store = &self.store;
        let is_there = async || Ok(store.job_by_key(SOURCE, &key).await?.is_some());
        until(self.patience(), "the first job is accepted", is_there).await?;
        self.refused = self.traffic.refused(&key).await?;
        self.progress.say(&format!(
            "{} messages published that must be refused",
            self.refused
        ));
        Ok(())
    }

    async fn outage(&mut self) -> anyhow::Result<()> {
        self.faults.outage().await?;
        let began = Instant::now();
        self.progress.say(
            "injecting faults: lost answers, an outage of Discord, rate limits of Azure DevOps",
        );
        self.traffic.wave(script::second_wave()).await?;
        self.traffic.repeat(REPEATED).await?;
        self.configure().await?;
        let faults = &self.faults;
        let met =
            async || Ok(began.elapsed() >= OUTAGE && faults.outage_hits().await? >= OUTAGE_HITS);
        until(
            self.patience(),
            "requests have failed because of the Discord outage",
            met,
        )
        .await?;
        self.faults.end_outage().await?;
        self.progress.say("Discord is available again");
        Ok(())
    }

    /// Chooses accounts for the jobs that wait for one, as a producer and as an operator. One job
    /// is left waiting.
    async fn configure(&mut self) -> anyhow::Result<()> {
        let keys: Vec<String> = self
            .traffic
            .without_account
            .iter()
            .take(CONFIGURED)
            .cloned()
            .collect();
        for (index, key) in keys.iter().enumerate() {
            let job = self.waiting_for_configuration(key).await?;
            if index % 2 == 0 {
                self.traffic.configure(job, Tenant::Acme).await?;
            } else {
                self.configure_by_hand(job).await?;
            }
        }
        self.progress
            .say(&format!("accounts chosen for {} waiting jobs", keys.len()));
        Ok(())
    }

    async fn configure_by_hand(&self, job: JobId) -> anyhow::Result<()> {
        let actor = Actor {
            who: SOURCE.to_owned(),
            role: Role::Operator,
            reason: Some("the demo".to_owned()),
            request: None,
        };
        let account = self.traffic.account_id(Tenant::Acme);
        let answer = operations::configure(&self.store, &actor, &Target::Id(job), account).await?;
        ensure!(
            matches!(answer, ActionResult::Done { .. }),
            "cannot choose the account of job {job}: {answer:?}"
        );
        Ok(())
    }

    async fn waiting_for_configuration(&self, key: &str) -> anyhow::Result<JobId> {
        let mut found = None;
        let store = &self.store;
        let waits = async || {
            let row = store.job_by_key(SOURCE, key).await?;
            found = row
                .filter(|row| row.wait_reason.as_deref() == Some(WaitReason::Configuration.word()))
                .map(|row| row.id);
            Ok(found.is_some())
        };
        until(
            self.patience(),
            &format!("job {key} waits for configuration"),
            waits,
        )
        .await?;
        found.context("it was found just above")
    }

    /// Kills a worker that has jobs in hand, and starts another one.
    async fn kill(&mut self) -> anyhow::Result<()> {
        self.faults.slow().await?;
        self.traffic.wave(script::third_wave()).await?;
        let pid = self.fleet.victim().context("no worker is running")?;
        let (store, faults, mut in_hand) = (&self.store, &self.faults, 0);
        let has_jobs = async || {
            let slow = faults.slow_hits().await?;
            let replicas = store.replicas().await?;
            in_hand = replicas
                .iter()
                .filter(|row| u32::try_from(row.pid) == Ok(pid))
                .map(|row| row.running)
                .sum();
            Ok(in_hand >= IN_HAND && slow > 0)
        };
        until(self.patience(), "a worker has jobs in hand", has_jobs).await?;
        self.fleet.kill_victim().await;
        self.progress.say(&format!(
            "worker {pid} was killed (kill -9) while it ran {in_hand} jobs"
        ));
        self.faults.end_slow().await?;
        self.fleet.start_workers().await?;
        self.progress.say("a new worker has replaced it");
        Ok(())
    }

    async fn wait_for(&mut self, ended: usize) -> anyhow::Result<()> {
        let until_then = self.patience();
        let ended = i64::try_from(ended)?;
        let (store, fleet) = (&self.store, &mut *self.fleet);
        let enough = async || {
            fleet.check()?;
            Ok(standing(store).await?.ended >= ended)
        };
        until(
            until_then,
            "enough of the jobs published so far have ended",
            enough,
        )
        .await
    }

    /// Waits until everything is as planned, nothing progresses, or time is up.
    /// [`Play::as_planned`] reports any difference.
    async fn wait_for_all(&mut self) -> anyhow::Result<()> {
        let (store, fleet, deadline) = (&self.store, &mut *self.fleet, self.deadline);
        let refused = self.refused;
        let mut last = (Standing::default(), Instant::now());
        let over = async || {
            fleet.check()?;
            let standing = standing(store).await?;
            if standing != last.0 || standing.moving > 0 {
                last = (standing, Instant::now());
            }
            let letters = store.dead_letters(true, i64::MAX, 100).await?.len();
            let is_as_planned =
                standing.is_as_planned() && standing.moving == 0 && letters == refused;
            Ok(is_as_planned || last.1.elapsed() >= STILL || Instant::now() >= deadline)
        };
        until(deadline + CONDITION_LIMIT, "all jobs have ended", over).await
    }

    /// Returns the counts and the results of all checks.
    pub(super) async fn verify(
        &mut self,
        started: Instant,
    ) -> anyhow::Result<(Summary, Vec<Check>)> {
        let client: Client = self.pool.get().await?;
        let witness = witness::read(&self.fleet.witness()).context("the witness log")?;
        let (lost, lost_jobs) = verify::nothing_lost(&client, &self.traffic.confirmed).await?;
        let (effects, duplicate_effects) = verify::effects(&client, &witness).await?;
        let assignees =
            verify::assignees(&client, &self.fleet.simulator.client.assignees().await?).await?;
        let mut checks = vec![
            lost,
            self.as_planned(&client).await?,
            verify::checkpoints(&client).await?,
        ];
        checks.extend(effects);
        checks.push(assignees);
        checks.push(verify::forgeries(&client, &self.traffic.forged).await?);
        let summary = Summary {
            takeovers: self.fleet.takeovers().await?,
            duplicate_effects,
            lost_jobs,
            seconds: (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            ..Summary::counted(&client).await?
        };
        checks.push(self.something_happened(&summary).await?);
        Ok((summary, checks))
    }

    /// Checks that every job has succeeded, except those that must wait or be parked.
    async fn as_planned(&self, client: &Client) -> anyhow::Result<Check> {
        const SQL: &str = "
            SELECT j.dedupe_key, j.pipeline, j.state, j.stage, j.wait_reason, j.error_code FROM jobs j
            WHERE j.state <> 'succeeded' AND NOT (j.source = $1 AND j.dedupe_key = ANY ($2)) ORDER BY j.id";
        let waiting = self.traffic.without_account.iter().skip(CONFIGURED);
        let planned: Vec<&String> = waiting.chain(&self.traffic.parked).collect();
        let mut problems = Vec::new();
        for row in client.query(SQL, &[&SOURCE, &planned]).await? {
            let text = |name| {
                row.try_get::<_, Option<String>>(name)
                    .map(Option::unwrap_or_default)
            };
            let (key, pipeline, state, stage) = (
                text("dedupe_key")?,
                text("pipeline")?,
                text("state")?,
                text("stage")?,
            );
            problems.push(format!(
                "{pipeline} job {key} is {state} at {stage} ({}{})",
                text("wait_reason")?,
                text("error_code")?
            ));
        }
        let standing = standing(&self.store).await?;
        if !standing.is_as_planned() {
            problems.push(format!(
                "expected {JOBS} jobs, {LEFT_WAITING} waiting and {PARKED} parked, got {standing:?}"
            ));
        }
        let letters = self.store.dead_letters(true, i64::MAX, 100).await?.len();
        if letters != self.refused {
            problems.push(format!(
                "expected {} dead letters, got {letters}",
                self.refused
            ));
        }
        let seen = format!(
            "{} succeeded, {LEFT_WAITING} waits and {PARKED} is parked, as planned",
            JOBS - LEFT_WAITING - PARKED
        );
        Ok(Check::of(
            "every job has the planned result",
            &problems,
            seen,
        ))
    }

    /// Checks that the faults took place, so that a run in which nothing happened does not pass.
    async fn something_happened(&self, summary: &Summary) -> anyhow::Result<Check> {
        let met = self.faults.met().await?;
        let mut problems: Vec<String> = met
            .iter()
            .filter(|(_, hits)| *hits == 0)
            .map(|(what, _)| format!("no request met the fault: {what}"))
            .collect();
        let numbers = [
            ("retries", summary.retries),
            ("assignments changed", summary.assignments_changed),
            ("messages delivered", summary.messages_delivered),
            ("jobs taken over", i64::try_from(summary.takeovers)?),
        ];
        problems.extend(
            numbers
                .iter()
                .filter(|(_, number)| *number == 0)
                .map(|(what, _)| format!("{what}: none")),
        );
        let hits: u64 = met.iter().map(|(_, hits)| hits).sum();
        Ok(Check::of(
            "every injected fault took place",
            &problems,
            format!("{} faults affected {hits} requests", met.len()),
        ))
    }

    fn patience(&self) -> Instant {
        (Instant::now() + CONDITION_LIMIT).min(self.deadline)
    }
}

/// Shows the progress of the jobs until it is dropped.
async fn watch(store: &Store, progress: &Progress) -> anyhow::Result<Infallible> {
    const EVERY: Duration = Duration::from_millis(250);
    loop {
        let standing = standing(store).await?;
        progress.moved(
            u64::try_from(standing.ended)?,
            format!("{} in progress, including follow-ups", standing.moving),
        );
        tokio::time::sleep(EVERY).await;
    }
}

async fn standing(store: &Store) -> anyhow::Result<Standing> {
    let mut standing = Standing::default();
    for (pipeline, state, reason, jobs) in store.job_counts().await? {
        let is_request = pipeline == dispatch::pipeline().name;
        let for_configuration = reason.as_deref() == Some(WaitReason::Configuration.word());
        let is_held = reason.as_deref() == Some(WaitReason::Hold.word());
        standing.moving += if matches!(state, JobState::Ready | JobState::Running) || is_held {
            jobs
        } else {
            0
        };
        if is_request {
            let has_ended = state.is_done() || state == JobState::Parked || for_configuration;
            standing.requests += jobs;
            standing.ended += if has_ended { jobs } else { 0 };
            standing.configuration += if for_configuration { jobs } else { 0 };
            standing.parked += if state == JobState::Parked { jobs } else { 0 };
        }
    }
    Ok(standing)
}
