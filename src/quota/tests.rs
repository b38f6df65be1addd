//! Settings and shares of quotas.

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn amount(rows: u64, bytes: u64) -> Amount {
    Amount { rows, bytes }
}

fn shop() -> Holder {
    Holder::Producer(Some("shop".to_owned()))
}

/// Ten rows and one MiB of each kind.
fn ten() -> Amounts {
    let ten = amount(10, MIB);
    Amounts {
        open: ten,
        later: ten,
        waiting: ten,
        dead_letters: ten,
        keys: ten,
    }
}

fn asked<'a>(holder: &'a Holder, limits: &'a Amounts, used: Amounts) -> Asked<'a> {
    Asked {
        holder,
        limits,
        used,
        promised: Amounts::default(),
        replicas: 1,
        need: Amount::row(100),
    }
}

#[test]
fn a_setting_changes_what_it_names_and_nothing_else() {
    let quotas = producer_quotas(" open=10/5MiB, dead_letters = 7 / 2048 ,keys=3").unwrap();
    assert_eq!(quotas.open, amount(10, 5 * MIB));
    assert_eq!(quotas.later, producer_quotas("").unwrap().later);
    assert_eq!(quotas.dead_letters, amount(7, 2048));
    assert_eq!(quotas.keys.rows, 3);
    assert_eq!(quotas.waiting, amount(100_000, 2048 * MIB));
}

#[test]
fn an_invalid_quota_is_named() {
    for wrong in [
        "open",
        "closed=1",
        "open=-1/5",
        "open=1/5TiB",
        "open=1/99999999999GiB",
        "open=/",
        "open=1/1/1",
    ] {
        let error = producer_quotas(wrong).unwrap_err().to_string();
        assert!(
            error.contains(&format!("got `{wrong}`")) && error.contains("open=50000/1GiB"),
            "{error}"
        );
    }
    let error = organization_quotas("keys=5").unwrap_err().to_string();
    assert!(
        error.ends_with("use the kinds open, later, waiting, with commas between them"),
        "{error}"
    );
}

#[test]
fn one_producer_or_organization_cannot_reach_the_backlog_that_stops_intake() {
    for quotas in [
        producer_quotas("").unwrap(),
        organization_quotas("").unwrap(),
    ] {
        assert!(quotas.open.rows + quotas.later.rows < 200_000);
    }
}

#[test]
fn a_full_quota_names_its_holder_and_the_remedy() {
    let (holder, limits) = (shop(), ten());
    let used = Amounts {
        open: amount(10, 1000),
        ..Amounts::default()
    };
    let over = asked(&holder, &limits, used).grant(Kind::Open).unwrap_err();
    assert_eq!(
        over.to_string(),
        "expected at most 10 open jobs of producer \"shop\", got 11 with this one; use a lower rate, and publish it again when jobs \
         have finished"
    );
    let used = Amounts {
        dead_letters: amount(1, MIB),
        ..Amounts::default()
    };
    let over = asked(&holder, &limits, used)
        .grant(Kind::DeadLetters)
        .unwrap_err();
    assert!(
        over.in_bytes
            && over
                .to_string()
                .contains("at most 1048576 bytes in open dead letters"),
        "{over}"
    );
}

#[test]
fn an_open_job_takes_room_among_those_that_wait_and_one_for_later_needs_an_open_place() {
    let (holder, limits) = (shop(), ten());
    let waiting = Amounts {
        waiting: amount(7, 0),
        open: amount(3, 0),
        ..Amounts::default()
    };
    assert_eq!(
        asked(&holder, &limits, waiting)
            .grant(Kind::Open)
            .unwrap_err()
            .kind,
        Kind::Waiting
    );
    assert_eq!(
        asked(&holder, &limits, waiting)
            .grant(Kind::Later)
            .unwrap_err()
            .kind,
        Kind::Waiting
    );
    let open = Amounts {
        open: amount(10, 0),
        ..Amounts::default()
    };
    assert_eq!(
        asked(&holder, &limits, open)
            .grant(Kind::Later)
            .unwrap_err()
            .kind,
        Kind::Open
    );
    let later = Amounts {
        later: amount(10, 0),
        ..Amounts::default()
    };
    assert_eq!(
        asked(&holder, &limits, later)
            .grant(Kind::Later)
            .unwrap_err()
            .kind,
        Kind::Later
    );
    assert!(asked(&holder, &limits, later).grant(Kind::Open).is_ok());
}

#[test]
fn a_replica_is_granted_its_share_and_at_least_what_it_needs() {
    let (holder, limits) = (
        shop(),
        Amounts {
            open: amount(1000, MIB),
            waiting: amount(5000, MIB),
            ..ten()
        },
    );
    let far = Asked {
        replicas: 4,
        ..asked(&holder, &limits, Amounts::default())
    };
    assert_eq!(
        far.grant(Kind::Open),
        Ok(Grant {
            amount: amount(100, MIB / 10),
            is_roomy: true,
            fullness: 0.0
        })
    );
    let near = Asked {
        used: Amounts {
            open: amount(999, MIB / 2),
            ..Amounts::default()
        },
        ..far
    };
    assert_eq!(
        near.grant(Kind::Open),
        Ok(Grant {
            amount: amount(1, MIB / 20),
            is_roomy: false,
            fullness: 0.999
        })
    );
}

#[derive(Debug, Clone)]
enum Step {
    /// A replica writes a row of this many bytes, asking first if its grant is too small.
    Make(usize, u64),
    /// What a replica is writing becomes visible to the count.
    Land(usize),
    Finish,
    /// The grant of a replica ends.
    Expire(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_usize, 0..300_u64).prop_map(|(replica, bytes)| Step::Make(replica, bytes)),
        3 => (0..3_usize).prop_map(Step::Land),
        2 => Just(Step::Finish),
        1 => (0..3_usize).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 0..400)
}

#[derive(Default)]
struct Replica {
    left: Amount,
    making: Vec<Amount>,
}

impl Replica {
    fn in_flight(&self) -> Amount {
        self.making
            .iter()
            .fold(Amount::default(), |sum, one| sum.plus(*one))
    }
}

proptest! {
    /// In whatever order replicas ask: the stored rows and those being written never exceed the
    /// quota.
    #[test]
    fn replicas_together_never_make_more_than_the_quota(steps in steps(), rows in 1..40_u64, bytes in 100..3000_u64) {
        let (holder, limit) = (shop(), amount(rows, bytes));
        let limits = Amounts { dead_letters: limit, ..Amounts::default() };
        let mut there: Vec<Amount> = Vec::new();
        let mut replicas: [Replica; 3] = Default::default();
        for step in steps {
            match step {
                Step::Make(number, bytes) => {
                    let need = Amount::row(bytes);
                    if !need.fits(replicas[number].left) {
                        let used = there.iter().fold(Amount::default(), |sum, one| sum.plus(*one));
                        let others = replicas.iter().enumerate().map(|(other, replica)| {
                            let left = if other == number { Amount::default() } else { replica.left };
                            left.plus(replica.in_flight())
                        });
                        let promised = others.fold(Amount::default(), Amount::plus);
                        let (used, promised) = (
                            Amounts { dead_letters: used, ..Amounts::default() },
                            Amounts { dead_letters: promised, ..Amounts::default() },
                        );
                        let asked = Asked { holder: &holder, limits: &limits, used, promised, replicas: 3, need };
                        replicas[number].left = asked.grant(Kind::DeadLetters).map_or(Amount::default(), |grant| grant.amount);
                    }
                    if need.fits(replicas[number].left) {
                        replicas[number].left = replicas[number].left.less(need);
                        replicas[number].making.push(need);
                    }
                }
                Step::Land(number) => there.append(&mut replicas[number].making),
                Step::Finish => drop(there.pop()),
                Step::Expire(number) => replicas[number].left = Amount::default(),
            }
            let making = replicas.iter().flat_map(|replica| &replica.making);
            let all = there.iter().chain(making).fold(Amount::default(), |sum, one| sum.plus(*one));
            prop_assert!(all.fits(limit), "{all:?} of {limit:?}");
        }
    }

    /// While the quota has room, a message is accepted, whatever the others were granted by one
    /// request each.
    #[test]
    fn replicas_that_have_asked_once_leave_half_of_the_room(rows in 100..100_000_u64, replicas in 1..20_u32) {
        let (holder, limit) = (shop(), amount(rows, 1 << 40));
        let limits = Amounts { dead_letters: limit, ..Amounts::default() };
        let mut promised = Amounts::default();
        for _ in 0..replicas {
            let asked = Asked { holder: &holder, limits: &limits, used: Amounts::default(), promised, replicas, need: Amount::row(0) };
            promised.dead_letters = promised.dead_letters.plus(asked.grant(Kind::DeadLetters).unwrap().amount);
        }
        prop_assert!(promised.dead_letters.rows <= rows / 2 + u64::from(replicas));
    }
}
