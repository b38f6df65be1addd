//! Tests of a single destination.

use proptest::prelude::*;

use super::*;
use crate::providers::governor::Rates;

const RULES: LaneRules = LaneRules {
    capacity: 16,
    base: 2,
    first: 2,
    alone: 8,
};
const LANE: CallLane = CallLane::Messaging;
/// The most permits of one destination while no other is active.
const MOST: usize = 8;
const QUICK: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_secs(5);

fn destination(rate: &str, now: Instant) -> Destination {
    Destination::new(
        Rates::parse(&format!("x={rate}")).unwrap().of("x"),
        &PerLane::new(|_| RULES),
        Duration::ZERO,
        now,
    )
}

fn ask(
    destination: &mut Destination,
    since: Instant,
    now: Instant,
    active_count: usize,
) -> Result<(), NotNow> {
    destination.ask(Asking {
        lane: LANE,
        active_count: ActiveCount {
            all: active_count,
            own: 1,
        },
        since,
        now,
    })
}

fn window(destination: &Destination) -> usize {
    destination.windows[LANE].size()
}

fn go(destination: &mut Destination, now: Instant) -> Ticket {
    assert_eq!(ask(destination, now, now, 1), Ok(()));
    destination.let_out(LANE, now)
}

#[test]
fn a_hanging_destination_keeps_its_initial_permits_and_no_more() {
    let start = Instant::now();
    let mut hanging = destination("1000/1", start);
    let tickets = [go(&mut hanging, start), go(&mut hanging, start)];
    let wait = start + PATIENCE;
    assert_eq!(
        ask(&mut hanging, start, start, 1),
        Err(NotNow::Wait {
            until: wait,
            why: Why::Busy
        }),
        "a permit may become free"
    );
    assert_eq!(
        ask(&mut hanging, start, wait, 1),
        Err(NotNow::Hold(HoldRequest {
            why: Why::Busy,
            length: BUSY_HOLD
        }))
    );
    let later = start + SLOW;
    assert_eq!(
        ask(&mut hanging, later, later, 1),
        Err(NotNow::Hold(HoldRequest {
            why: Why::Hanging,
            length: HANGING_HOLD
        })),
        "at once"
    );
    assert_eq!(hanging.settle(tickets[0], CallResult::Failed, later), None);
    go(&mut hanging, later);
    assert_eq!(
        ask(&mut hanging, later, later, 1),
        Err(NotNow::Wait {
            until: later + PATIENCE,
            why: Why::Busy
        }),
        "its other call is not overdue"
    );
}

#[test]
fn a_destination_that_answers_gets_more_permits_on_demand_and_loses_them_when_it_fails() {
    let mut now = Instant::now();
    let mut quick = destination("100000/1", now);
    for _ in 0..20 {
        let mut tickets = Vec::new();
        while ask(&mut quick, now, now, 1) == Ok(()) {
            tickets.push(quick.let_out(LANE, now));
        }
        now += QUICK;
        tickets
            .into_iter()
            .for_each(|ticket| assert_eq!(quick.settle(ticket, CallResult::Done, now), None));
    }
    assert_eq!(window(&quick).min(RULES.most(1)), MOST);
    assert_eq!(ask(&mut quick, now, now, 3), Ok(()));
    assert_eq!(window(&quick), RULES.most(3), "others have come");
    let failing = go(&mut quick, now);
    assert_eq!(quick.settle(failing, CallResult::Failed, now + SLOW), None);
    assert_eq!(window(&quick), RULES.base);
    let alone = go(&mut quick, now);
    assert_eq!(quick.settle(alone, CallResult::Done, now + QUICK), None);
    assert_eq!(
        window(&quick),
        RULES.base,
        "no call waited for another permit"
    );
}

#[test]
fn a_call_waits_for_a_permit_while_permits_become_free() {
    let start = Instant::now();
    let mut busy = destination("1000/1", start);
    let first = go(&mut busy, start);
    go(&mut busy, start);
    let freed = start + Duration::from_millis(200);
    assert_eq!(busy.settle(first, CallResult::Done, freed), None);
    go(&mut busy, freed);
    assert_eq!(
        ask(&mut busy, start, freed, 1),
        Err(NotNow::Wait {
            until: freed + PATIENCE,
            why: Why::Busy
        })
    );
}

#[test]
fn a_missing_token_causes_a_short_wait_or_a_hold_that_ends_with_some_tokens_available() {
    let start = Instant::now();
    let mut slow = destination("5/5", start);
    for _ in 0..5 {
        let ticket = go(&mut slow, start);
        slow.settle(ticket, CallResult::Done, start);
    }
    let hold = HoldRequest {
        why: Why::Rate,
        length: Duration::from_secs(4),
    };
    assert_eq!(ask(&mut slow, start, start, 1), Err(NotNow::Hold(hold)));
    let after = start + hold.length;
    for _ in 0..TOKENS_AFTER_HOLD {
        let ticket = go(&mut slow, after);
        slow.settle(ticket, CallResult::Done, after);
    }
    let mut brisk = destination("10/1", start);
    for _ in 0..10 {
        let ticket = go(&mut brisk, start);
        brisk.settle(ticket, CallResult::Done, start);
    }
    assert!(
        matches!(ask(&mut brisk, start, start, 1), Err(NotNow::Wait { until, .. }) if until <= start + PATIENCE)
    );
}

#[test]
fn a_hold_lasts_as_long_as_retry_after_states_up_to_an_hour() {
    let now = Instant::now();
    let mut asking = destination("1000/1", now);
    for (asked, held) in [
        (Some(3), Some(3)),
        (None, Some(5)),
        (Some(9000), Some(3600)),
    ] {
        let ticket = go(&mut asking, now);
        let retry_after = asked.map(Duration::from_secs);
        let request = asking.settle(ticket, CallResult::RateLimited { retry_after }, now);
        assert_eq!(
            request.map(|request| (request.why, request.length.as_secs())),
            held.map(|held| (Why::RateLimited, held))
        );
    }
}

#[test]
fn five_failures_open_the_circuit_and_refusals_do_not() {
    let now = Instant::now();
    let mut failing = destination("1000/1", now);
    let mut settle = |outcome| {
        let ticket = go(&mut failing, now);
        failing.settle(ticket, outcome, now)
    };
    for _ in 0..20 {
        assert_eq!(settle(CallResult::Refused), None);
    }
    for _ in 1..FAILURES {
        assert_eq!(settle(CallResult::Failed), None);
    }
    let request = settle(CallResult::Failed).expect("the circuit opens");
    assert_eq!(
        (request.why, request.length),
        (Why::Failing, Duration::from_secs(5))
    );
    assert!(matches!(
        ask(&mut failing, now, now, 1),
        Err(NotNow::Hold(HoldRequest {
            why: Why::Failing,
            ..
        }))
    ));
    let after = now + request.length;
    go(&mut failing, after);
    assert_eq!(
        ask(&mut failing, after, after, 1),
        Err(NotNow::Wait {
            until: after + PATIENCE,
            why: Why::Probing
        }),
        "one probe"
    );
}

#[test]
fn a_dropped_call_releases_its_permit_and_counts_as_failed_only_if_it_was_overdue() {
    let now = Instant::now();
    let mut dropped = destination("1000/1", now);
    for _ in 0..2 * FAILURES {
        let ticket = go(&mut dropped, now);
        dropped.drop_call(ticket, now + QUICK);
    }
    assert!(dropped.is_closed() && dropped.idle_since().is_some());
    for _ in 0..FAILURES {
        let ticket = go(&mut dropped, now);
        dropped.drop_call(ticket, now + SLOW);
    }
    assert!(!dropped.is_closed() && dropped.idle_since().is_none());
}

#[test]
fn the_speed_follows_the_last_call_and_an_overdue_call_in_flight_counts_at_once() {
    let now = Instant::now();
    let mut one = destination("1000/1", now);
    assert_eq!(one.speed(now), Speed::New);
    let (quick, hanging) = (go(&mut one, now), go(&mut one, now));
    one.settle(quick, CallResult::Failed, now + QUICK);
    assert_eq!(
        [one.speed(now + QUICK), one.speed(now + SLOW)],
        [Speed::Quick, Speed::Slow]
    );
    one.drop_call(hanging, now + QUICK);
    assert_eq!(
        one.speed(now + SLOW),
        Speed::Quick,
        "a call dropped before it is overdue does not count"
    );
    let failing = go(&mut one, now);
    one.settle(failing, CallResult::Failed, now + SLOW);
    assert_eq!(one.speed(now + SLOW), Speed::Slow);
    let slow = go(&mut one, now);
    one.settle(slow, CallResult::Done, now + CALM);
    assert_eq!(one.speed(now + CALM), Speed::Quick, "it answers");
    go(&mut one, now);
    assert_eq!(
        [one.speed(now + CALM), one.speed(now + 2 * CALM)],
        [Speed::Quick, Speed::Slow]
    );
}

#[test]
fn a_destination_that_answers_slowly_is_not_hanging_and_gets_more_permits() {
    let start = Instant::now();
    let mut calm = destination("1000/1", start);
    let tickets = [go(&mut calm, start), go(&mut calm, start)];
    assert!(
        ask(&mut calm, start, start, 1).is_err(),
        "a third permit is requested"
    );
    let now = start + CALM;
    tickets
        .into_iter()
        .for_each(|ticket| assert_eq!(calm.settle(ticket, CallResult::Done, now), None));
    assert_eq!(window(&calm), RULES.base + 1);
    let _under_way = [go(&mut calm, now), go(&mut calm, now), go(&mut calm, now)];
    let later = now + CALM;
    let busy = HoldRequest {
        why: Why::Busy,
        length: BUSY_HOLD,
    };
    assert_eq!(
        ask(&mut calm, later - PATIENCE, later, 1),
        Err(NotNow::Hold(busy)),
        "its calls may take as long as its answers did"
    );
    let hanging = HoldRequest {
        why: Why::Hanging,
        length: HANGING_HOLD,
    };
    assert_eq!(
        ask(&mut calm, later, now + 2 * CALM, 1),
        Err(NotNow::Hold(hanging))
    );
}

#[test]
fn each_lane_has_permits_of_its_own_and_a_failure_resets_the_limits_of_all_lanes() {
    let now = Instant::now();
    let lanes = [CallLane::Dispatch, CallLane::AssigneeSync];
    let rate = Rates::parse("x=1000/1").unwrap().of("x");
    let rules = |lane| LaneRules::of_host(if lane == CallLane::Dispatch { 32 } else { 16 });
    let mut host = Destination::new(rate, &PerLane::new(rules), CALM, now);
    let fill = |host: &mut Destination, lane| {
        let asking = Asking {
            lane,
            active_count: ActiveCount { all: 1, own: 1 },
            since: now,
            now,
        };
        std::iter::from_fn(|| host.ask(asking).ok().map(|()| host.let_out(lane, now)))
            .collect::<Vec<_>>()
    };
    let calls = lanes.map(|lane| fill(&mut host, lane));
    assert_eq!(calls.each_ref().map(Vec::len), [24, 12]);
    host.settle(calls[0][0], CallResult::Failed, now + SLOW);
    for ticket in calls.concat().into_iter().skip(1) {
        host.drop_call(ticket, now);
    }
    assert_eq!(lanes.map(|lane| fill(&mut host, lane).len()), [4, 2]);
}

proptest! {
    /// For any sequence of calls and results, at most the lane's limit is in flight, and every
    /// permit is released.
    #[test]
    fn permits_are_never_exceeded_and_never_lost(steps in proptest::collection::vec((0..6u8, 0..3000u64), 1..200)) {
        let mut now = Instant::now();
        let mut destination = destination("50/1", now);
        let mut under_way = Vec::new();
        for (what, millis) in steps {
            now += Duration::from_millis(millis);
            if ask(&mut destination, now, now, 1) == Ok(()) {
                under_way.push(destination.let_out(LANE, now));
            }
            prop_assert!(destination.under_way.len() <= MOST);
            prop_assert_eq!(destination.under_way.len(), under_way.len());
            let Some(ticket) = under_way.first().copied().filter(|_| what < 5) else { continue };
            under_way.remove(0);
            let outcome = match what {
                0 => CallResult::Done,
                1 => CallResult::Failed,
                2 => CallResult::Refused,
                3 => CallResult::RateLimited { retry_after: None },
                _ => { destination.drop_call(ticket, now); continue }
            };
            destination.settle(ticket, outcome, now);
        }
    }
}
