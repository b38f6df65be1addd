//! Plans that are applied at the same time.

use dispatch_worker::tracker::PlannedLink;
use time::Duration;

use super::HOUR;
use crate::support::WAITS_FOR_LOCK;
use crate::tracker::fixture::{NOON, World};

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
