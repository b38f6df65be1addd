//! People who change work items, and the delivery of the events.

use std::collections::{BTreeMap, BTreeSet};

use dispatch_worker::devkit::simulator::admin::Change;
use dispatch_worker::devkit::simulator::state::AssigneeFormat;
use futures_util::future::join_all;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use serde_json::{Value, json};

use super::scene;
use crate::support::{TestWorld, acme};

const STATES: [&str; 4] = ["New", "Active", "Resolved", "Closed"];
const FORMATS: [AssigneeFormat; 4] = [
    AssigneeFormat::Identity,
    AssigneeFormat::NameAndMail,
    AssigneeFormat::DisplayName,
    AssigneeFormat::NameAndLogin,
];
/// The maximum number of events per job.
const TOGETHER: usize = 24;

/// The people who change work items, with the events that have not been published.
pub(super) struct People<'a> {
    world: &'a TestWorld,
    rng: StdRng,
    names: Vec<String>,
    /// The events of people that have not been published.
    line: Vec<Value>,
    /// The event of each work item's last revision made by a person.
    last: BTreeMap<i64, Value>,
    /// The sequence number of the last event read from the simulator.
    looked_at: u64,
    /// The ids of all published events.
    pub(super) published: BTreeSet<String>,
    /// The number of published jobs.
    pub(super) jobs: usize,
}

impl<'a> People<'a> {
    pub(super) async fn new(world: &'a TestWorld, rng: StdRng) -> Self {
        let names = scene::people().collect();
        Self {
            world,
            rng,
            names,
            line: Vec::new(),
            last: BTreeMap::new(),
            looked_at: 0,
            published: BTreeSet::new(),
            jobs: 0,
        }
    }

    /// Makes `times` revisions of every work item, in random order.
    pub(super) async fn change_everything(&mut self, times: u32) {
        let mut items: Vec<i64> = (0..times).flat_map(|_| scene::items()).collect();
        items.shuffle(&mut self.rng);
        for item in items {
            let change = self.change_of(item);
            let event = self
                .world
                .simulator()
                .await
                .client
                .change(&change)
                .await
                .expect("the simulator accepts the change");
            self.last.insert(item, event.clone());
            self.line.push(event);
        }
    }

    /// Returns a random change of the assignee, the state, or both.
    fn change_of(&mut self, work_item: i64) -> Change {
        let name = self.names.choose(&mut self.rng).cloned();
        let kind = self.rng.random_range(0..20);
        let assigned_to = match kind {
            0..12 => Some(name),
            12..15 => Some(None),
            _ => None,
        };
        let state = (kind >= 9).then(|| STATES[self.rng.random_range(0..STATES.len())].to_owned());
        let by = self.names.choose(&mut self.rng).cloned();
        let format = FORMATS.choose(&mut self.rng).copied();
        Change {
            org: scene::ACCOUNT.to_owned(),
            work_item,
            assigned_to,
            state,
            by,
            format,
        }
    }

    /// Publishes the events so far, shuffled with the events of the worker's own changes: some
    /// twice, some later, some never. If `last` is set, none is postponed and the last event of
    /// each work item is included.
    pub(super) async fn publish(&mut self, last: bool) {
        let own = self.own_events().await;
        let mut chosen = Vec::new();
        let mut later = Vec::new();
        for event in std::mem::take(&mut self.line).into_iter().chain(own) {
            match self.rng.random_range(0..20) {
                0..6 => {}
                6..10 if !last => later.push(event),
                10..13 => chosen.extend([event.clone(), event]),
                _ => chosen.push(event),
            }
        }
        if last {
            chosen.extend(self.last.values().cloned());
        }
        self.line = later;
        self.send(chosen).await;
    }

    /// Publishes the events of all changes by the worker, each twice.
    pub(super) async fn publish_what_the_worker_did(&mut self) {
        self.looked_at = 0;
        let own = self.own_events().await;
        self.send([own.clone(), own].concat()).await;
    }

    async fn own_events(&mut self) -> Vec<Value> {
        let events = self
            .world
            .simulator()
            .await
            .client
            .events(self.looked_at)
            .await
            .expect("the simulator returns its events");
        self.looked_at = events.last().map_or(self.looked_at, |event| event.seq);
        events
            .into_iter()
            .filter(|event| event.by == scene::BOT)
            .map(|event| event.body)
            .collect()
    }

    async fn send(&mut self, mut events: Vec<Value>) {
        events.shuffle(&mut self.rng);
        let mut messages = Vec::new();
        let mut rest = &events[..];
        while !rest.is_empty() {
            let (job, others) = rest.split_at(self.rng.random_range(1..=TOGETHER).min(rest.len()));
            rest = others;
            self.jobs += 1;
            self.published.extend(
                job.iter()
                    .filter_map(|event| Some(event["id"].as_str()?.to_owned())),
            );
            messages.push(message(self.jobs, job));
        }
        join_all(
            messages
                .iter()
                .map(|message| self.world.publish_job(message)),
        )
        .await;
    }
}

fn message(number: usize, events: &[Value]) -> Value {
    let signed = events
        .iter()
        .map(|event| json!({"payload": event, "shared_secret": scene::HOOK_SECRET}));
    json!({
        "schema": 1, "source": acme::SOURCE, "dedupe_key": format!("job {number}"), "organization": "acme",
        "account": scene::account_id(), "events": signed.collect::<Vec<_>>()
    })
}
