//! Plans the assignees and statuses of the linked groups.
//!
//! *Needs*: `fetch_states`, `process_work_items`.
//! *Effects*: none. `update_assignments` applies the plan.
//! *Safe to repeat*: the stage only reads our own tables, and applying the plan detects changes
//! that were made meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::process_work_items::ProcessedWorkItem;
use super::{FetchStates, ProcessWorkItems};
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::fault::storable;
use crate::pipelines::Dispatch;
use crate::providers::azure_devops::{Assignee, StateCategory};
use crate::tracker::{
    AssigneePlan, LinkedGroup, PlannedLink, StatusPlan, assignee_key, is_done_category,
};

#[derive(Debug, Clone, Copy)]
pub struct SyncAssignees;

/// The changes to apply; empty if no group is linked to the work items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One entry for each (group, work item), sorted by group and work item.
    pub links: Vec<PlannedLink>,
    /// The organization of each group: follow-ups act for the group's organization, which may
    /// differ from the request's.
    pub organizations: BTreeMap<i64, i64>,
}

/// Users by project and verified e-mail, lowercase.
type Members = HashMap<(i64, String), i64>;

impl Stage for SyncAssignees {
    type Product = Dispatch;

    const NAME: &'static str = "sync_assignees";
    const NEEDS: &'static [&'static str] = &[FetchStates::NAME, ProcessWorkItems::NAME];
    type Output = Plan;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let processed = cx.output::<ProcessWorkItems>()?;
        if processed.items.is_empty() {
            return Ok(StageOutcome::of(Plan::default()));
        }
        let integration_id = cx.output::<FetchStates>()?.account()?.integration_id;
        let items: HashMap<i64, ProcessedWorkItem> = processed
            .items
            .into_iter()
            .map(|one| (one.item.id, one))
            .collect();
        let mut ids: Vec<i64> = items.keys().copied().collect();
        ids.sort_unstable();
        let groups = cx
            .services
            .tracker
            .linked_groups(integration_id, &ids)
            .await?;
        let members = cx
            .services
            .tracker
            .members_by_email(&wanted(&groups, &items))
            .await?;
        let plan = plan(&groups, &items, &members);
        let skipped = left_aside(&plan, &items);
        Ok(StageOutcome::of(plan).with_skipped("assignments", skipped))
    }
}

/// Returns each (project, e-mail) to look up, without duplicates.
fn wanted(groups: &[LinkedGroup], items: &HashMap<i64, ProcessedWorkItem>) -> Vec<(i64, String)> {
    let follow_up = |group: &LinkedGroup| {
        let email = items.get(&group.work_item_id)?.item.assigned_to.email()?;
        group
            .settings
            .assignee_inbound
            .then(|| (group.project_id, email.to_lowercase()))
    };
    groups
        .iter()
        .filter_map(follow_up)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn plan(
    groups: &[LinkedGroup],
    items: &HashMap<i64, ProcessedWorkItem>,
    members: &Members,
) -> Plan {
    let link = |group: &LinkedGroup| {
        let ProcessedWorkItem { item, category } = items.get(&group.work_item_id)?;
        Some(PlannedLink {
            group_id: group.group_id,
            work_item_id: item.id,
            rev: item.rev,
            changed_date: item.changed_date,
            tracker_assignee: as_written(&item.assigned_to),
            assignee: assignee_plan(group, &item.assigned_to, members),
            status: status_plan(group, *category),
            category: category_word(group, *category),
        })
    };
    let organizations = groups
        .iter()
        .map(|group| (group.group_id, group.organization_id))
        .collect();
    Plan {
        links: groups.iter().filter_map(link).collect(),
        organizations,
    }
}

/// Counts the work items without a linked group, and the links whose assignee is not a user of the
/// tracker.
fn left_aside(plan: &Plan, items: &HashMap<i64, ProcessedWorkItem>) -> BTreeMap<String, u32> {
    let linked: HashSet<i64> = plan.links.iter().map(|link| link.work_item_id).collect();
    let not_linked = items.keys().filter(|id| !linked.contains(id)).count();
    let unresolved = plan
        .links
        .iter()
        .filter(|link| matches!(link.assignee, AssigneePlan::Unresolved(_)))
        .count();
    let counts = [("not_linked", not_linked), ("unresolved", unresolved)];
    counts
        .map(|(reason, count)| (reason.to_owned(), u32::try_from(count).unwrap_or(u32::MAX)))
        .into()
}

fn assignee_plan(group: &LinkedGroup, assignee: &Assignee, members: &Members) -> AssigneePlan {
    if !group.settings.assignee_inbound {
        return AssigneePlan::Keep;
    }
    if *assignee == Assignee::Unassigned {
        return AssigneePlan::Unassign;
    }
    let Some(email) = assignee.email() else {
        let who = assignee.label().unwrap_or("somebody");
        return AssigneePlan::Unresolved(reason(&format!(
            "the tracker names {who} without an e-mail address"
        )));
    };
    members
        .get(&(group.project_id, email.to_lowercase()))
        .map_or_else(
            || {
                AssigneePlan::Unresolved(reason(&format!(
                    "no member of the project has the verified e-mail address {email}"
                )))
            },
            |user| AssigneePlan::Assign(*user),
        )
}

/// Returns the change of status: not-done → done resolves, done → not-done unresolves. If nothing
/// was applied yet, only done causes a change.
fn status_plan(group: &LinkedGroup, now: Option<StateCategory>) -> StatusPlan {
    let Some(now) = now.filter(|_| group.settings.status_inbound) else {
        return StatusPlan::None;
    };
    match (
        group.applied_category.as_deref().map(is_done_category),
        now.is_done(),
    ) {
        (None | Some(false), true) => StatusPlan::Resolve,
        (Some(true), false) => StatusPlan::Unresolve,
        (None | Some(false), false) | (Some(true), true) => StatusPlan::None,
    }
}

/// Returns the category as a word. A state without a category leaves the last applied one.
fn category_word(group: &LinkedGroup, now: Option<StateCategory>) -> String {
    now.map_or_else(
        || group.applied_category.clone().unwrap_or_default(),
        |category| word(category).to_owned(),
    )
}

/// Returns the vendor's word, which the tracker's tables store.
const fn word(category: StateCategory) -> &'static str {
    match category {
        StateCategory::Proposed => "Proposed",
        StateCategory::InProgress => "InProgress",
        StateCategory::Resolved => "Resolved",
        StateCategory::Completed => "Completed",
        StateCategory::Removed => "Removed",
        StateCategory::Other => "Other",
    }
}

/// Returns the assignee in the form that the ledger of our own writes stores, `None` if
/// unassigned. A person without a name or an address does not count as unassigned.
pub(crate) fn as_written(assignee: &Assignee) -> Option<String> {
    match assignee {
        Assignee::Unassigned => None,
        Assignee::Person { .. } => Some(assignee_key(assignee.label().unwrap_or_default())),
    }
}

/// The limit of a stored reason, which contains names of any length.
const REASON_BYTES: usize = 500;

fn reason(text: &str) -> String {
    storable(text, REASON_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pipelines::dispatch::samples::{linked_group, work_item};
    use crate::tracker::SyncSettings;

    const OFF: SyncSettings = SyncSettings {
        assignee_inbound: false,
        assignee_outbound: false,
        status_inbound: false,
    };

    fn items(assigned_to: Assignee) -> HashMap<i64, ProcessedWorkItem> {
        let item = crate::providers::azure_devops::WorkItem {
            assigned_to,
            ..work_item(17, 4)
        };
        HashMap::from([(
            17,
            ProcessedWorkItem {
                item,
                category: Some(StateCategory::Completed),
            },
        )])
    }

    fn ann() -> Assignee {
        Assignee::parse(&json!({ "displayName": "Ann", "uniqueName": "Ann@Example.com" }))
    }

    #[test]
    fn a_verified_member_is_assigned_whatever_the_case() {
        let group = linked_group(1, 17);
        assert_eq!(
            wanted(&[group.clone(), group.clone()], &items(ann())),
            [(group.project_id, "ann@example.com".to_owned())]
        );
        let members = Members::from([((group.project_id, "ann@example.com".to_owned()), 42)]);
        let plan = plan(&[group], &items(ann()), &members);
        assert_eq!(plan.links[0].assignee, AssigneePlan::Assign(42));
        assert_eq!(
            plan.links[0].tracker_assignee.as_deref(),
            Some("ann@example.com")
        );
        assert_eq!(
            (plan.links[0].status, plan.links[0].category.as_str()),
            (StatusPlan::Resolve, "Completed")
        );
    }

    #[test]
    fn work_items_without_a_group_and_unknown_assignees_are_counted() {
        let mut items = items(ann());
        let other = ProcessedWorkItem {
            item: work_item(18, 1),
            category: None,
        };
        items.insert(18, other);
        let (one, two) = (linked_group(1, 17), linked_group(2, 17));
        let unknown = plan(&[one.clone(), two.clone()], &items, &Members::new());
        let counts = |not_linked, unresolved| {
            BTreeMap::from([
                ("not_linked".to_owned(), not_linked),
                ("unresolved".to_owned(), unresolved),
            ])
        };
        assert_eq!(left_aside(&unknown, &items), counts(1, 2));
        let members = Members::from([((one.project_id, "ann@example.com".to_owned()), 42)]);
        let known = plan(&[one, two, linked_group(3, 18)], &items, &members);
        assert_eq!(left_aside(&known, &items), counts(0, 0));
    }

    #[test]
    fn an_empty_assignee_unassigns_and_an_unknown_one_does_not() {
        let group = linked_group(1, 17);
        let plan = assignee_plan(&group, &Assignee::Unassigned, &Members::new());
        assert_eq!(plan, AssigneePlan::Unassign);
        for who in [
            json!("Bare Name"),
            json!("Name <CORP\\user>"),
            json!("x@example.com"),
            json!(7),
        ] {
            let plan = assignee_plan(&group, &Assignee::parse(&who), &Members::new());
            assert!(
                matches!(plan, AssigneePlan::Unresolved(_)),
                "{who}: {plan:?}"
            );
        }
    }

    #[test]
    fn a_switched_off_sync_keeps_everything_and_looks_up_no_user() {
        let group = LinkedGroup {
            settings: OFF,
            ..linked_group(1, 17)
        };
        assert_eq!(wanted(std::slice::from_ref(&group), &items(ann())), []);
        let plan = plan(&[group], &items(ann()), &Members::new());
        assert_eq!(
            (&plan.links[0].assignee, plan.links[0].status),
            (&AssigneePlan::Keep, StatusPlan::None)
        );
    }

    #[test]
    fn the_status_follows_crossings_between_done_and_not_done_only() {
        use StateCategory::{Completed, InProgress, Proposed, Removed, Resolved};
        for (before, now, expected) in [
            (None, Completed, StatusPlan::Resolve),
            (None, Proposed, StatusPlan::None),
            (Some("InProgress"), Resolved, StatusPlan::Resolve),
            (Some("Resolved"), Completed, StatusPlan::None),
            (Some("Completed"), InProgress, StatusPlan::Unresolve),
            (Some("Proposed"), Removed, StatusPlan::None),
        ] {
            let group = LinkedGroup {
                applied_category: before.map(str::to_owned),
                ..linked_group(1, 17)
            };
            assert_eq!(
                status_plan(&group, Some(now)),
                expected,
                "{before:?} → {now:?}"
            );
        }
    }

    #[test]
    fn the_tracker_and_the_provider_call_the_same_categories_done() {
        use StateCategory::{Completed, InProgress, Other, Proposed, Removed, Resolved};
        for category in [Proposed, InProgress, Resolved, Completed, Removed, Other] {
            assert_eq!(
                is_done_category(word(category)),
                category.is_done(),
                "{category:?}"
            );
        }
    }

    #[test]
    fn a_state_without_a_meaning_changes_nothing() {
        let group = LinkedGroup {
            applied_category: Some("Completed".to_owned()),
            ..linked_group(1, 17)
        };
        assert_eq!(status_plan(&group, None), StatusPlan::None);
        assert_eq!(category_word(&group, None), "Completed");
    }

    proptest! {
        #[test]
        fn every_name_can_be_stored_and_differs_from_unassigned(name in "\\PC{1,400}|[\u{0}a]{1,9}") {
            let written = as_written(&Assignee::Person { display_name: Some(name), email: None, unique_name: None });
            let written = written.expect("somebody is not nobody");
            prop_assert!(!written.contains('\0'));
        }
    }
}
