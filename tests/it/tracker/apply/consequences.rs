//! What follows from an assignee or a state: activities, subscriptions, the status of a group.

use dispatch_worker::tracker::{AssigneePlan, PlannedLink};

use super::HOUR;
use crate::tracker::fixture::{NOON, World};

#[tokio::test]
async fn an_equal_value_advances_the_decision_time_without_an_activity() {
    let world = World::new().await;
    world
        .apply(vec![world.assign("WEB-1", 17, 5, "Ann").await])
        .await;
    let equal = PlannedLink {
        changed_date: NOON + HOUR * 2,
        ..world.assign("WEB-1", 18, 1, "Ann").await
    };
    let applied = world.apply(vec![equal]).await;
    assert!(
        applied.assignees.is_empty() && applied.behind.is_empty(),
        "{applied:?}"
    );
    assert_eq!(world.activities("WEB-1").await.len(), 1);
    // A change between the two no longer decides.
    let between = PlannedLink {
        changed_date: NOON + HOUR,
        ..world.assign("WEB-1", 17, 6, "Bob").await
    };
    assert_eq!(world.apply(vec![between]).await.behind.len(), 1);
    assert_eq!(world.assignee("WEB-1").await, "Ann");
}

#[tokio::test]
async fn unassigning_leaves_no_assignee() {
    let world = World::new().await;
    world
        .apply(vec![world.assign("WEB-1", 17, 5, "Ann").await])
        .await;
    let unassign = PlannedLink {
        assignee: AssigneePlan::Unassign,
        ..world.link_plan("WEB-1", 17, 6).await
    };
    let applied = world.apply(vec![unassign]).await;
    assert_eq!(applied.assignees[0].to, None);
    assert_eq!(world.assignee("WEB-1").await, "nobody");
    assert_eq!(
        world.activities("WEB-1").await,
        ["assigned|Ann|-|5", "unassigned|-|-|6"]
    );
    assert!(subscriptions(&world).await.is_empty());
    let group = world
        .tracker
        .group_assignee(world.group("WEB-1").await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((group.user, group.decided_at), (None, Some(NOON)));
}

#[tokio::test]
async fn an_assignee_without_a_matching_user_is_recorded_and_changes_nothing() {
    let world = World::new().await;
    world
        .apply(vec![world.assign("WEB-1", 17, 5, "Ann").await])
        .await;
    let reason = "nobody has x@example.com\0".to_owned();
    let mut unknown = world.link_plan("WEB-1", 17, 6).await;
    unknown.assignee = AssigneePlan::Unresolved(reason);
    unknown.changed_date = NOON + HOUR * 2;
    unknown.tracker_assignee = Some("x\0@example.com".to_owned());
    let applied = world.apply(vec![unknown]).await;
    assert_eq!(
        (
            applied.unresolved,
            applied.assignees.len(),
            applied.behind.len()
        ),
        (1, 0, 0)
    );
    assert_eq!(
        world.activities("WEB-1").await[1..],
        ["assignee_unresolved|-|nobody has x@example.com\u{fffd}|6"]
    );
    assert_eq!(world.link("WEB-1", 17).await, "6|6|InProgress");
    // It decides nothing: an earlier change of another work item that can be resolved still
    // counts.
    let other = PlannedLink {
        changed_date: NOON + HOUR,
        ..world.assign("WEB-1", 18, 1, "Bob").await
    };
    world.apply(vec![other]).await;
    assert_eq!(world.assignee("WEB-1").await, "Bob");
}

/// Returns `name|reason` of each subscription to WEB-1.
async fn subscriptions(world: &World) -> Vec<String> {
    let sql = "SELECT u.name, s.reason FROM group_subscriptions s JOIN users u ON u.id = s.user_id
               JOIN issue_groups g ON g.id = s.group_id WHERE g.short_id = 'WEB-1' ORDER BY u.name, s.reason";
    world.sql(sql).await
}

#[tokio::test]
async fn subscriptions_follow_the_assignee_and_a_team_stays_while_a_member_is_assigned() {
    let world = World::new().await;
    let (group, cid) = (world.group("WEB-1").await, world.user("Cid").await);
    world.sql(&format!("INSERT INTO group_subscriptions (group_id, user_id, reason) VALUES ({group}, {cid}, 'manual')")).await;
    let mut rev = 0;
    let table: [(&str, &[&str]); 4] = [
        (
            "Ann",
            &["Ann|assigned", "Ann|team", "Bob|team", "Cid|manual"],
        ),
        (
            "Bob",
            &["Ann|team", "Bob|assigned", "Bob|team", "Cid|manual"],
        ),
        ("Zoë", &["Cid|manual", "Zoë|assigned"]),
        ("Cid", &["Cid|assigned", "Cid|manual"]),
    ];
    for (user, expected) in table {
        rev += 1;
        world
            .apply(vec![world.assign("WEB-1", 17, rev, user).await])
            .await;
        assert_eq!(subscriptions(&world).await, expected, "{user}");
    }
}

#[tokio::test]
async fn a_status_follows_the_state_category() {
    let world = World::new().await;
    let table = [
        (1, "Proposed", "unresolved", false),
        (2, "Resolved", "resolved", true),
        (3, "Completed", "resolved", false),
        (2, "InProgress", "resolved", false),
        (4, "InProgress", "unresolved", true),
        (5, "Removed", "unresolved", false),
        (6, "Completed", "resolved", true),
    ];
    for (rev, category, expected, changes) in table {
        let plan = PlannedLink {
            category: category.to_owned(),
            ..world.link_plan("WEB-1", 17, rev).await
        };
        let applied = world.apply(vec![plan]).await;
        let status = world
            .one("SELECT status FROM issue_groups WHERE short_id = 'WEB-1'")
            .await;
        assert_eq!(
            (status.as_str(), applied.statuses.len()),
            (expected, usize::from(changes)),
            "{rev} {category}"
        );
        assert!(
            applied
                .statuses
                .iter()
                .all(|change| change.to == expected && change.work_item_id == 17)
        );
    }
    assert_eq!(
        world.activities("WEB-1").await,
        ["resolved|-|-|2", "unresolved|-|-|4", "resolved|-|-|6"]
    );
    assert_eq!(world.link("WEB-1", 17).await, "0|6|Completed");
    // The first state of another link counts only if it is completed, and the group is resolved
    // already.
    let open = world.link_plan("WEB-1", 18, 1).await;
    assert!(world.apply(vec![open]).await.statuses.is_empty());
}
