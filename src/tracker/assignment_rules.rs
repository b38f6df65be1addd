//! Decides the assignee and the status of a group from new revisions of its work items. Pure
//! functions.

use time::OffsetDateTime;

use super::{AssigneePlan, PlannedLink, SyncSettings, in_microseconds};

/// Returns whether a state category counts as done. Source:
/// <https://learn.microsoft.com/en-us/azure/devops/boards/work-items/workflow-and-state-categories>.
#[must_use]
pub fn is_done_category(category: &str) -> bool {
    matches!(category, "Resolved" | "Completed")
}

/// The order of changes: the latest change decides. Of two changes in the same microsecond, the
/// one of the work item with the higher row id decides, so that the order of arrival does not
/// matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// `System.ChangedDate`, in microseconds as Postgres stores it.
    pub(super) at: OffsetDateTime,
    /// The row id of the work item.
    pub(super) by: i64,
}

/// A locked group.
#[derive(Debug, Clone)]
pub(super) struct GroupNow {
    pub(super) id: i64,
    pub(super) organization_id: i64,
    pub(super) short_id: String,
    pub(super) title: String,
    pub(super) resolved: bool,
    pub(super) assignee: Option<i64>,
    pub(super) decided: Option<Rank>,
}

/// A link of a locked group.
#[derive(Debug, Clone)]
pub(super) struct LinkNow {
    pub(super) external_issue_id: i64,
    pub(super) settings: SyncSettings,
    pub(super) applied_rev: i64,
    pub(super) status_rev: i64,
    pub(super) applied_category: Option<String>,
    /// Whether the ledger identifies the planned revision as our own write for this group.
    pub(super) own_write: bool,
}

/// A planned revision together with the present link.
#[derive(Debug, Clone)]
pub(super) struct News<'a> {
    pub(super) planned: &'a PlannedLink,
    pub(super) now: LinkNow,
}

/// The values to store on a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinkNext<'a> {
    pub(super) external_issue_id: i64,
    pub(super) applied_rev: i64,
    pub(super) status_rev: i64,
    pub(super) applied_category: Option<&'a str>,
}

/// A vote for an assignee, with its rank.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decision<'a> {
    pub(super) user: Option<i64>,
    pub(super) rank: Rank,
    pub(super) news: &'a News<'a>,
}

/// A status that changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatusDecision<'a> {
    pub(super) resolved: bool,
    pub(super) news: &'a News<'a>,
}

/// The result for a group.
#[derive(Debug)]
pub(super) struct Verdict<'a> {
    pub(super) links: Vec<LinkNext<'a>>,
    /// The decided assignee, even if unchanged.
    pub(super) assignee: Option<Decision<'a>>,
    pub(super) status: Option<StatusDecision<'a>>,
    pub(super) unresolved: Vec<(&'a News<'a>, &'a str)>,
    pub(super) behind: Vec<&'a News<'a>>,
    pub(super) old_news: u32,
}

/// The contribution of a link to the decision about the assignee.
enum Voice<'a> {
    /// The link does not take part.
    Silent,
    /// The revision is not new, or is our own write.
    Old,
    /// Azure DevOps' assignee matches no user of ours.
    Unresolved(&'a str),
    Vote(Option<i64>),
}

impl<'a> News<'a> {
    fn voice(&self) -> Voice<'a> {
        if !self.now.settings.assignee_inbound || self.planned.assignee == AssigneePlan::Keep {
            return Voice::Silent;
        }
        if self.planned.rev <= self.now.applied_rev || self.now.own_write {
            return Voice::Old;
        }
        match &self.planned.assignee {
            AssigneePlan::Assign(user) => Voice::Vote(Some(*user)),
            AssigneePlan::Unassign => Voice::Vote(None),
            AssigneePlan::Unresolved(reason) => Voice::Unresolved(reason),
            AssigneePlan::Keep => Voice::Silent,
        }
    }

    fn rank(&self) -> Rank {
        Rank {
            at: in_microseconds(self.planned.changed_date),
            by: self.now.external_issue_id,
        }
    }

    const fn reports_status(&self) -> bool {
        self.now.settings.status_inbound && self.planned.rev > self.now.status_rev
    }

    /// Returns the status that this link requests. The plan's status was derived from the link
    /// that an earlier stage read; here the locked link decides.
    fn requested_status(&self) -> Option<bool> {
        if !self.reports_status() {
            return None;
        }
        let was = self
            .now
            .applied_category
            .as_deref()
            .is_some_and(is_done_category);
        let is = is_done_category(&self.planned.category);
        (was != is).then_some(is)
    }

    fn next(&self) -> LinkNext<'_> {
        let reports_status = self.reports_status();
        let silent = matches!(self.voice(), Voice::Silent);
        LinkNext {
            external_issue_id: self.now.external_issue_id,
            applied_rev: if silent {
                self.now.applied_rev
            } else {
                self.now.applied_rev.max(self.planned.rev)
            },
            status_rev: if reports_status {
                self.planned.rev
            } else {
                self.now.status_rev
            },
            applied_category: if reports_status {
                Some(&self.planned.category)
            } else {
                self.now.applied_category.as_deref()
            },
        }
    }
}

/// Decides about one locked group from all its new revisions together.
pub(super) fn judge<'a>(group: &GroupNow, news: &'a [News<'a>]) -> Verdict<'a> {
    let mut votes = Vec::new();
    let mut unresolved = Vec::new();
    let mut old_news = 0;
    for one in news {
        match one.voice() {
            Voice::Vote(user) => votes.push(Decision {
                user,
                rank: one.rank(),
                news: one,
            }),
            Voice::Unresolved(reason) => unresolved.push((one, reason)),
            Voice::Old => old_news += 1,
            Voice::Silent => {}
        }
    }
    let newest = votes.iter().copied().max_by_key(|vote| vote.rank);
    let assignee = newest.filter(|vote| group.decided.is_none_or(|decided| vote.rank >= decided));
    let follows = assignee.map_or(group.assignee, |vote| vote.user);
    let behind = votes
        .iter()
        .filter(|vote| vote.user != follows && vote.news.now.settings.assignee_outbound);
    Verdict {
        links: news.iter().map(News::next).collect(),
        assignee,
        status: decide_status(group, news),
        unresolved,
        behind: behind.map(|vote| vote.news).collect(),
        old_news,
    }
}

fn decide_status<'a>(group: &GroupNow, news: &'a [News<'a>]) -> Option<StatusDecision<'a>> {
    let requested = news.iter().filter_map(|one| {
        Some((
            one.rank(),
            StatusDecision {
                resolved: one.requested_status()?,
                news: one,
            },
        ))
    });
    let (_, last) = requested.max_by_key(|(rank, _)| *rank)?;
    (last.resolved != group.resolved).then_some(last)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::tracker::StatusPlan;

    const ON: SyncSettings = SyncSettings {
        assignee_inbound: true,
        assignee_outbound: true,
        status_inbound: true,
    };

    fn group(assignee: Option<i64>, decided: Option<Rank>) -> GroupNow {
        let (short_id, title) = ("WEB-1".to_owned(), "It".to_owned());
        GroupNow {
            id: 1,
            organization_id: 1,
            short_id,
            title,
            resolved: false,
            assignee,
            decided,
        }
    }

    fn link(by: i64, applied_rev: i64) -> LinkNow {
        LinkNow {
            external_issue_id: by,
            settings: ON,
            applied_rev,
            status_rev: applied_rev,
            applied_category: None,
            own_write: false,
        }
    }

    fn planned(rev: i64, at: OffsetDateTime, assignee: AssigneePlan) -> PlannedLink {
        PlannedLink {
            group_id: 1,
            work_item_id: 1,
            rev,
            changed_date: at,
            tracker_assignee: None,
            assignee,
            status: StatusPlan::None,
            category: "InProgress".to_owned(),
        }
    }

    #[test]
    fn the_later_change_decides_and_the_earlier_one_is_behind() {
        let early = planned(5, datetime!(2026-01-01 10:00 UTC), AssigneePlan::Assign(1));
        let late = planned(2, datetime!(2026-01-01 11:00 UTC), AssigneePlan::Assign(2));
        let news = [
            News {
                planned: &late,
                now: link(20, 0),
            },
            News {
                planned: &early,
                now: link(10, 0),
            },
        ];
        let verdict = judge(&group(None, None), &news);
        assert_eq!(verdict.assignee.unwrap().user, Some(2));
        assert_eq!(
            verdict
                .behind
                .iter()
                .map(|news| news.now.external_issue_id)
                .collect::<Vec<_>>(),
            [10]
        );
    }

    #[test]
    fn two_changes_at_one_moment_are_decided_the_same_in_either_order() {
        let at = datetime!(2026-01-01 10:00 UTC);
        let (one, two) = (
            planned(1, at, AssigneePlan::Assign(1)),
            planned(1, at, AssigneePlan::Assign(2)),
        );
        let first = [News {
            planned: &one,
            now: link(10, 0),
        }];
        let second = [News {
            planned: &two,
            now: link(20, 0),
        }];
        let after_first = group(Some(1), Some(Rank { at, by: 10 }));
        assert_eq!(judge(&after_first, &second).assignee.unwrap().user, Some(2));
        let after_second = group(Some(2), Some(Rank { at, by: 20 }));
        assert!(judge(&after_second, &first).assignee.is_none());
    }

    #[test]
    fn digits_that_postgres_does_not_keep_do_not_count() {
        let fine = planned(
            1,
            datetime!(2026-01-01 10:00:00.123456700 UTC),
            AssigneePlan::Assign(1),
        );
        let coarse = Rank {
            at: datetime!(2026-01-01 10:00:00.123456 UTC),
            by: 20,
        };
        let news = [News {
            planned: &fine,
            now: link(10, 0),
        }];
        assert!(
            judge(&group(Some(2), Some(coarse)), &news)
                .assignee
                .is_none()
        );
    }

    #[test]
    fn our_own_write_has_no_vote_but_its_state_counts() {
        let mut own = planned(8, datetime!(2026-01-01 12:00 UTC), AssigneePlan::Assign(1));
        own.category = "Completed".to_owned();
        let news = [News {
            planned: &own,
            now: LinkNow {
                own_write: true,
                ..link(10, 7)
            },
        }];
        let verdict = judge(&group(Some(2), None), &news);
        assert!(verdict.assignee.is_none() && verdict.behind.is_empty());
        assert_eq!(
            (
                verdict.old_news,
                verdict.links[0].applied_rev,
                verdict.links[0].status_rev
            ),
            (1, 8, 8)
        );
        assert!(verdict.status.unwrap().resolved);
    }

    #[test]
    fn a_link_that_is_kept_stays_open_for_its_revision() {
        let kept = planned(8, datetime!(2026-01-01 12:00 UTC), AssigneePlan::Keep);
        let news = [News {
            planned: &kept,
            now: link(10, 7),
        }];
        let verdict = judge(&group(Some(2), None), &news);
        assert_eq!(
            (
                verdict.links[0].applied_rev,
                verdict.links[0].status_rev,
                verdict.old_news
            ),
            (7, 8, 0)
        );
    }

    #[test]
    fn a_status_changes_only_where_doneness_does() {
        let table = [
            (None, "InProgress", false, None),
            (None, "Completed", false, Some(true)),
            (None, "Completed", true, None),
            (Some("Proposed"), "Resolved", false, Some(true)),
            (Some("Resolved"), "Completed", false, None),
            (Some("Completed"), "InProgress", true, Some(false)),
            (Some("Completed"), "Removed", true, Some(false)),
            (Some("Completed"), "InProgress", false, None),
            (Some("InProgress"), "Removed", true, None),
        ];
        for (applied, category, resolved, expected) in table {
            let mut link_now = link(10, 1);
            link_now.applied_category = applied.map(str::to_owned);
            let mut plan = planned(2, datetime!(2026-01-01 12:00 UTC), AssigneePlan::Keep);
            plan.category = category.to_owned();
            let group = GroupNow {
                resolved,
                ..group(None, None)
            };
            let news = [News {
                planned: &plan,
                now: link_now,
            }];
            let status = judge(&group, &news).status.map(|status| status.resolved);
            assert_eq!(
                status, expected,
                "{applied:?} -> {category}, resolved: {resolved}"
            );
        }
    }
}
