//! The group writer: the calls of many callers share a transaction, and each caller receives its
//! own result.

mod in_flight;
mod mixed;
mod results;

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::engine::{CheckpointRecord, Commit, Next, Record, Skipped};
use dispatch_worker::fault::StageFault;
use dispatch_worker::job::{JobId, ReplicaId};
use dispatch_worker::store::{
    self, Claim, Claimed, Committed, Incoming, Intaken, NewJob, Run, Store, StoreError, Tables,
    Writer,
};
use dispatch_worker::tracker::cause_present;
use futures_util::future::{BoxFuture, FutureExt, join_all};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::support::TestDatabase;

/// A product whose stages change nothing. The causes that jobs wait for are those of the tracker.
pub(crate) struct NoChanges;

impl Tables for NoChanges {
    type Changes = ();

    fn apply<'a>(
        &'a self,
        _: &'a tokio_postgres::Transaction<'_>,
        _: JobId,
        _: &'a (),
    ) -> BoxFuture<'a, Result<Box<RawValue>, StageFault>> {
        std::future::ready(Ok(RawValue::NULL.to_owned())).boxed()
    }

    fn cause_present<'a>(
        &'a self,
        tx: &'a tokio_postgres::Transaction<'_>,
        key: &'a str,
        observed: i64,
    ) -> BoxFuture<'a, Result<Option<bool>, StageFault>> {
        async move { Ok(cause_present(tx, key, observed).await?) }.boxed()
    }
}

/// A writer with its own database and a live replica; the only pipeline is `p`, which begins with
/// the stage `first`.
pub(crate) struct Bench {
    pub(crate) database: TestDatabase,
    pub(crate) writer: Writer<NoChanges>,
    pub(crate) replica: ReplicaId,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::new().await;
        let url = database.url.clone();
        Self::by_way_of(&url, database).await
    }

    /// Creates a bench whose writers use this URL of the database.
    pub(crate) async fn by_way_of(url: &SecretString, database: TestDatabase) -> Self {
        let writers = store::writers_pool(url).expect("a pool");
        let writer = Writer::new(
            Store::new(database.pool.clone()),
            writers,
            NoChanges,
            [("p", "first")].into(),
        );
        let replica = database
            .one("INSERT INTO replicas (version, host, pid, alive_until, lanes) VALUES ('1', 'h', 1, now() + interval '1 hour', '{}') RETURNING id")
            .await;
        Self {
            database,
            writer,
            replica: ReplicaId(replica.parse().expect("an id")),
        }
    }

    pub(crate) fn job(&self, key: &str) -> Arc<NewJob> {
        Arc::new(NewJob {
            id: JobId::fresh(),
            pipeline: "p",
            stage: "first",
            producer: None,
            source: "test".to_owned(),
            dedupe_key: key.to_owned(),
            digest: [0; 32],
            organization: "acme".to_owned(),
            schema: 1,
            bytes: 2,
            payload: Incoming::Known(RawValue::from_string("{}".to_owned()).expect("JSON")),
            not_before: None,
            deadline: None,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
            tracestate: None,
            owner: Some(self.replica),
            known_schema: 1,
        })
    }

    /// Inserts a new job and returns its claim.
    pub(crate) async fn in_hand(&self, key: &str) -> Claim {
        let job = self.job(key);
        ours(self.at_once(self.writer.intake(&job)).await)
    }

    /// Inserts new jobs in one group and returns their claims.
    pub(crate) async fn all_in_hand(&self, jobs: &[Arc<NewJob>]) -> Vec<Claim> {
        let answers = self.together(jobs.iter().map(|job| self.writer.intake(job)));
        answers.await.into_iter().map(ours).collect()
    }

    /// Claims a due job.
    pub(crate) async fn claim(&self, job: JobId) -> Claim {
        match self.at_once(self.writer.claim(self.replica, job)).await {
            Ok(Claimed::Ours(claim)) => *claim,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// Commits the result of a claim's stage; the claim must not be fenced.
    pub(crate) async fn commit(&self, claim: &Claim, commit: &Commit<()>) -> Committed {
        self.at_once(Box::pin(self.writer.commit(run(claim), commit)))
            .await
            .expect("the claim is not fenced")
    }

    /// Runs all calls as one group, as [`Bench::at_once`] does.
    pub(crate) async fn together<V>(
        &self,
        calls: impl Iterator<Item = impl Future<Output = V>>,
    ) -> Vec<V> {
        self.at_once(join_all(calls)).await
    }

    /// Polls the calls before the writers start, so that all of them wait and form one group.
    pub(crate) async fn at_once<V>(&self, calls: impl Future<Output = V>) -> V {
        let end = CancellationToken::new();
        let calls = async {
            let answers = calls.await;
            end.cancel();
            answers
        };
        let (answers, ()) = tokio::join!(biased; calls, self.writer.write_groups(end.clone()));
        answers
    }
}

pub(crate) fn ours(intaken: Result<Intaken, StoreError>) -> Claim {
    match intaken {
        Ok(Intaken::Ours(claim, _)) => *claim,
        other => panic!("not claimed: {other:?}"),
    }
}

pub(crate) fn stage_done(stage: &'static str, next: Next) -> Commit<()> {
    let output = Some(RawValue::from_string("{\"done\":true}".to_owned()).expect("JSON"));
    let record = Record::Checkpoint(CheckpointRecord {
        stage,
        version: 1,
        output,
    });
    let (skipped, partial) = (Skipped::new(), None);
    Commit {
        record,
        effect: None,
        leftover: None,
        changes: None,
        children: Vec::new(),
        next,
        skipped,
        partial,
    }
}

/// Returns the commit of the first stage with a following stage.
pub(crate) fn first_done() -> Commit<()> {
    stage_done(
        "first",
        Next::Stage {
            stage: "second".to_owned(),
            keep: true,
        },
    )
}

pub(crate) fn run(claim: &Claim) -> Run<'_> {
    Run {
        fence: &claim.fence,
        job: &claim.job,
        took: Duration::from_millis(1),
    }
}
