//! The pipeline `messaging`: one message to one destination.

pub mod deliver_message;
pub mod render_message;
mod templates;

use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

pub use deliver_message::{DeliverMessage, DeliveredMessage};
pub use render_message::{RenderMessage, RenderedMessage};

use super::{Dispatch, MESSAGING, ProductFault, Services};
use crate::engine::{Child, Pipeline};
use crate::fault::StageFault;
use crate::job::JobId;
use crate::providers::channel::Channel;
use crate::tracker::{AssigneeChange, Clicked, Destination, StatusChange};

pub const NAME: &str = "messaging";

/// ★ Returns the pipeline with its stages in order.
#[must_use]
pub fn pipeline() -> Pipeline<Dispatch> {
    Pipeline::new(NAME, MESSAGING)
        .then(RenderMessage)
        .then(DeliverMessage)
}

/// The payload: an event and its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The recipient.
    #[serde(flatten)]
    pub to: Recipient,
    /// When the work item changed, by the tracker's clock.
    #[serde(with = "time::serde::rfc3339::option")]
    pub happened_at: Option<OffsetDateTime>,
    /// What happened.
    pub event: Event,
}

/// The recipient of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    /// A registered destination, by row id.
    DestinationId(i64),
    /// The person whose click created this job. The token for the answer is sealed in that job's
    /// payload and stored nowhere else.
    Interaction(JobId),
}

impl Recipient {
    /// Returns the target by which effects name this recipient.
    #[must_use]
    pub fn target(self) -> String {
        match self {
            Self::DestinationId(id) => format!("destination:{id}"),
            Self::Interaction(job) => format!("interaction:{job}"),
        }
    }

    /// Returns the place that failures name: see [`StageFault::at`](crate::fault::StageFault::at).
    /// All clicks are one place.
    #[must_use]
    pub fn place(self) -> String {
        match self {
            Self::DestinationId(_) => self.target(),
            Self::Interaction(_) => "interaction".to_owned(),
        }
    }
}

/// What happened. Each variant has a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A group's assignee changed.
    Assignee(AssigneeChange),
    /// A group's status changed.
    Status(StatusChange),
    /// All changes of a job in its own organization; may be none.
    Outcome {
        /// Groups whose assignee changed.
        assignees: Vec<AssigneeChange>,
        /// Groups whose status changed.
        statuses: Vec<StatusChange>,
    },
    /// A job waits until a person chooses an account.
    Configuration(Question),
}

/// The question which account a job should use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The reason for the question, as a word.
    pub reason: String,
    /// What to do, in a sentence or two.
    pub help: String,
    /// The accounts to choose from, as far as they are known.
    pub choices: Vec<Choice>,
}

/// An account to choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The id that `configure` takes.
    pub account_id: String,
    /// The display name.
    pub name: String,
}

impl Notice {
    /// Returns an answer to the person whose click created `job`.
    #[must_use]
    pub const fn answer(job: JobId, event: Event) -> Self {
        Self {
            to: Recipient::Interaction(job),
            happened_at: None,
            event,
        }
    }

    /// Returns the follow-up that delivers this notice. Its target distinguishes it from the other
    /// follow-ups of the job.
    ///
    /// # Panics
    /// Never: `System.ChangedDate` was parsed from RFC 3339, so its year can be formatted.
    #[must_use]
    pub fn child(&self) -> Child {
        let to = match self.to {
            Recipient::DestinationId(id) => id.to_string(),
            Recipient::Interaction(_) => "interaction".to_owned(),
        };
        let about = match &self.event {
            Event::Assignee(change) => format!("{}:assignee", change.group_id),
            Event::Status(change) => format!("{}:status", change.group_id),
            Event::Outcome { .. } => "outcome".to_owned(),
            Event::Configuration(_) => "configuration".to_owned(),
        };
        let payload = serde_json::to_value(self)
            .expect("numbers, strings and an RFC 3339 date can be serialized as JSON");
        Child {
            pipeline: NAME,
            target: format!("{NAME}:{to}:{about}"),
            payload,
        }
    }
}

/// Returns the present destination and its channel, for a message of a job of `organization`. The
/// destination's secret is never part of a checkpoint.
async fn destination<'a>(
    services: &'a Services,
    organization: &str,
    to: Recipient,
) -> Result<(Destination, &'a dyn Channel), StageFault> {
    let id = match to {
        Recipient::DestinationId(id) => id,
        Recipient::Interaction(job) => {
            return Ok((
                clicked(services, organization, job).await?,
                &services.providers.interaction,
            ));
        }
    };
    let destination = services
        .sealed
        .destination(id)
        .await?
        .ok_or(ProductFault::DestinationGone(id))?;
    let channel = services.providers.channel(&destination.kind);
    let channel = channel.ok_or_else(|| ProductFault::UnknownChannel {
        name: destination.name.clone(),
        kind: destination.kind.clone(),
    })?;
    Ok((destination, channel))
}

/// Returns the destination that a request from a click carries itself.
async fn clicked(
    services: &Services,
    organization: &str,
    job: JobId,
) -> Result<Destination, StageFault> {
    let Clicked {
        application_id,
        message_id,
        token,
    } = services
        .sealed
        .interaction(job)
        .await?
        .ok_or(ProductFault::InteractionGone(job))?;
    Ok(Destination {
        id: 0,
        organization: organization.to_owned(),
        name: "interaction".to_owned(),
        kind: services.providers.interaction.kind().to_owned(),
        config: json!({ "application_id": application_id, "message_id": message_id }),
        secret: Some(token),
        previous_secret: None,
        // A duplicate has the same text, and only one person sees it.
        unknown_policy: "resend".to_owned(),
        disabled: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_payload_reads_back_and_each_kind_of_change_is_a_target_of_its_own() {
        let status = StatusChange {
            group_id: 5,
            organization_id: 1,
            group_short_id: "WEB-17".to_owned(),
            group_title: "T".to_owned(),
            work_item_id: 17,
            to: "resolved".to_owned(),
        };
        let notice = Notice {
            to: Recipient::DestinationId(9),
            happened_at: None,
            event: Event::Status(status),
        };
        let child = notice.child();
        assert_eq!(
            (child.pipeline, child.target.as_str()),
            ("messaging", "messaging:9:5:status")
        );
        assert_eq!(child.payload["destination_id"], 9);
        assert_eq!(
            serde_json::from_value::<Notice>(child.payload).unwrap(),
            notice
        );
    }

    #[test]
    fn a_stored_event_keeps_its_word() {
        let (assignees, statuses) = (Vec::new(), Vec::new());
        let question = Question {
            reason: "no_account".to_owned(),
            help: "Choose.".to_owned(),
            choices: Vec::new(),
        };
        for (event, stored) in [
            (
                Event::Outcome {
                    assignees,
                    statuses,
                },
                json!({"outcome": {"assignees": [], "statuses": []}}),
            ),
            (
                Event::Configuration(question),
                json!({"configuration": {"reason": "no_account", "help": "Choose.", "choices": []}}),
            ),
        ] {
            assert_eq!(json!(event), stored);
        }
    }

    #[test]
    fn an_answer_names_the_job_that_holds_what_answers_and_nothing_of_it() {
        let job = JobId::fresh();
        let question = Question {
            reason: "no_account".to_owned(),
            help: "Choose.".to_owned(),
            choices: Vec::new(),
        };
        for (event, target) in [
            (
                Event::Outcome {
                    assignees: Vec::new(),
                    statuses: Vec::new(),
                },
                "messaging:interaction:outcome",
            ),
            (
                Event::Configuration(question),
                "messaging:interaction:configuration",
            ),
        ] {
            let notice = Notice::answer(job, event);
            let child = notice.child();
            assert_eq!(
                (child.target.as_str(), &child.payload["interaction"]),
                (target, &json!(job))
            );
            assert_eq!(
                serde_json::from_value::<Notice>(child.payload).unwrap(),
                notice
            );
        }
    }
}
