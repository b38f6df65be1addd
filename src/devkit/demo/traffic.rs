//! Carries out the plan: changes work items in the simulator, and publishes the resulting
//! service-hook bodies as jobs through a real broker.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::script::{Deed, Edit, Item};
use super::world::{AUDIT, IDENTITY, PEOPLE, ROBOT_ADDRESS, Tenant, World};
use crate::broker::{EXCHANGE, KEY_CONFIGURE, KEY_JOB, Outgoing, Publisher};
use crate::devkit::simulator::admin::Change;
use crate::devkit::simulator::client::SimulatorClient;
use crate::devkit::simulator::state::AssigneeFormat;
use crate::job::JobId;
use crate::message::{Configure, MESSAGE_LIMIT, SCHEMA};

pub(super) const SOURCE: &str = "demo";
/// One in this many jobs also names a destination that is not a default.
const AUDITED_EACH: usize = 6;
/// The formats of assignees in events, used in turn.
const FORMATS: [AssigneeFormat; 3] = [
    AssigneeFormat::Identity,
    AssigneeFormat::NameAndMail,
    AssigneeFormat::DisplayName,
];

/// The required result of a confirmed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// A job with this key.
    Job(String),
    /// A dead letter with this message id.
    DeadLetter(String),
}

/// Publishes messages, and records those that were confirmed.
pub(super) struct Traffic<'a> {
    publisher: Publisher,
    simulator: SimulatorClient,
    world: &'a World,
    /// The required result of every message that the broker has confirmed.
    pub(super) confirmed: Vec<Fate>,
    /// Keys of the jobs without an account, in order.
    pub(super) without_account: Vec<String>,
    /// Keys of the jobs with an event that has a wrong secret.
    pub(super) forged: Vec<String>,
    /// Keys of the jobs that must be parked.
    pub(super) parked: Vec<String>,
    /// Number of jobs so far, not counting repeated messages.
    pub(super) jobs: usize,
    published: Vec<Outgoing>,
    /// Genuine events so far.
    events: Vec<(Tenant, Value)>,
    /// The number of events that were sent again.
    sent_again: usize,
}

impl<'a> Traffic<'a> {
    pub(super) const fn new(
        publisher: Publisher,
        simulator: SimulatorClient,
        world: &'a World,
    ) -> Self {
        Self {
            publisher,
            simulator,
            world,
            confirmed: Vec::new(),
            without_account: Vec::new(),
            forged: Vec::new(),
            parked: Vec::new(),
            jobs: 0,
            published: Vec::new(),
            events: Vec::new(),
            sent_again: 0,
        }
    }

    /// Carries out a wave: makes every change, and publishes every job and waits for its confirm.
    pub(super) async fn wave(&mut self, deeds: Vec<Deed>) -> anyhow::Result<()> {
        let mut messages = Vec::with_capacity(deeds.len());
        for deed in deeds {
            let (key, message) = self.job(deed).await?;
            self.published.push(message.clone());
            messages.push((Fate::Job(key), message));
        }
        self.publish(messages).await
    }

    /// Sends earlier messages again, byte for byte. They become no further jobs.
    pub(super) async fn repeat(&mut self, count: usize) -> anyhow::Result<()> {
        let again = self.published.iter().take(count).cloned().map(|message| {
            let key = message.message_id.clone().unwrap_or_default();
            (Fate::Job(key), message)
        });
        let again = again.collect();
        self.publish(again).await
    }

    /// Returns the key of the first job.
    pub(super) fn first_key(&self) -> anyhow::Result<&str> {
        self.published
            .first()
            .and_then(|message| message.message_id.as_deref())
            .context("nothing has been published yet")
    }

    /// Sends messages that cannot become jobs: invalid JSON, a body over the limit, and a `known`
    /// key with another payload. Returns their number.
    pub(super) async fn refused(&mut self, known: &str) -> anyhow::Result<usize> {
        let conflict = json!({ "schema": SCHEMA, "source": SOURCE, "dedupe_key": known, "organization": "globex" });
        let bodies = [
            (
                "not-json",
                b"{\"schema\": 1, \"source\": \"demo\", ".to_vec(),
            ),
            ("too-large", vec![b' '; MESSAGE_LIMIT + 1]),
            ("conflict", conflict.to_string().into_bytes()),
        ];
        let messages =
            bodies.map(|(id, body)| (Fate::DeadLetter(id.to_owned()), message(id, KEY_JOB, body)));
        let count = messages.len();
        self.publish(messages.into()).await?;
        Ok(count)
    }

    /// Publishes the events of the worker's own writes, and searches if there are too few of them,
    /// until there are `jobs`. Returns the number of such events.
    pub(super) async fn own_writes(&mut self, jobs: usize) -> anyhow::Result<usize> {
        let room = jobs.saturating_sub(self.jobs);
        let events = self.simulator.events(0).await?;
        let own = events
            .into_iter()
            .filter(|event| event.by == ROBOT_ADDRESS)
            .take(room);
        let mut messages = Vec::new();
        for event in own {
            let tenant = if event.organization == Tenant::Acme.account() {
                Tenant::Acme
            } else {
                Tenant::Globex
            };
            messages.push(self.event_job("own-write", tenant, vec![event.body]));
        }
        let own = messages.len();
        for index in own..room {
            let tenant = if index % 2 == 0 {
                Tenant::Acme
            } else {
                Tenant::Globex
            };
            messages.push(self.job(Deed::Search(tenant)).await?);
        }
        let messages = messages
            .into_iter()
            .map(|(key, message)| (Fate::Job(key), message))
            .collect();
        self.publish(messages).await?;
        Ok(own)
    }

    pub(super) fn account_id(&self, tenant: Tenant) -> &str {
        self.world.account_id(tenant)
    }

    /// Chooses the account of a waiting job, as a producer.
    pub(super) async fn configure(&self, job_id: JobId, tenant: Tenant) -> anyhow::Result<()> {
        let account = self.world.account_id(tenant).to_owned();
        let body = serde_json::to_vec(&Configure {
            schema: SCHEMA,
            job_id,
            account,
        })?;
        self.publisher
            .publish(&message("configure", KEY_CONFIGURE, body))
            .await
            .context("cannot publish the account")
    }

    async fn publish(&mut self, messages: Vec<(Fate, Outgoing)>) -> anyhow::Result<()> {
        let (fates, messages): (Vec<Fate>, Vec<Outgoing>) = messages.into_iter().unzip();
        let answers = self.publisher.publish_all(&messages).await;
        for (fate, answer) in fates.into_iter().zip(answers) {
            answer.with_context(|| format!("the broker did not confirm {fate:?}"))?;
            self.confirmed.push(fate);
        }
        Ok(())
    }

    async fn job(&mut self, deed: Deed) -> anyhow::Result<(String, Outgoing)> {
        let word = deed.word();
        Ok(match deed {
            Deed::Changes(_, edits) => {
                let mut events = Vec::with_capacity(edits.len());
                let tenant = edits.first().map_or(Tenant::Acme, |(item, _)| item.tenant);
                for (item, edit) in edits {
                    events.push(self.change(item, edit).await?);
                }
                self.event_job(word, tenant, events)
            }
            Deed::Forged(item) => self.forged_job(word, item).await?,
            Deed::Again => {
                let (tenant, event) = self
                    .events
                    .get(self.sent_again)
                    .cloned()
                    .context("there is no event to send again")?;
                self.sent_again += 1;
                self.event_job(word, tenant, vec![event])
            }
            Deed::Search(tenant) => {
                let search = json!({ "text": "login", "project": null, "limit": 50 });
                self.finished(
                    word,
                    json!({ "search": search, "account": self.world.account_id(tenant) }),
                    tenant.slug(),
                )
            }
            Deed::NoAccount(item, edit) => {
                let event = self.change(item, edit).await?;
                let fields = json!({ "account": null, "identity": IDENTITY, "events": [self.genuine(event)] });
                let (key, message) = self.finished(word, fields, item.tenant.slug());
                self.without_account.push(key.clone());
                (key, message)
            }
            Deed::Overdue => {
                let (key, message) = self.finished(
                    word,
                    json!({ "deadline": "2001-01-01T00:00:00Z" }),
                    Tenant::Acme.slug(),
                );
                self.parked.push(key.clone());
                (key, message)
            }
        })
    }

    async fn forged_job(&mut self, word: &str, item: Item) -> anyhow::Result<(String, Outgoing)> {
        let name = |(tenant, event): &&(Tenant, Value)| {
            *tenant == item.tenant && event["resource"]["workItemId"] == item.id
        };
        let (_, mut event) = self
            .events
            .iter()
            .find(name)
            .cloned()
            .context("there is no event to forge")?;
        event["id"] = json!(uuid::Uuid::now_v7());
        let events = json!([{ "payload": event, "shared_secret": "guessed" }]);
        let fields = json!({ "account": self.world.account_id(item.tenant), "events": events });
        let (key, message) = self.finished(word, fields, item.tenant.slug());
        self.forged.push(key.clone());
        Ok((key, message))
    }

    /// Makes a change as its new assignee, or else as the first person.
    async fn change(&mut self, item: Item, edit: Edit) -> anyhow::Result<Value> {
        let (assigned_to, state, by) = match edit {
            Edit::Assign(person) => (
                Some(Some(PEOPLE[person].1.to_owned())),
                None,
                PEOPLE[person].1,
            ),
            Edit::Unassign => (Some(None), None, PEOPLE[0].1),
            Edit::State(state) => (None, Some(state.to_owned()), PEOPLE[0].1),
        };
        let format = Some(FORMATS[self.events.len() % FORMATS.len()]);
        let by = Some(by.to_owned());
        let org = item.tenant.account().to_owned();
        let event = self
            .simulator
            .change(&Change {
                org,
                work_item: item.id,
                assigned_to,
                state,
                by,
                format,
            })
            .await?;
        self.events.push((item.tenant, event.clone()));
        Ok(event)
    }

    fn event_job(&mut self, word: &str, tenant: Tenant, events: Vec<Value>) -> (String, Outgoing) {
        let events: Vec<Value> = events
            .into_iter()
            .map(|event| self.genuine(event))
            .collect();
        let mut fields = json!({ "account": self.world.account_id(tenant), "events": events });
        if tenant == Tenant::Acme && self.jobs.is_multiple_of(AUDITED_EACH) {
            fields["notify"] = json!(["team", AUDIT]);
        }
        self.finished(word, fields, tenant.slug())
    }

    fn genuine(&self, event: Value) -> Value {
        json!({ "payload": event, "shared_secret": self.world.hook_secret })
    }

    /// Completes the message with a key of its own.
    fn finished(
        &mut self,
        word: &str,
        mut fields: Value,
        organization: &str,
    ) -> (String, Outgoing) {
        self.jobs += 1;
        let key = format!("{:03}-{word}", self.jobs);
        fields["schema"] = json!(SCHEMA);
        fields["source"] = json!(SOURCE);
        fields["dedupe_key"] = json!(key);
        fields["organization"] = json!(organization);
        let message = message(&key, KEY_JOB, fields.to_string().into_bytes());
        (key, message)
    }
}

fn message(id: &str, routing_key: &str, body: Vec<u8>) -> Outgoing {
    Outgoing {
        exchange: EXCHANGE,
        routing_key: routing_key.to_owned(),
        mandatory: true,
        body,
        message_id: Some(id.to_owned()),
        ..Outgoing::default()
    }
}
