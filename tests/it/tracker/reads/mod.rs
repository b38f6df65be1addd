//! Reads of the tracker's tables by stages, and the turns that they take to refresh an identity.

mod refreshes;

use std::time::Duration;

use dispatch_worker::fault::{Class, Fault};
use dispatch_worker::tracker::{OutboundLink, TrackerFault};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::tracker::fixture::{NOON, World};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn members_are_found_by_verified_addresses_in_any_case() {
    let world = World::new().await;
    let (ann, bob, zoe) = (
        world.user("Ann").await,
        world.user("Bob").await,
        world.user("Zoë").await,
    );
    let project: i64 = world.one("SELECT id FROM projects").await.parse().unwrap();
    world
        .sql(&format!(
            "INSERT INTO user_emails (user_id, email) VALUES ({bob}, 'claimed@example.com')"
        ))
        .await;
    world
        .sql(
            "DELETE FROM project_members WHERE user_id = (SELECT id FROM users WHERE name = 'Cid')",
        )
        .await;
    let ask = |email: &str| (project, email.to_owned());
    let wanted = [
        ask("ann@example.com"),
        ask("ANN@second.Example"),
        ask("zoë@example.com"),
        ask("claimed@example.com"),
        ask("cid@example.com"),
        ask("nobody\0@example.com"),
        (project + 1, "ann@example.com".to_owned()),
    ];
    let members = world.tracker.members_by_email(&wanted).await.unwrap();
    let expected = [
        (wanted[0].clone(), ann),
        (wanted[1].clone(), ann),
        (wanted[2].clone(), zoe),
    ];
    assert_eq!(members, expected.into_iter().collect());
    assert!(
        world
            .tracker
            .members_by_email(&[])
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn linked_groups_are_those_of_organizations_that_follow_the_tracker() {
    let world = World::new().await;
    let (integration, web_1, web_2) = (
        world.integration().await,
        world.group("WEB-1").await,
        world.group("WEB-2").await,
    );
    world
        .apply(vec![world.assign("WEB-1", 18, 4, "Bob").await])
        .await;
    let linked = async || {
        let groups = world
            .tracker
            .linked_groups(integration, &[18, 17, 99])
            .await
            .unwrap();
        groups
            .iter()
            .map(|group| (group.group_id, group.work_item_id))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        linked().await,
        [(web_1, 17), (web_1, 18), (web_2, 17), (web_2, 18)]
    );
    let group = world
        .tracker
        .linked_groups(integration, &[18])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        (group.organization_id, group.applied_rev),
        (world.organization().await, 4)
    );
    assert_eq!(
        (group.assignee, group.applied_category.as_deref()),
        (Some(world.user("Bob").await), Some("InProgress"))
    );
    for (setting, expected) in [
        ("assignee_inbound = false", 4),
        ("status_inbound = false", 0),
        ("status_inbound = true", 4),
        ("disabled = true", 0),
    ] {
        world
            .sql(&format!("UPDATE organization_integrations SET {setting}"))
            .await;
        assert_eq!(linked().await.len(), expected, "{setting}");
    }
}

#[tokio::test]
async fn outbound_links_are_those_of_installations_that_write_back() {
    let world = World::new().await;
    let (integration_id, group_id) = (world.integration().await, world.group("WEB-1").await);
    let groups = [group_id, world.group("WEB-3").await];
    let links = world.tracker.outbound_links(&groups).await.unwrap();
    let link = |work_item_id| OutboundLink {
        group_id,
        integration_id,
        work_item_id,
    };
    assert_eq!(links, [link(17), link(18)]);
    world
        .sql("UPDATE organization_integrations SET disabled = true")
        .await;
    assert!(
        world
            .tracker
            .outbound_links(&groups)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_installation_is_found_by_its_account_in_any_case() {
    let world = World::new().await;
    let organization = world
        .tracker
        .organization_id("acme")
        .await
        .unwrap()
        .unwrap();
    let installation = world
        .tracker
        .installation(organization, "ACCOUNT-1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            installation.account_id.as_str(),
            installation.account_name.as_str()
        ),
        ("Account-1", "fabrikam")
    );
    assert!(
        installation.settings.assignee_inbound
            && !installation.disabled
            && installation.identity_id.is_some()
    );
    let integration = world
        .tracker
        .integration(installation.integration_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (integration.account_id, integration.account_name),
        (installation.account_id, installation.account_name)
    );
    assert_eq!(
        world
            .tracker
            .installation(organization, "Account-9")
            .await
            .unwrap(),
        None
    );
    assert_eq!(world.tracker.organization_id("nobody").await.unwrap(), None);
    assert_eq!(world.tracker.integration(-1).await.unwrap(), None);
    assert!(world.sealed.access_token(-1).await.unwrap().is_none());
    assert_eq!(world.tracker.group_assignee(-1).await.unwrap(), None);
    assert_eq!(
        world
            .tracker
            .link_applied_rev(world.group("WEB-1").await, 1, 99)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_groups_assignee_comes_with_verified_addresses() {
    let world = World::new().await;
    let group = world.group("WEB-1").await;
    let unassigned = world.tracker.group_assignee(group).await.unwrap().unwrap();
    assert_eq!((unassigned.user, unassigned.decided_at), (None, None));
    world
        .apply(vec![world.assign("WEB-1", 17, 1, "Ann").await])
        .await;
    let ann = world.tracker.group_assignee(group).await.unwrap().unwrap();
    assert_eq!(ann.decided_at, Some(NOON));
    assert_eq!(
        ann.user.unwrap().emails,
        ["ann@example.com", "ann@second.example"]
    );
}

#[tokio::test]
async fn hook_secrets_expire() {
    let world = World::new().await;
    let integration = world.integration().await;
    world
        .sql("UPDATE subscriptions SET valid_until = now() + interval '1 hour'")
        .await;
    assert_eq!(
        world.tracker.hook_secrets(integration).await.unwrap().len(),
        2
    );
    world.sql("UPDATE subscriptions SET valid_until = now() WHERE id = (SELECT min(id) FROM subscriptions)").await;
    assert_eq!(
        world.tracker.hook_secrets(integration).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn destinations_are_returned_by_name_in_order_or_as_the_defaults() {
    let world = World::new().await;
    let organization = world.organization().await;
    let names = ["audit", "nowhere", "team"].map(str::to_owned);
    let by_name = world
        .sealed
        .destinations(organization, Some(&names))
        .await
        .unwrap();
    assert_eq!(
        by_name
            .iter()
            .map(|one| one.name.as_str())
            .collect::<Vec<_>>(),
        ["audit", "team"]
    );
    assert_eq!(
        (
            by_name[0].unknown_policy.as_str(),
            by_name[1].unknown_policy.as_str()
        ),
        ("hold", "resend")
    );
    let defaults = world.sealed.destinations(organization, None).await.unwrap();
    assert_eq!(defaults.len(), 1);
    let team = world
        .sealed
        .destination(defaults[0].id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (team.kind.as_str(), &team.config),
        ("webhook", &json!({"url": "https://hooks.example/1"}))
    );
    assert_eq!(team.secret.unwrap().expose_secret(), "whsec-1");
    assert!(
        world
            .sealed
            .destinations(organization, Some(&[]))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_ledger_identifies_our_own_writes() {
    let world = World::new().await;
    let integration = world.integration().await;
    world
        .intend(
            17,
            "in_flight",
            &json!({"rev_before": 7, "value": "ann@example.com"}),
        )
        .await;
    world
        .intend(18, "unknown", &json!({"rev_before": 7, "value": null}))
        .await;
    let own = async |item, rev, who| {
        world
            .tracker
            .own_write(integration, item, rev, who)
            .await
            .unwrap()
    };
    assert!(own(17, 8, Some("Ann@Example.com")).await && own(18, 8, None).await);
    for (item, rev, who) in [
        (17, 9, Some("ann@example.com")),
        (17, 8, None),
        (17, 8, Some("bob@example.com")),
        (19, 8, None),
    ] {
        assert!(!own(item, rev, who).await, "{item} {rev} {who:?}");
    }
}

#[tokio::test]
async fn an_error_in_a_statement_is_permanent() {
    let world = World::new().await;
    let client = world.database.pool.get().await.unwrap();
    let row = client.query_one("SELECT 1::int AS one", &[]).await.unwrap();
    let defects = [
        client
            .query_one("SELECT 1 WHERE $1", &[&"text"])
            .await
            .unwrap_err(),
        client
            .query_one("SELECT 1 WHERE false", &[])
            .await
            .unwrap_err(),
        client.query("SELECT 1", &[&1_i64]).await.unwrap_err(),
        client.query("SELECT nothing", &[]).await.unwrap_err(),
        row.try_get::<_, String>("one").unwrap_err(),
        row.try_get::<_, i32>("two").unwrap_err(),
    ];
    for defect in defects {
        let fault = TrackerFault::from(defect);
        assert_eq!(
            fault.class(),
            Class::Permanent,
            "{}",
            dispatch_worker::fault::chain(&fault)
        );
    }
}
