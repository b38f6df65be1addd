//! The number of groups in flight follows the duration of commits.

use std::time::Duration;

use dispatch_worker::job::JobId;
use dispatch_worker::store::{Claim, WRITERS};
use futures_util::future::{join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{Bench, first_done, ours, run};
use crate::support::{gate, wait_for};

/// Counts the commits that are blocked at the gate.
const IN_FLIGHT: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()";

/// Inserts jobs, each in its own group, and returns their claims.
async fn made_one_by_one(bench: &Bench, number: usize) -> Vec<Claim> {
    let mut claims = Vec::with_capacity(number);
    for n in 0..number {
        let job = bench.job(&format!("{n}"));
        // A second statement in the group makes the writer time the commit alone.
        let no_row = bench.writer.claim(bench.replica, JobId::fresh());
        let (intaken, _) = bench.at_once(join(bench.writer.intake(&job), no_row)).await;
        claims.push(ours(intaken));
    }
    claims
}

/// Commits jobs one call after another while the gate blocks all commits, so that `in_flight`
/// groups are in flight and later calls wait. Then opens the gate; returns the number of
/// transactions and of checkpoints.
async fn written_in_a_jam(bench: &Bench, claims: &[Claim], in_flight: usize) -> String {
    gate::shut(&bench.database, "first").await;
    let commit = first_done();
    let end = CancellationToken::new();
    let jam = async {
        let mut calls = FuturesUnordered::new();
        for (before, claim) in claims.iter().enumerate() {
            calls.push(bench.writer.commit(run(claim), &commit));
            let expected = in_flight.min(before + 1).to_string();
            let all_blocked =
                wait_for("commits at the gate", Duration::from_secs(10), async || {
                    let seen = bench.database.one(IN_FLIGHT).await;
                    if seen == expected {
                        Ok(())
                    } else {
                        Err(format!("{seen} of {expected}"))
                    }
                });
            tokio::select! {
                biased;
                answer = calls.next() => panic!("the gate is shut: {answer:?}"),
                () = all_blocked => {}
            }
        }
        gate::open(&bench.database).await;
        let answers: Vec<_> = calls.collect().await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        end.cancel();
    };
    // Polled after each call, so that every group that may be in flight is in flight before the
    // next call.
    let writers = join_all((0..WRITERS).map(|_| bench.writer.write_groups(end.clone())));
    let ((), _) = tokio::join!(biased; jam, writers);
    bench
        .database
        .one("SELECT count(DISTINCT xmin::text) || ' of ' || count(*) FROM checkpoints")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_are_in_flight_while_commits_are_fast_and_later_calls_form_one_group() {
    let bench = Bench::new().await;
    // Makes commits of new connections fast on any disk.
    bench
        .database
        .rows(&format!(
            "ALTER DATABASE {} SET synchronous_commit = off",
            bench.database.name
        ))
        .await;
    // The fastest commit counts, so a busy machine would have to delay each of these.
    let claims = made_one_by_one(&bench, 64).await;
    assert_eq!(written_in_a_jam(&bench, &claims[..4], 2).await, "3 of 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_writer_has_a_group_in_flight_after_slow_commits() {
    let bench = Bench::new().await;
    // Slow enough for the maximum number of groups in flight.
    gate::slow(&bench.database, "jobs", Duration::from_millis(10)).await;
    let claims = made_one_by_one(&bench, WRITERS + 2).await;
    let written = written_in_a_jam(&bench, &claims, WRITERS).await;
    assert_eq!(written, format!("{} of {}", WRITERS + 1, WRITERS + 2));
}
