//! A change that we have written ourselves is recognised, whenever its event arrives.

use dispatch_worker::tracker::{Changes, PlannedLink};
use serde_json::json;

use super::HOUR;
use crate::tracker::fixture::{NOON, World};

#[tokio::test]
async fn our_own_write_is_recognised_before_its_commit() {
    let world = World::new().await;
    let bob = PlannedLink {
        changed_date: NOON,
        ..world.assign("WEB-1", 17, 5, "Bob").await
    };
    world.apply(vec![bob]).await;
    let group_id = world.group("WEB-1").await;
    let detail = json!({"group_id": group_id, "rev_before": 7, "value": "ann@example.com"});
    world.intend(18, "in_flight", &detail).await;
    // The group is no longer assigned to Ann, whom we wrote; the event of our write must not
    // assign her again.
    let mut ours = world.assign("WEB-1", 18, 8, "Ann").await;
    ours.changed_date = NOON + HOUR;
    ours.tracker_assignee = Some("Ann@example.com".to_owned());
    ours.category = "Completed".to_owned();
    let applied = world.apply(vec![ours.clone()]).await;
    assert_eq!(
        (
            applied.old_news,
            applied.assignees.len(),
            applied.statuses.len()
        ),
        (1, 0, 1)
    );
    assert_eq!(world.assignee("WEB-1").await, "Bob");
    assert_eq!(world.link("WEB-1", 18).await, "8|8|Completed");
    let decided = "SELECT decided_at = '2026-03-01 12:00Z' FROM group_assignees";
    assert_eq!(world.one(decided).await, "t");

    // The same event for another group is a person's change.
    let other_group = PlannedLink {
        group_id: world.group("WEB-2").await,
        ..ours
    };
    world.apply(vec![other_group]).await;
    assert_eq!(world.assignee("WEB-2").await, "Ann");
}

#[tokio::test]
async fn a_write_of_ours_that_failed_or_had_another_value_is_a_persons_change() {
    let world = World::new().await;
    world
        .intend(
            17,
            "failed",
            &json!({"rev_before": 7, "value": "ann@example.com"}),
        )
        .await;
    world
        .intend(17, "confirmed", &json!({"rev_before": 7, "value": null}))
        .await;
    world
        .intend(
            17,
            "confirmed",
            &json!({"rev_before": 6, "value": "ann@example.com"}),
        )
        .await;
    let mut plan = world.assign("WEB-1", 17, 8, "Ann").await;
    plan.tracker_assignee = Some("ann@example.com".to_owned());
    let applied = world.apply(vec![plan]).await;
    assert_eq!((applied.old_news, applied.assignees.len()), (0, 1));
}

#[tokio::test]
async fn our_own_write_is_ignored_after_its_commit_and_the_next_person_s_change_counts() {
    let world = World::new().await;
    world
        .apply(vec![world.assign("WEB-1", 17, 5, "Bob").await])
        .await;
    let (group_id, integration_id) = (world.group("WEB-1").await, world.integration().await);
    let ours = |rev| Changes::AppliedRevision {
        group_id,
        integration_id,
        work_item_id: 18,
        rev,
    };
    assert_eq!(world.commit(&ours(8)).await.unwrap(), "{}");
    world.commit(&ours(6)).await.unwrap();
    assert_eq!(world.link("WEB-1", 18).await, "8|0|-");
    assert_eq!(
        world
            .tracker
            .link_applied_rev(group_id, integration_id, 18)
            .await
            .unwrap(),
        Some(8)
    );

    let mut event = world.assign("WEB-1", 18, 8, "Ann").await;
    event.changed_date = NOON + HOUR;
    event.category = "Resolved".to_owned();
    let applied = world.apply(vec![event.clone()]).await;
    assert_eq!(
        (
            applied.old_news,
            applied.assignees.len(),
            applied.statuses.len()
        ),
        (1, 0, 1)
    );
    event.rev = 9;
    assert_eq!(world.apply(vec![event]).await.assignees.len(), 1);
    assert_eq!(world.assignee("WEB-1").await, "Ann");
}
