//! A request whose sender is known and permitted, as the handlers of routes get it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::auth::{Sender, SignedIn, credential};
use super::mask::without_mailboxes;
use super::panels::Panels;
use super::problem::Problem;
use super::query;
use super::routes::Route;
use super::state::Console;
use crate::job::{Epoch, Generation, JobId};
use crate::operations::OperationError;
use crate::store::{ActionResult, Actor, JobRow, Request, RequestKey, Store, StoreError, Target};

/// The header that names a request, so that its repetition changes nothing
/// (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest reason.
const REASON: usize = 500;

/// A request.
pub(super) struct Call {
    pub(super) console: Arc<Console>,
    pub(super) route: &'static Route,
    pub(super) who: SignedIn,
    pub(super) sender: Sender,
    pub(super) path: HashMap<String, String>,
    /// The path as it was asked for, without the query.
    pub(super) asked: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The body as a form of a page; `None` if it is JSON.
    pub(super) form: Option<Form>,
}

/// The result of a change.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Changed {
    /// Whether anything has changed.
    pub(super) changed: bool,
    /// The state before.
    pub(super) before: Value,
    /// The state now.
    pub(super) now: Value,
}

/// A form of a page.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The token of the session.
    pub(super) form_token: Option<String>,
    /// As the header `Idempotency-Key`.
    key: Option<String>,
    /// As the header `If-Match`.
    pub(super) etag: Option<String>,
    /// The other fields, without those that are empty.
    own: Vec<(String, String)>,
}

impl Form {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// `invalid_input`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let fields: Vec<(String, String)> = query::form(body).map_err(Problem::invalid_input)?;
        let mut form = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "form_token" => form.form_token = Some(value),
                "key" => form.key = Some(value),
                "etag" => form.etag = Some(value),
                _ if value.is_empty() => {}
                _ => form.own.push((name, value)),
            }
        }
        Ok(form)
    }
}

impl Changed {
    /// Returns the result of a change whose states only the audit log has.
    pub(super) const fn plain(changed: bool) -> Self {
        Self {
            changed,
            before: Value::Null,
            now: Value::Null,
        }
    }
}

impl Call {
    /// Returns a request of `who` that reads a page, with the headers of this one.
    pub(super) fn to_read(
        &self,
        who: SignedIn,
        (route, path): (&'static Route, HashMap<String, String>),
        (asked, query): (&str, &str),
    ) -> Self {
        Self {
            console: Arc::clone(&self.console),
            route,
            who,
            sender: self.sender.clone(),
            path,
            asked: asked.to_owned(),
            query: query.to_owned(),
            headers: self.headers.clone(),
            body: Bytes::new(),
            form: None,
        }
    }

    /// The store that reads.
    pub(super) fn reads(&self) -> &Store {
        &self.console.parts.reads
    }

    /// The store that acts.
    pub(super) fn acts(&self) -> &Store {
        &self.console.parts.acts
    }

    /// The panels that all requests share.
    pub(super) fn panels(&self) -> &Panels {
        &self.console.panels
    }

    /// Parses the query.
    ///
    /// # Errors
    /// `invalid_filter`.
    pub(super) fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        query::parse(&self.query)
    }

    /// Parses the body: JSON, or the own fields of a form.
    ///
    /// # Errors
    /// `invalid_input`.
    pub(super) fn input<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if let Some(form) = &self.form {
            let text = serde_urlencoded::to_string(&form.own)
                .map_err(|error| Problem::internal(error.to_string()))?;
            return query::form(text.as_bytes()).map_err(Problem::invalid_input);
        }
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(body).map_err(|error| Problem::invalid_input(error.to_string()))
    }

    /// Returns a part of the path.
    ///
    /// # Errors
    /// `not_found` if it cannot be the name of what the path is for.
    pub(super) fn part<T: std::str::FromStr>(&self, name: &str) -> Result<T, Problem> {
        let part = self.path.get(name).and_then(|part| part.parse().ok());
        part.ok_or_else(|| Problem::not_found(format!("expected a valid {name} in the path")))
    }

    /// Returns the job of the path, if its token may see it.
    ///
    /// # Errors
    /// `not_found`, and errors of the store.
    pub(super) async fn job(&self) -> Result<JobRow, Problem> {
        let id: JobId = self.part("id")?;
        let row = self.reads().job(id).await?;
        row.filter(|row| self.who.sees_job(&row.source, &row.organization))
            .map(|row| self.shown(row))
            .ok_or_else(|| Problem::not_found(format!("there is no job {id}")))
    }

    /// Returns a job as it is shown: without e-mail addresses in the text of its failure.
    pub(super) fn shown(&self, mut row: JobRow) -> JobRow {
        row.error_message = row.error_message.map(|text| self.shown_text(&text));
        row
    }

    /// Returns the text of a failure as it is shown.
    pub(super) fn shown_text(&self, text: &str) -> String {
        without_mailboxes(text, &self.console.parts.keyring)
    }

    /// Returns the job of the path as a target, for exactly the version of `If-Match` if there is
    /// one.
    ///
    /// # Errors
    /// `not_found`; `invalid_request` for an entity tag that is none of ours; errors of the store.
    pub(super) async fn target(&self) -> Result<Target, Problem> {
        let id = self.job().await?.id;
        let header = self.headers.get(IF_MATCH).map(|value| value.to_str());
        let tag = match header.transpose() {
            Err(_) => return Err(wrong_tag()),
            Ok(Some(tag)) => Some(tag.to_owned()),
            Ok(None) => self.form.as_ref().and_then(|form| form.etag.clone()),
        };
        match tag {
            None => Ok(Target::Id(id)),
            Some(tag) => {
                let (generation, epoch) = version(&tag).ok_or_else(wrong_tag)?;
                Ok(Target::Version {
                    id,
                    generation: Generation(generation),
                    epoch: Epoch(epoch),
                })
            }
        }
    }

    /// Returns the actor of a change.
    ///
    /// # Errors
    /// `invalid_input` without a reason; `invalid_request` for a wrong key.
    pub(super) fn actor(&self, reason: &str) -> Result<Actor, Problem> {
        let reason = reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON {
            return Err(Problem::invalid_input(format!(
                "expected a reason of 1 to {REASON} characters"
            )));
        }
        let mut actor = self.silent_actor();
        actor.reason = Some(reason.to_owned());
        if let Some(request) = &mut actor.request {
            request.key = self.key()?;
        }
        Ok(actor)
    }

    /// Returns the actor of what needs no reason and is never the repetition of a request.
    pub(super) fn silent_actor(&self) -> Actor {
        let name = &self.who.token.name;
        Actor {
            who: name.clone(),
            role: self.who.token.role,
            reason: None,
            request: Some(Request {
                id: self.sender.id,
                token: credential(&self.who.token).to_owned(),
                key: None,
            }),
        }
    }

    fn key(&self) -> Result<Option<RequestKey>, Problem> {
        let header = self.headers.get(IDEMPOTENCY_KEY);
        let key = match header.map(|value| value.to_str()).transpose() {
            Err(_) => return Err(wrong_key()),
            Ok(Some(key)) => key.trim_matches('"').to_owned(),
            Ok(None) => match self.form.as_ref().and_then(|form| form.key.clone()) {
                Some(key) => key,
                None => return Ok(None),
            },
        };
        if !(1..=64).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong_key());
        }
        let mut digest = Sha256::new();
        for part in [
            self.route.method.as_str().as_bytes(),
            self.asked.as_bytes(),
            &self.body,
        ] {
            digest.update(part);
            digest.update([0]);
        }
        Ok(Some(RequestKey {
            token: self.who.token.id,
            key,
            digest: digest.finalize().into(),
        }))
    }

    /// Makes a change once: if the request was carried out before under its key, its answer is
    /// returned again. `act` returns whether anything has changed, and the states.
    ///
    /// # Errors
    /// `key_reused`, and errors of `act`.
    pub(super) async fn once(
        &self,
        actor: &Actor,
        act: impl AsyncFnOnce(&Store, &Actor) -> Result<Changed, ActFault>,
    ) -> Result<Changed, Problem> {
        if let Some(kept) = self.kept(actor).await? {
            return Ok(kept);
        }
        match act(self.acts(), actor).await {
            Ok(changed) => Ok(self.kept(actor).await?.unwrap_or(changed)),
            // A repetition may have met what the first request had just done.
            Err(fault) => match (self.kept(actor).await?, fault) {
                (Some(kept), _) => Ok(kept),
                (None, ActFault::Operation(OperationError::Store(StoreError::Repeated))) => {
                    Err(Problem::internal("the kept answer is gone"))
                }
                (None, ActFault::Operation(error)) => Err(error.into()),
                (None, ActFault::Problem(problem)) => Err(problem),
            },
        }
    }

    async fn kept(&self, actor: &Actor) -> Result<Option<Changed>, Problem> {
        let request = actor.request.as_ref();
        let Some(key) = request.and_then(|request| request.key.as_ref()) else {
            return Ok(None);
        };
        match self.acts().kept_answer(key).await? {
            None => Ok(None),
            Some(kept) if kept.is_same_request => Ok(Some(Changed {
                changed: true,
                before: kept.before,
                now: kept.after,
            })),
            Some(_) => Err(Problem::key_reused(format!(
                "expected a new key, got `{}`, which belongs to another request",
                key.key
            ))),
        }
    }
}

/// Why a change was not made.
pub(super) enum ActFault {
    Operation(OperationError),
    Problem(Problem),
}

impl From<OperationError> for ActFault {
    fn from(error: OperationError) -> Self {
        Self::Operation(error)
    }
}

impl From<StoreError> for ActFault {
    fn from(error: StoreError) -> Self {
        Self::Operation(error.into())
    }
}

impl From<Problem> for ActFault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Turns the result of an action on a job into an answer.
///
/// # Errors
/// `not_possible`, `moved_on`, `not_found`.
pub(super) fn of_job(result: ActionResult) -> Result<Changed, ActFault> {
    match result {
        ActionResult::Done { before, now, .. } => Ok(Changed {
            changed: true,
            before: json!({"state": before}),
            now: json!({"state": now}),
        }),
        ActionResult::Already(_, state) => Ok(Changed {
            changed: false,
            before: json!({"state": state}),
            now: json!({"state": state}),
        }),
        ActionResult::Refused(_, why) => Err(Problem::not_possible(why).into()),
        ActionResult::NoSuchJob => Err(Problem::not_found("there is no such job").into()),
        ActionResult::MovedOn {
            job,
            generation,
            epoch,
            state,
            stage,
        } => {
            let mut problem = Problem::moved_on(format!(
                "expected the job as it was when it was shown; now it is {state} at stage {stage}"
            ));
            problem.now = Some(
                json!({"job": job, "etag": tag(generation.0, epoch.0), "state": state, "stage": stage}),
            );
            Err(problem.into())
        }
    }
}

/// Returns the entity tag of a version of a job, without quotes.
pub(super) fn tag(generation: i32, epoch: i64) -> String {
    format!("{generation}.{epoch}")
}

fn version(tag: &str) -> Option<(i32, i64)> {
    let (generation, epoch) = tag.trim().trim_matches('"').split_once('.')?;
    Some((generation.parse().ok()?, epoch.parse().ok()?))
}

fn wrong_tag() -> Problem {
    Problem::invalid_request("expected the ETag of a job in If-Match, such as \"1.4\"")
}

fn wrong_key() -> Problem {
    Problem::invalid_request("expected an Idempotency-Key of 1 to 64 visible ASCII characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_tag_is_generation_and_epoch() {
        assert_eq!(version(&format!("\"{}\"", tag(2, 17))), Some((2, 17)));
        for wrong in ["", "*", "W/\"1.2\"", "1", "1.x", "1.2.3"] {
            assert_eq!(version(wrong), None, "{wrong}");
        }
    }
}
