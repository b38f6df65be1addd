//! Makes the follow-ups of the changes: assignees to other linked work items, messages to people,
//! and an answer to a click.
//!
//! *Needs*: `check_account`, `fetch_states`, `sync_assignees`, `update_assignments`.
//! *Effects*: none outside Postgres. Follow-ups are data that the commit inserts; their ids derive
//! from parent, generation and target.
//! *Safe to repeat*: the same changes result in the same targets, so a repeat cannot duplicate a
//! follow-up.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{CheckAccount, FetchStates, Plan, SyncAssignees, UpdateAssignments};
use crate::engine::{Child, Context, Stage, StageOutcome, StageResult};
use crate::fault::StageFault;
use crate::message::Request;
use crate::pipelines::assignee_sync::AssigneeSync;
use crate::pipelines::messaging::{Event, Notice, Recipient};
use crate::pipelines::{Dispatch, ProductFault};
use crate::tracker::{
    Applied, AssigneeChange, Destination, OutboundLink, SealedTracker, StatusChange,
};

#[derive(Debug, Clone, Copy)]
pub struct SendFollowUps;

/// The follow-ups that the job waits for; without any, the job is finished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUps {
    /// The targets of the follow-ups, in order.
    pub targets: Vec<String>,
}

/// Row ids of destinations, by organization.
type Destinations = BTreeMap<i64, Vec<i64>>;

impl Stage for SendFollowUps {
    type Product = Dispatch;

    const NAME: &'static str = "send_follow_ups";
    const NEEDS: &'static [&'static str] = &[
        CheckAccount::NAME,
        FetchStates::NAME,
        SyncAssignees::NAME,
        UpdateAssignments::NAME,
    ];
    type Output = FollowUps;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let request = cx.payload::<Request>()?;
        let plan = cx.output::<SyncAssignees>()?;
        let applied = cx.output::<UpdateAssignments>()?;
        let changed = NetChanges::of(&applied);
        let services = cx.services;
        let own = cx.output::<CheckAccount>()?.organization_id;
        let destinations = destinations(&services.sealed, &request, own, &changed).await?;
        let mut children: Vec<Child> = notices(&changed, &plan, &destinations)
            .iter()
            .map(Notice::child)
            .collect();
        if request.interaction.is_some() {
            children.push(Notice::answer(cx.job.id, changed.of_organization(own)).child());
        }
        if !(changed.assignees.is_empty() && applied.behind.is_empty()) {
            let integration_id = cx.output::<FetchStates>()?.account()?.integration_id;
            let groups: Vec<i64> = changed.assignees.keys().copied().collect();
            let links = services.tracker.outbound_links(&groups).await?;
            children.extend(
                syncs(&changed, &applied, &plan, &links, integration_id)
                    .iter()
                    .map(AssigneeSync::child),
            );
        }
        let targets = children.iter().map(|child| child.target.clone()).collect();
        Ok(StageOutcome::of(FollowUps { targets }).with_children(children))
    }
}

/// The net changes by group: several work items of one job may have changed the same group in
/// sequence.
#[derive(Debug, Default)]
struct NetChanges {
    assignees: BTreeMap<i64, AssigneeChange>,
    statuses: BTreeMap<i64, StatusChange>,
}

impl NetChanges {
    fn of(applied: &Applied) -> Self {
        let mut changed = Self::default();
        for change in &applied.assignees {
            let known = changed.assignees.remove(&change.group_id);
            let from = known.map_or_else(|| change.from.clone(), |earlier| earlier.from);
            changed.assignees.insert(
                change.group_id,
                AssigneeChange {
                    from,
                    ..change.clone()
                },
            );
        }
        changed.statuses.extend(
            applied
                .statuses
                .iter()
                .map(|change| (change.group_id, change.clone())),
        );
        changed
    }

    fn organizations(&self) -> BTreeSet<i64> {
        let assignees = self.assignees.values().map(|change| change.organization_id);
        assignees
            .chain(self.statuses.values().map(|change| change.organization_id))
            .collect()
    }

    /// Returns the changes whose assignee differs from the previous one.
    fn new_assignees(&self) -> impl Iterator<Item = &AssigneeChange> {
        self.assignees
            .values()
            .filter(|change| change.from != change.to)
    }

    /// Returns the changes of one organization, which the requester may see.
    fn of_organization(&self, id: i64) -> Event {
        let assignees = self
            .new_assignees()
            .filter(|change| change.organization_id == id)
            .cloned()
            .collect();
        let statuses = self
            .statuses
            .values()
            .filter(|change| change.organization_id == id)
            .cloned()
            .collect();
        Event::Outcome {
            assignees,
            statuses,
        }
    }
}

/// Returns the destinations by organization. The request names only destinations of its own
/// organization. Changes of another organization's groups that are linked to the same work items
/// go only to that organization's default destinations, so no tenant receives messages about
/// another's groups.
async fn destinations(
    sealed: &SealedTracker,
    request: &Request,
    own: i64,
    changed: &NetChanges,
) -> Result<Destinations, StageFault> {
    let mut destinations = Destinations::new();
    // Looked up even if nothing has changed, so that a wrong name shows with the first job.
    if let Some(names) = &request.notify {
        let known = if names.is_empty() {
            Vec::new()
        } else {
            sealed.destinations(own, Some(names)).await?
        };
        destinations.insert(own, named(names, &known, &request.organization)?);
    }
    for organization_id in changed.organizations() {
        if let std::collections::btree_map::Entry::Vacant(place) =
            destinations.entry(organization_id)
        {
            let defaults = sealed.destinations(organization_id, None).await?;
            place.insert(defaults.iter().map(|destination| destination.id).collect());
        }
    }
    Ok(destinations)
}

/// Returns the ids of the named destinations in the request's order, without duplicates.
fn named(
    names: &[String],
    known: &[Destination],
    organization: &str,
) -> Result<Vec<i64>, ProductFault> {
    let by_name: BTreeMap<&str, i64> = known
        .iter()
        .map(|destination| (destination.name.as_str(), destination.id))
        .collect();
    let (mut ids, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match by_name.get(name.as_str()) {
            Some(id) if ids.contains(id) => {}
            Some(id) => ids.push(*id),
            None => missing.push(format!("`{name}`")),
        }
    }
    if missing.is_empty() {
        return Ok(ids);
    }
    Err(ProductFault::UnknownDestination {
        names: missing,
        organization: organization.to_owned(),
    })
}

/// Returns one notice for each (destination, changed group, kind of change).
fn notices(changed: &NetChanges, plan: &Plan, destinations: &Destinations) -> Vec<Notice> {
    let assignees = changed.new_assignees().map(|change| {
        (
            change.organization_id,
            change.group_id,
            change.work_item_id,
            Event::Assignee(change.clone()),
        )
    });
    let statuses = changed.statuses.values().map(|change| {
        (
            change.organization_id,
            change.group_id,
            change.work_item_id,
            Event::Status(change.clone()),
        )
    });
    let to_all = |(organization_id, group_id, work_item_id, event): (i64, i64, i64, Event)| {
        let happened_at = happened_at(plan, group_id, work_item_id);
        let ids = destinations
            .get(&organization_id)
            .map_or(&[][..], Vec::as_slice);
        ids.iter()
            .map(move |id| Notice {
                to: Recipient::DestinationId(*id),
                happened_at,
                event: event.clone(),
            })
            .collect::<Vec<_>>()
    };
    assignees.chain(statuses).flat_map(to_all).collect()
}

fn happened_at(plan: &Plan, group_id: i64, work_item_id: i64) -> Option<OffsetDateTime> {
    let link = plan
        .links
        .iter()
        .find(|link| link.group_id == group_id && link.work_item_id == work_item_id);
    link.map(|link| link.changed_date)
}

/// Returns a follow-up for each other work item of a group whose assignee changed, and for each
/// one that is behind its group.
fn syncs(
    changed: &NetChanges,
    applied: &Applied,
    plan: &Plan,
    links: &[OutboundLink],
    integration_id: i64,
) -> BTreeSet<AssigneeSync> {
    let others = links.iter().filter_map(|link| {
        let change = changed.assignees.get(&link.group_id)?;
        let decided =
            link.integration_id == integration_id && link.work_item_id == change.work_item_id;
        (!decided).then_some(AssigneeSync {
            group_id: link.group_id,
            organization_id: change.organization_id,
            integration_id: link.integration_id,
            work_item_id: link.work_item_id,
        })
    });
    let behind = applied.behind.iter().filter_map(|link| {
        let organization_id = *plan.organizations.get(&link.group_id)?;
        Some(AssigneeSync {
            group_id: link.group_id,
            organization_id,
            integration_id,
            work_item_id: link.work_item_id,
        })
    });
    others.chain(behind).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::tracker::BehindLink;

    fn change(
        group_id: i64,
        work_item_id: i64,
        from: Option<i64>,
        to: Option<i64>,
    ) -> AssigneeChange {
        let person = |id: i64| (id, format!("user {id}"));
        AssigneeChange {
            group_id,
            organization_id: 100 + group_id,
            group_short_id: format!("WEB-{group_id}"),
            group_title: "T".to_owned(),
            work_item_id,
            from: from.map(person),
            to: to.map(person),
        }
    }

    fn status(group_id: i64) -> StatusChange {
        let AssigneeChange {
            organization_id,
            group_short_id,
            group_title,
            work_item_id,
            ..
        } = change(group_id, 17, None, None);
        StatusChange {
            group_id,
            organization_id,
            group_short_id,
            group_title,
            work_item_id,
            to: "resolved".to_owned(),
        }
    }

    fn destination(id: i64, name: &str) -> Destination {
        Destination {
            id,
            organization: "acme".to_owned(),
            name: name.to_owned(),
            kind: "webhook".to_owned(),
            config: Value::Null,
            secret: None,
            previous_secret: None,
            unknown_policy: "resend".to_owned(),
            disabled: false,
        }
    }

    fn outbound(group_id: i64, integration_id: i64, work_item_id: i64) -> OutboundLink {
        OutboundLink {
            group_id,
            integration_id,
            work_item_id,
        }
    }

    #[test]
    fn the_work_item_that_decided_is_not_written_back_and_all_others_are() {
        let applied = Applied {
            assignees: vec![change(1, 17, None, Some(42))],
            ..Applied::default()
        };
        let links = [outbound(1, 3, 17), outbound(1, 3, 18), outbound(1, 4, 17)];
        let syncs = syncs(
            &NetChanges::of(&applied),
            &applied,
            &Plan::default(),
            &links,
            3,
        );
        let targets: Vec<String> = syncs.iter().map(|sync| sync.child().target).collect();
        assert_eq!(targets, ["assignee_sync:1:3:18", "assignee_sync:1:4:17"]);
        assert!(syncs.iter().all(|sync| sync.organization_id == 101));
    }

    #[test]
    fn a_work_item_behind_its_group_is_brought_in_line_once() {
        let behind = vec![
            BehindLink {
                group_id: 1,
                work_item_id: 18,
            },
            BehindLink {
                group_id: 2,
                work_item_id: 19,
            },
        ];
        let applied = Applied {
            assignees: vec![change(1, 17, None, Some(42))],
            behind,
            ..Applied::default()
        };
        let plan = Plan {
            organizations: BTreeMap::from([(1, 101), (2, 102)]),
            ..Plan::default()
        };
        let syncs = syncs(
            &NetChanges::of(&applied),
            &applied,
            &plan,
            &[outbound(1, 3, 18)],
            3,
        );
        let all: Vec<_> = syncs
            .iter()
            .map(|sync| (sync.group_id, sync.organization_id, sync.work_item_id))
            .collect();
        assert_eq!(all, [(1, 101, 18), (2, 102, 19)]);
    }

    #[test]
    fn two_decisions_in_one_job_are_reported_as_one_or_as_none_if_they_cancel_out() {
        let assignees = vec![
            change(1, 17, None, Some(42)),
            change(1, 18, Some(42), Some(43)),
        ];
        let changed = NetChanges::of(&Applied {
            assignees,
            ..Applied::default()
        });
        let destinations = Destinations::from([(101, vec![9])]);
        let sent = notices(&changed, &Plan::default(), &destinations);
        assert_eq!(sent.len(), 1);
        assert_eq!(
            sent[0].event,
            Event::Assignee(change(1, 18, None, Some(43)))
        );
        let back = vec![
            change(1, 17, Some(42), Some(43)),
            change(1, 18, Some(43), Some(42)),
        ];
        let changed = NetChanges::of(&Applied {
            assignees: back,
            ..Applied::default()
        });
        assert_eq!(notices(&changed, &Plan::default(), &destinations), []);
    }

    #[test]
    fn a_click_is_answered_with_changes_of_its_own_organization_only() {
        let applied = Applied {
            assignees: vec![
                change(1, 17, None, Some(42)),
                change(2, 17, None, Some(42)),
                change(1, 18, Some(42), Some(43)),
            ],
            statuses: vec![status(2)],
            ..Applied::default()
        };
        let changes = NetChanges::of(&applied).of_organization(101);
        assert_eq!(
            changes,
            Event::Outcome {
                assignees: vec![change(1, 18, None, Some(43))],
                statuses: Vec::new()
            }
        );
    }

    #[test]
    fn each_destination_gets_each_kind_of_change_of_its_own_organization_s_groups() {
        let applied = Applied {
            assignees: vec![change(1, 17, None, Some(42)), change(2, 17, None, Some(42))],
            statuses: vec![status(1)],
            ..Applied::default()
        };
        let destinations = Destinations::from([(101, vec![9, 8]), (102, vec![7])]);
        let sent = notices(&NetChanges::of(&applied), &Plan::default(), &destinations);
        let targets: BTreeSet<String> = sent.iter().map(|notice| notice.child().target).collect();
        let right = [
            "messaging:7:2:assignee",
            "messaging:8:1:assignee",
            "messaging:8:1:status",
            "messaging:9:1:assignee",
            "messaging:9:1:status",
        ];
        assert_eq!(
            (
                targets
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
                sent.len()
            ),
            (&right[..], 5)
        );
    }

    #[test]
    fn an_unknown_destination_is_named_with_the_way_to_register_it() {
        let names = ["team", "tame", "team"].map(str::to_owned);
        let known = [destination(9, "team")];
        let fault = StageFault::from(named(&names, &known, "acme").unwrap_err());
        assert_eq!(fault.code(), "unknown_destination");
        assert!(
            fault.message().contains("`tame`") && !fault.message().contains("`team`"),
            "{}",
            fault.message()
        );
        assert!(
            fault
                .hint()
                .contains("dispatch destinations register --organization acme"),
            "{}",
            fault.hint()
        );
        let twice = [names[0].clone(), names[2].clone()];
        assert_eq!(named(&twice, &known, "acme").unwrap(), [9]);
    }
}
