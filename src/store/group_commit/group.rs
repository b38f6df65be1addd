//! Writes that are sent together, and the callers that wait for their results.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::batched_commit::{PlainCommit, PlainDone};
use crate::store::claim::{Claimed, Wanted};
use crate::store::error::StoreError;
use crate::store::intake::Intaken;
use crate::store::new_job::NewJob;

/// Maximum number of rows in a group.
const GROUP_ROWS: usize = 256;
/// Maximum size of the payloads in a group, in bytes; a larger payload is written alone.
const GROUP_BYTES: usize = 4 << 20;

pub(super) type ReplyTo<A> = oneshot::Sender<Result<A, StoreError>>;

/// A write and the channel for its result.
pub(super) enum Request {
    Intake(Arc<NewJob>, ReplyTo<Intaken>),
    Claim(Wanted, ReplyTo<Claimed>),
    Plain(Box<PlainCommit>, ReplyTo<Option<PlainDone>>),
    /// Nobody waits for the result: events that are not deleted are published again.
    Announced(Vec<i64>),
}

/// Writes that are sent together.
#[derive(Default)]
pub(super) struct Group {
    pub(super) intakes: Vec<(Arc<NewJob>, ReplyTo<Intaken>)>,
    pub(super) claims: Vec<(Wanted, ReplyTo<Claimed>)>,
    pub(super) plains: Vec<(Box<PlainCommit>, ReplyTo<Option<PlainDone>>)>,
    pub(super) announced: Vec<i64>,
    bytes: usize,
}

/// The results of a group, in the order of its rows.
pub(super) struct Sent {
    pub(super) intakes: Vec<Result<Intaken, StoreError>>,
    pub(super) claims: Vec<Result<Claimed, StoreError>>,
    pub(super) plains: Vec<Result<Option<PlainDone>, StoreError>>,
    /// How long the commit took after the last statement; for a group of one statement, how long
    /// that statement took.
    pub(super) flush: Duration,
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Intake(new, _) => new.payload.len(),
            Self::Plain(commit, _) => commit.output.get().len(),
            Self::Claim(..) | Self::Announced(_) => 0,
        }
    }
}

impl Group {
    pub(super) fn rows(&self) -> usize {
        self.intakes.len() + self.claims.len() + self.plains.len() + self.announced.len()
    }

    pub(super) fn has_room_for(&self, request: &Request) -> bool {
        self.rows() == 0
            || (self.rows() < GROUP_ROWS && self.bytes + request.bytes() <= GROUP_BYTES)
    }

    pub(super) fn push(&mut self, request: Request) {
        self.bytes += request.bytes();
        match request {
            Request::Intake(new, answer) => self.intakes.push((new, answer)),
            Request::Claim(wanted, answer) => self.claims.push((wanted, answer)),
            Request::Plain(commit, answer) => self.plains.push((commit, answer)),
            Request::Announced(ids) => self.announced.extend(ids),
        }
    }

    /// Sorts the rows of each kind by their keys, so that two groups do not deadlock. Returns the
    /// requests that must wait for another group, since one statement inserts a key once.
    pub(super) fn in_order(&mut self) -> Vec<Request> {
        let key = |new: &Arc<NewJob>| (new.source.clone(), new.dedupe_key.clone());
        self.intakes.sort_by_cached_key(|(new, _)| key(new));
        self.claims.sort_by_key(|(wanted, _)| wanted.job);
        self.plains.sort_by_key(|(commit, _)| commit.job());
        let mut again = Vec::new();
        let mut n = 1;
        while n < self.intakes.len() {
            if key(&self.intakes[n].0) == key(&self.intakes[n - 1].0) {
                let (new, answer) = self.intakes.remove(n);
                again.push(Request::Intake(new, answer));
            } else {
                n += 1;
            }
        }
        again
    }

    /// Returns each row as a group of its own.
    pub(super) fn singles(self) -> impl Iterator<Item = Self> {
        let intakes = self.intakes.into_iter().map(|one| Self {
            intakes: vec![one],
            ..Self::default()
        });
        let claims = self.claims.into_iter().map(|one| Self {
            claims: vec![one],
            ..Self::default()
        });
        let plains = self.plains.into_iter().map(|one| Self {
            plains: vec![one],
            ..Self::default()
        });
        let announced = (!self.announced.is_empty()).then(|| Self {
            announced: self.announced,
            ..Self::default()
        });
        intakes.chain(claims).chain(plains).chain(announced)
    }

    /// Sends every caller its own result.
    pub(super) fn answer(self, sent: Sent) {
        send_answers(self.intakes, sent.intakes);
        send_answers(self.claims, sent.claims);
        send_answers(self.plains, sent.plains);
    }

    /// Sends every caller the same error.
    pub(super) fn refuse(self, error: StoreError) {
        let error = Arc::new(error);
        let shared = || StoreError::Group(Arc::clone(&error));
        self.intakes
            .into_iter()
            .for_each(|(_, answer)| drop(answer.send(Err(shared()))));
        self.claims
            .into_iter()
            .for_each(|(_, answer)| drop(answer.send(Err(shared()))));
        self.plains
            .into_iter()
            .for_each(|(_, answer)| drop(answer.send(Err(shared()))));
    }
}

impl Sent {
    /// Returns whether the group wrote anything. Deleted events do not count: another replica may
    /// have deleted them first.
    pub(super) fn has_written(&self) -> bool {
        let made =
            |one: &Result<Intaken, _>| matches!(one, Ok(Intaken::Ours(..) | Intaken::Accepted(_)));
        let claimed = |one: &Result<Claimed, _>| matches!(one, Ok(Claimed::Ours(_)));
        let committed = |one: &Result<Option<PlainDone>, _>| matches!(one, Ok(Some(_)));
        self.intakes.iter().any(made)
            || self.claims.iter().any(claimed)
            || self.plains.iter().any(committed)
    }
}

/// Sends results to their callers. If a caller is gone, its row shows what was written.
fn send_answers<Q, A>(asked: Vec<(Q, ReplyTo<A>)>, answers: Vec<Result<A, StoreError>>) {
    for ((_, asked), answer) in asked.into_iter().zip(answers) {
        drop(asked.send(answer));
    }
}
