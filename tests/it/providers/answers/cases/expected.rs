//! The input of a case, its expected outcome, and the comparison with the observed outcome.

use std::collections::BTreeMap;
use std::fmt::Debug;

use dispatch_worker::devkit::simulator::faults::FaultRule;
use dispatch_worker::devkit::simulator::state::{State, work_item_key};
use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use dispatch_worker::store::JobView;
use serde_json::Value;

use crate::providers::answers::tenant::{Tenant, group_name};

/// An answer from the field: the jobs, the answers of the provider, and the expected outcome.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Adds what the tenant needs besides bugs 17 and 18.
    pub(super) has: fn(Tenant, &Addresses) -> Tenant,
    /// The answers of the provider.
    pub(super) answers: fn(&Tenant) -> Vec<FaultRule>,
    /// The jobs. All but the first are published once every answer above has been given.
    pub(super) asks: &'static [Ask],
    pub(super) expected: Expected,
}

/// The addresses of the simulator.
pub(super) struct Addresses {
    pub(super) simulator: String,
}

/// A job.
pub(super) struct Ask {
    /// The work items that a person assigns; their events are the events of the job.
    pub(super) assigned: &'static [(i64, &'static str)],
    /// Returns the text of an event as it arrives, which may be invalid JSON.
    pub(super) text: fn(usize, Value) -> String,
    /// The search text.
    pub(super) search: Option<&'static str>,
    /// The destinations to notify.
    pub(super) notify: &'static [&'static str],
}

impl Ask {
    /// Returns a job with a search and no events.
    pub(super) const fn search(text: &'static str) -> Self {
        Self {
            search: Some(text),
            ..Self::events(&[])
        }
    }

    /// Returns a job with the unchanged events of these assignments.
    pub(super) const fn events(assigned: &'static [(i64, &'static str)]) -> Self {
        Self {
            assigned,
            text: as_it_is,
            search: None,
            notify: &[],
        }
    }

    /// Replaces the texts of the events.
    pub(super) const fn spoiled(self, text: fn(usize, Value) -> String) -> Self {
        Self { text, ..self }
    }

    /// Sets the destinations to notify.
    pub(super) const fn notifying(self, notify: &'static [&'static str]) -> Self {
        Self { notify, ..self }
    }
}

fn as_it_is(_: usize, event: Value) -> String {
    event.to_string()
}

/// How a job ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ends {
    Succeeded,
    /// Parked with this code; the message of the row and of the event contain `says`.
    Parked {
        code: &'static str,
        says: &'static str,
    },
    /// A follow-up is parked with this code; the job waits for it and announces that.
    FollowUpParked {
        code: &'static str,
        says: &'static str,
    },
}

/// The expected outcome of a case.
pub(super) struct Expected {
    /// The end of every job.
    pub(super) ends: Ends,
    /// The assignees of groups, by first work item.
    pub(super) groups: &'static [(i64, Option<&'static str>)],
    /// The assignees of work items at Azure DevOps.
    pub(super) outside: &'static [(i64, &'static str)],
    /// The statuses of all calls by method and end of the path, in order; 0 stands for no answer.
    pub(super) calls: &'static [(&'static str, &'static [u16])],
    /// The number of requests to Microsoft Entra.
    pub(super) refreshes: usize,
    /// A skipped kind, its reason, and the count.
    pub(super) skipped: Option<(&'static str, &'static str, u64)>,
    /// Further checks.
    pub(super) also: fn(&Seen<'_>, &mut Wrong),
}

impl Expected {
    /// Expects this end and nothing else.
    pub(super) const fn to(ends: Ends) -> Self {
        Self {
            ends,
            groups: &[],
            outside: &[],
            calls: &[],
            refreshes: 0,
            skipped: None,
            also: |_, _| {},
        }
    }
}

/// The observed outcome of a case.
pub(super) struct Seen<'a> {
    pub(super) tenant: &'a Tenant,
    /// The jobs of the case.
    pub(super) jobs: Vec<JobView>,
    /// The follow-ups of these jobs.
    pub(super) follow_ups: Vec<JobView>,
    /// The column `skipped` of the jobs' rows.
    pub(super) skipped: Vec<Value>,
    /// The outcome events of the jobs, oldest first.
    pub(super) events: Vec<&'a Value>,
    /// The requests made for the case, oldest first.
    pub(super) calls: Vec<&'a Entry>,
    pub(super) providers: &'a State,
    pub(super) outside: &'a BTreeMap<String, Option<String>>,
    pub(super) groups: &'a BTreeMap<(String, String), Option<String>>,
}

/// The differences of one case.
pub(super) struct Wrong {
    case: String,
    pub(super) texts: Vec<String>,
}

impl Wrong {
    pub(super) fn of(case: &str) -> Self {
        Self {
            case: case.to_owned(),
            texts: Vec::new(),
        }
    }

    pub(super) fn say(&mut self, what: impl std::fmt::Display) {
        self.texts.push(format!("{}: {what}", self.case));
    }

    pub(super) fn equal<T: PartialEq + Debug>(&mut self, what: &str, is: T, expected: T) {
        if is != expected {
            self.say(format_args!("{what}: expected {expected:?}, got {is:?}"));
        }
    }

    pub(super) fn contains(&mut self, what: &str, text: &str, part: &str) {
        if !text.contains(part) {
            self.say(format_args!(
                "{what}: expected {part:?} in it, got {text:?}"
            ));
        }
    }
}

impl Seen<'_> {
    /// Returns the statuses of all calls to `METHOD …end of the path`, in order.
    pub(super) fn statuses(&self, call: &str) -> Vec<u16> {
        let (method, end) = call
            .split_once(' ')
            .expect("a method and the end of a path");
        let fits = |entry: &&&Entry| entry.method == method && entry.path.ends_with(end);
        self.calls
            .iter()
            .filter(fits)
            .map(|entry| entry.status.unwrap_or(0))
            .collect()
    }

    /// Returns every follow-up that delivers a message.
    pub(super) fn messages(&self) -> impl Iterator<Item = &JobView> {
        self.follow_ups
            .iter()
            .filter(|job| job.row.pipeline == "messaging")
    }

    /// Returns the calls that were made more than once, with their counts.
    pub(super) fn repeated(&self) -> Vec<String> {
        let mut made: BTreeMap<String, usize> = BTreeMap::new();
        for Entry {
            method,
            path,
            query,
            body_sha256,
            ..
        } in &self.calls
        {
            let query = query.as_deref().unwrap_or_default();
            *made
                .entry(format!("{method} {path}?{query} {}", &body_sha256[..8]))
                .or_default() += 1;
        }
        made.into_iter()
            .filter(|(_, times)| *times > 1)
            .map(|(call, times)| format!("{times} times {call}"))
            .collect()
    }

    /// Adds every difference from the expected outcome to `wrong`.
    pub(super) fn check(&self, expected: &Expected, wrong: &mut Wrong) {
        if self.jobs.is_empty() {
            wrong.say("its job has no row");
        }
        for job in &self.jobs {
            self.check_end(job, expected.ends, wrong);
        }
        for (first, email) in expected.groups {
            let key = (self.tenant.name.clone(), group_name(*first));
            wrong.equal(
                &key.1,
                self.groups.get(&key).and_then(Option::as_deref),
                *email,
            );
        }
        for (item, name) in expected.outside {
            let is = self
                .outside
                .get(&work_item_key(&self.tenant.account(), *item))
                .and_then(Option::as_deref);
            wrong.equal(&format!("work item {item} at Azure DevOps"), is, Some(name));
        }
        for (call, statuses) in expected.calls {
            wrong.equal(call, self.statuses(call), statuses.to_vec());
        }
        let refreshes = self
            .calls
            .iter()
            .filter(|entry| entry.provider == Provider::Entra)
            .count();
        wrong.equal("refreshes", refreshes, expected.refreshes);
        if let Some((kind, reason, count)) = expected.skipped {
            let event =
                self.jobs.first().map_or(
                    &Value::Null,
                    |job| &self.event(job, "job.succeeded")["skipped"],
                );
            for (place, skipped) in self
                .skipped
                .iter()
                .map(|row| ("the row", row))
                .chain([("the event", event)])
            {
                let what = format!("skipped.{kind}.{reason} of {place}");
                wrong.equal(&what, skipped[kind][reason].as_u64(), Some(count));
            }
        }
        (expected.also)(self, wrong);
    }

    fn event(&self, job: &JobView, name: &str) -> &Value {
        let found = self
            .events
            .iter()
            .find(|event| event["event"] == name && event["dedupe_key"] == job.row.dedupe_key);
        found.copied().unwrap_or(&Value::Null)
    }

    fn check_end(&self, job: &JobView, ends: Ends, wrong: &mut Wrong) {
        let (row, text) = (&job.row, |text: &Option<String>| {
            text.clone().unwrap_or_default()
        });
        match ends {
            Ends::Succeeded => {
                let stands = format!("{} {}", text(&row.error_code), text(&row.error_message));
                if row.state.word() != "succeeded" {
                    wrong.say(format_args!(
                        "its job is {} at {}: {stands}",
                        row.state, row.stage
                    ));
                }
                if self.event(job, "job.succeeded").is_null() {
                    wrong.say("no job.succeeded was announced");
                }
            }
            Ends::Parked { code, says } => {
                wrong.equal("the state", row.state.word(), "parked");
                wrong.equal("the code", text(&row.error_code).as_str(), code);
                wrong.contains("the message", &text(&row.error_message), says);
                let event = &self.event(job, "job.parked")["error"];
                wrong.equal("the event's code", event["code"].as_str(), Some(code));
                wrong.contains(
                    "the event's message",
                    event["message"].as_str().unwrap_or_default(),
                    says,
                );
            }
            Ends::FollowUpParked { code, says } => {
                wrong.equal(
                    "the state",
                    (row.state.word(), row.wait_reason.as_deref()),
                    ("waiting", Some("children")),
                );
                let parked = self
                    .follow_ups
                    .iter()
                    .find(|job| job.row.error_code.as_deref() == Some(code));
                let message = parked
                    .map(|job| text(&job.row.error_message))
                    .unwrap_or_default();
                wrong.contains(
                    &format!("the message of a follow-up parked for {code}"),
                    &message,
                    says,
                );
                let event = &self.event(job, "job.waiting.follow_up")["follow_up"];
                wrong.equal(
                    "the event's job",
                    event["job_id"].as_str(),
                    parked.map(|job| job.row.id.to_string()).as_deref(),
                );
                wrong.equal(
                    "the event's pipeline",
                    event["pipeline"].as_str(),
                    parked.map(|job| job.row.pipeline.as_str()),
                );
                wrong.equal("the event's code", event["code"].as_str(), Some(code));
                wrong.contains(
                    "the event's message",
                    event["message"].as_str().unwrap_or_default(),
                    says,
                );
            }
        }
    }
}
