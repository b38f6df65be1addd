//! Writes the assignee, unless the group has another assignee by now or a person has changed the
//! work item.
//!
//! *Needs*: `find_assignee`.
//! *Effects*: K1 on `work_item:{integration}:{id}`: a PATCH that tests the revision first. One
//! PATCH per work item at a time.
//! *Safe to repeat*: after a PATCH whose answer was lost, the work item already has the value, and
//! the ledger identifies it as our own write. Azure DevOps refuses a PATCH for an older revision.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::AssigneeSync;
use super::find_assignee::{FindAssignee, Target};
use crate::engine::{
    Context, EngineFault, Intent, Prepared, Stage, StageOutcome, StageResult, UnknownPolicy,
};
use crate::fault::{Certainty, Class, StageFault};
use crate::job::{EffectClass, words};
use crate::pipelines::dispatch::sync_assignees::as_written;
use crate::pipelines::{Dispatch, ProductFault, SignedIn};
use crate::providers::azure_devops::{Assign, WorkItem, WorkItemsBatch};
use crate::tracker::{Changes, GroupAssignee, assignee_key, work_item_resource};

#[derive(Debug, Clone, Copy)]
pub struct PatchWorkItem;

/// The result for the work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// The result as a word.
    pub result: PatchResult,
    /// The revision with the group's assignee, if there is one.
    pub rev: Option<i64>,
}

words! {
    /// The result for a work item, as a word.
    PatchResult {
        /// It was assigned.
        Written = "written",
        /// It had the group's assignee already.
        Already = "already",
        /// The group has another assignee by now, or a person's later change will decide.
        Superseded = "superseded",
        /// It is deleted, or the identity cannot see it.
        Deleted = "deleted",
        /// It is no longer linked to the group.
        Unlinked = "unlinked",
    }
}

/// The details that the ledger stores with the intent; the tracker recognizes our own write by
/// them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Detail {
    /// The group of the write. For another group of the same work item, our write is a new change.
    group_id: i64,
    rev_before: i64,
    value: Option<String>,
}

/// The upper limit of a PATCH, regardless of the setting; the stage's own timeout leaves room for
/// the reads before it.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

type PatchPlan = Prepared<Patched, Changes>;

impl Stage for PatchWorkItem {
    type Product = Dispatch;

    const NAME: &'static str = "patch_work_item";
    const NEEDS: &'static [&'static str] = &[FindAssignee::NAME];
    const TIMEOUT: Duration = Duration::from_secs(60);
    const EFFECT: Option<EffectClass> = Some(EffectClass::CompareAndSet);
    type Output = Patched;

    async fn prepare(&self, cx: &Context<'_, Dispatch>) -> Result<PatchPlan, StageFault> {
        let sync = cx.payload::<AssigneeSync>()?;
        let target = cx.output::<FindAssignee>()?.target()?;
        let tracker = &cx.services.tracker;
        // The order of these reads matters. One commit applies a link's revision together with its
        // decision. If the revision read here counts as applied, the group read after it already
        // contains the decision; otherwise a person's change would be neither new nor in the
        // group, and would be overwritten permanently. The group is read after the work item: a
        // value that another follow-up has written was the group's assignee before that write, so
        // a group read earlier could be older and overwrite the newer value. A work item kept by
        // an earlier run, before a wait, is older than both. That is harmless: the PATCH succeeds
        // only if the work item is still at that revision, and otherwise everything is read again.
        // But if an earlier call may have written, only a new read shows its result.
        if cx.pieces().get::<WorkItem>(WORK_ITEM).is_some()
            && tracker.has_open_effect(cx.job.id).await?
        {
            cx.pieces().clear();
        }
        let applied = tracker
            .link_applied_rev(sync.group_id, sync.integration_id, sync.work_item_id)
            .await?;
        let Some(applied_rev) = applied else {
            return Ok(done(PatchResult::Unlinked));
        };
        let mut azure_devops = SignedIn::of(cx, target.identity_id);
        let Some(item) = read_work_item(&mut azure_devops, &sync, &target).await? else {
            return Ok(done(PatchResult::Deleted));
        };
        let Some(group) = tracker.group_assignee(sync.group_id).await? else {
            return Ok(done(PatchResult::Superseded));
        };
        let written = as_written(&item.assigned_to);
        let own_write = item.rev > applied_rev
            && tracker
                .own_write(
                    sync.integration_id,
                    sync.work_item_id,
                    item.rev,
                    written.as_deref(),
                )
                .await?;
        let observed = Observed {
            group: &group,
            item: &item,
            written,
            applied_rev,
            own_write,
        };
        let plan = decide(
            &observed,
            &sync,
            &target,
            cx.services.providers.call_timeout.min(CALL_TIMEOUT),
        );
        if matches!(plan, Prepared::Effect(_)) {
            // Waits before the intent is stored, because the intent's deadline counts from then.
            azure_devops.may_call().await?;
        }
        Ok(plan)
    }

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let sync = cx.payload::<AssigneeSync>()?;
        let target = cx.output::<FindAssignee>()?.target()?;
        let effect = cx.stored_effect()?;
        let detail = Detail::deserialize(&effect.detail)
            .map_err(|error| EngineFault::Shape(Self::NAME, error))?;
        let assign = Assign {
            account: &target.account_name,
            id: sync.work_item_id,
            rev: detail.rev_before,
            unique_name: target.unique_name.as_deref(),
            deadline: Instant::from_std(effect.deadline),
        };
        // The kept work item is useless once it may have changed: it is kept only if it is known
        // to be unchanged.
        let seen: Option<WorkItem> = cx.pieces().get(WORK_ITEM);
        cx.pieces().clear();
        let rev = match SignedIn::of(cx, target.identity_id).call(&assign).await {
            Ok(rev) => rev,
            Err(fault) => {
                let is_as_seen =
                    fault.certainty() == Certainty::NotDone && fault.class() != Class::Conflict;
                if let Some(seen) = seen.filter(|_| is_as_seen) {
                    cx.pieces().put(WORK_ITEM, &seen);
                }
                return Err(fault);
            }
        };
        let outcome = StageOutcome::of(Patched {
            result: PatchResult::Written,
            rev: Some(rev),
        });
        Ok(outcome
            .with_changes(applied(&sync, rev))
            .with_provider_ref(Some(rev.to_string())))
    }
}

/// Returns the present work item, or the one that an earlier run of this stage has kept; `None` if
/// it is deleted or the identity cannot see it.
async fn read_work_item(
    azure_devops: &mut SignedIn<'_>,
    sync: &AssigneeSync,
    target: &Target,
) -> Result<Option<WorkItem>, StageFault> {
    if let Some(seen) = azure_devops.known(WORK_ITEM) {
        return Ok(Some(seen));
    }
    let id = sync.work_item_id;
    let mut read = match azure_devops
        .try_call(&WorkItemsBatch {
            account: &target.account_name,
            ids: &[id],
        })
        .await?
    {
        Ok(read) => read,
        Err(fault)
            if fault
                .refused()
                .is_some_and(|refused| refused.status == Some(404)) =>
        {
            return Ok(None);
        }
        Err(fault) => return Err(fault.into()),
    };
    if let Some(unreadable) = read.unreadable.pop() {
        return Err(ProductFault::UnreadableWorkItem {
            id,
            why: unreadable.why,
        }
        .into());
    }
    let item = read.items.into_iter().find(|item| item.id == id);
    if let Some(item) = &item {
        azure_devops.keep(WORK_ITEM, item);
    }
    Ok(item)
}

/// The name of the kept piece: the work item that was read before a PATCH.
const WORK_ITEM: &str = "look";

/// The state that was read before a PATCH.
struct Observed<'a> {
    group: &'a GroupAssignee,
    item: &'a WorkItem,
    /// The work item's assignee in the form that the ledger stores.
    written: Option<String>,
    /// The revision that the link has applied.
    applied_rev: i64,
    /// Whether the work item's revision is our own write that is not yet applied.
    own_write: bool,
}

fn decide(
    observed: &Observed<'_>,
    sync: &AssigneeSync,
    target: &Target,
    timeout: Duration,
) -> PatchPlan {
    let Observed {
        group,
        item,
        written,
        applied_rev,
        own_write,
    } = observed;
    if group.user.as_ref().map(|user| user.id) != target.user_id {
        return done(PatchResult::Superseded);
    }
    let value = target.unique_name.as_deref().map(assignee_key);
    if *written == value {
        let outcome = StageOutcome::of(Patched {
            result: PatchResult::Already,
            rev: Some(item.rev),
        });
        let outcome = outcome.with_provider_ref(Some(item.rev.to_string()));
        return Prepared::Done(if *own_write {
            outcome.with_changes(applied(sync, item.rev))
        } else {
            outcome
        });
    }
    // A person's change that no job has handled yet, and that is not earlier than the group's
    // decision: its own event decides.
    let is_news = item.rev > *applied_rev && !own_write;
    if is_news
        && group
            .decided_at
            .is_some_and(|decided_at| item.changed_date >= decided_at)
    {
        return done(PatchResult::Superseded);
    }
    let detail = Detail {
        group_id: sync.group_id,
        rev_before: item.rev,
        value,
    };
    Prepared::Effect(Box::new(intent(sync, &detail, timeout)))
}

fn intent(sync: &AssigneeSync, detail: &Detail, timeout: Duration) -> Intent {
    let work_item = work_item_resource(sync.integration_id, sync.work_item_id);
    Intent {
        target: work_item.clone(),
        class: EffectClass::CompareAndSet,
        keyed_for: None,
        resource: Some(work_item),
        detail: serde_json::to_value(detail)
            .expect("numbers and a string can be serialized as JSON"),
        unknown: UnknownPolicy::Resend,
        timeout,
    }
}

const fn applied(sync: &AssigneeSync, rev: i64) -> Changes {
    let AssigneeSync {
        group_id,
        integration_id,
        work_item_id,
        ..
    } = *sync;
    Changes::AppliedRevision {
        group_id,
        integration_id,
        work_item_id,
        rev,
    }
}

const fn done(result: PatchResult) -> PatchPlan {
    Prepared::Done(StageOutcome::of(Patched { result, rev: None }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::OffsetDateTime;
    use time::macros::datetime;

    use super::*;
    use crate::pipelines::dispatch::samples::work_item;
    use crate::providers::azure_devops::Assignee;
    use crate::tracker::User;

    const SYNC: AssigneeSync = AssigneeSync {
        group_id: 1,
        organization_id: 2,
        integration_id: 3,
        work_item_id: 17,
    };
    const EARLIER: OffsetDateTime = datetime!(2026-01-01 00:00:00 UTC);
    const LATER: OffsetDateTime = datetime!(2026-02-01 00:00:00 UTC);

    fn target(name: Option<&str>) -> Target {
        Target {
            account_name: "contoso".to_owned(),
            identity_id: 7,
            user_id: name.map(|_| 42),
            unique_name: name.map(str::to_owned),
        }
    }

    fn group(user_id: Option<i64>, decided_at: OffsetDateTime) -> GroupAssignee {
        let user = user_id.map(|id| User {
            id,
            name: "Ann".to_owned(),
            emails: Vec::new(),
        });
        GroupAssignee {
            user,
            decided_at: Some(decided_at),
        }
    }

    /// The work item is at revision 4, changed between [`EARLIER`] and [`LATER`].
    fn decided(
        group: &GroupAssignee,
        has: &str,
        applied_rev: i64,
        own_write: bool,
        target: &Target,
    ) -> PatchPlan {
        let item = WorkItem {
            assigned_to: Assignee::parse(&json!(has)),
            ..work_item(17, 4)
        };
        let written = as_written(&item.assigned_to);
        decide(
            &Observed {
                group,
                item: &item,
                written,
                applied_rev,
                own_write,
            },
            &SYNC,
            target,
            CALL_TIMEOUT,
        )
    }

    fn result(plan: PatchPlan) -> Option<(PatchResult, Option<Changes>)> {
        match plan {
            Prepared::Done(outcome) => outcome
                .output
                .map(|patched| (patched.result, outcome.changes)),
            Prepared::Effect(_) | Prepared::NoEffect(_) => None,
        }
    }

    #[test]
    fn a_group_that_has_moved_on_is_left_to_the_newer_follow_up() {
        let ann = target(Some("Ann@example.com"));
        for user in [None, Some(43)] {
            let plan = decided(&group(user, LATER), "bob@example.com", 4, false, &ann);
            assert_eq!(result(plan), Some((PatchResult::Superseded, None)));
        }
    }

    #[test]
    fn the_intent_has_the_revision_and_the_value_by_which_our_write_is_known_again() {
        let plan = decided(
            &group(Some(42), LATER),
            "bob@example.com",
            4,
            false,
            &target(Some("Ann@example.com")),
        );
        let Prepared::Effect(intent) = plan else {
            panic!("{plan:?}")
        };
        assert_eq!(
            intent.detail,
            json!({ "group_id": 1, "rev_before": 4, "value": "ann@example.com" })
        );
        assert_eq!(
            (intent.target.as_str(), intent.resource.as_deref()),
            ("work_item:3:17", Some("work_item:3:17"))
        );
        let Prepared::Effect(intent) = decided(
            &group(None, LATER),
            "bob@example.com",
            4,
            false,
            &target(None),
        ) else {
            panic!()
        };
        assert_eq!(
            intent.detail,
            json!({ "group_id": 1, "rev_before": 4, "value": null })
        );
    }

    #[test]
    fn a_value_that_is_there_is_not_written_again_and_our_own_write_is_applied() {
        let ann = target(Some("Ann@example.com"));
        let plan = decided(&group(Some(42), LATER), "ANN@example.com", 3, true, &ann);
        let applied = Changes::AppliedRevision {
            group_id: 1,
            integration_id: 3,
            work_item_id: 17,
            rev: 4,
        };
        assert_eq!(result(plan), Some((PatchResult::Already, Some(applied))));
        let plan = decided(&group(Some(42), LATER), "ann@example.com", 3, false, &ann);
        assert_eq!(result(plan), Some((PatchResult::Already, None)));
    }

    #[test]
    fn a_person_s_later_change_is_left_to_its_own_event() {
        let ann = target(Some("Ann@example.com"));
        let later = decided(&group(Some(42), EARLIER), "bob@example.com", 3, false, &ann);
        assert_eq!(result(later), Some((PatchResult::Superseded, None)));
        for (decided_at, applied_rev, own_write) in
            [(LATER, 3, false), (EARLIER, 4, false), (EARLIER, 3, true)]
        {
            let plan = decided(
                &group(Some(42), decided_at),
                "bob@example.com",
                applied_rev,
                own_write,
                &ann,
            );
            assert_eq!(result(plan), None, "{applied_rev} {own_write}");
        }
    }

    #[test]
    fn the_stage_lasts_longer_than_its_call() {
        assert!(PatchWorkItem::TIMEOUT > CALL_TIMEOUT);
    }
}
