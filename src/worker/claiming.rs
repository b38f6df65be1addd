//! From a delivery to a claim: decodes the message, then inserts the job's row or claims it. A
//! message that cannot become a job becomes a dead letter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;
use time::OffsetDateTime;

use super::Worker;
use super::context::{InHand, Suspect, WorkerContext};
use super::intake_throttle::ONE_JOB;
use super::lane::{LaneLimiter, Permit, TenantShare};
use crate::broker::{Delivery, KEY_CANCEL, KEY_CONFIGURE, KEY_JOB};
use crate::engine::Product;
use crate::fault::{chain, storable};
use crate::job::JobId;
use crate::message::{
    Cancel, Configure, Intake, Named, Refusal, Sender, WakeUp, decode_control, decode_intake,
    sealed_place,
};
use crate::store::{
    ActionResult, Actor, Announcement, Cancelling, Claim, Claimed, Incoming, Intaken, NewJob,
    NotClaimed, Role, SoFar, StoreError, Tables, Target,
};
use crate::telemetry::names;
use crate::trace::{TRACEPARENT, TRACESTATE};

/// The result of taking a delivery.
pub(super) enum Taken {
    /// A job was claimed; the announcements are the events of its claim, to be published.
    Ours(Box<Claim>, Holding, Vec<Announcement>),
    /// Nothing is left to do: the delivery is acked.
    Nothing,
    /// This replica cannot take the delivery now: it returns to its queue.
    Back,
}

/// The resources that a claimed job holds while it is in hand.
pub(super) struct Holding {
    pub(super) in_hand: InHand,
    _permit: Permit,
    _share: Option<TenantShare>,
    suspect: Option<Suspect>,
}

impl Holding {
    /// Records that the job has committed: it is no longer a suspect, and another suspect can run.
    pub(super) fn cleared(&mut self) {
        self.suspect = None;
    }
}

/// How long a suspect is postponed while another one is in hand.
const SUSPECTS_TURN: Duration = Duration::from_secs(1);

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Takes a delivery: claims its job, or carries out the control message.
    pub(super) async fn take(&self, delivery: &Delivery, limiter: &Arc<LaneLimiter>) -> Taken {
        metrics::counter!(names::DELIVERIES, "lane" => limiter.lane.name).increment(1);
        if let Some(discarded) = &delivery.discarded {
            let bytes = usize::try_from(discarded.bytes).unwrap_or(usize::MAX);
            return self.keep(delivery, &Refusal::TooLarge(bytes)).await;
        }
        let taken = match delivery.routing_key.as_str() {
            KEY_JOB => self.take_intake(delivery, limiter).await,
            KEY_CONFIGURE | KEY_CANCEL => self.take_control(delivery).await,
            key if key.starts_with("wake.") => self.take_wake_up(delivery, limiter).await,
            key => Err(Trouble::Refused(Refusal::RoutingKey(storable(key, 255)))),
        };
        let refusal = match taken {
            Ok(taken) => return taken,
            Err(Trouble::Refused(refusal)) => refusal,
            Err(Trouble::Store(error)) => {
                tracing::error!(
                    error = chain(&error),
                    "a message cannot be stored as a job; it becomes a dead letter"
                );
                Refusal::Undeliverable(storable(&chain(&error), 500))
            }
        };
        self.keep(delivery, &refusal).await
    }

    async fn take_intake(
        &self,
        delivery: &Delivery,
        limiter: &Arc<LaneLimiter>,
    ) -> Result<Taken, Trouble> {
        let sender = self.sender(delivery).await?;
        let id = JobId::fresh();
        let intake = self.decode_intake(delivery, id).await?;
        self.admit(&sender, delivery, &intake).await?;
        let room = self.room_for(&sender, &intake, delivery.body.len()).await?;
        let place = self.place(limiter, &intake).await;
        let payload = self.payload(id, &intake, &delivery.body)?;
        let about = intake.about();
        let pipeline = self.context.registry.intake();
        let spans = &self.context.spans;
        let trace = spans.received(delivery.header(TRACEPARENT), delivery.header(TRACESTATE));
        let new = Arc::new(NewJob {
            id,
            pipeline: pipeline.name,
            stage: pipeline.first(),
            producer: sender.name().map(str::to_owned),
            source: about.source.to_owned(),
            dedupe_key: about.dedupe_key.to_owned(),
            schema: about.schema,
            digest: *about.digest,
            organization: about.organization.to_owned(),
            payload,
            bytes: delivery.body.len(),
            not_before: about.not_before,
            deadline: about.deadline,
            reply_to: delivery.reply_to.clone(),
            correlation_id: delivery.correlation_id.clone(),
            traceparent: Some(trace.to_string()),
            tracestate: trace.state().map(str::to_owned),
            owner: place.is_some().then(|| self.lease.replica()),
            known_schema: self.context.known_schema,
        });
        // Only the payload is needed from here on.
        drop(intake);
        let in_hand = self
            .context
            .running
            .take(id)
            .expect("a fresh id is not in hand");
        let intaken = self
            .context
            .until_available(|| self.context.writer.intake(&new))
            .await?;
        if let (Some(room), Intaken::Ours(..) | Intaken::Accepted(_)) = (room, &intaken) {
            room.stored();
        }
        self.after_intake(intaken, &new, in_hand, place).await
    }

    /// Continues with the job that was stored, or that was found under the same key.
    async fn after_intake(
        &self,
        intaken: Intaken,
        new: &NewJob,
        in_hand: InHand,
        place: Option<(Permit, TenantShare)>,
    ) -> Result<Taken, Trouble> {
        match intaken {
            Intaken::Ours(claim, announcements) => Ok(match place {
                Some((permit, share)) => {
                    let held = Holding {
                        in_hand,
                        _permit: permit,
                        _share: Some(share),
                        suspect: None,
                    };
                    Taken::Ours(claim, held, announcements)
                }
                None => Taken::Back,
            }),
            Intaken::Accepted(announcements) => {
                self.throttle.one_more(ONE_JOB);
                self.context.announcer.announce(announcements);
                Ok(Taken::Nothing)
            }
            Intaken::Known(known) => {
                // If the answer to our own insert was lost, the known job is this one: release it,
                // so that it can be claimed.
                drop(in_hand);
                self.answer_again(known, new).await?;
                match place {
                    Some((permit, share)) => self.take_row(known, permit, Some(share)).await,
                    None => Ok(Taken::Nothing),
                }
            }
            Intaken::Conflict(known) => {
                Err(Trouble::Refused(Refusal::DedupeConflict(known.to_string())))
            }
        }
    }

    async fn decode_intake(&self, delivery: &Delivery, id: JobId) -> Result<Intake, Refusal> {
        let _place = self.throttle.decoding_place(delivery.body.len()).await;
        decode_intake(
            &delivery.body,
            &delivery.envelope,
            &self.context.keyring,
            id,
        )
    }

    /// Returns the payload to store: the part that the stages read or, for a newer schema, the
    /// whole message, sealed.
    fn payload(&self, id: JobId, intake: &Intake, body: &[u8]) -> Result<Incoming, StoreError> {
        match intake {
            Intake::Request { request, .. } => {
                let accepted =
                    to_raw_value(request).map_err(|error| StoreError::Row(error.to_string()))?;
                Ok(Incoming::Known(accepted))
            }
            Intake::Newer(_) => Ok(Incoming::Newer(seal(&self.context, id, body))),
        }
    }

    /// Refuses a job that names something that is not its sender's, or an organization that does
    /// not exist.
    async fn admit(
        &self,
        sender: &Sender,
        delivery: &Delivery,
        intake: &Intake,
    ) -> Result<(), Trouble> {
        let about = intake.about();
        let names = about.names(delivery.reply_to.as_deref());
        self.permit(sender, &names, delivery.received_at).await?;
        about.check_delay(OffsetDateTime::now_utc())?;
        let organization = about.organization;
        // A message of a newer schema may name its organization elsewhere.
        if organization.is_empty() {
            Ok(())
        } else {
            self.known_organization(organization, delivery.received_at)
                .await
        }
    }

    /// Replies with the state of the known job to a repeated message, if its producer asks for
    /// replies.
    async fn answer_again(&self, known: JobId, new: &NewJob) -> Result<(), StoreError> {
        if let Some(reply_to) = &new.reply_to {
            let correlation_id = new.correlation_id.as_deref();
            let store = self.context.store();
            let answer = self
                .context
                .until_available(|| store.answer_again(known, reply_to, correlation_id))
                .await?;
            self.context
                .announcer
                .announce(answer.into_iter().collect());
        }
        Ok(())
    }

    /// Returns a permit and a share for an intake message, or `None` if the message should only
    /// become a row: its organization has used its share, no permit is free while the queue is
    /// long or too many messages wait already, the replica drains, or the job's `not_before` is in
    /// the future.
    async fn place(
        &self,
        limiter: &Arc<LaneLimiter>,
        intake: &Intake,
    ) -> Option<(Permit, TenantShare)> {
        let Intake::Request { request, .. } = intake else {
            return None;
        };
        let later = request
            .not_before
            .is_some_and(|time| time > OffsetDateTime::now_utc());
        if !limiter.runs || later || self.drain.is_cancelled() {
            return None;
        }
        let share = limiter.share(&request.organization)?;
        if let Some(permit) = limiter.free_permit(&share) {
            return Some((permit, share));
        }
        let _place = limiter.waiting_place()?;
        tokio::select! {
            biased;
            () = self.drain.cancelled() => None,
            () = self.throttle.in_burst() => None,
            permit = limiter.permit_in_turn() => Some((permit, share)),
        }
    }

    async fn take_wake_up(
        &self,
        delivery: &Delivery,
        limiter: &Arc<LaneLimiter>,
    ) -> Result<Taken, Trouble> {
        let wake_up: WakeUp = serde_json::from_slice(&delivery.body)
            .map_err(|error| Refusal::WakeUp(error.to_string()))?;
        if !limiter.runs {
            let jobs = [wake_up.job_id];
            self.context
                .until_available(|| self.context.store().unwake(&jobs))
                .await?;
            return Ok(Taken::Nothing);
        }
        // A job in hand needs no permit: the run that hangs may hold the last one.
        if self.context.running.has(wake_up.job_id) {
            self.context.wake_again(wake_up.job_id).await?;
            return Ok(Taken::Nothing);
        }
        let permit = tokio::select! {
            biased;
            () = self.drain.cancelled() => return Ok(Taken::Back),
            permit = limiter.permit() => permit,
        };
        self.take_row(wake_up.job_id, permit, None).await
    }

    /// Claims the job of a dead owner. An error is ignored here: the job's wake-up meets it again
    /// and reports it.
    pub(super) async fn take_freed(&self, id: JobId, limiter: &Arc<LaneLimiter>) -> Taken {
        let permit = tokio::select! {
            biased;
            () = self.drain.cancelled() => return Taken::Nothing,
            permit = limiter.permit_past_line() => permit,
        };
        self.take_row(id, permit, None)
            .await
            .unwrap_or(Taken::Nothing)
    }

    async fn take_row(
        &self,
        id: JobId,
        permit: Permit,
        share: Option<TenantShare>,
    ) -> Result<Taken, Trouble> {
        let Some(in_hand) = self.context.running.take(id) else {
            self.context.wake_again(id).await?;
            return Ok(Taken::Nothing);
        };
        let replica = self.lease.replica();
        let claimed = self
            .context
            .until_available(|| self.context.writer.claim(replica, id))
            .await?;
        let claim = match claimed {
            Claimed::Ours(claim) => claim,
            Claimed::Not(NotClaimed::LeaseLost) => return Ok(Taken::Back),
            Claimed::Not(NotClaimed::NoRow) => {
                metrics::counter!(names::WAKEUPS_WITHOUT_ROW).increment(1);
                return Ok(Taken::Nothing);
            }
            // After a claim whose answer was lost, the row names this replica as the owner, and
            // the job is not in hand here.
            Claimed::Not(NotClaimed::NotDue) => {
                let adopted = self
                    .context
                    .until_available(|| self.context.store().adopt(replica, id))
                    .await?;
                let Some(claim) = adopted else {
                    return Ok(Taken::Nothing);
                };
                Box::new(claim)
            }
        };
        let suspect = claim.is_suspect.then(|| self.context.running.suspect());
        if let Some(None) = suspect {
            self.context
                .postpone(&claim.fence, SUSPECTS_TURN, SoFar::AsStored)
                .await;
            return Ok(Taken::Nothing);
        }
        Ok(Taken::Ours(
            claim,
            Holding {
                in_hand,
                _permit: permit,
                _share: share,
                suspect: suspect.flatten(),
            },
            Vec::new(),
        ))
    }

    async fn take_control(&self, delivery: &Delivery) -> Result<Taken, Trouble> {
        let sender = self.sender(delivery).await?;
        let who = sender.name().map_or_else(
            || "a message without user_id".to_owned(),
            |name| storable(name, 255),
        );
        let actor = Actor {
            who,
            role: Role::Producer,
            reason: None,
            request: None,
        };
        let store = self.context.store();
        let answer = if delivery.routing_key == KEY_CANCEL {
            let cancel: Cancel = self.decode_control(delivery).await?;
            self.permit(
                &sender,
                &[Named::Source(&cancel.source)],
                delivery.received_at,
            )
            .await?;
            let Cancel {
                source, dedupe_key, ..
            } = cancel.clone();
            self.permit_job(
                &sender,
                &Target::Key { source, dedupe_key },
                delivery.received_at,
            )
            .await?;
            let cancelling = self
                .cancel_within_quota(&cancel, sender.name(), &actor)
                .await?;
            match cancelling {
                Cancelling::Answered(answer) => answer,
                Cancelling::Noted => return Ok(Taken::Nothing),
            }
        } else {
            let configure: Configure = self.decode_control(delivery).await?;
            let first = self.context.registry.intake().first();
            let target = Target::Id(configure.job_id);
            self.permit_job(&sender, &target, delivery.received_at)
                .await?;
            self.context
                .until_available(|| store.configure(&target, &configure.account, first, &actor))
                .await?
        };
        match answer {
            ActionResult::Done { .. } | ActionResult::Already(..) => Ok(Taken::Nothing),
            ActionResult::NoSuchJob => Err(Trouble::Refused(Refusal::NoSuchJob)),
            // A message names no version.
            ActionResult::MovedOn { .. } => Ok(Taken::Nothing),
            ActionResult::Refused(job, why) => Err(Trouble::Refused(Refusal::Invalid {
                path: job.to_string(),
                detail: why,
            })),
        }
    }

    /// Refuses a message about a job that is not its sender's, with the same words as for a job
    /// that does not exist.
    async fn permit_job(
        &self,
        sender: &Sender,
        target: &Target,
        received: Instant,
    ) -> Result<(), Trouble> {
        if let Sender::Trusted(_) = sender {
            return Ok(());
        }
        let store = self.context.store();
        let Some(tenant) = self
            .context
            .until_available(|| store.tenant(target))
            .await?
        else {
            return Ok(());
        };
        let names = [
            Named::Source(&tenant.source),
            Named::Organization(&tenant.organization),
        ];
        match self.permit(sender, &names, received).await {
            Err(Trouble::Refused(_)) => Err(Refusal::NoSuchJob.into()),
            answer => answer,
        }
    }

    async fn decode_control<C: DeserializeOwned>(&self, delivery: &Delivery) -> Result<C, Refusal> {
        let _place = self.throttle.decoding_place(delivery.body.len()).await;
        decode_control(&delivery.body, &delivery.envelope)
    }
}

/// The reason why a delivery leads to no claim.
pub(super) enum Trouble {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn seal<P: Product, T: Tables<Changes = P::Changes>>(
    context: &WorkerContext<P, T>,
    id: JobId,
    body: &[u8],
) -> String {
    let row = id.to_string();
    context.keyring.seal(sealed_place(&row), body)
}
