//! The plan: changes in the tracker and jobs, in waves. It is the same in every run.

use std::ops::RangeInclusive;

use super::world::{PEOPLE, SHARED, SINGLE, Tenant, UNLINKED};

/// The total number of jobs.
pub(super) const JOBS: usize = 200;
/// The number of jobs without an account that are configured, and of those that are left waiting.
pub(super) const CONFIGURED: usize = 4;
pub(super) const LEFT_WAITING: usize = 1;
/// The number of jobs whose deadline is in the past, which are parked.
pub(super) const PARKED: usize = 1;

/// A work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) tenant: Tenant,
    pub(super) id: i64,
}

/// A person's change of a work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    /// Assigns it to this one of [`PEOPLE`].
    Assign(usize),
    Unassign,
    State(&'static str),
}

/// The origin of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// People change work items; the job has an event for each change.
    Changes(&'static str, Vec<(Item, Edit)>),
    /// A sender without the secret sends the event of a change that was never made.
    Forged(Item),
    /// An event is sent again, in another job.
    Again,
    /// A search for work items, independent of events.
    Search(Tenant),
    /// A change, in a job without an account.
    NoAccount(Item, Edit),
    /// A job whose deadline is in the past.
    Overdue,
}

impl Deed {
    /// Returns the word for the job's key.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Changes(word, _) => word,
            Self::Forged(_) => "forged",
            Self::Again => "again",
            Self::Search(_) => "search",
            Self::NoAccount(..) => "no-account",
            Self::Overdue => "overdue",
        }
    }
}

/// Returns the first wave: everything is assigned for the first time.
pub(super) fn first_wave() -> Vec<Deed> {
    let mut deeds: Vec<Deed> = singles()
        .enumerate()
        .map(|(index, item)| change("assign", item, assign(index)))
        .collect();
    deeds.extend(
        groups()
            .enumerate()
            .map(|(index, group)| change("assign", group[0], assign(index + 1))),
    );
    deeds.extend(
        unlinked()
            .take(4)
            .map(|item| change("unlinked", item, assign(0))),
    );
    let without = singles()
        .skip(14)
        .take(CONFIGURED + LEFT_WAITING)
        .enumerate();
    deeds.extend(without.map(|(index, item)| Deed::NoAccount(item, assign(index + 3))));
    deeds.extend([
        Deed::Search(Tenant::Acme),
        Deed::Search(Tenant::Globex),
        Deed::Overdue,
    ]);
    deeds
}

/// Returns the wave during the outage: every kind of change, forgeries and repetitions.
pub(super) fn second_wave() -> Vec<Deed> {
    let mut deeds: Vec<Deed> = singles()
        .enumerate()
        .map(|(index, item)| match index % 4 {
            0 => change("unassign", item, Edit::Unassign),
            3 => change("resolve", item, Edit::State("Resolved")),
            _ => change("reassign", item, assign(index + 1)),
        })
        .collect();
    // Another work item of each group determines its assignee now.
    deeds.extend(
        groups()
            .enumerate()
            .map(|(index, group)| change("reassign", group[1], assign(index + 3))),
    );
    deeds.extend(unlinked().map(|item| change("unlinked", item, assign(1))));
    deeds.extend(singles().take(8).map(Deed::Forged));
    deeds.extend(std::iter::repeat_n(Deed::Again, 8));
    deeds
}

/// Returns the wave while a worker is killed: unassigned items are assigned, resolved ones
/// reopened, and some jobs have several work items.
pub(super) fn third_wave() -> Vec<Deed> {
    let mut deeds: Vec<Deed> = singles()
        .enumerate()
        .map(|(index, item)| match index % 4 {
            0 => change("assign", item, assign(index + 2)),
            1 => change("reassign", item, assign(index + 4)),
            2 => change("close", item, Edit::State("Closed")),
            _ => change("reopen", item, Edit::State("Active")),
        })
        .collect();
    deeds.extend(groups().enumerate().map(|(index, group)| {
        let edits = group
            .into_iter()
            .enumerate()
            .map(|(nth, item)| (item, assign(index + nth)));
        Deed::Changes("several", edits.collect())
    }));
    deeds.extend(std::iter::repeat_n(Deed::Again, 4));
    deeds
}

/// Returns the last wave. The rest of [`JOBS`] are events of the worker's own writes.
pub(super) fn fourth_wave() -> Vec<Deed> {
    let last = |(index, item)| match index % 7 {
        0 => change("unassign", item, Edit::Unassign),
        _ => change("reassign", item, assign(index + 5)),
    };
    singles().enumerate().map(last).collect()
}

fn change(word: &'static str, item: Item, edit: Edit) -> Deed {
    Deed::Changes(word, vec![(item, edit)])
}

const fn assign(person: usize) -> Edit {
    Edit::Assign(person % PEOPLE.len())
}

fn of((tenant, ids): (Tenant, RangeInclusive<i64>)) -> impl Iterator<Item = Item> {
    ids.map(move |id| Item { tenant, id })
}

fn singles() -> impl Iterator<Item = Item> {
    SINGLE.into_iter().flat_map(of)
}

fn unlinked() -> impl Iterator<Item = Item> {
    UNLINKED.into_iter().flat_map(of)
}

/// Returns the work items of each group that has several.
fn groups() -> impl Iterator<Item = Vec<Item>> {
    SHARED.into_iter().flat_map(|(tenant, ids, together)| {
        let items: Vec<Item> = of((tenant, ids)).collect();
        items
            .chunks(together)
            .map(<[Item]>::to_vec)
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_waves_have_every_kind_of_job_and_leave_room_for_our_own_writes() {
        let deeds: Vec<Deed> = [first_wave(), second_wave(), third_wave(), fourth_wave()].concat();
        let left = JOBS - deeds.len();
        assert!((20..=40).contains(&left), "{left}");
        let words: BTreeSet<&str> = deeds.iter().map(Deed::word).collect();
        for word in [
            "assign", "reassign", "unassign", "resolve", "reopen", "several", "unlinked", "forged",
            "again", "search",
        ] {
            assert!(words.contains(word), "{word}");
        }
        let count = |wanted: fn(&Deed) -> bool| deeds.iter().filter(|deed| wanted(deed)).count();
        assert_eq!(
            count(|deed| matches!(deed, Deed::NoAccount(..))),
            CONFIGURED + LEFT_WAITING
        );
        assert_eq!(count(|deed| matches!(deed, Deed::Overdue)), PARKED);
    }
}
