//! `dispatch publish --wait`: follows jobs to their outcomes. After a lost connection it publishes
//! the same messages again: they are the same jobs, and the reply is the current state of each.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::Duration;

use crate::tls_policy::Endpoint;
use anyhow::bail;
use clap::Args;
use tokio::time::Instant;
use uuid::Uuid;

use super::read::Document;
use super::{Published, WINDOW};
use crate::broker::{BrokerError, Outgoing, Publisher, Replies, Reply};
use crate::cli::output::{Output, or_dash, say};
use crate::fault::chain;
use crate::job::JobState;
use crate::message::outcome::{
    Failure, Skipped, Waiting, WaitingForConfiguration, WaitingForFollowUp, counted,
};
use crate::message::{DIRECT_REPLY, Outcome, canonical_digest, read_body};
use crate::reconnect::Reconnect;

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Follow each job to its outcome; exit code 0 only if all succeed
    #[arg(long, conflicts_with_all = ["reply_to", "correlation_id"])]
    pub(super) wait: bool,
    /// Stop following after this many seconds; the jobs continue
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    timeout: Option<u64>,
    /// Keep following a job that waits for a person: for an account, or for a parked follow-up
    #[arg(long, requires = "wait")]
    keep_waiting: bool,
}

/// Whether more outcomes of a job are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FollowState {
    Pending,
    Succeeded,
    /// Ended without success, or blocked until a person acts.
    Ended,
}

/// A job that is followed.
struct Followed {
    /// Source and key, for the output.
    name: String,
    last: Option<Outcome>,
    state: FollowState,
}

/// The published documents. Two equal messages are the same job, whose outcomes go to the last
/// requester, so both have the same correlation id.
struct Sent {
    /// In order, each with its correlation id.
    documents: Vec<(String, Document)>,
    /// By correlation id.
    followed: BTreeMap<String, Followed>,
}

impl Wait {
    /// Publishes, and prints outcomes until none are expected.
    pub(super) async fn follow(
        &self,
        output: Output,
        url: &Endpoint,
        documents: Vec<Document>,
    ) -> anyhow::Result<ExitCode> {
        let mut sent = Sent::of(documents);
        let until = self
            .timeout
            .map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let received = self.receive_all(output, url, &mut sent);
        let ended = match until {
            None => Some(received.await),
            Some(until) => tokio::time::timeout_at(until, received).await.ok(),
        };
        let Sent {
            documents,
            followed,
        } = sent;
        let succeeded = followed
            .values()
            .all(|one| one.state == FollowState::Succeeded);
        let outcome = |id: &str| followed.get(id).and_then(|one| one.last.clone());
        let published = documents.into_iter().map(|(id, document)| Published {
            outcome: outcome(&id),
            ..document.into()
        });
        let published: Vec<Published> = published.collect();
        if output.is_json() {
            output.answer(&published, String::new)?;
        }
        match ended {
            Some(Err(error)) => Err(error),
            None => bail!(
                "not every job ended within {} s; the jobs continue",
                self.timeout.unwrap_or_default()
            ),
            Some(Ok(())) => Ok(if succeeded {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }),
        }
    }

    async fn receive_all(
        &self,
        output: Output,
        url: &Endpoint,
        sent: &mut Sent,
    ) -> anyhow::Result<()> {
        // A failure of the first connection is an error. A connection that is lost later is
        // re-established.
        let mut replies = ask(url, sent).await?;
        let mut reconnect = Reconnect::default();
        while sent
            .followed
            .values()
            .any(|one| one.state == FollowState::Pending)
        {
            match replies.1.next().await {
                Ok(reply) => {
                    reconnect.reset();
                    self.receive(output, &mut sent.followed, &reply)?;
                }
                Err(error) => {
                    say(&format!(
                        "the connection was lost; reconnecting: {}",
                        chain(&error)
                    ));
                    replies = loop {
                        tokio::time::sleep(reconnect.next_delay()).await;
                        match ask(url, sent).await {
                            Ok(replies) => break replies,
                            Err(error) => tracing::debug!(
                                error = chain(&error),
                                "reconnecting failed; another attempt follows"
                            ),
                        }
                    };
                }
            }
        }
        Ok(())
    }

    fn receive(
        &self,
        output: Output,
        followed: &mut BTreeMap<String, Followed>,
        reply: &Reply,
    ) -> anyhow::Result<()> {
        let Some(one) = reply
            .correlation_id
            .as_ref()
            .and_then(|id| followed.get_mut(id))
        else {
            return Ok(());
        };
        let Ok(outcome) = serde_json::from_slice::<Outcome>(&reply.body) else {
            say("received an unknown event; a worker has a newer version than this command");
            return Ok(());
        };
        // Events are delivered at least once.
        let is_news = one.last.as_ref() != Some(&outcome);
        if is_news && one.state == FollowState::Pending {
            one.state = self.state_after(&outcome);
            output.line(&format!("{}: {}", one.name, describe(&outcome)))?;
            for line in choices(&outcome) {
                output.line(&line)?;
            }
            one.last = Some(outcome);
        }
        Ok(())
    }

    const fn state_after(&self, outcome: &Outcome) -> FollowState {
        match outcome {
            Outcome::Succeeded(_) => FollowState::Succeeded,
            Outcome::Cancelled(_) | Outcome::Parked(_) | Outcome::Refused(_) => FollowState::Ended,
            Outcome::WaitingForConfiguration(_) | Outcome::WaitingForFollowUp(_)
                if !self.keep_waiting =>
            {
                FollowState::Ended
            }
            Outcome::Accepted(_)
            | Outcome::WaitingForConfiguration(_)
            | Outcome::WaitingForFollowUp(_)
            | Outcome::WaitingForReauthentication(_)
            | Outcome::WaitingForInstallation(_)
            | Outcome::WaitingForHold(_)
            | Outcome::WaitingForVersion(_) => FollowState::Pending,
        }
    }
}

impl Sent {
    fn of(documents: Vec<Document>) -> Self {
        let (mut known, mut followed) = (HashMap::new(), BTreeMap::new());
        let identified = documents.into_iter().map(|document| {
            let fresh = Uuid::now_v7().to_string();
            let id = match document.job() {
                Some(job) => known.entry(job).or_insert(fresh).clone(),
                None => fresh,
            };
            followed
                .entry(id.clone())
                .or_insert_with(|| Followed::of(&document));
            (id, document)
        });
        let documents = identified.collect();
        Self {
            documents,
            followed,
        }
    }
}

impl Followed {
    fn of(document: &Document) -> Self {
        let (source, key) = (
            or_dash(document.source.as_deref()),
            or_dash(document.dedupe_key.as_deref()),
        );
        Self {
            name: format!("{source} {key}"),
            last: None,
            state: FollowState::Pending,
        }
    }
}

impl Document {
    /// Returns what identifies the job to the worker: source, key and content digest. `None` if
    /// they are not known here.
    fn job(&self) -> Option<(String, String, [u8; 32])> {
        let digest = canonical_digest(&read_body(&self.body)?);
        Some((self.source.clone()?, self.dedupe_key.clone()?, digest))
    }
}

/// Publishes every document whose job is still followed, on a connection that receives the
/// replies. The publisher must live as long as the replies.
async fn ask(url: &Endpoint, sent: &Sent) -> Result<(Publisher, Replies), BrokerError> {
    let (publisher, replies) = Publisher::connect_with_replies(url).await?;
    let is_pending = |id: &str| {
        sent.followed
            .get(id)
            .is_some_and(|one| one.state == FollowState::Pending)
    };
    let open = sent.documents.iter().filter(|(id, _)| is_pending(id));
    let messages: Vec<Outgoing> = open
        .map(|(id, document)| Outgoing {
            reply_to: Some(DIRECT_REPLY.to_owned()),
            correlation_id: Some(id.clone()),
            ..document.message()
        })
        .collect();
    for window in messages.chunks(WINDOW) {
        publisher
            .publish_all(window)
            .await
            .into_iter()
            .collect::<Result<Vec<()>, _>>()?;
    }
    Ok((publisher, replies))
}

/// Describes an outcome in a sentence.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(accepted) => match (accepted.job.state, accepted.reason) {
            (JobState::Waiting, Some(reason)) => {
                format!("accepted as job {}, waits: {reason}", accepted.job.job_id)
            }
            (state, _) => format!("accepted as job {}, {state}", accepted.job.job_id),
        },
        Outcome::Succeeded(ended) => format!("succeeded{}", skipped_counts(ended.skipped.as_ref())),
        Outcome::Cancelled(ended) => format!("cancelled{}", skipped_counts(ended.skipped.as_ref())),
        Outcome::Parked(parked) => format!(
            "parked: {}{}",
            failed(&parked.error),
            skipped_counts(parked.skipped.as_ref())
        ),
        Outcome::WaitingForFollowUp(WaitingForFollowUp { waiting, follow_up }) => {
            let error = format!(
                "{}: {} {}",
                follow_up.code, follow_up.message, follow_up.hint
            );
            let (pipeline, id) = (&follow_up.pipeline, follow_up.job_id);
            format!(
                "its follow-up {id} ({pipeline}) is parked: {error}{}",
                skipped_counts(waiting.skipped.as_ref())
            )
        }
        Outcome::WaitingForConfiguration(WaitingForConfiguration { waiting, .. })
        | Outcome::WaitingForReauthentication(waiting)
        | Outcome::WaitingForInstallation(waiting)
        | Outcome::WaitingForHold(waiting)
        | Outcome::WaitingForVersion(waiting) => waits(waiting),
        Outcome::Refused(refused) => {
            let kept = refused
                .dead_letter_id
                .map_or_else(|| "not kept".to_owned(), |id| format!("dead letter {id}"));
            format!("refused: {}: {} ({kept})", refused.code, refused.detail)
        }
    }
}

fn waits(
    Waiting {
        reason,
        wait_key,
        error,
        skipped,
        ..
    }: &Waiting,
) -> String {
    let error = error
        .as_ref()
        .map_or_else(String::new, |error| format!(": {}", failed(error)));
    format!(
        "waits: {reason} ({wait_key}){error}{}",
        skipped_counts(skipped.as_ref())
    )
}

fn failed(
    Failure {
        code,
        message,
        hint,
    }: &Failure,
) -> String {
    format!("{code}: {message} {hint}")
}

fn skipped_counts(skipped: Option<&Skipped>) -> String {
    skipped.map_or_else(String::new, |skipped| {
        format!(" (skipped: {})", counted(skipped))
    })
}

/// Returns the accounts that a person can choose from, after a line of help.
fn choices(outcome: &Outcome) -> Vec<String> {
    let Outcome::WaitingForConfiguration(WaitingForConfiguration {
        configuration: Some(template),
        ..
    }) = outcome
    else {
        return Vec::new();
    };
    let text = |value: &serde_json::Value, name: &str| {
        value
            .get(name)
            .and_then(|text| text.as_str())
            .unwrap_or("-")
            .to_owned()
    };
    let accounts = template
        .get("choices")
        .and_then(serde_json::Value::as_array);
    let account = |choice: &serde_json::Value| {
        format!("  {} {}", text(choice, "account_id"), text(choice, "name"))
    };
    let lines = accounts.into_iter().flatten().map(account);
    std::iter::once(format!("  {}", text(template, "help")))
        .chain(lines)
        .collect()
}
