//! Applying a plan: the change that counts, its consequences, and what stays unchanged.

use dispatch_worker::tracker::{AssigneePlan, BehindLink, Changes, PlannedLink, TrackerFault};
use serde_json::json;
use time::Duration;

use crate::support::WAITS_FOR_LOCK;
use crate::tracker::fixture::{NOON, World};

const HOUR: Duration = Duration::hours(1);

#[tokio::test]
async fn a_plan_is_applied_once() {
    let world = World::new().await;
    let plan = world.assign("WEB-1", 17, 5, "Ann").await;
    let applied = world.apply(vec![plan.clone()]).await;
    let change = &applied.assignees[0];
    let (ann, organization) = (world.user("Ann").await, world.organization().await);
    assert_eq!(
        (&change.from, &change.to),
        (&None, &Some((ann, "Ann".to_owned())))
    );
    assert_eq!(
        (change.organization_id, change.work_item_id),
        (organization, 17)
    );
    assert_eq!(
        (change.group_short_id.as_str(), change.group_title.as_str()),
        ("WEB-1", "Login is slow")
    );
    assert_eq!(world.assignee("WEB-1").await, "Ann");
    assert_eq!(world.link("WEB-1", 17).await, "5|5|InProgress");
    assert_eq!(
        world
            .sql("SELECT field, before, after FROM group_history")
            .await,
        [format!("assignee|-|{ann}")]
    );

    let again = world.apply(vec![plan]).await;
    assert!(
        again.assignees.is_empty() && again.old_news == 1,
        "{again:?}"
    );
    assert_eq!(world.activities("WEB-1").await, ["assigned|Ann|-|5"]);
}

#[tokio::test]
async fn an_older_revision_is_ignored_whatever_its_date() {
    let world = World::new().await;
    world
        .apply(vec![world.assign("WEB-1", 17, 5, "Ann").await])
        .await;
    let older = PlannedLink {
        changed_date: NOON + HOUR,
        ..world.assign("WEB-1", 17, 4, "Bob").await
    };
    let applied = world.apply(vec![older]).await;
    assert_eq!(
        (
            applied.old_news,
            applied.assignees.len(),
            applied.behind.len()
        ),
        (1, 0, 0)
    );
    assert_eq!(world.assignee("WEB-1").await, "Ann");
    assert_eq!(world.link("WEB-1", 17).await, "5|5|InProgress");
}

#[tokio::test]
async fn the_later_change_wins_in_either_order() {
    for late_first in [false, true] {
        let world = World::new().await;
        let early = world.assign("WEB-1", 17, 50, "Ann").await;
        let late = PlannedLink {
            changed_date: NOON + HOUR,
            ..world.assign("WEB-1", 18, 2, "Bob").await
        };
        let second = if late_first {
            world.apply(vec![late]).await;
            world.apply(vec![early]).await
        } else {
            world.apply(vec![early]).await;
            world.apply(vec![late]).await
        };
        assert_eq!(
            world.assignee("WEB-1").await,
            "Bob",
            "late first: {late_first}"
        );
        let behind = BehindLink {
            group_id: world.group("WEB-1").await,
            work_item_id: 17,
        };
        assert_eq!(
            second.behind,
            if late_first { vec![behind] } else { Vec::new() }
        );
        assert_eq!(world.link("WEB-1", 17).await, "50|50|InProgress");
        assert_eq!(world.link("WEB-1", 18).await, "2|2|InProgress");
    }
}

#[tokio::test]
async fn the_later_of_two_work_items_in_one_plan_decides_without_an_intermediate_change() {
    let world = World::new().await;
    let early = world.assign("WEB-1", 17, 3, "Ann").await;
    let late = PlannedLink {
        changed_date: NOON + HOUR,
        ..world.assign("WEB-1", 18, 3, "Bob").await
    };
    let applied = world.apply(vec![late, early]).await;
    assert_eq!(
        applied.behind,
        [BehindLink {
            group_id: world.group("WEB-1").await,
            work_item_id: 17
        }]
    );
    assert_eq!(world.activities("WEB-1").await, ["assigned|Bob|-|3"]);
}

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
    let nobody = PlannedLink {
        assignee: AssigneePlan::Unassign,
        ..world.link_plan("WEB-1", 17, 6).await
    };
    let applied = world.apply(vec![nobody]).await;
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

#[tokio::test]
async fn changes_that_an_organization_has_disabled_are_not_applied() {
    let world = World::new().await;
    world
        .sql(
            "UPDATE organization_integrations SET assignee_inbound = false, status_inbound = false",
        )
        .await;
    let plan = PlannedLink {
        category: "Completed".to_owned(),
        ..world.assign("WEB-1", 17, 5, "Ann").await
    };
    let applied = world.apply(vec![plan]).await;
    assert!(applied.assignees.is_empty() && applied.statuses.is_empty());
    assert_eq!(world.link("WEB-1", 17).await, "0|0|-");
}

#[tokio::test]
async fn a_link_removed_since_the_plan_is_left_out_and_an_unknown_user_refuses_the_plan() {
    let world = World::new().await;
    let unlinked = world.assign("WEB-1", 99, 5, "Ann").await;
    assert!(world.apply(vec![unlinked]).await.assignees.is_empty());
    let stranger = PlannedLink {
        assignee: AssigneePlan::Assign(987_654),
        ..world.link_plan("WEB-1", 17, 5).await
    };
    let refused = world
        .try_apply(vec![stranger], vec!["e1".to_owned()])
        .await
        .unwrap_err();
    assert!(
        matches!(refused, TrackerFault::UnknownReference { kind: "user", .. }),
        "{refused}"
    );
    assert_eq!(world.one("SELECT count(*) FROM seen_events").await, "0");
}

#[tokio::test]
async fn an_event_is_seen_once_it_is_committed() {
    let world = World::new().await;
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let first = world
        .try_apply(Vec::new(), ids(&["e1", "e2", "e1"]))
        .await
        .unwrap();
    let second = world
        .try_apply(Vec::new(), ids(&["e2", "e3\0"]))
        .await
        .unwrap();
    assert_eq!((first.events_seen, second.events_seen), (2, 1));
    let integration = world.integration().await;
    let seen = world
        .tracker
        .seen_events(integration, &ids(&["e3\0", "e4", "e1"]))
        .await
        .unwrap();
    assert_eq!(seen, ids(&["e1", "e3\0"]).into_iter().collect());
    assert!(
        world
            .tracker
            .seen_events(integration + 1, &ids(&["e1"]))
            .await
            .unwrap()
            .is_empty()
    );

    world
        .sql("UPDATE seen_events SET seen_at = now() - interval '40 days' WHERE event_id <> 'e1'")
        .await;
    let month_ago = time::OffsetDateTime::now_utc() - time::Duration::days(30);
    assert!(
        !world.tracker.forget_events(month_ago).await.unwrap(),
        "none is left to delete"
    );
    assert_eq!(world.sql("SELECT event_id FROM seen_events").await, ["e1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_neither_deadlock_nor_lose_a_change() {
    let world = World::new().await;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for group in ["WEB-1", "WEB-2"] {
        one.push(world.assign(group, 17, 0, "Ann").await);
        two.insert(
            0,
            PlannedLink {
                changed_date: NOON + HOUR,
                ..world.assign(group, 18, 0, "Bob").await
            },
        );
    }
    for rev in 1..=25 {
        let at = |plan: &[PlannedLink]| -> Vec<PlannedLink> {
            let later = |link: &PlannedLink| PlannedLink {
                rev,
                changed_date: link.changed_date + Duration::hours(rev * 2),
                ..link.clone()
            };
            plan.iter().map(later).collect()
        };
        let events =
            |first: &str, second: &str| vec![format!("{first}{rev}"), format!("{second}{rev}")];
        let (first, second) = tokio::join!(
            world.try_apply(at(&one), events("a", "b")),
            world.try_apply(at(&two), events("b", "a"))
        );
        assert_eq!(first.unwrap().events_seen + second.unwrap().events_seen, 2);
        for group in ["WEB-1", "WEB-2"] {
            assert_eq!(world.assignee(group).await, "Bob", "{group} at {rev}");
            let expected = format!("{rev}|{rev}|InProgress");
            assert_eq!(
                (world.link(group, 17).await, world.link(group, 18).await),
                (expected.clone(), expected)
            );
        }
    }
    // Each change starts from the value that the previous one left.
    let broken = "SELECT h.id FROM (SELECT id, before, lag(after) OVER (PARTITION BY group_id ORDER BY id) AS expected
                  FROM group_history) h WHERE h.before IS DISTINCT FROM h.expected";
    assert!(world.sql(broken).await.is_empty());
}

#[tokio::test]
async fn a_commit_that_waits_for_a_group_has_locked_none_with_a_higher_id() {
    let world = World::new().await;
    let plan = vec![
        world.assign("WEB-2", 17, 1, "Ann").await,
        world.assign("WEB-1", 17, 1, "Ann").await,
    ];
    let mut client = world.database.pool.get().await.unwrap();
    let held = client.transaction().await.unwrap();
    held.batch_execute("SELECT id FROM issue_groups WHERE short_id = 'WEB-1' FOR UPDATE")
        .await
        .unwrap();
    let look = async {
        while world.one(WAITS_FOR_LOCK).await == "0" {}
        world
            .sql("SELECT id FROM issue_groups WHERE short_id = 'WEB-2' FOR UPDATE NOWAIT")
            .await;
        held.commit().await.unwrap();
    };
    let both = async { tokio::join!(world.apply(plan), look) };
    let (applied, ()) = tokio::time::timeout(std::time::Duration::from_secs(10), both)
        .await
        .unwrap();
    assert_eq!(applied.assignees.len(), 2);
}
