//! The governor over holds that live in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;

use super::copied::FRESH;
use super::places::DESTINATIONS;
use super::*;
use crate::fault::Certainty;

/// Keeps holds as Postgres would, and counts how often it is asked.
#[derive(Default)]
struct Kept {
    live: Mutex<Vec<(LiveHold, Instant)>>,
    reads: AtomicUsize,
    is_ill: Mutex<bool>,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct Ill;

impl Fault for Ill {
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
            if *locked(&self.is_ill) {
                return Err(Ill.into());
            }
            let (scope, reason) = (hold.scope.to_owned(), hold.reason.to_owned());
            let live = LiveHold { scope, is_circuit: hold.is_circuit, reason, left: hold.length };
            locked(&self.live).push((live, Instant::now() + hold.length));
            Ok(hold.length)
        }
        .boxed()
    }

    fn live(&self) -> BoxFuture<'_, Result<Vec<LiveHold>, StageFault>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let in_force =
            |(hold, until): &(LiveHold, Instant)| (*until > now).then(|| LiveHold { left: *until - now, ..hold.clone() });
        let live = locked(&self.live).iter().filter_map(in_force).collect();
        std::future::ready(if *locked(&self.is_ill) { Err(Ill.into()) } else { Ok(live) }).boxed()
    }
}

/// A governor that nobody shares holds with.
pub(crate) fn alone() -> Arc<Governor> {
    Arc::new(sharing(&Arc::default()))
}

fn sharing(kept: &Arc<Kept>) -> Governor {
    Governor::new(Rates::parse("").unwrap(), Lanes { hosts: 16, destinations: 16 }, Arc::<Kept>::clone(kept))
}

fn scope(id: i64) -> Scope {
    Scope::destination("acme", "webhook", id)
}

async fn is_held(governor: &Governor, scope: &Scope) -> bool {
    matches!(governor.look(scope).await, Err(GovernorFault::Held { .. }))
}

async fn settle(governor: &Governor, scope: &Scope, outcome: Outcome) {
    governor.admit(scope).await.unwrap_or_else(|fault| panic!("{fault}")).settle(outcome).await;
}

fn patience(millis: u64) -> Outcome {
    Outcome::RateLimited { retry_after: Some(Duration::from_millis(millis)) }
}

/// Waits until a destination is held no more, for two seconds at most.
async fn until_free(governor: &Governor, scope: &Scope) {
    let free = async {
        while is_held(governor, scope).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), free).await.expect("the hold ends");
}

#[tokio::test]
async fn a_429_holds_its_destination_for_every_replica_and_no_other() {
    let kept = Arc::default();
    let (one, other) = (sharing(&kept), sharing(&kept));
    let began = Instant::now();
    settle(&one, &scope(1), patience(300)).await;
    let fault = one.admit(&scope(1)).await.err().expect("it is held");
    let Class::Wait(on) = fault.class() else { panic!("{fault}") };
    assert_eq!((on.reason.word(), on.key.as_str(), fault.certainty()), ("hold", "hold:acme|webhook|1", Certainty::NotDone));
    assert_eq!(fault.to_string(), "acme's webhook (destination 1) answered 429 and is held");
    other.refresh().await.unwrap();
    assert!(is_held(&other, &scope(1)).await && !is_held(&other, &scope(2)).await);
    until_free(&one, &scope(1)).await;
    until_free(&other, &scope(1)).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_hold_that_was_released_holds_nobody_back_and_calls_ask_nobody() {
    let kept: Arc<Kept> = Arc::default();
    let governor = sharing(&kept);
    settle(&governor, &scope(1), patience(3_600_000)).await;
    assert!(is_held(&governor, &scope(1)).await);
    locked(&kept.live).clear();
    until_free(&governor, &scope(1)).await;
    let reads = kept.reads.load(Ordering::Relaxed);
    let began = Instant::now();
    while began.elapsed() < 2 * FRESH {
        settle(&governor, &scope(1), Outcome::Refused).await;
        settle(&governor, &scope(2), Outcome::Done).await;
    }
    assert_eq!(kept.reads.load(Ordering::Relaxed), reads);
}

#[tokio::test]
async fn a_circuit_that_opened_elsewhere_is_tried_with_one_call() {
    let kept: Arc<Kept> = Arc::default();
    let (one, other) = (sharing(&kept), sharing(&kept));
    for _ in 0..5 {
        settle(&one, &scope(1), Outcome::Failed).await;
    }
    other.refresh().await.unwrap();
    assert!(is_held(&one, &scope(1)).await && is_held(&other, &scope(1)).await);
    // By hand, before its five seconds are over.
    locked(&kept.live).clear();
    other.refresh().await.unwrap();
    let here = scope(1);
    let probe = other.admit(&here).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(is_held(&other, &here).await, "the others wait for what comes of it");
    probe.settle(Outcome::Done).await;
    until_free(&other, &here).await;
}

#[tokio::test]
async fn calls_to_a_destination_that_hangs_wait_for_a_moment_and_those_to_others_not_at_all() {
    let governor = sharing(&Arc::default());
    let hanging = scope(1);
    let _calls = [governor.admit(&hanging).await.ok(), governor.admit(&hanging).await.ok()];
    let began = Instant::now();
    assert!(is_held(&governor, &hanging).await);
    assert!(began.elapsed() >= Duration::from_millis(250), "a seat might have become free");
    let began = Instant::now();
    assert!(is_held(&governor, &hanging).await);
    settle(&governor, &scope(2), Outcome::Done).await;
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_seat_goes_to_whoever_waits_as_soon_as_it_is_free() {
    let governor = sharing(&Arc::default());
    let busy = scope(1);
    let first = governor.admit(&busy).await.expect("a seat");
    let _second = governor.admit(&busy).await.expect("a seat");
    // The third one asks first.
    let (third, ()) = tokio::join!(biased; governor.admit(&busy), first.settle(Outcome::Done));
    assert!(third.is_ok());
}

#[tokio::test]
async fn nobody_waits_for_a_hold_that_could_not_be_stored() {
    let kept: Arc<Kept> = Arc::default();
    let governor = sharing(&kept);
    let hanging = scope(1);
    let _calls = [governor.admit(&hanging).await.ok(), governor.admit(&hanging).await.ok()];
    *locked(&kept.is_ill) = true;
    let fault = governor.look(&hanging).await.expect_err("there is no seat");
    assert_eq!((fault.code(), fault.class()), ("governor.hold_not_stored", Class::Infrastructure));
}

#[tokio::test]
async fn destinations_are_forgotten_when_there_are_too_many() {
    let governor = sharing(&Arc::default());
    let busy = scope(0);
    let _call = governor.admit(&busy).await.ok();
    for id in 1..=i64::try_from(DESTINATIONS).unwrap() + 10 {
        settle(&governor, &scope(id), Outcome::Done).await;
    }
    let places = locked(&governor.places.known);
    assert!(places.len() <= DESTINATIONS && places.contains_key(busy.as_str()));
}
