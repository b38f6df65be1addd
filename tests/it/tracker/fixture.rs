//! A sample organization for tests of the tracker: two linked accounts, four people, one team,
//! three groups.

use std::sync::Arc;

use dispatch_worker::job::JobId;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::tracker::{
    Applied, AssigneePlan, ChangedBy, Changes, Imported, PlannedLink, SealedTracker, StatusPlan,
    Tracker, TrackerDocument, TrackerFault, apply, import,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_postgres::SimpleQueryMessage;

use crate::support::{TestDatabase, unaudited};

/// The time of a work item's change unless a test sets another.
pub(crate) const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

pub(crate) fn document() -> Value {
    let all_on =
        json!({"assignee_inbound": true, "assignee_outbound": true, "status_inbound": true});
    let all_off =
        json!({"assignee_inbound": false, "assignee_outbound": false, "status_inbound": false});
    let link = |id: i64| json!({"account_id": "Account-1", "work_item_id": id});
    let bot = json!({"name": "bot", "access_token": "access-1", "refresh_token": "refresh-1", "expires_at": "2026-03-02T00:00:00.123456789Z"});
    json!({
        "users": [
            {"name": "Ann", "emails": ["Ann@Example.com", "ann@second.example"]},
            {"name": "Bob", "emails": ["bob@example.com"]},
            {"name": "Cid", "emails": ["cid@example.com"]},
            {"name": "Zoë", "emails": ["ZOË@example.com"]}
        ],
        "integrations": [
            {"account_id": "Account-1", "account_name": "fabrikam", "hook_secrets": ["hook-1", "hook-2"]},
            {"account_id": "Account-2", "account_name": "contoso"}
        ],
        "organizations": [{
            "slug": "acme", "name": "Acme",
            "identities": [bot],
            "installations": [
                {"account_id": "account-1", "identity": "bot", "settings": all_on},
                {"account_id": "Account-2", "settings": all_off}
            ],
            "teams": [{"slug": "web", "members": ["ann@example.com", "bob@example.com"]}],
            "projects": [{
                "slug": "web", "name": "Web", "members": ["ann@example.com", "bob@example.com", "cid@example.com", "zoë@example.com"],
                "groups": [
                    {"short_id": "WEB-1", "title": "Login is slow", "links": [link(17), link(18)], "team": "web"},
                    {"short_id": "WEB-2", "title": "Logout is slow", "links": [link(17), link(18)]},
                    {"short_id": "WEB-3", "title": "Nothing works", "links": [{"account_id": "Account-2", "work_item_id": 17}]}
                ]
            }],
            "destinations": [
                {"name": "team", "kind": "webhook", "config": {"url": "https://hooks.example/1"}, "secret": "whsec-1", "default": true},
                {"name": "audit", "kind": "discord", "config": {"channel": "9"}, "unknown_policy": "hold"}
            ]
        }]
    })
}

/// The organization in a database of its own.
pub(crate) struct World {
    pub(crate) database: TestDatabase,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) tracker: Tracker,
    pub(crate) sealed: SealedTracker,
}

impl World {
    /// Returns a world with empty tables.
    pub(crate) async fn empty() -> Self {
        let database = TestDatabase::new().await;
        let keyring =
            Arc::new(Keyring::parse(&Keyring::fresh_setting()).expect("a fresh keyring is valid"));
        let tracker = Tracker::new(database.pool.clone());
        let sealed = SealedTracker::new(tracker.clone(), Arc::clone(&keyring));
        Self {
            database,
            keyring,
            tracker,
            sealed,
        }
    }

    pub(crate) async fn new() -> Self {
        let world = Self::empty().await;
        world
            .import(document())
            .await
            .expect("the sample document is valid");
        world
    }

    pub(crate) async fn import(
        &self,
        document: Value,
    ) -> Result<(Vec<(String, u64)>, Vec<String>), TrackerFault> {
        let document: TrackerDocument =
            serde_json::from_value(document).expect("a tracker document");
        let mut client = self.database.pool.get().await.expect("a connection");
        let Imported { counts, gone, .. } =
            import(&mut client, &self.keyring, &document, unaudited).await?;
        Ok((
            counts
                .into_iter()
                .filter(|(_, changed)| *changed > 0)
                .collect(),
            gone,
        ))
    }

    /// Runs statements. Returns a line for each row, with its columns joined by `|` and null as
    /// `-`.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        let client = self.database.pool.get().await.expect("a connection");
        let messages = client.simple_query(sql).await.expect(sql);
        let line = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                let columns: Vec<&str> = (0..row.len())
                    .map(|column| row.get(column).unwrap_or("-"))
                    .collect();
                Some(columns.join("|"))
            }
            _ => None,
        };
        messages.iter().filter_map(line).collect()
    }

    pub(crate) async fn one(&self, sql: &str) -> String {
        let rows = self.sql(sql).await;
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows.concat()
    }

    async fn id(&self, sql: &str) -> i64 {
        self.one(sql).await.parse().expect(sql)
    }

    pub(crate) async fn user(&self, name: &str) -> i64 {
        self.id(&format!("SELECT id FROM users WHERE name = '{name}'"))
            .await
    }

    pub(crate) async fn group(&self, short_id: &str) -> i64 {
        self.id(&format!(
            "SELECT id FROM issue_groups WHERE short_id = '{short_id}'"
        ))
        .await
    }

    pub(crate) async fn integration(&self) -> i64 {
        self.id("SELECT id FROM integrations WHERE account_name = 'fabrikam'")
            .await
    }

    pub(crate) async fn identity(&self) -> i64 {
        self.id("SELECT id FROM identities").await
    }

    pub(crate) async fn organization(&self) -> i64 {
        self.id("SELECT id FROM organizations WHERE slug = 'acme'")
            .await
    }

    pub(crate) async fn assignee(&self, short_id: &str) -> String {
        let sql = "SELECT coalesce(u.name, 'nobody') FROM issue_groups g LEFT JOIN group_assignees a ON a.group_id = g.id
                   LEFT JOIN users u ON u.id = a.user_id WHERE g.short_id";
        self.one(&format!("{sql} = '{short_id}'")).await
    }

    pub(crate) async fn activities(&self, short_id: &str) -> Vec<String> {
        let sql = "SELECT a.kind, u.name, a.reason, a.rev FROM activities a JOIN issue_groups g ON g.id = a.group_id
                   LEFT JOIN users u ON u.id = a.user_id WHERE g.short_id";
        self.sql(&format!("{sql} = '{short_id}' ORDER BY a.id"))
            .await
    }

    /// Returns `applied_rev|status_rev|applied_category` of a link.
    pub(crate) async fn link(&self, short_id: &str, work_item: i64) -> String {
        let sql = "SELECT l.applied_rev, l.status_rev, l.applied_category FROM group_links l
                   JOIN issue_groups g ON g.id = l.group_id JOIN external_issues e ON e.id = l.external_issue_id
                   WHERE e.work_item_id";
        self.one(&format!(
            "{sql} = {work_item} AND g.short_id = '{short_id}'"
        ))
        .await
    }

    /// Returns an empty plan for a link at a revision, changed at noon.
    pub(crate) async fn link_plan(
        &self,
        short_id: &str,
        work_item_id: i64,
        rev: i64,
    ) -> PlannedLink {
        PlannedLink {
            group_id: self.group(short_id).await,
            work_item_id,
            rev,
            changed_date: NOON,
            tracker_assignee: None,
            assignee: AssigneePlan::Keep,
            status: StatusPlan::None,
            category: "InProgress".to_owned(),
        }
    }

    /// Returns a plan like that of [`World::link_plan`] that assigns the named user.
    pub(crate) async fn assign(
        &self,
        short_id: &str,
        work_item_id: i64,
        rev: i64,
        user: &str,
    ) -> PlannedLink {
        let assignee = AssigneePlan::Assign(self.user(user).await);
        PlannedLink {
            assignee,
            ..self.link_plan(short_id, work_item_id, rev).await
        }
    }

    pub(crate) async fn apply(&self, links: Vec<PlannedLink>) -> Applied {
        self.try_apply(links, Vec::new())
            .await
            .expect("a plan that can be applied")
    }

    pub(crate) async fn try_apply(
        &self,
        links: Vec<PlannedLink>,
        seen_events: Vec<String>,
    ) -> Result<Applied, TrackerFault> {
        let integration_id = self.integration().await;
        let output = self
            .commit(&Changes::Assignments {
                integration_id,
                links,
                seen_events,
            })
            .await?;
        Ok(serde_json::from_str(&output).expect("what was applied"))
    }

    /// Applies changes in a transaction of their own.
    pub(crate) async fn commit(&self, changes: &Changes) -> Result<String, TrackerFault> {
        let mut client = self.database.pool.get().await.expect("a connection");
        let tx = client.transaction().await.expect("a transaction");
        let output = apply(
            &tx,
            ChangedBy {
                job: JobId::fresh(),
            },
            changes,
        )
        .await?;
        tx.commit().await.expect("a commit");
        Ok(output.get().to_owned())
    }

    /// Stores an effect of our own on a work item in the ledger.
    pub(crate) async fn intend(&self, work_item_id: i64, state: &str, detail: &Value) {
        let resource = format!("work_item:{}:{work_item_id}", self.integration().await);
        let job = JobId::fresh();
        self.sql(&format!(
            "INSERT INTO effects (job_id, key, generation, stage, target, class, state, resource, detail, epoch, deadline_at)
             VALUES ('{job}', 'key', 1, 'patch_work_item', '{resource}', 'K1', '{state}', '{resource}', '{detail}', 1, now())"
        ))
        .await;
    }
}
