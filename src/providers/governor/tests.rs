//! Tests of the governor with a store of holds in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;

use super::destination::BUSY_HOLD;
use super::destination_states::DESTINATIONS;
use super::hold_cache::FRESH;
use super::*;
use crate::fault::Certainty;

/// A store of holds in memory that counts its reads.
#[derive(Default)]
struct Kept {
    live: Mutex<Vec<(LiveHold, Instant)>>,
    reads: AtomicUsize,
    is_unavailable: Mutex<bool>,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct Unavailable;

impl Fault for Unavailable {
    fn code(&self) -> &'static str {
        "ill"
    }

    fn class(&self) -> Class {
        Class::Infrastructure
    }

    fn hint(&self) -> String {
        String::new()
    }
}

impl Holds for Kept {
    fn place<'a>(&'a self, hold: NewHold<'a>) -> BoxFuture<'a, Result<Duration, StageFault>> {
        async move {
            if *locked(&self.is_unavailable) {
                return Err(Unavailable.into());
            }
            let (scope, reason) = (hold.scope.to_owned(), hold.reason.to_owned());
            let live = LiveHold {
                scope,
                is_circuit: hold.is_circuit,
                reason,
                left: hold.length,
            };
            locked(&self.live).push((live, Instant::now() + hold.length));
            Ok(hold.length)
        }
        .boxed()
    }

    fn live(&self) -> BoxFuture<'_, Result<Vec<LiveHold>, StageFault>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let in_force = |(hold, until): &(LiveHold, Instant)| {
            (*until > now).then(|| LiveHold {
                left: *until - now,
                ..hold.clone()
            })
        };
        let live = locked(&self.live).iter().filter_map(in_force).collect();
        std::future::ready(if *locked(&self.is_unavailable) {
            Err(Unavailable.into())
        } else {
            Ok(live)
        })
        .boxed()
    }
}

/// Returns a governor with its own store of holds.
pub(crate) fn alone() -> Arc<Governor> {
    Arc::new(sharing(&Arc::default()))
}

fn sharing(kept: &Arc<Kept>) -> Governor {
    Governor::new(
        Rates::parse("").unwrap(),
        Lanes::all(16),
        Arc::<Kept>::clone(kept),
    )
}

fn scope(id: i64) -> Scope {
    Scope::destination("acme", "webhook", id)
}

async fn is_held(governor: &Governor, scope: &Scope) -> bool {
    matches!(governor.look(scope).await, Err(GovernorFault::Held { .. }))
}

async fn settle(governor: &Governor, scope: &Scope, outcome: CallResult) {
    governor
        .admit(scope)
        .await
        .unwrap_or_else(|fault| panic!("{fault}"))
        .settle(outcome)
        .await;
}

fn patience(millis: u64) -> CallResult {
    CallResult::RateLimited {
        retry_after: Some(Duration::from_millis(millis)),
    }
}

/// Waits until a destination is no longer held, for two seconds at most.
async fn until_free(governor: &Governor, scope: &Scope) {
    let free = async {
        while is_held(governor, scope).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), free)
        .await
        .expect("the hold ends");
}

#[tokio::test]
async fn a_429_holds_its_destination_for_every_replica_and_no_other_destination() {
    let kept = Arc::default();
    let (one, other) = (sharing(&kept), sharing(&kept));
    let began = Instant::now();
    settle(&one, &scope(1), patience(300)).await;
    let fault = one.admit(&scope(1)).await.err().expect("it is held");
    let Class::Wait(on) = fault.class() else {
        panic!("{fault}")
    };
    assert_eq!(
        (on.reason.word(), on.key.as_str(), fault.certainty()),
        ("hold", "hold:acme|webhook|1", Certainty::NotDone)
    );
    assert_eq!(
        fault.to_string(),
        "acme's webhook (destination 1) answered 429 and is held"
    );
    other.refresh().await.unwrap();
    assert!(is_held(&other, &scope(1)).await && !is_held(&other, &scope(2)).await);
    until_free(&one, &scope(1)).await;
    until_free(&other, &scope(1)).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_released_hold_stops_no_call_and_calls_without_a_hold_read_no_store() {
    let kept: Arc<Kept> = Arc::default();
    let governor = sharing(&kept);
    settle(&governor, &scope(1), patience(3_600_000)).await;
    assert!(is_held(&governor, &scope(1)).await);
    locked(&kept.live).clear();
    until_free(&governor, &scope(1)).await;
    let reads = kept.reads.load(Ordering::Relaxed);
    let began = Instant::now();
    while began.elapsed() < 2 * FRESH {
        settle(&governor, &scope(1), CallResult::Refused).await;
        settle(&governor, &scope(2), CallResult::Done).await;
    }
    assert_eq!(kept.reads.load(Ordering::Relaxed), reads);
}

#[tokio::test]
async fn a_circuit_that_another_replica_opened_is_probed_with_one_call() {
    let kept: Arc<Kept> = Arc::default();
    let (one, other) = (sharing(&kept), sharing(&kept));
    for _ in 0..5 {
        settle(&one, &scope(1), CallResult::Failed).await;
    }
    other.refresh().await.unwrap();
    assert!(is_held(&one, &scope(1)).await && is_held(&other, &scope(1)).await);
    // The hold is released by hand, before its five seconds are over.
    locked(&kept.live).clear();
    other.refresh().await.unwrap();
    let here = scope(1);
    let probe = other
        .admit(&here)
        .await
        .unwrap_or_else(|fault| panic!("{fault}"));
    assert!(
        is_held(&other, &here).await,
        "other calls wait for the probe"
    );
    probe.settle(CallResult::Done).await;
    until_free(&other, &here).await;
}

#[tokio::test]
async fn a_call_to_a_hanging_destination_waits_briefly_and_calls_to_others_do_not_wait() {
    let governor = sharing(&Arc::default());
    let hanging = scope(1);
    let _calls = [
        governor.admit(&hanging).await.ok(),
        governor.admit(&hanging).await.ok(),
    ];
    let began = Instant::now();
    assert!(is_held(&governor, &hanging).await);
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "a permit might have become free"
    );
    let began = Instant::now();
    assert!(is_held(&governor, &hanging).await);
    settle(&governor, &scope(2), CallResult::Done).await;
    assert!(
        began.elapsed() < Duration::from_millis(200),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_released_permit_goes_at_once_to_a_call_that_waits() {
    let governor = sharing(&Arc::default());
    let busy = scope(1);
    let first = governor.admit(&busy).await.expect("a permit is free");
    let _second = governor.admit(&busy).await.expect("a permit is free");
    // The third one asks first.
    let (third, ()) = tokio::join!(biased; governor.admit(&busy), first.settle(CallResult::Done));
    assert!(third.is_ok());
}

/// Returns a destination of an organization that is sent to by `bot`.
fn channel(organization: &str, id: i64, bot: &str) -> Scope {
    Scope::destination(organization, "discord", id).limited_with(Some(bot.to_owned()))
}

#[tokio::test]
async fn a_shared_limit_holds_every_destination_of_its_credential_for_every_replica() {
    let kept = Arc::default();
    let (one, other) = (sharing(&kept), sharing(&kept));
    let retry_after = Some(Duration::from_millis(300));
    settle(
        &one,
        &channel("acme", 1, "bot-1"),
        CallResult::AllRateLimited { retry_after },
    )
    .await;
    other.refresh().await.unwrap();
    for governor in [&one, &other] {
        for held in [channel("acme", 1, "bot-1"), channel("umbrella", 2, "bot-1")] {
            let fault = governor.look(&held).await.expect_err("it is held");
            let Class::Wait(on) = fault.class() else {
                panic!("{fault}")
            };
            assert_eq!(on.key, "hold:*|discord|bot-1");
            assert_eq!(
                fault.to_string(),
                "Discord (bot-1) answered 429 for everything that is sent this way and is held"
            );
            let GovernorFault::Held {
                left, for_permit, ..
            } = fault
            else {
                panic!("{fault}")
            };
            assert!(
                !left.is_zero() && left <= Duration::from_millis(300) && !for_permit,
                "{left:?}"
            );
        }
        assert!(!is_held(governor, &channel("acme", 3, "bot-2")).await);
    }
    until_free(&one, &channel("umbrella", 2, "bot-1")).await;
}

#[tokio::test]
async fn a_destination_without_a_shared_limit_is_held_alone_even_if_the_answer_limits_all() {
    let governor = sharing(&Arc::default());
    let retry_after = Some(Duration::from_secs(1));
    settle(
        &governor,
        &scope(1),
        CallResult::AllRateLimited { retry_after },
    )
    .await;
    assert!(is_held(&governor, &scope(1)).await && !is_held(&governor, &scope(2)).await);
}

#[tokio::test]
async fn a_rate_limit_without_a_length_is_longer_each_time_also_if_it_is_shared() {
    let kept: Arc<Kept> = Arc::default();
    let governor = sharing(&kept);
    let refused = async |scope: &Scope, outcome| {
        settle(&governor, scope, outcome).await;
        let length = locked(&kept.live).drain(..).next().expect("a hold").0.left;
        governor.refresh().await.unwrap();
        length.as_secs()
    };
    let (alone, all) = (
        CallResult::RateLimited { retry_after: None },
        CallResult::AllRateLimited { retry_after: None },
    );
    assert_eq!(
        [
            refused(&scope(1), alone).await,
            refused(&scope(1), alone).await,
            refused(&scope(2), alone).await
        ],
        [5, 10, 5]
    );
    let channels = [
        channel("acme", 1, "bot-1"),
        channel("umbrella", 2, "bot-1"),
        channel("umbrella", 3, "bot-1"),
    ];
    let mut lengths = Vec::new();
    for channel in &channels {
        lengths.push(refused(channel, all).await);
    }
    assert_eq!(lengths, [5, 10, 20]);
    settle(&governor, &channels[1], CallResult::Refused).await;
    assert_eq!(
        refused(&channels[0], all).await,
        40,
        "a refusal does not count as success"
    );
    settle(&governor, &channels[1], CallResult::Done).await;
    assert_eq!(refused(&channels[0], all).await, 5);
}

#[tokio::test]
async fn a_call_that_finds_a_permit_ignores_the_hold_of_permits_and_each_replica_has_its_own() {
    let kept = Arc::default();
    let (governor, other) = (sharing(&kept), sharing(&kept));
    let busy = scope(1);
    let _first = governor.admit(&busy).await.expect("a permit is free");
    let second = governor.admit(&busy).await.expect("a permit is free");
    let fault = governor
        .look(&busy)
        .await
        .expect_err("every permit is taken");
    let Class::Wait(on) = fault.class() else {
        panic!("{fault}")
    };
    assert_eq!(on.key, "hold:acme|webhook|1#seats");
    let GovernorFault::Held {
        left,
        for_permit: true,
        ..
    } = fault
    else {
        panic!("{fault}")
    };
    assert!(left > BUSY_HOLD / 2 && left <= BUSY_HOLD, "{left:?}");
    other.refresh().await.unwrap();
    assert!(!is_held(&other, &busy).await);
    second.settle(CallResult::Done).await;
    assert!(!is_held(&governor, &busy).await);
}

#[tokio::test]
async fn no_job_waits_for_a_hold_that_could_not_be_stored() {
    let kept: Arc<Kept> = Arc::default();
    let governor = sharing(&kept);
    let hanging = scope(1);
    let _calls = [
        governor.admit(&hanging).await.ok(),
        governor.admit(&hanging).await.ok(),
    ];
    *locked(&kept.is_unavailable) = true;
    let fault = governor
        .look(&hanging)
        .await
        .expect_err("no permit is free");
    assert_eq!(
        (fault.code(), fault.class()),
        ("governor.hold_not_stored", Class::Infrastructure)
    );
}

#[tokio::test]
async fn idle_destinations_are_forgotten_when_too_many_are_known() {
    let governor = sharing(&Arc::default());
    let busy = scope(0);
    let _call = governor.admit(&busy).await.ok();
    for id in 1..=i64::try_from(DESTINATIONS).unwrap() + 10 {
        settle(&governor, &scope(id), CallResult::Done).await;
    }
    let states = locked(&governor.states.known);
    assert!(states.len() <= DESTINATIONS && states.contains_key(busy.as_str()));
}
