//! What `explain` says of a job is what the waker, the claim and the takeover do with its row.

use std::collections::{BTreeMap, BTreeSet};

use dispatch_worker::config;
use dispatch_worker::job::{JobId, JobState, ReplicaId};
use dispatch_worker::store::explain::{Standing, standing};
use dispatch_worker::store::{Circle, Claimed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::replicas::begun;
use crate::store::group_commit::Bench;

/// Rows to invent: about eight for each combination of state, time and stamp.
const ROWS: usize = 400;
const STATES: [&str; 6] = [
    "ready",
    "running",
    "waiting",
    "succeeded",
    "cancelled",
    "parked",
];

/// Inserts one random row. The times are minutes away from now, so that none passes meanwhile.
async fn plant(bench: &Bench, random: &mut StdRng, owners: &[i64], number: usize) {
    // Half of the rows are ready: most of the rules are about those.
    let state = if random.random_bool(0.5) {
        "ready"
    } else {
        STATES.choose(random).expect("states")
    };
    let only = |condition: bool, value: String| if condition { value } else { "NULL".to_owned() };
    let owner = owners.choose(random).expect("owners").to_string();
    let minutes = random.random_range(1..=100) * if random.random_bool(0.5) { 1 } else { -1 };
    let values = [
        format!("'{}'", ["a", "b", "c"].choose(random).expect("slugs")),
        format!("'{state}'"),
        only(state == "running", owner),
        format!("now() + interval '{minutes} minutes'"),
        only(
            random.random_bool(0.5),
            format!("now() - interval '{} minutes'", random.random_range(1..=9)),
        ),
        only(state == "waiting", "'configuration'".to_owned()),
        only(state == "waiting", "'configuration:x'".to_owned()),
        random.random_range(0..=5).to_string(),
        only(
            random.random_bool(0.2),
            "now() - interval '1 minute'".to_owned(),
        ),
    ]
    .join(", ");
    let sql = format!(
        "INSERT INTO jobs (organization, state, owner, due_at, woken_at, wait_reason, wait_key, crash_count, deadline,
             id, pipeline, source, dedupe_key, schema, payload, stage)
         VALUES ({values}, gen_random_uuid(), 'p', 's', 'key-{number}', 1, '{{}}', 'first')"
    );
    bench.database.rows(&sql).await;
}

async fn planted(bench: &Bench) -> BTreeMap<JobId, Standing> {
    let mut planted = BTreeMap::new();
    for row in bench.database.rows("SELECT id FROM jobs").await {
        let id: JobId = row[0].parse().expect("an id");
        let row = bench
            .writer
            .store()
            .job(id)
            .await
            .expect("Postgres answers");
        planted.insert(id, standing(&row.expect("the job exists")));
    }
    planted
}

/// Returns every row that the waker takes.
async fn woken(bench: &Bench) -> BTreeSet<JobId> {
    let (mut circle, mut woken) = (Circle::default(), BTreeSet::new());
    loop {
        let page = bench
            .writer
            .store()
            .take_due("p", 50, bench.replica, &mut circle)
            .await
            .expect("Postgres answers");
        if page.jobs.is_empty() && page.ends_circle {
            return woken;
        }
        woken.extend(page.jobs);
    }
}

/// Returns every row that a claim takes.
async fn claimed(bench: &Bench, ids: impl Iterator<Item = JobId>) -> BTreeSet<JobId> {
    let answers = bench
        .together(ids.map(|id| async move { (id, bench.writer.claim(bench.replica, id).await) }))
        .await;
    let is_ours = |answer: &(JobId, Result<Claimed, _>)| matches!(answer.1, Ok(Claimed::Ours(_)));
    let ours = answers.iter().filter(|answer| is_ours(answer));
    ours.map(|(id, _)| *id).collect()
}

/// Returns every row that the takeover frees or parks.
async fn freed(bench: &Bench) -> BTreeSet<JobId> {
    let owned = "SELECT id, owner FROM jobs WHERE state = 'running'";
    let before = bench.database.rows(owned).await;
    loop {
        let freed = bench.writer.store().free_dead(bench.replica).await;
        let freed = freed.expect("Postgres answers");
        if freed.due.is_empty() && freed.parked == 0 {
            break;
        }
    }
    let after = bench.database.rows(owned).await;
    let gone = before.iter().filter(|row| !after.contains(row));
    gone.map(|row| row[0].parse().expect("an id")).collect()
}

#[tokio::test]
async fn where_a_job_stands_is_what_the_waker_the_claim_and_the_takeover_do_with_it() {
    let seed = config::test_seed().unwrap_or_else(rand::random);
    eprintln!("DISPATCH_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (bench, mut connections) = (Bench::new().await, JoinSet::new());
    let alive = begun(&bench.database, &mut connections).await;
    let insert = |until: &str, ended: &str| {
        format!(
            "INSERT INTO replicas (version, host, pid, alive_until, ended_at, lanes)
             VALUES ('1', 'h', 1, now() + interval '{until}', {ended}, '{{}}') RETURNING id"
        )
    };
    let expired = bench.database.one(&insert("-1 minute", "NULL")).await;
    let ended = bench.database.one(&insert("1 hour", "now()")).await;
    let never_was = "1000000".to_owned();
    let owners: Vec<i64> = [bench.replica, alive.replica]
        .map(|ReplicaId(id)| id)
        .into_iter()
        .chain([expired, ended, never_was].map(|id| id.parse().expect("an id")))
        .collect();
    for number in 0..ROWS {
        plant(&bench, &mut random, &owners, number).await;
    }
    let planted = planted(&bench).await;
    let of = |wanted: &[Standing]| -> BTreeSet<JobId> {
        let wanted = planted.iter().filter(|(_, one)| wanted.contains(one));
        wanted.map(|(id, _)| *id).collect()
    };
    let states = JobState::ALL.len();
    assert!(
        planted
            .values()
            .map(|one| *one as usize)
            .collect::<BTreeSet<_>>()
            .len()
            >= states,
        "the rows are of every kind"
    );
    assert_eq!(woken(&bench).await, of(&[Standing::DueNotWoken]), "woken");
    assert_eq!(
        claimed(&bench, planted.keys().copied()).await,
        of(&[Standing::DueWoken, Standing::DueNotWoken]),
        "claimed"
    );
    assert_eq!(freed(&bench).await, of(&[Standing::OwnerDead]), "freed");
    let running = of(&[Standing::Running]);
    assert!(!running.is_empty(), "some run on live replicas");
}
