//! The demo's data: people, work items, and the tracker document that refers to them. Only its
//! secrets differ between runs.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::devkit::simulator::state::{State, WebhookMode};
use crate::tracker::{
    DestinationDocument, GroupDocument, IdentityDocument, InstallationDocument,
    IntegrationDocument, LinkDocument, OrganizationDocument, ProjectDocument, SyncSettings,
    TeamDocument, TrackerDocument, UserDocument,
};

/// Display names and sign-in addresses. Some names contain characters that occur in practice and
/// need escaping.
pub(super) const PEOPLE: [(&str, &str); 6] = [
    ("Ann Archer", "ann@contoso.example"),
    ("Bob <the> Builder", "bob@contoso.example"),
    ("Çağla Yılmaz", "cagla@contoso.example"),
    ("Dmitri Sørensen", "dmitri@contoso.example"),
    ("Eve O'Neill", "eve@contoso.example"),
    ("Fatima Al-Fihri", "fatima@contoso.example"),
];
/// The person as whom the worker acts, and the name of that identity in the tracker.
const ROBOT: (&str, &str) = ("Dispatch Robot", "robot@contoso.example");
pub(super) const IDENTITY: &str = "robot";
/// The address of the person who makes the worker's own changes.
pub(super) const ROBOT_ADDRESS: &str = ROBOT.1;

const CHANNEL: &str = "1100000000000000001";
/// A receiver of Acme that dedupes; jobs may name it.
pub(super) const AUDIT: &str = "audit";
/// A receiver of Globex that dedupes.
const LEDGER: &str = "ledger";
/// A receiver of Initech that does not dedupe.
pub(super) const FEED: &str = "feed";

/// An organization that sends jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tenant {
    /// Two projects, Discord.
    Acme,
    /// One project, a webhook.
    Globex,
}

impl Tenant {
    pub(super) const fn slug(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Globex => "globex",
        }
    }

    /// Returns the name of its Azure DevOps account.
    pub(super) const fn account(self) -> &'static str {
        match self {
            Self::Acme => "contoso",
            Self::Globex => "fabrikam",
        }
    }

    const fn project(self) -> &'static str {
        match self {
            Self::Acme => "Shop",
            Self::Globex => "Core",
        }
    }

    /// Returns the ids of the work items in its account.
    pub(super) const fn items(self) -> std::ops::RangeInclusive<i64> {
        match self {
            Self::Acme => 1..=36,
            Self::Globex => 101..=118,
        }
    }
}

/// Work items that are linked to one group each, to one group in each of two projects, or also to
/// a group of another tenant.
pub(super) const SINGLE: [(Tenant, std::ops::RangeInclusive<i64>); 3] = [
    (Tenant::Acme, 1..=10),
    (Tenant::Acme, 23..=32),
    (Tenant::Globex, 101..=108),
];
/// Work items that share a group: this many consecutive ones, from the first on.
pub(super) const SHARED: [(Tenant, std::ops::RangeInclusive<i64>, usize); 2] =
    [(Tenant::Acme, 11..=22, 3), (Tenant::Globex, 109..=116, 2)];
/// Work items that are not linked to a group.
pub(super) const UNLINKED: [(Tenant, std::ops::RangeInclusive<i64>); 2] =
    [(Tenant::Acme, 33..=36), (Tenant::Globex, 117..=118)];

/// The initial state of the simulator, the document imported into the tracker, and the secrets
/// that they share.
pub(super) struct World {
    pub(super) state: State,
    pub(super) document: TrackerDocument,
    /// The shared secret of the service hooks.
    pub(super) hook_secret: String,
    accounts: BTreeMap<&'static str, String>,
}

impl World {
    /// Creates the data with fresh secrets. The webhook receivers are at `simulator`.
    pub(super) fn new(simulator: &str) -> Self {
        let secrets = Secrets::fresh();
        let state = state(&secrets);
        let id = |account: &str| {
            state
                .accounts
                .get(account)
                .map(|account| account.id.to_string())
                .unwrap_or_default()
        };
        let accounts =
            [Tenant::Acme, Tenant::Globex].map(|tenant| (tenant.account(), id(tenant.account())));
        let accounts = BTreeMap::from(accounts);
        let document = document(&accounts, &secrets, simulator);
        Self {
            state,
            document,
            hook_secret: secrets.hook,
            accounts,
        }
    }

    pub(super) fn account_id(&self, tenant: Tenant) -> &str {
        self.accounts
            .get(tenant.account())
            .map_or("", String::as_str)
    }
}

struct Secrets {
    token: String,
    bot: String,
    hook: String,
    signing: String,
}

impl Secrets {
    fn fresh() -> Self {
        let word = || HEXLOWER.encode(&rand::random::<[u8; 20]>());
        Self {
            token: word(),
            bot: word(),
            hook: word(),
            signing: format!("whsec_{}", BASE64.encode(&rand::random::<[u8; 32]>())),
        }
    }
}

fn state(secrets: &Secrets) -> State {
    let mut state = State::new();
    for (name, address) in PEOPLE.into_iter().chain([ROBOT]) {
        state = state.user(name, address);
    }
    state = state
        .token(&secrets.token, ROBOT.1)
        .channel(&secrets.bot, CHANNEL);
    for tenant in [Tenant::Acme, Tenant::Globex] {
        state = state.account(tenant.account(), tenant.project());
        for id in tenant.items() {
            state = state.bug(tenant.account(), tenant.project(), id, &title(id), None);
        }
    }
    let receivers = [
        (AUDIT, WebhookMode::Keyed),
        (LEDGER, WebhookMode::Keyed),
        (FEED, WebhookMode::Blind),
    ];
    receivers.into_iter().fold(state, |state, (name, mode)| {
        state.webhook(name, &secrets.signing, mode)
    })
}

fn title(id: i64) -> String {
    let what = [
        "Cart forgets its items",
        "Login loops",
        "Total is off by one",
        "Search finds nothing",
        "Page is blank",
    ];
    let index = usize::try_from(id).unwrap_or_default() % what.len();
    format!("{} ({id})", what[index])
}

fn document(
    accounts: &BTreeMap<&'static str, String>,
    secrets: &Secrets,
    simulator: &str,
) -> TrackerDocument {
    let user = |(name, address): (&str, &str)| UserDocument {
        name: name.to_owned(),
        emails: vec![address.to_owned()],
    };
    let integration = |(name, id): (&&'static str, &String)| IntegrationDocument {
        account_id: id.clone(),
        account_name: (*name).to_owned(),
        hook_secrets: vec![secrets.hook.clone()],
        hook_secret_digests: Vec::new(),
    };
    TrackerDocument {
        users: PEOPLE.into_iter().map(user).collect(),
        integrations: accounts.iter().map(integration).collect(),
        organizations: vec![
            acme(accounts, secrets, simulator),
            globex(accounts, secrets, simulator),
            initech(accounts, secrets, simulator),
        ],
    }
}

fn acme(
    accounts: &BTreeMap<&'static str, String>,
    secrets: &Secrets,
    simulator: &str,
) -> OrganizationDocument {
    let account = &accounts["contoso"];
    let web = single("WEB", 1, 1..=10, account)
        .chain(shared("WEB", 11, 11..=22, 3, account))
        .chain(single("WEB", 15, 23..=26, account))
        .map(|group| GroupDocument {
            team: (group.short_id == "WEB-11").then(|| "leads".to_owned()),
            ..group
        })
        .collect();
    let mobile = single("MOB", 1, 23..=26, account)
        .chain(single("MOB", 5, 27..=32, account))
        .collect();
    let discord = DestinationDocument {
        name: "team".to_owned(),
        kind: "discord".to_owned(),
        config: json!({ "channel_id": CHANNEL }),
        secret: Some(secrets.bot.clone()),
        default: true,
        unknown_policy: "resend".to_owned(),
        disabled: None,
    };
    let leads = PEOPLE[..2]
        .iter()
        .map(|(_, address)| (*address).to_owned())
        .collect();
    OrganizationDocument {
        teams: vec![TeamDocument {
            slug: "leads".to_owned(),
            members: leads,
        }],
        projects: vec![
            project("web", "Web shop", web),
            project("mobile", "Mobile app", mobile),
        ],
        destinations: vec![
            discord,
            DestinationDocument {
                default: false,
                ..webhook(AUDIT, true, secrets, simulator)
            },
        ],
        ..organization("acme", "Acme", account, true, secrets)
    }
}

fn globex(
    accounts: &BTreeMap<&'static str, String>,
    secrets: &Secrets,
    simulator: &str,
) -> OrganizationDocument {
    let account = &accounts["fabrikam"];
    let core = single("CORE", 1, 101..=108, account)
        .chain(shared("CORE", 9, 109..=116, 2, account))
        .collect();
    OrganizationDocument {
        projects: vec![project("core", "Core", core)],
        destinations: vec![webhook(LEDGER, true, secrets, simulator)],
        ..organization("globex", "Globex", account, true, secrets)
    }
}

/// Returns the organization that follows work items of Acme's account and writes to none.
fn initech(
    accounts: &BTreeMap<&'static str, String>,
    secrets: &Secrets,
    simulator: &str,
) -> OrganizationDocument {
    let account = &accounts["contoso"];
    OrganizationDocument {
        projects: vec![project(
            "desk",
            "Service desk",
            single("DESK", 1, 1..=6, account).collect(),
        )],
        destinations: vec![webhook(FEED, false, secrets, simulator)],
        ..organization("initech", "Initech", account, false, secrets)
    }
}

fn organization(
    slug: &str,
    name: &str,
    account: &str,
    outbound: bool,
    secrets: &Secrets,
) -> OrganizationDocument {
    let identity = IdentityDocument {
        name: IDENTITY.to_owned(),
        access_token: Some(secrets.token.clone()),
        refresh_token: None,
        expires_at: Some(OffsetDateTime::now_utc() + time::Duration::days(1)),
    };
    let installation = InstallationDocument {
        account_id: account.to_owned(),
        identity: Some(IDENTITY.to_owned()),
        disabled: false,
        settings: SyncSettings {
            assignee_inbound: true,
            assignee_outbound: outbound,
            status_inbound: true,
        },
    };
    OrganizationDocument {
        slug: slug.to_owned(),
        name: name.to_owned(),
        identities: vec![identity],
        installations: vec![installation],
        teams: Vec::new(),
        projects: Vec::new(),
        destinations: Vec::new(),
    }
}

fn project(slug: &str, name: &str, groups: Vec<GroupDocument>) -> ProjectDocument {
    let members = PEOPLE
        .iter()
        .map(|(_, address)| (*address).to_owned())
        .collect();
    ProjectDocument {
        slug: slug.to_owned(),
        name: name.to_owned(),
        members,
        groups,
    }
}

fn webhook(name: &str, keyed: bool, secrets: &Secrets, simulator: &str) -> DestinationDocument {
    let config: Value =
        json!({ "url": format!("{simulator}/webhook/{name}"), "honours_webhook_id": keyed });
    DestinationDocument {
        name: name.to_owned(),
        kind: "webhook".to_owned(),
        config,
        secret: Some(secrets.signing.clone()),
        default: true,
        unknown_policy: "resend".to_owned(),
        disabled: None,
    }
}

/// Returns a group for each work item, named `PREFIX-first` and so on.
fn single(
    prefix: &'static str,
    first: usize,
    items: std::ops::RangeInclusive<i64>,
    account: &str,
) -> impl Iterator<Item = GroupDocument> {
    shared(prefix, first, items, 1, account)
}

/// Returns a group for each `together` consecutive work items.
fn shared(
    prefix: &'static str,
    first: usize,
    items: std::ops::RangeInclusive<i64>,
    together: usize,
    account: &str,
) -> impl Iterator<Item = GroupDocument> {
    let items: Vec<i64> = items.collect();
    let groups: Vec<Vec<LinkDocument>> = items
        .chunks(together)
        .map(|ids| {
            ids.iter()
                .map(|id| LinkDocument {
                    account_id: account.to_owned(),
                    work_item_id: *id,
                })
                .collect()
        })
        .collect();
    groups
        .into_iter()
        .enumerate()
        .map(move |(index, links)| GroupDocument {
            short_id: format!("{prefix}-{}", first + index),
            title: links
                .first()
                .map(|link| title(link.work_item_id))
                .unwrap_or_default(),
            links,
            team: None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linked_work_item_exists_and_every_kind_of_link_does_too() {
        let world = World::new("http://127.0.0.1:1");
        let projects = world
            .document
            .organizations
            .iter()
            .flat_map(|organization| &organization.projects);
        let groups: Vec<&GroupDocument> = projects.flat_map(|project| &project.groups).collect();
        let links: Vec<i64> = groups
            .iter()
            .flat_map(|group| &group.links)
            .map(|link| link.work_item_id)
            .collect();
        let known = |id: &i64| {
            world
                .state
                .work_items
                .keys()
                .any(|key| key.ends_with(&format!(":{id}")))
        };
        assert!(links.iter().all(known));
        assert!(
            groups.iter().any(|group| group.links.len() == 3)
                && groups.iter().any(|group| group.links.len() == 2)
        );
        assert!(
            links.iter().filter(|id| **id == 23).count() == 2,
            "in two projects"
        );
        let linked = |(_, mut ids): (Tenant, std::ops::RangeInclusive<i64>)| {
            ids.any(|id| links.contains(&id))
        };
        assert!(SINGLE.into_iter().all(linked) && !UNLINKED.into_iter().any(linked));
        world.state.check().unwrap();
    }
}
