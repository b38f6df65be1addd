//! Delivers the message through its destination's channel.
//!
//! *Needs*: `render_message`.
//! *Effects*: the class that the channel declares (K1, K2 or K3). The key derives from job,
//! generation, stage and `destination:{id}`, or `interaction:{job}` for an answer to a click.
//! *Safe to repeat*: a keyed delivery is repeated with the same key. Before an at-least-once
//! delivery with an unknown outcome is repeated, the engine records that a duplicate is possible,
//! or parks the job if the destination's policy is `hold`. If some recipients are refused for now,
//! the names of the others are kept with the job, and a repeat delivers only to the rest.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::render_message::{RenderMessage, RenderedMessage};
use super::{Notice, Recipient, destination};
use crate::engine::{
    Context, Intent, PrepareResult, Prepared, RetryPolicy, Stage, StageOutcome, StageResult,
    UnknownPolicy,
};
use crate::job::EffectClass;
use crate::pipelines::{Dispatch, ProductFault};
use crate::providers::channel::{
    Channel, ChannelConfig, ChannelFault, Delivered, Delivery, RefusedRecipient, Rest,
};
use crate::providers::discord::interaction::TOKEN_LIFE;
use crate::providers::governor::Scope;
use crate::tracker::Destination;

#[derive(Debug, Clone, Copy)]
pub struct DeliverMessage;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredMessage {
    /// The recipient of the message.
    #[serde(flatten)]
    pub to: Recipient,
    /// The provider's id of the message, if it returns one.
    pub message_id: Option<String>,
    /// Recipients that are refused permanently; the others have received the message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRecipient>,
}

/// The name of the kept piece of an unfinished delivery: the recipients that have received the
/// message.
const DELIVERED_TO: &str = "delivered_to";

/// The upper limit of a delivery, regardless of the setting; the stage's own timeout leaves room
/// for the reads before it.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

impl Stage for DeliverMessage {
    type Product = Dispatch;

    const NAME: &'static str = "deliver_message";
    const NEEDS: &'static [&'static str] = &[RenderMessage::NAME];
    /// Retries for about a day, like other stages, but at most an hour apart: people wait for
    /// messages after an outage.
    const RETRY: RetryPolicy = RetryPolicy {
        attempts: 30,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(3600),
    };
    const TIMEOUT: Duration = Duration::from_secs(30);
    const EFFECT: Option<EffectClass> = Some(EffectClass::AtLeastOnce);
    type Output = DeliveredMessage;

    async fn prepare(&self, cx: &Context<'_, Dispatch>) -> PrepareResult<Self> {
        let to = cx.payload::<Notice>()?.to;
        let prepared = prepare(cx, to).await;
        prepared.map_err(|fault| fault.at(to.place()))
    }

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let to = cx.payload::<Notice>()?.to;
        let delivered = deliver(cx, to).await;
        delivered.map_err(|fault| fault.at(to.place()))
    }
}

async fn prepare(cx: &Context<'_, Dispatch>, to: Recipient) -> PrepareResult<DeliverMessage> {
    let message = cx.output::<RenderMessage>()?;
    in_time(to, OffsetDateTime::now_utc())?;
    let (destination, channel) = destination(cx.services, &cx.job.organization, to).await?;
    let timeout = cx.services.providers.call_timeout.min(CALL_TIMEOUT);
    let intent = intent(to, &destination, channel, &message, timeout)?;
    cx.services
        .providers
        .governor
        .look(&scope(&destination, to, channel))
        .await?;
    Ok(Prepared::Effect(Box::new(intent)))
}

async fn deliver(cx: &Context<'_, Dispatch>, to: Recipient) -> StageResult<DeliverMessage> {
    let effect = cx.stored_effect()?;
    let message = cx.output::<RenderMessage>()?;
    let (destination, channel) = destination(cx.services, &cx.job.organization, to).await?;
    let config = config(&destination);
    let deadline = Instant::from_std(effect.deadline);
    let served = cx
        .pieces()
        .get::<Vec<String>>(DELIVERED_TO)
        .unwrap_or_default();
    let delivery = Delivery {
        config: &config,
        rendered: &message.rendered,
        key: &effect.key,
        class: effect.class,
        deadline,
        repeated: effect.repeated,
        served: &served,
    };
    let scope = scope(&destination, to, channel);
    let delivered = cx
        .services
        .providers
        .governor
        .call(&scope, channel.deliver(delivery))
        .await??;
    let Delivered {
        provider_ref: message_id,
        refused,
        rest,
    } = delivered;
    if let Some(Rest { served, fault }) = rest {
        cx.pieces().put_done(DELIVERED_TO, &served);
        return Err(ChannelFault::from(fault).into());
    }
    if !refused.is_empty() {
        warn_of(&refused, &destination);
    }
    Ok(StageOutcome::of(DeliveredMessage {
        to,
        message_id: message_id.clone(),
        refused,
    })
    .with_provider_ref(message_id))
}

fn warn_of(refused: &[RefusedRecipient], destination: &Destination) {
    let recipients: Vec<&str> = refused
        .iter()
        .map(|recipient| recipient.to.as_str())
        .collect();
    tracing::warn!(
        destination.name,
        destination.kind,
        recipients.refused = recipients.join(", "),
        said = refused.first().map(|recipient| recipient.said.as_str()),
        "a message was not delivered to recipients that are refused permanently; register the destination without them"
    );
}

/// Returns the scope in which calls are limited and held. Each registered destination has its own,
/// for the messages of all jobs, unless its channel declares a limit that several destinations
/// share. The clicks of an organization share one scope.
fn scope(destination: &Destination, to: Recipient, channel: &dyn Channel) -> Scope {
    let organization = &destination.organization;
    let scope = match to {
        Recipient::DestinationId(id) => Scope::destination(organization, channel.kind(), id),
        Recipient::Interaction(_) => Scope::clicks(organization, channel.kind()),
    };
    scope.limited_with(channel.shared_limit(&config(destination)))
}

/// Refuses an answer after the click's token has expired. Discord counts from the click, which
/// precedes the acceptance of its job, so a later call cannot succeed.
fn in_time(to: Recipient, now: OffsetDateTime) -> Result<(), ProductFault> {
    match to {
        Recipient::Interaction(job) if now - job.accepted_at() >= TOKEN_LIFE => {
            Err(ProductFault::InteractionExpired(job))
        }
        Recipient::Interaction(_) | Recipient::DestinationId(_) => Ok(()),
    }
}

/// The details that the ledger stores with the intent.
#[derive(Serialize)]
struct Detail<'a> {
    #[serde(flatten)]
    to: Recipient,
    destination: &'a str,
    kind: &'a str,
}

fn intent(
    to: Recipient,
    destination: &Destination,
    channel: &dyn Channel,
    message: &RenderedMessage,
    timeout: Duration,
) -> Result<Intent, ProductFault> {
    let Destination { id, name, kind, .. } = destination;
    if *kind != message.kind {
        let rendered = message.kind.clone();
        return Err(ProductFault::ChannelChanged {
            name: name.clone(),
            kind: kind.clone(),
            rendered,
        });
    }
    if destination.disabled {
        return Err(ProductFault::DestinationDisabled {
            id: *id,
            name: name.clone(),
        });
    }
    let config = config(destination);
    Ok(Intent {
        target: to.target(),
        class: channel.class(&config),
        keyed_for: channel.keyed_for(&config),
        resource: resource(to),
        detail: serde_json::to_value(Detail {
            to,
            destination: name,
            kind,
        })
        .expect("an id and strings have a JSON form"),
        unknown: unknown_policy(destination)?,
        timeout,
    })
}

/// Returns the resource that serializes answers: the answers to one click may edit the same
/// message.
fn resource(to: Recipient) -> Option<String> {
    matches!(to, Recipient::Interaction(_)).then(|| to.target())
}

fn unknown_policy(destination: &Destination) -> Result<UnknownPolicy, ProductFault> {
    match destination.unknown_policy.as_str() {
        "resend" => Ok(UnknownPolicy::Resend),
        "hold" => Ok(UnknownPolicy::Hold),
        other => Err(ProductFault::UnknownPolicy {
            name: destination.name.clone(),
            policy: other.to_owned(),
        }),
    }
}

/// Returns a destination's configuration in the form that its channel takes.
pub(in crate::pipelines) fn config(destination: &Destination) -> ChannelConfig {
    let Destination {
        config,
        secret,
        previous_secret,
        ..
    } = destination;
    ChannelConfig {
        public: config.clone(),
        secret: secret.clone(),
        previous_secret: previous_secret.clone(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{BoxFuture, FutureExt};
    use serde_json::json;

    use super::*;
    use crate::fault::{Class, Fault};
    use crate::job::JobId;
    use crate::providers::channel::{BadConfig, Message, Rendered};

    /// A channel that is keyed for a minute and delivers nothing.
    struct Pigeon;

    impl Channel for Pigeon {
        fn kind(&self) -> &'static str {
            "pigeon"
        }

        fn class(&self, _: &ChannelConfig) -> EffectClass {
            EffectClass::Keyed
        }

        fn keyed_for(&self, _: &ChannelConfig) -> Option<Duration> {
            Some(Duration::from_secs(60))
        }

        fn render(&self, message: &Message) -> Rendered {
            Rendered(message.title.clone())
        }

        fn check_config(&self, _: &ChannelConfig) -> Result<(), BadConfig> {
            Ok(())
        }

        fn deliver<'a>(
            &'a self,
            _: Delivery<'a>,
        ) -> BoxFuture<'a, Result<Delivered, ChannelFault>> {
            std::future::ready(Ok(Delivered::whole(None))).boxed()
        }
    }

    fn destination() -> Destination {
        Destination {
            id: 9,
            organization: "acme".to_owned(),
            name: "team".to_owned(),
            kind: "pigeon".to_owned(),
            config: json!({}),
            secret: Some("canary".to_owned().into()),
            previous_secret: None,
            unknown_policy: "hold".to_owned(),
            disabled: false,
        }
    }

    fn intend(destination: &Destination) -> Result<Intent, ProductFault> {
        let message = RenderedMessage {
            kind: "pigeon".to_owned(),
            rendered: Rendered("coo".to_owned()),
        };
        intent(
            Recipient::DestinationId(destination.id),
            destination,
            &Pigeon,
            &message,
            CALL_TIMEOUT,
        )
    }

    #[test]
    fn the_intent_is_the_channel_s_and_the_destination_s_and_holds_no_secret() {
        let intent = intend(&destination()).unwrap();
        assert_eq!(
            (intent.class, intent.keyed_for),
            (EffectClass::Keyed, Some(Duration::from_secs(60)))
        );
        assert_eq!(
            (intent.unknown, intent.target.as_str()),
            (UnknownPolicy::Hold, "destination:9")
        );
        assert_eq!(
            intent.detail,
            json!({"destination_id": 9, "destination": "team", "kind": "pigeon"}),
            "and no secret"
        );
        assert!(intent.timeout < DeliverMessage::TIMEOUT);
    }

    #[test]
    fn a_destination_has_a_scope_of_its_own_and_clicks_share_one() {
        let of = |to| scope(&destination(), to, &Pigeon).to_string();
        assert_eq!(of(Recipient::DestinationId(9)), "acme|pigeon|9");
        assert_eq!(
            of(Recipient::Interaction(JobId::fresh())),
            "acme|pigeon|clicks"
        );
    }

    #[test]
    fn an_answer_to_a_click_is_not_tried_after_a_quarter_of_an_hour() {
        let job = JobId::fresh();
        let last = job.accepted_at() + TOKEN_LIFE;
        assert!(
            in_time(
                Recipient::Interaction(job),
                last - time::Duration::MILLISECOND
            )
            .is_ok()
        );
        assert!(in_time(Recipient::DestinationId(9), last).is_ok());
        let fault = in_time(Recipient::Interaction(job), last).unwrap_err();
        assert_eq!(
            (fault.code(), fault.class()),
            ("interaction_expired", Class::Permanent)
        );
    }

    #[test]
    fn a_delivery_names_who_was_refused_and_a_checkpoint_from_before_that_reads() {
        let old = json!({"destination_id": 9, "message_id": "7001"});
        let mut delivered: DeliveredMessage = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(
            (delivered.to, delivered.refused.len()),
            (Recipient::DestinationId(9), 0)
        );
        assert_eq!(
            serde_json::to_value(&delivered).unwrap(),
            old,
            "who refuses nobody writes what older workers wrote"
        );
        delivered.refused = vec![RefusedRecipient {
            to: "left@gone.example".to_owned(),
            said: "no such user".to_owned(),
        }];
        let new = serde_json::to_value(&delivered).unwrap();
        assert_eq!(
            new["refused"],
            json!([{"to": "left@gone.example", "said": "no such user"}])
        );
        assert_eq!(
            serde_json::from_value::<DeliveredMessage>(new).unwrap(),
            delivered
        );
    }

    #[test]
    fn a_disabled_destination_is_waited_for() {
        let fault = intend(&Destination {
            disabled: true,
            ..destination()
        })
        .unwrap_err();
        let Class::Wait(on) = fault.class() else {
            panic!("{fault}")
        };
        assert_eq!(
            (on.reason.word(), on.key.as_str()),
            ("hold", "destination:9")
        );
    }

    #[test]
    fn a_destination_that_became_another_kind_gets_no_message_in_the_old_form() {
        let fault = intend(&Destination {
            kind: "drum".to_owned(),
            ..destination()
        })
        .unwrap_err();
        assert_eq!(
            (fault.code(), fault.class()),
            ("channel_changed", Class::Permanent)
        );
    }
}
