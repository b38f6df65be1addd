//! Tenants that share a world: each is an organization with its own account and identity, all
//! named after it. Many run concurrently, and a hold or a fault of one does not affect another.

use std::collections::{BTreeMap, BTreeSet};

use dispatch_worker::devkit::simulator::admin::Change;
use dispatch_worker::devkit::simulator::state::{State, stable_uuid, work_item_key};
use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use crate::support::{TestWorld, WorkerOptions, acme};

/// The e-mail address of a member of every tenant.
pub(super) const ANN: &str = "ann@field.example";
/// The e-mail address of another member of every tenant.
pub(super) const BOB: &str = "bob@field.example";
/// The default project of every account.
pub(super) const PROJECT: &str = "Shop";
/// The worker's client id at Microsoft Entra.
const CLIENT: &str = "7f3c0d7a-0000-4000-8000-000000000009";
const CLIENT_SECRET: &str = "canary-field-client-secret";

/// A work item in state `New` and in its first revision.
pub(super) struct Item {
    pub(super) id: i64,
    pub(super) title: &'static str,
    pub(super) kind: &'static str,
    pub(super) project: &'static str,
    pub(super) assigned_to: Option<&'static str>,
}

impl Item {
    /// Creates an unassigned bug.
    pub(super) const fn new(id: i64) -> Self {
        Self {
            id,
            title: "Login is slow",
            kind: "Bug",
            project: PROJECT,
            assigned_to: None,
        }
    }
}

/// An organization with its account, its identity and its contents.
pub(super) struct Tenant {
    /// The slug, which is part of all other names of the tenant.
    pub(super) name: String,
    pub(super) items: Vec<Item>,
    /// The work items of each group.
    pub(super) groups: Vec<Vec<i64>>,
    /// Further users of the account besides Ann, Bob and the identity.
    pub(super) others: Vec<String>,
    pub(super) has_refresh_token: bool,
    /// The destinations as in the tracker document; all are defaults.
    pub(super) destinations: Vec<Value>,
}

impl Tenant {
    /// Creates a tenant with two unassigned bugs, 17 and 18, and a refresh token.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            items: vec![Item::new(17), Item::new(18)],
            groups: Vec::new(),
            others: Vec::new(),
            has_refresh_token: true,
            destinations: Vec::new(),
        }
    }

    /// Returns the account name in URLs.
    pub(super) fn account(&self) -> String {
        format!("acc-{}", self.name)
    }

    /// Returns a path below the account.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/{}{rest}", self.account())
    }

    /// Returns the e-mail address of the identity.
    pub(super) fn bot(&self) -> String {
        format!("bot-{}@field.example", self.name)
    }

    /// Returns the first access token.
    pub(super) fn token(&self) -> String {
        format!("canary-access-{}", self.name)
    }

    /// Returns the first refresh token.
    pub(super) fn refresh_token(&self) -> String {
        format!("canary-refresh-{}", self.name)
    }

    pub(super) fn account_id(&self) -> String {
        stable_uuid(&format!("account {}", self.account())).to_string()
    }

    /// Adds a destination of this kind, named after the kind and its position.
    pub(super) fn destination(mut self, kind: &str, config: &Value, secret: &str) -> Self {
        let name = format!("{kind}-{}", self.destinations.len() + 1);
        self.destinations.push(json!({"name": name, "kind": kind, "config": config, "secret": secret, "default": true}));
        self
    }

    /// Returns a job without events, search and destinations.
    pub(super) fn job(&self, dedupe_key: &str) -> Value {
        json!({
            "schema": 1, "source": acme::SOURCE, "dedupe_key": dedupe_key, "organization": self.name,
            "account": self.account_id(), "events": [], "notify": []
        })
    }

    /// Assigns a work item as a person does; returns the service-hook event.
    pub(super) async fn assign(&self, world: &TestWorld, work_item: i64, to: &str) -> Value {
        let (org, by) = (self.account(), Some(BOB.to_owned()));
        let change = Change {
            org,
            work_item,
            assigned_to: Some(Some(to.to_owned())),
            by,
            ..Change::default()
        };
        world
            .simulator()
            .await
            .client
            .change(&change)
            .await
            .expect("the simulator accepts the change")
    }

    /// Returns whether a request was made for the tenant.
    pub(super) fn made(&self, entry: &Entry) -> bool {
        let is_told = |destination: &Value| {
            let config = |name: &str| config_text(destination, name);
            match destination["kind"].as_str() {
                Some("discord") => {
                    entry.subject == Some(format!("discord:{}", config("channel_id")))
                }
                Some("slack") => entry.subject == Some(format!("slack:{}", config("channel"))),
                Some("teams") => entry.subject == Some(format!("teams:{}", self.name)),
                // Only one tenant of a world has an e-mail destination.
                Some("email") => entry.provider == Provider::Email,
                other => panic!("unexpected kind of destination: {other:?}"),
            }
        };
        entry.caller.as_ref() == Some(&self.bot())
            || entry.path.starts_with(&self.path("/"))
            || self.destinations.iter().any(is_told)
    }

    /// Adds everything that the providers know of the tenant besides Ann and Bob.
    fn in_providers(&self, mut state: State) -> State {
        let bot = self.bot();
        state = state
            .user(&bot, &bot)
            .token(&self.token(), &bot)
            .account(&self.account(), PROJECT);
        if self.has_refresh_token {
            state = state.refresh_token(&self.refresh_token(), &bot);
        }
        let members: BTreeSet<String> = self
            .others
            .iter()
            .cloned()
            .chain([bot, ANN.to_owned(), BOB.to_owned()])
            .collect();
        let strangers = self
            .others
            .iter()
            .filter(|name| !state.users.contains_key(*name))
            .cloned()
            .collect::<Vec<_>>();
        state = strangers
            .iter()
            .fold(state, |state, name| state.user(name, name));
        let projects: BTreeSet<&str> = self.items.iter().map(|item| item.project).collect();
        if let Some(account) = state.accounts.get_mut(&self.account()) {
            account.members = members;
            let id = |project: &str| stable_uuid(&format!("project {}/{project}", self.account()));
            account.projects.extend(
                projects
                    .into_iter()
                    .map(|project| (project.to_owned(), id(project))),
            );
        }
        for Item {
            id,
            title,
            kind,
            project,
            assigned_to,
        } in &self.items
        {
            state = state.bug(&self.account(), project, *id, title, *assigned_to);
            if let Some(item) = state
                .work_items
                .get_mut(&work_item_key(&self.account(), *id))
            {
                (*kind).clone_into(&mut item.work_item_type);
            }
        }
        state
    }

    fn integration(&self) -> Value {
        json!({"account_id": self.account_id(), "account_name": self.account(), "hook_secrets": [acme::HOOK_SECRET]})
    }

    fn organization(&self) -> Value {
        let link = |id: &i64| json!({"account_id": self.account_id(), "work_item_id": id});
        let group = |items: &Vec<i64>| {
            let links: Vec<Value> = items.iter().map(link).collect();
            json!({"short_id": group_name(items[0]), "title": "Login is slow", "links": links})
        };
        let mut identity = json!({"name": "bot", "access_token": self.token(), "expires_at": "2099-01-01T00:00:00Z"});
        if self.has_refresh_token {
            identity["refresh_token"] = json!(self.refresh_token());
        }
        let everything =
            json!({"assignee_inbound": true, "assignee_outbound": true, "status_inbound": true});
        json!({
            "slug": self.name, "name": self.name,
            "identities": [identity],
            "installations": [{"account_id": self.account_id(), "identity": "bot", "settings": everything}],
            "projects": [{
                "slug": "web", "name": "Web", "members": [ANN, BOB],
                "groups": self.groups.iter().map(group).collect::<Vec<_>>()
            }],
            "destinations": self.destinations
        })
    }
}

fn config_text<'a>(destination: &'a Value, name: &str) -> &'a str {
    destination["config"][name].as_str().unwrap_or_default()
}

/// Returns the short id of the group that begins with this work item.
pub(super) fn group_name(first: i64) -> String {
    format!("G-{first}")
}

/// Adds tenants to a world, in the simulator and in the tracker; `state` is the initial state of
/// the simulator.
pub(super) async fn settle(world: &TestWorld, state: State, tenants: &[&Tenant]) {
    world.records_events().await;
    let state = state
        .user("Ann", ANN)
        .user("Bob", BOB)
        .entra_client(CLIENT, CLIENT_SECRET);
    let state = tenants
        .iter()
        .fold(state, |state, tenant| tenant.in_providers(state));
    world
        .simulator()
        .await
        .client
        .load_state(&state)
        .await
        .expect("the simulator accepts the state");
    world.import(&document(tenants)).await;
}

fn document(tenants: &[&Tenant]) -> TrackerDocument {
    let people =
        [("Ann", ANN), ("Bob", BOB)].map(|(name, email)| json!({"name": name, "emails": [email]}));
    let document = json!({
        "users": people,
        "integrations": tenants.iter().map(|tenant| tenant.integration()).collect::<Vec<_>>(),
        "organizations": tenants.iter().map(|tenant| tenant.organization()).collect::<Vec<_>>()
    });
    serde_json::from_value(document).expect("a tracker document")
}

/// Returns options of a worker with a Microsoft Entra client.
pub(super) fn worker() -> WorkerOptions {
    let client = [
        ("DISPATCH_ENTRA_CLIENT_ID", CLIENT),
        ("DISPATCH_ENTRA_CLIENT_SECRET", CLIENT_SECRET),
    ];
    let environment = client
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    WorkerOptions {
        environment,
        ..WorkerOptions::default()
    }
}

/// Returns the e-mail address of each group's assignee, by tenant and group.
pub(super) async fn assignees(world: &TestWorld) -> BTreeMap<(String, String), Option<String>> {
    const SQL: &str = "
        SELECT o.slug, g.short_id, e.email FROM issue_groups g
        JOIN projects p ON p.id = g.project_id JOIN organizations o ON o.id = p.organization_id
        LEFT JOIN group_assignees a ON a.group_id = g.id LEFT JOIN user_emails e ON e.user_id = a.user_id";
    let rows = world.database.rows(SQL).await;
    rows.into_iter()
        .map(|row| {
            (
                (row[0].clone(), row[1].clone()),
                Some(row[2].clone()).filter(|email| email != "-"),
            )
        })
        .collect()
}
