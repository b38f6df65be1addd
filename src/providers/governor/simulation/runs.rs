//! Runs of the simulation.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// 20 jobs of one organization in a lane of 32 permits; and, in a lane of 16, as many as the
    /// organization may have.
    #[test]
    fn slow_answers_keep_every_job_of_an_organization_calling_and_are_never_considered_hanging(
        seed in any::<u64>(), calls in 1..6usize,
    ) {
        for (permits, jobs) in [(32, 20), (16, 12)] {
            let tenant = Tenant::of_host("acme", jobs, calls, calm(seed));
            let mut lane = Simulation::new(permits, vec![tenant]);
            let (fewest, most) = lane.under_way_between(0, seconds(6), seconds(90));
            prop_assert!(10 * fewest >= 9 * jobs && most <= jobs, "{} to {} of {}", fewest, most, jobs);
            prop_assert_eq!(lane.holds, []);
        }
    }

    #[test]
    fn an_organization_with_more_jobs_than_permits_still_uses_all_its_permits(seed in any::<u64>(), jobs in 25..100usize) {
        let mut lane = Simulation::new(32, vec![Tenant::of_host("acme", jobs, 3, calm(seed))]);
        let (fewest, most) = lane.under_way_between(0, seconds(6), seconds(90));
        prop_assert!(fewest >= 22 && most == 24, "{} to {}", fewest, most);
        prop_assert_eq!(lane.hanging(), []);
    }
}

#[test]
fn a_newcomer_gets_half_the_calls_once_the_calls_in_flight_are_answered() {
    let newcomer = Tenant::of_host("umbrella", 20, 3, calm(7)).coming(seconds(30));
    let mut lane = Simulation::new(32, vec![Tenant::of_host("acme", 40, 3, calm(1)), newcomer]);
    let (_, most) = lane.under_way_between(1, seconds(30), seconds(31));
    assert!(most >= 4, "{most} at once");
    let (fewest, most) = lane.under_way_between(1, seconds(45), seconds(90));
    assert!(fewest >= 10 && most == 12, "{fewest} to {most}");
    assert_eq!(lane.hanging(), []);
}

/// Returns the fraction of their speed that the other tenants keep while the last one does not
/// answer, after its first deadline.
fn kept_speed(permits: usize, tenants: impl Fn(fn(At) -> Option<Duration>) -> Vec<Tenant>) -> f64 {
    let speed = |answers| {
        let mut lane = Simulation::new(permits, tenants(answers));
        let others = lane.tenants.len() - 1;
        lane.run(DEADLINE + TICK, |_| ());
        let before: usize = lane.tenants[..others]
            .iter()
            .map(|tenant| tenant.done)
            .sum();
        let (_, most) = lane.under_way_between(others, DEADLINE + TICK, seconds(40));
        let first = (permits / 8).max(2);
        assert!(
            answers(Duration::ZERO).is_some() || most <= first,
            "{most} calls hang"
        );
        lane.tenants[..others]
            .iter()
            .map(|tenant| tenant.done)
            .sum::<usize>()
            - before
    };
    speed(never) as f64 / speed(quick) as f64
}

#[test]
fn a_host_that_never_answers_keeps_its_initial_permits_and_does_not_slow_the_others() {
    let tenants = |answers| {
        vec![
            Tenant::of_host("acme", 60, 3, quick),
            Tenant::of_host("umbrella", 60, 3, answers),
        ]
    };
    for permits in [16, 32] {
        let kept = kept_speed(permits, tenants);
        assert!(kept >= 0.8, "{kept:.2} of {permits}");
    }
}

#[test]
fn a_receiver_that_never_answers_keeps_its_initial_permits_and_does_not_slow_the_others() {
    let tenants = |answers: fn(At) -> Option<Duration>| {
        let others = (1..5).map(|id| Tenant::of_messages(id, 60, quick));
        others
            .chain([Tenant::of_messages(5, 60, answers)])
            .collect()
    };
    let kept = kept_speed(16, tenants);
    assert!(kept >= 0.8, "{kept:.2}");
}

#[test]
fn a_slow_host_that_stops_answering_is_detected_at_the_first_deadline_of_its_calls() {
    let stops = seconds(60);
    let mut calm = calm(3);
    let answers = move |at| calm(at).filter(|_| at < stops);
    let mut lane = Simulation::new(32, vec![Tenant::of_host("acme", 20, 3, answers)]);
    lane.run(stops + DEADLINE, |_| ());
    assert_eq!(lane.holds, []);
    let calls = lane.under_way(0);
    lane.run(stops + DEADLINE + seconds(1), |_| ());
    assert!(
        !lane.holds.is_empty() && lane.under_way(0) < calls,
        "{:?}",
        lane.holds
    );
    let (_, most) = lane.under_way_between(0, stops + 2 * DEADLINE, stops + 6 * DEADLINE);
    assert!(most <= 4, "{most} calls hang");
}

#[test]
fn a_host_that_is_quick_then_slow_then_quick_is_called_throughout() {
    let calm_from = seconds(30)..seconds(90);
    let answers = move |at| {
        Some(if calm_from.contains(&at) {
            seconds(5)
        } else {
            QUICK
        })
    };
    let mut lane = Simulation::new(32, vec![Tenant::of_host("acme", 20, 3, answers)]);
    let at_first = lane.done_between(0, seconds(10), seconds(30));
    let (fewest, _) = lane.under_way_between(0, seconds(31), seconds(90));
    assert!(fewest >= 18, "{fewest}");
    let at_last = lane.done_between(0, seconds(96), seconds(116));
    assert!(
        10 * at_last >= 9 * at_first,
        "{at_last}, and {at_first} at first"
    );
    assert_eq!(lane.holds, []);
}

#[test]
fn a_receiver_that_becomes_slow_is_held_only_until_its_first_answer() {
    let calm_from = seconds(30)..seconds(90);
    let answers = move |at| {
        Some(if calm_from.contains(&at) {
            seconds(5)
        } else {
            QUICK
        })
    };
    let mut lane = Simulation::new(16, vec![Tenant::of_messages(1, 20, answers)]);
    let at_first = lane.done_between(0, seconds(10), seconds(30));
    let (fewest, _) = lane.under_way_between(0, seconds(40), seconds(90));
    assert!(fewest >= 7, "{fewest}");
    let at_last = lane.done_between(0, seconds(96), seconds(116));
    assert!(
        10 * at_last >= 9 * at_first,
        "{at_last}, and {at_first} at first"
    );
    let hanging = lane.hanging();
    assert!(
        !hanging.is_empty()
            && hanging
                .iter()
                .all(|(_, _, at)| (seconds(31)..seconds(35)).contains(at)),
        "{hanging:?}"
    );
}
