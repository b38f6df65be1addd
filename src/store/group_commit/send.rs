//! One group's transaction: all its statements are sent at once, each for all rows of its kind.

use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Pool};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::group::{Group, Sent};
use crate::store::announcements::{ANNOUNCE, DONE, WRITER_PUBLISHES};
use crate::store::batched_commit::{self, PLAIN, PlainCommit, PlainCommits};
use crate::store::claim::{self, CLAIM, Wanted};
use crate::store::error::StoreError;
use crate::store::intake::{self, INTAKE, NewJobs};
use crate::store::new_job::NewJob;
use crate::telemetry::names;

/// The statements of a group; `None` for a kind without rows.
struct Statements {
    intake: Option<Statement>,
    claim: Option<Statement>,
    plain: Option<Statement>,
    announce: Option<Statement>,
    forget: Option<Statement>,
}

/// The rows that Postgres returned.
struct Rows {
    intakes: Vec<Row>,
    claims: Vec<Row>,
    plains: Vec<Row>,
    announced: Vec<Row>,
    flush: Duration,
}

/// Sends a group and reads its results.
///
/// # Errors
/// [`StoreError`]. After an error that is not one of the infrastructure, nothing of the group is
/// stored; after any other error, the outcome is unknown.
pub(super) async fn send(pool: &Pool, group: &Group) -> Result<Sent, StoreError> {
    metrics::histogram!(names::GROUP_ROWS).record(group.rows() as f64);
    let client = pool.get().await?;
    let rows = transact(&client, group).await?;
    let new: Vec<&NewJob> = group.intakes.iter().map(|(new, _)| &**new).collect();
    let wanted: Vec<Wanted> = group.claims.iter().map(|(wanted, _)| *wanted).collect();
    // The group is committed: if reading the results fails, the rows are not written again.
    let after = |error| StoreError::AfterCommit(Box::new(error));
    Ok(Sent {
        intakes: intake::intaken(&client, &new, &rows.intakes)
            .await
            .map_err(after)?,
        claims: claim::claimed(&client, &wanted, &rows.claims)
            .await
            .map_err(after)?,
        plains: batched_commit::done(plains(group), &rows.plains, &rows.announced)
            .map_err(after)?,
        flush: rows.flush,
    })
}

fn plains(group: &Group) -> impl Iterator<Item = &PlainCommit> + Clone {
    group.plains.iter().map(|(commit, _)| &**commit)
}

async fn transact(client: &Client, group: &Group) -> Result<Rows, StoreError> {
    let statements = prepare(client, group).await?;
    let alone = statements.number() == 1;
    let intakes = NewJobs::of(group.intakes.iter().map(|(new, _)| &**new));
    let wanted: Vec<Wanted> = group.claims.iter().map(|(wanted, _)| *wanted).collect();
    let (ids, replicas) = claim::columns(&wanted);
    let commits = PlainCommits::of(plains(group));
    let ended: Vec<uuid::Uuid> = plains(group)
        .filter(|one| one.finishes())
        .map(|one| one.job().0)
        .collect();
    let (intakes, commits) = (intakes.parameters(), commits.parameters());
    let claims: [&(dyn ToSql + Sync); 2] = [&ids, &replicas];
    let announcements: [&(dyn ToSql + Sync); 4] =
        [&ended, &"job.succeeded", &WRITER_PUBLISHES, &true];
    let confirmed: [&(dyn ToSql + Sync); 1] = [&group.announced];
    let started = Instant::now();
    // Each statement is sent when its future is first polled, and they are polled in this order
    // without waiting for an answer in between.
    let (begun, intakes, claims, plains, announced, forgotten, committed) = tokio::join!(
        biased;
        control(client, "BEGIN", alone),
        rows(client, statements.intake.as_ref(), &intakes),
        rows(client, statements.claim.as_ref(), &claims),
        rows(client, statements.plain.as_ref(), &commits),
        rows(client, statements.announce.as_ref(), &announcements),
        rows(client, statements.forget.as_ref(), &confirmed),
        control(client, "COMMIT", alone),
    );
    // The first error is the cause of the following ones.
    begun?;
    let last = [&intakes, &claims, &plains, &announced, &forgotten]
        .iter()
        .filter_map(|rows| rows.as_ref().ok()?.1)
        .max();
    let (intakes, claims, plains, announced) = (intakes?.0, claims?.0, plains?.0, announced?.0);
    forgotten?;
    let committed = committed?;
    let flush = if alone {
        last.unwrap_or(started) - started
    } else {
        committed - last.unwrap_or(started)
    };
    Ok(Rows {
        intakes,
        claims,
        plains,
        announced,
        flush,
    })
}

/// Prepares the statements before anything is sent: a statement that is prepared in between would
/// be sent after the commit.
async fn prepare(client: &Client, group: &Group) -> Result<Statements, StoreError> {
    let prepared = async |sql: &str, wanted: bool| match wanted {
        true => client.prepare_cached(sql).await.map(Some),
        false => Ok(None),
    };
    Ok(Statements {
        intake: prepared(INTAKE, !group.intakes.is_empty()).await?,
        claim: prepared(CLAIM, !group.claims.is_empty()).await?,
        plain: prepared(PLAIN, !group.plains.is_empty()).await?,
        announce: prepared(ANNOUNCE, plains(group).any(PlainCommit::finishes)).await?,
        forget: prepared(DONE, !group.announced.is_empty()).await?,
    })
}

impl Statements {
    fn number(&self) -> usize {
        [
            &self.intake,
            &self.claim,
            &self.plain,
            &self.announce,
            &self.forget,
        ]
        .into_iter()
        .flatten()
        .count()
    }
}

type Timed<V> = Result<V, tokio_postgres::Error>;

/// Returns the rows of a statement and when they arrived; no rows if there is no statement.
async fn rows(
    client: &Client,
    statement: Option<&Statement>,
    parameters: &[&(dyn ToSql + Sync)],
) -> Timed<(Vec<Row>, Option<Instant>)> {
    let Some(statement) = statement else {
        return Ok((Vec::new(), None));
    };
    Ok((
        client.query(statement, parameters).await?,
        Some(Instant::now()),
    ))
}

/// Sends `BEGIN` or `COMMIT`, unless a single statement is its own transaction.
async fn control(client: &Client, sql: &'static str, alone: bool) -> Timed<Instant> {
    if !alone {
        client.batch_execute(sql).await?;
    }
    Ok(Instant::now())
}
