//! The data behind the lock: the state document, the events of its changes, the active faults and
//! the clock.

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::faults::Faults;
use super::hooks;
use super::state::{AssigneeFormat, Revision, State, User, WorkItem, work_item_key};
use super::witness::Provider;
use crate::providers::simulated::ReceivedCall;

/// A service-hook event caused by a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Number, from 1.
    pub seq: u64,
    /// The organization's name.
    pub organization: String,
    /// The work item's id.
    pub work_item: i64,
    /// The unique name of the person who made the change.
    pub by: String,
    /// The body that a subscriber receives.
    pub body: Value,
}

/// The changes of the next revision of a work item; `None` keeps a field.
pub(super) struct Edit {
    pub(super) assigned_to: Option<Option<String>>,
    pub(super) state: Option<String>,
    pub(super) by: String,
    pub(super) format: Option<AssigneeFormat>,
}

/// The data behind the lock.
pub(super) struct World {
    pub(super) state: State,
    pub(super) events: Vec<Event>,
    pub(super) faults: Faults,
    /// Whether the simulator keeps running after the end of stdin.
    pub(super) detached: bool,
    last_instant: OffsetDateTime,
}

impl World {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            events: Vec::new(),
            faults: Faults::default(),
            detached: false,
            last_instant: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Returns the current time in milliseconds, later than at every earlier call.
    pub(super) fn tick(&mut self) -> OffsetDateTime {
        self.last_instant = OffsetDateTime::now_utc()
            .truncate_to_millisecond()
            .max(self.last_instant + Duration::MILLISECOND);
        self.last_instant
    }

    /// See [`super::witness::Entry::caller`].
    pub(super) fn caller(&self, provider: Provider, call: &ReceivedCall) -> Option<String> {
        match provider {
            Provider::AzureDevops => Some(self.state.tokens.get(call.bearer()?)?.user.clone()),
            Provider::Entra => Some(
                self.state
                    .entra
                    .refresh_tokens
                    .get(call.form().get("refresh_token")?)?
                    .user
                    .clone(),
            ),
            Provider::Discord | Provider::Webhook | Provider::Email | Provider::Chat(_) => None,
        }
    }

    /// Returns an existing work item, by organization and id.
    pub(super) fn work_item(&self, organization: &str, id: i64) -> Option<&WorkItem> {
        self.state
            .work_items
            .get(&work_item_key(organization, id))
            .filter(|item| !item.deleted)
    }

    /// Creates a revision and its event. Returns the number of the revision and the event's body,
    /// or `None` if there is no such work item.
    pub(super) fn revise(
        &mut self,
        organization: &str,
        id: i64,
        edit: Edit,
    ) -> Option<(i64, Value)> {
        let now = self.tick();
        let old = self.work_item(organization, id)?.current().clone();
        let is_assigned = edit.assigned_to.is_some();
        let new = Revision {
            rev: old.rev + 1,
            state: edit.state.unwrap_or_else(|| old.state.clone()),
            assigned_to: edit.assigned_to.unwrap_or_else(|| old.assigned_to.clone()),
            changed_by: edit.by,
            changed_date: now.max(old.changed_date + Duration::MILLISECOND),
        };
        let item = self
            .state
            .work_items
            .get_mut(&work_item_key(organization, id))?;
        item.revisions.push(new.clone());
        item.assigned_to_as_is.take_if(|_| is_assigned);
        let format = edit.format.unwrap_or(self.state.options.assignee_format);
        let event_id = uuid::Builder::from_random_bytes(rand::rng().random()).into_uuid();
        let body = hooks::updated(
            &self.state,
            &hooks::Update {
                organization,
                id,
                old: &old,
                new: &new,
                format,
                event_id,
            },
        )?;
        self.events.push(Event {
            seq: self.events.len() as u64 + 1,
            organization: organization.to_owned(),
            work_item: id,
            by: new.changed_by,
            body: body.clone(),
        });
        Some((new.rev, body))
    }
}

impl WorkItem {
    /// Returns the current revision.
    ///
    /// # Panics
    /// If there is none; documents are checked for this when they are loaded.
    #[must_use]
    pub fn current(&self) -> &Revision {
        self.revisions
            .last()
            .expect("a loaded work item has a revision")
    }
}

impl State {
    /// Returns the unique name and the person for `name`: a unique name, an e-mail address, or
    /// `Name <either>`, in any case.
    #[must_use]
    pub fn find_user(&self, name: &str) -> Option<(&String, &User)> {
        let bracketed = name
            .strip_suffix('>')
            .and_then(|rest| rest.rsplit_once('<'));
        let wanted = bracketed.map_or(name, |(_, inner)| inner).to_lowercase();
        self.users.iter().find(|(unique_name, user)| {
            unique_name.to_lowercase() == wanted
                || user
                    .mail_address
                    .as_ref()
                    .is_some_and(|mail| mail.to_lowercase() == wanted)
        })
    }

    /// Checks the assumptions of the simulator. The error states what was expected.
    ///
    /// # Errors
    /// If a work item has no revision, no known project or an id that is not a number, or its key
    /// is not `organization:id`.
    pub fn check(&self) -> Result<(), String> {
        for (key, item) in &self.work_items {
            let parsed = key
                .rsplit_once(':')
                .and_then(|(organization, id)| Some((organization, id.parse::<i64>().ok()?)));
            let (organization, _) = parsed
                .ok_or_else(|| format!("work item {key:?}: expected a key organization:id"))?;
            let account = self.accounts.get(organization);
            let account = account.ok_or_else(|| {
                format!("work item {key:?}: there is no account {organization:?}")
            })?;
            if !account.projects.contains_key(&item.project) {
                return Err(format!(
                    "work item {key:?}: {organization:?} has no project {:?}",
                    item.project
                ));
            }
            if item.revisions.is_empty() {
                return Err(format!("work item {key:?}: expected at least one revision"));
            }
        }
        Ok(())
    }
}
