//! The ledger of effects: the claims that may store an intent, the record of earlier calls, the
//! deadline of a call.

use std::time::{Duration, Instant};

use dispatch_worker::engine::{Effect, Intent, UnknownPolicy};
use dispatch_worker::job::EffectClass;
use dispatch_worker::store::{Claim, IntentOutcome};
use futures_util::future::join;
use serde_json::json;

use crate::store::group_commit::Bench;
use crate::support::gate;

/// The timeout of the calls here.
const CALL: Duration = Duration::from_secs(20);

/// Returns the intent of a call that the provider does not dedupe.
fn blind() -> Intent {
    Intent {
        target: "somebody".to_owned(),
        class: EffectClass::AtLeastOnce,
        keyed_for: None,
        resource: None,
        detail: json!({}),
        unknown: UnknownPolicy::Resend,
        timeout: CALL,
    }
}

/// Returns the intent of a call that only one job at a time may make.
fn exclusive(resource: &str) -> Intent {
    Intent {
        class: EffectClass::CompareAndSet,
        resource: Some(resource.to_owned()),
        ..blind()
    }
}

async fn stored_of(bench: &Bench, claim: &Claim, intent: &Intent) -> IntentOutcome {
    bench
        .writer
        .store()
        .store_intent(&claim.fence, &claim.job, intent)
        .await
        .expect("Postgres answers")
}

/// Stores the intent of an at-least-once call for a claim's stage.
async fn stored(bench: &Bench, claim: &Claim) -> IntentOutcome {
    stored_of(bench, claim, &blind()).await
}

/// Like [`stored`], but panics unless the ledger allows the call.
async fn may_call(bench: &Bench, claim: &Claim) -> Effect {
    match stored(bench, claim).await {
        IntentOutcome::Go(effect) => effect,
        other => panic!("the call is not allowed: {other:?}"),
    }
}

/// Asserts that a change of the job's row after the claim fences the claim's intent: nothing is
/// stored.
async fn is_fenced_by(change: &str) {
    let bench = Bench::new().await;
    let claim = bench.in_hand("one").await;
    bench.database.rows(change).await;
    let outcome = stored(&bench, &claim).await;
    assert!(matches!(outcome, IntentOutcome::Fenced), "{outcome:?}");
    assert_eq!(
        bench.database.one("SELECT count(*) FROM effects").await,
        "0"
    );
}

#[tokio::test]
async fn a_claim_of_an_older_epoch_stores_no_intent_even_if_its_replica_owns_the_job() {
    is_fenced_by("UPDATE jobs SET epoch = epoch + 1").await;
}

#[tokio::test]
async fn a_replica_that_no_longer_owns_the_job_stores_no_intent_even_in_the_same_epoch() {
    is_fenced_by("UPDATE jobs SET owner = owner + 1").await;
}

#[tokio::test]
async fn an_at_least_once_call_of_a_dead_owner_is_recorded_as_unknown_before_the_next_owner_calls()
{
    let bench = Bench::new().await;
    let first = bench.in_hand("one").await;
    assert!(
        !may_call(&bench, &first).await.repeated,
        "this is the first call"
    );
    let taken_over = "UPDATE jobs SET state = 'ready', owner = NULL, epoch = epoch + 1";
    let ledger = async || {
        bench
            .database
            .rows("SELECT state, unknowns, maybe_done, epoch FROM effects")
            .await
            .concat()
    };
    assert_eq!(ledger().await, ["in_flight", "0", "f", "1"]);

    bench.database.rows(taken_over).await;
    let second = bench.claim(first.job.id).await;
    let outcome = stored(&bench, &second).await;
    assert!(
        matches!(outcome, IntentOutcome::NotYet(left) if left <= CALL),
        "the first call may still run: {outcome:?}"
    );
    let over = "UPDATE effects SET deadline_at = now() - interval '1 second'";
    bench.database.rows(over).await;
    assert!(may_call(&bench, &second).await.repeated);
    assert_eq!(
        ledger().await,
        ["in_flight", "1", "t", "3"],
        "recorded before the second call"
    );

    // The second call was refused; the first one may still have gone through.
    let key = may_call(&bench, &second).await.key;
    bench
        .writer
        .store()
        .effect_refused(&second.fence, &key)
        .await
        .unwrap();
    let before: i32 = bench
        .database
        .one("SELECT unknowns FROM effects")
        .await
        .parse()
        .unwrap();
    assert_eq!(
        bench
            .database
            .one("SELECT state || ' ' || maybe_done FROM effects")
            .await,
        "failed true"
    );
    bench.database.rows(taken_over).await;
    let third = bench.claim(first.job.id).await;
    assert!(may_call(&bench, &third).await.repeated);
    assert_eq!(
        ledger().await,
        ["in_flight", &(before + 1).to_string(), "t", "5"]
    );
}

#[tokio::test]
async fn a_refusal_that_arrives_late_does_not_settle_the_intent_of_a_later_claim() {
    let bench = Bench::new().await;
    let first = bench.in_hand("one").await;
    let key = may_call(&bench, &first).await.key;
    bench
        .database
        .rows("UPDATE effects SET epoch = epoch + 2")
        .await;
    bench
        .writer
        .store()
        .effect_refused(&first.fence, &key)
        .await
        .unwrap();
    assert_eq!(
        bench.database.one("SELECT state FROM effects").await,
        "in_flight"
    );
}

#[tokio::test]
async fn the_deadline_of_a_call_does_not_move_when_its_intent_takes_long_to_store() {
    let slow = Duration::from_secs(1);
    let bench = Bench::new().await;
    gate::slow(&bench.database, "effects", slow).await;
    let claim = bench.in_hand("one").await;
    let asked = Instant::now();
    let effect = may_call(&bench, &claim).await;
    assert!(asked.elapsed() >= slow, "the commit was slow");
    // Postgres' clock is read first: a delay before the monotonic clock is read can only shorten
    // the time left by the latter.
    let left = bench
        .database
        .one("SELECT extract(epoch FROM deadline_at - clock_timestamp())::float8 FROM effects")
        .await;
    let left = Duration::from_secs_f64(left.parse().expect("a positive number of seconds"));
    let ours = effect.deadline.saturating_duration_since(Instant::now());
    assert!(
        ours <= left,
        "{ours:?} left by the monotonic clock, {left:?} by the row"
    );
}

#[tokio::test]
async fn two_jobs_do_not_call_for_one_resource_at_the_same_time() {
    let bench = Bench::new().await;
    let [one, two] = [bench.in_hand("one").await, bench.in_hand("two").await];
    let item = exclusive("work_item:1:17");
    assert!(matches!(
        stored_of(&bench, &one, &item).await,
        IntentOutcome::Go(_)
    ));
    let busy = stored_of(&bench, &two, &item).await;
    assert!(matches!(busy, IntentOutcome::NotYet(_)), "{busy:?}");
    assert!(
        matches!(
            stored_of(&bench, &two, &exclusive("work_item:1:18")).await,
            IntentOutcome::Go(_)
        ),
        "another resource"
    );
    let IntentOutcome::Go(again) = stored_of(&bench, &one, &item).await else {
        panic!("a job's own effect does not block it")
    };
    bench
        .writer
        .store()
        .effect_refused(&one.fence, &again.key)
        .await
        .unwrap();
    assert!(
        matches!(stored_of(&bench, &two, &item).await, IntentOutcome::Go(_)),
        "the call is over"
    );
}

#[tokio::test]
async fn one_of_two_concurrent_intents_for_one_resource_waits() {
    let bench = Bench::new().await;
    let [one, two] = [bench.in_hand("one").await, bench.in_hand("two").await];
    gate::slow(&bench.database, "effects", Duration::from_secs(1)).await;
    let item = exclusive("work_item:1:17");
    let outcomes: [IntentOutcome; 2] = join(
        stored_of(&bench, &one, &item),
        stored_of(&bench, &two, &item),
    )
    .await
    .into();
    let go = outcomes
        .iter()
        .filter(|one| matches!(one, IntentOutcome::Go(_)))
        .count();
    assert_eq!(go, 1, "{outcomes:?}");
}

#[tokio::test]
async fn the_window_of_a_keyed_effect_begins_with_its_first_call_that_may_have_gone_through() {
    let bench = Bench::new().await;
    let claim = bench.in_hand("one").await;
    let keyed = Intent {
        class: EffectClass::Keyed,
        keyed_for: Some(Duration::from_secs(120)),
        ..blind()
    };
    let class_after = async |ledger: &str| {
        bench
            .database
            .rows(&format!(
                "UPDATE effects SET {ledger}, first_intent_at = now() - interval '5 minutes'"
            ))
            .await;
        match stored_of(&bench, &claim, &keyed).await {
            IntentOutcome::Go(effect) => effect.class,
            other => panic!("the call is not allowed: {other:?}"),
        }
    };
    let is_old = async || {
        bench
            .database
            .one("SELECT first_intent_at < now() - interval '4 minutes' FROM effects")
            .await
    };
    assert!(
        matches!(stored_of(&bench, &claim, &keyed).await, IntentOutcome::Go(first) if first.class == EffectClass::Keyed)
    );
    assert_eq!(
        class_after("state = 'failed'").await,
        EffectClass::Keyed,
        "the first call had no effect"
    );
    assert_eq!(is_old().await, "f");
    assert_eq!(
        class_after("state = 'unknown'").await,
        EffectClass::AtLeastOnce,
        "the provider no longer dedupes by the key"
    );
    assert_eq!(is_old().await, "t");
}
