//! Replicas are killed under load, one after the other, and replaced: no job is lost, no effect
//! happens twice, and another replica soon takes over the jobs of a dead one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::MissedTickBehavior;

use crate::support::{Checks, TestWorld, WorkerOptions, WorkerProcess, acme, crowd, wait_for};

const JOBS: usize = 2_000;
const A_KILL_EVERY: Duration = Duration::from_secs(2);
/// The interval at which the jobs of dead replicas are checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(5);
const ALL_DONE_WITHIN: Duration = Duration::from_secs(600);

/// A job that its owner was running when the owner was killed.
#[derive(Debug, Deserialize)]
struct Left {
    id: String,
    epoch: i64,
}

/// A job whose owner was killed.
struct Orphan {
    since: Instant,
    epoch: i64,
    is_free: bool,
}

/// Jobs whose owners were killed.
#[derive(Default)]
struct Takeovers {
    /// Jobs without a next owner.
    open: BTreeMap<String, Orphan>,
    /// The times from the kill until another replica had freed the job.
    freed: Vec<Duration>,
    /// The times from the kill until the job had its next owner. They include the wait for a seat
    /// behind other jobs, so they say what this machine can do and are only printed.
    owned: Vec<Duration>,
}

impl Takeovers {
    async fn killed(&mut self, world: &TestWorld, pid: u32, at: Instant) {
        let sql = format!(
            "SELECT j.id, j.epoch FROM jobs j JOIN replicas r ON r.id = j.owner WHERE r.pid = {pid} AND j.state = 'running'"
        );
        for Left { id, epoch } in world.database.records(&sql).await {
            // A job whose next owner is killed before the takeover is seen counts from the first
            // kill.
            self.open.entry(id).or_insert(Orphan {
                since: at,
                epoch,
                is_free: false,
            });
        }
    }

    /// Records the jobs that have been taken over. Freeing a job increments its epoch, and
    /// claiming it increments it again. A job that needs no takeover is dropped: Postgres
    /// committed after the kill what its owner had sent before.
    async fn look(&mut self, world: &TestWorld) {
        if self.open.is_empty() {
            return;
        }
        let wanted: Vec<String> = self
            .open
            .iter()
            .map(|(id, orphan)| format!("('{id}'::uuid, {})", orphan.epoch))
            .collect();
        let sql = format!(
            "SELECT j.id, j.epoch FROM (VALUES {}) AS was (id, epoch) JOIN jobs j ON j.id = was.id
             WHERE j.epoch > was.epoch OR j.state <> 'running'",
            wanted.join(", ")
        );
        for Left { id, epoch } in world.database.records(&sql).await {
            let orphan = self.open.get_mut(&id).expect("it was asked for");
            if epoch > orphan.epoch && !orphan.is_free {
                orphan.is_free = true;
                self.freed.push(orphan.since.elapsed());
            }
            if epoch >= orphan.epoch + 2 {
                self.owned.push(orphan.since.elapsed());
            }
            if epoch != orphan.epoch + 1 {
                self.open.remove(&id);
            }
        }
    }
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * share).ceil() as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_and_no_effect_happens_twice_while_one_of_two_replicas_is_killed_every_two_seconds()
 {
    let world = TestWorld::acme_alone().await;
    crowd::gather(&world).await;

    let takeovers = Mutex::new(Takeovers::default());
    let began = Instant::now();
    let (kills, _replicas) = tokio::select! {
        done = kill_in_turn(&world, &takeovers) => done,
        never = async { tokio::join!(publish(&world), watch(&world, &takeovers)).1 } => never,
    };
    let takeovers = takeovers.into_inner();
    eprintln!(
        "{JOBS} jobs in {:.1} s, {kills} kills, {} takeovers",
        began.elapsed().as_secs_f64(),
        takeovers.freed.len()
    );
    for (what, times) in [
        ("freed", &takeovers.freed),
        ("next owner", &takeovers.owned),
    ] {
        let at = |share| quantile(times, share);
        eprintln!(
            "{what}: p50 {:?}, p99 {:?}, longest {:?}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    assert!(
        kills >= 3 && takeovers.freed.len() >= 20,
        "there are too few kills or takeovers to prove anything"
    );
    let p99 = quantile(&takeovers.freed, 0.99);
    assert!(p99 <= TAKEN_OVER_WITHIN, "{p99:?}");
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE parent_id IS NULL")
            .await,
        JOBS.to_string(),
        "none is lost"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE state <> 'succeeded'")
            .await,
        "0"
    );
    Checks::default().hold(&world).await;
}

/// Publishes jobs; every tenth notifies channels that dedupe.
async fn publish(world: &TestWorld) {
    for number in 0..JOBS {
        let mut job = crowd::job(world, "storm", number).await;
        if number % 10 == 0 {
            job["notify"] = json!([acme::DISCORD, acme::KEYED]);
        }
        world.publish_job(&job).await;
    }
}

async fn watch(world: &TestWorld, takeovers: &Mutex<Takeovers>) -> (usize, [WorkerProcess; 2]) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        takeovers.lock().await.look(world).await;
    }
}

/// Kills one of two replicas every two seconds and starts another, until every job has succeeded.
/// Returns the number of kills and the replicas that still run.
async fn kill_in_turn(
    world: &TestWorld,
    takeovers: &Mutex<Takeovers>,
) -> (usize, [WorkerProcess; 2]) {
    let start = || world.worker(&WorkerOptions::default());
    let mut replicas: [WorkerProcess; 2] = [start(), start()];
    for replica in &replicas {
        replica.ready().await;
    }
    let deadline = Instant::now() + ALL_DONE_WITHIN;
    let mut kills = 0;
    let mut ticks =
        tokio::time::interval_at(tokio::time::Instant::now() + A_KILL_EVERY, A_KILL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while left(world).await > 0 {
        let in_time = Instant::now() < deadline;
        assert!(
            in_time,
            "{} jobs are not done after {kills} kills: {}",
            left(world).await,
            not_done(world).await
        );
        ticks.tick().await;
        let dead = std::mem::replace(&mut replicas[kills % 2], start());
        let pid = dead.pid;
        dead.kill9().await;
        takeovers
            .lock()
            .await
            .killed(world, pid, Instant::now())
            .await;
        kills += 1;
    }
    wait_for("the last takeovers", TAKEN_OVER_WITHIN * 2, async || {
        let open = takeovers.lock().await.open.len();
        if open == 0 {
            Ok(())
        } else {
            Err(format!("{open} jobs have no owner yet"))
        }
    })
    .await;
    (kills, replicas)
}

/// Counts the jobs that have not succeeded, including those that have not arrived.
async fn left(world: &TestWorld) -> usize {
    let done: usize = world
        .database
        .one("SELECT count(*) FROM jobs WHERE parent_id IS NULL AND state = 'succeeded'")
        .await
        .parse()
        .expect("a number");
    JOBS - done
}

/// Returns the jobs that have not ended, counted by state and stage.
async fn not_done(world: &TestWorld) -> String {
    let sql = "
        SELECT string_agg(format('%s %s/%s %s, crashes %s: %s', state, pipeline, stage, wait_reason, crash_count, number), '; ')
        FROM (SELECT state, pipeline, stage, wait_reason, crash_count, count(*) AS number FROM jobs
            WHERE state NOT IN ('succeeded', 'cancelled') GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC LIMIT 20) AS by";
    world.database.one(sql).await
}
