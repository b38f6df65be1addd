//! Audit rows about access: sign-outs, sign-ins through a proxy, and refusals. A task writes them,
//! so no request waits for them; their number is limited, so nobody can fill the audit log with
//! refusals.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::auth::{Sender, credential};
use super::schema::permit_changes;
use super::state::Console;
use crate::fault::chain;
use crate::store::{Action, Actor, ApiToken, Request, Role};

/// Rows about one token or address within [`WINDOW`]; one more row has the number of the others.
const ROWS: u64 = 5;
/// Tokens and addresses that have rows of their own within [`WINDOW`]; the others share one row.
const SUBJECTS: usize = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// How long a user of the proxy is not noted again; a session of the console lasts as long.
const SIGNED_IN_FOR: Duration = Duration::from_hours(12);
/// Users of the proxy that are remembered.
const USERS: usize = 1000;
/// Rows that wait to be written.
const WAITING: usize = 200;

/// What rows are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Token(i64),
    /// An address; of IPv6 the network of 64 bits, in which one host can have every address.
    Address(IpAddr),
    Unknown,
}

/// A row to write.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    who: String,
    role: Role,
    /// The name of the token.
    token: String,
    request: Uuid,
    action: Action,
    after: Value,
    /// The user of the proxy who is noted again if the row cannot be written.
    user: Option<i64>,
}

/// The rows of one subject within a window.
#[derive(Debug)]
struct Tally {
    count: u64,
    last: Row,
}

/// The rows of a window, and those that wait to be written.
#[derive(Debug, Default)]
struct Ledger {
    begun: Option<Instant>,
    tallies: HashMap<Subject, Tally>,
    others: Option<Tally>,
    waiting: Vec<Row>,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct SecurityLog {
    ledger: Mutex<Ledger>,
    added: Notify,
    /// When the users of the proxy signed in.
    users: Mutex<HashMap<i64, Instant>>,
}

impl SecurityLog {
    /// Adds a row about the owner of a token.
    pub(super) fn known(&self, sender: &Sender, token: &ApiToken, action: Action, after: Value) {
        let who = (token.name.as_str(), token.role, credential(token));
        let row = row(sender, who, action, after);
        self.add(Subject::Token(token.id), row);
    }

    /// Adds a row about the sign-in of a user of the proxy, if there was none within 12 h.
    pub(super) fn seen(&self, sender: &Sender, token: &ApiToken) {
        let now = Instant::now();
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < SIGNED_IN_FOR;
        if users.get(&token.id).is_some_and(is_recent) {
            return;
        }
        if users.len() >= USERS {
            users.clear();
        }
        users.insert(token.id, now);
        drop(users);
        let after = json!({"role": token.role, "proxy": true});
        let who = (token.name.as_str(), token.role, credential(token));
        let mut row = row(sender, who, Action::SignIn, after);
        row.user = Some(token.id);
        // No limit of refusals hides a sign-in: there are at most as many as users are remembered.
        self.locked().waiting.push(row);
        self.added.notify_one();
    }

    /// Has a user of the proxy noted again, since the row could not be written.
    fn forget(&self, user: i64) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.remove(&user);
    }

    fn locked(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row about somebody who was not recognised.
    pub(super) fn unknown(&self, sender: &Sender, action: Action, after: Value) {
        let who = ("unknown", Role::Nobody, "unknown");
        let row = row(sender, who, action, after);
        self.add(subject(sender.peer), row);
    }

    fn add(&self, subject: Subject, row: Row) {
        self.locked().add(subject, row, Instant::now());
        self.added.notify_one();
    }

    fn take(&self, is_last: bool) -> Vec<Row> {
        let mut ledger = self.locked();
        if is_last {
            ledger.close();
        } else {
            ledger.close_if_over(Instant::now());
        }
        std::mem::take(&mut ledger.waiting)
    }
}

/// Writes the rows of a console until `end`, then those that still wait.
pub async fn write_security_log(console: Arc<Console>, end: CancellationToken) {
    loop {
        let is_last = tokio::select! {
            biased;
            () = end.cancelled() => true,
            () = console.security_log.added.notified() => false,
            () = tokio::time::sleep(WINDOW) => false,
        };
        for row in console.security_log.take(is_last) {
            write(&console, row).await;
        }
        if is_last {
            return;
        }
    }
}

/// Writes a row. With another schema it is only logged, as nothing is changed then.
async fn write(console: &Console, row: Row) {
    let actor = Actor {
        role: row.role,
        reason: None,
        request: Some(Request {
            id: row.request,
            token: row.token,
            key: None,
        }),
        who: row.who,
    };
    let acts = &console.parts.acts;
    let written = match permit_changes(console).await {
        Ok(()) => acts
            .audit_refusal(&actor, row.action, &row.after)
            .await
            .map_err(|error| chain(&error)),
        Err(problem) => Err(problem.detail.clone()),
    };
    if let Err(error) = written {
        tracing::warn!(
            error,
            action = row.action.word(),
            who = actor.who,
            "an audit row about access could not be written"
        );
        if let Some(user) = row.user {
            console.security_log.forget(user);
        }
    }
}

fn row(
    sender: &Sender,
    (who, role, token): (&str, Role, &str),
    action: Action,
    mut after: Value,
) -> Row {
    after["address"] = json!(sender.peer);
    Row {
        who: who.to_owned(),
        role,
        token: token.to_owned(),
        request: sender.id,
        action,
        after,
        user: None,
    }
}

fn subject(peer: Option<IpAddr>) -> Subject {
    match peer {
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64 << 64;
            Subject::Address(Ipv6Addr::from_bits(network).into())
        }
        Some(address) => Subject::Address(address),
        None => Subject::Unknown,
    }
}

impl Ledger {
    fn add(&mut self, subject: Subject, row: Row, now: Instant) {
        self.close_if_over(now);
        self.begun.get_or_insert(now);
        let has_place = self.tallies.len() < SUBJECTS || self.tallies.contains_key(&subject);
        if !has_place || self.waiting.len() >= WAITING {
            let others = self.others.get_or_insert_with(|| Tally {
                count: 0,
                last: row.clone(),
            });
            others.count += 1;
            others.last = row;
            return;
        }
        let tally = self.tallies.entry(subject).or_insert_with(|| Tally {
            count: 0,
            last: row.clone(),
        });
        tally.count += 1;
        tally.last = row.clone();
        if tally.count <= ROWS {
            self.waiting.push(row);
        }
    }

    fn close_if_over(&mut self, now: Instant) {
        let is_over = |begun| now.saturating_duration_since(begun) >= WINDOW;
        if self.begun.is_some_and(is_over) {
            self.close();
        }
    }

    /// Ends the window: adds a row for what had none.
    fn close(&mut self) {
        self.begun = None;
        let further = |tally: &Tally| tally.count.saturating_sub(ROWS);
        let of_subjects: Vec<Row> = self
            .tallies
            .drain()
            .filter(|(_, tally)| further(tally) > 0)
            .map(|(_, tally)| counted(further(&tally), tally.last))
            .collect();
        self.waiting.extend(of_subjects);
        if let Some(others) = self.others.take() {
            let last = Row {
                who: "others".to_owned(),
                role: Role::Nobody,
                token: "unknown".to_owned(),
                ..others.last
            };
            self.waiting.push(counted(others.count, last));
        }
    }
}

/// Returns the row that has the number of the rows that were not written, and the last of them.
fn counted(further: u64, mut last: Row) -> Row {
    last.after["further"] = json!(further);
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(who: &str) -> Row {
        Row {
            who: who.to_owned(),
            role: Role::Viewer,
            token: who.to_owned(),
            request: Uuid::nil(),
            action: Action::RefuseRequest,
            after: json!({}),
            user: None,
        }
    }

    fn further(rows: &[Row]) -> Vec<u64> {
        let of = |row: &Row| row.after["further"].as_u64();
        let mut numbers: Vec<u64> = rows.iter().filter_map(of).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_subject_has_a_few_rows_in_a_window_and_one_that_counts_the_rest() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for _ in 0..100 {
            ledger.add(Subject::Token(1), row_of("ann"), start);
        }
        ledger.add(Subject::Token(2), row_of("bob"), start);
        let rows = std::mem::take(&mut ledger.waiting);
        assert_eq!(rows.len(), 6);
        ledger.close_if_over(start + WINDOW);
        let rows = std::mem::take(&mut ledger.waiting);
        assert_eq!(
            (rows.len(), further(&rows), rows[0].who.as_str()),
            (1, vec![95], "ann")
        );
        ledger.add(Subject::Token(1), row_of("ann"), start + WINDOW);
        assert_eq!(ledger.waiting.len(), 1, "the next window counts from zero");
    }

    #[test]
    fn many_subjects_share_a_row() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for id in 0..1000 {
            for _ in 0..10 {
                ledger.add(Subject::Token(id), row_of("x"), now);
            }
        }
        ledger.close();
        let rows = ledger.waiting;
        assert_eq!(rows.len(), 10 * 5 + 10 + 1);
        assert_eq!(further(&rows).last(), Some(&9_900));
        assert_eq!(rows.last().map(|row| row.who.as_str()), Some("others"));
    }

    #[test]
    fn what_waits_to_be_written_is_limited() {
        let mut ledger = Ledger {
            waiting: vec![row_of("x"); WAITING],
            ..Ledger::default()
        };
        ledger.add(Subject::Unknown, row_of("x"), Instant::now());
        assert_eq!(ledger.waiting.len(), WAITING);
        assert_eq!(ledger.others.map(|others| others.count), Some(1));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let of = |text: &str| subject(text.parse().ok());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
