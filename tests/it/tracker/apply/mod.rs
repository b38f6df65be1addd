//! Applying a plan: the change that counts, its consequences, and what stays unchanged.

mod concurrent;
mod consequences;
mod own_writes;

use dispatch_worker::tracker::{AssigneePlan, BehindLink, PlannedLink, TrackerFault};
use time::Duration;

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
