//! Outputs that a person writes in place of a stage: each is decoded as the output of its stage,
//! and what it names is listed, so that it can be compared with what the job's input names. A stage
//! without an entry here cannot be passed by hand.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::Dispatch;
use super::assignee_sync::find_assignee::FoundAssignee;
use super::assignee_sync::patch_work_item::{PatchResult, Patched};
use super::assignee_sync::{self, AssigneeSync, FindAssignee, PatchWorkItem};
use super::dispatch::check_account::{Account, ActingAs};
use super::dispatch::{
    CheckAccount, FetchStates, GetAccounts, HandleEvents, ProcessWorkItems, RetrieveUser,
    SearchIssues, SendFollowUps, SyncAssignees, UpdateAssignments,
};
use super::messaging::{self, DeliverMessage, DeliveredMessage, Notice, Recipient, RenderMessage};
use crate::engine::Stage;
use crate::message::Request;

/// Something that an output names and that decides for whom, as whom or where the job acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Row id of an organization.
    Organization(i64),
    /// Row id of an account.
    Integration(i64),
    /// The vendor's id of an account.
    AccountId(String),
    /// The vendor's name of an account.
    AccountName(String),
    /// Row id of an identity.
    Identity(i64),
    /// The identity of the installation, instead of one that the input names.
    InstallationIdentity,
    /// The vendor's id of the person whom the tokens belong to.
    Profile(String),
    /// Row id of a group.
    Group(i64),
    /// The recipient of a message.
    Recipient(Recipient),
    /// A follow-up, by its target.
    FollowUp(String),
}

/// An output as its stage would have stored it.
#[derive(Debug)]
pub struct ByHand {
    /// The output.
    pub output: Box<RawValue>,
    /// What it names.
    pub names: Vec<Name>,
}

/// What the input of a job names, before it is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputNames {
    /// An incoming request.
    Request {
        /// The account of the request.
        account: Option<String>,
        /// The identity of the request.
        identity: Option<String>,
    },
    /// A follow-up that writes an assignee.
    Assignee(AssigneeSync),
    /// A follow-up that sends a message.
    Message(Recipient),
}

/// Returns what the input of a job of this pipeline names.
///
/// # Errors
/// A text if the input cannot be read.
pub fn input_names(pipeline: &str, payload: &str) -> Result<InputNames, String> {
    let unreadable = |error: serde_json::Error| format!("its input cannot be read: {error}");
    Ok(match pipeline {
        assignee_sync::NAME => {
            InputNames::Assignee(serde_json::from_str(payload).map_err(unreadable)?)
        }
        messaging::NAME => {
            let notice: Notice = serde_json::from_str(payload).map_err(unreadable)?;
            InputNames::Message(notice.to)
        }
        _ => {
            let request: Request = serde_json::from_str(payload).map_err(unreadable)?;
            InputNames::Request {
                account: request.account,
                identity: request.identity,
            }
        }
    })
}

/// Decodes an output that a person has written for a stage.
///
/// # Errors
/// A text that states what was expected.
pub fn by_hand(stage: &str, output: &str) -> Result<ByHand, String> {
    match stage {
        CheckAccount::NAME => read::<CheckAccount>(output, |checked| {
            let mut names = vec![Name::Organization(checked.organization_id)];
            if let Account::Found {
                integration_id,
                account_id,
            } = &checked.account
            {
                names.push(Name::Integration(*integration_id));
                names.push(Name::AccountId(account_id.clone()));
            }
            match checked.acting_as {
                ActingAs::Installation => names.push(Name::InstallationIdentity),
                ActingAs::Identity(id) => names.push(Name::Identity(id)),
                ActingAs::Nobody => {}
            }
            names
        }),
        FetchStates::NAME => read::<FetchStates>(output, |states| {
            let account = states.account.iter().flat_map(|account| {
                [
                    Name::Integration(account.integration_id),
                    Name::AccountId(account.account_id.clone()),
                    Name::AccountName(account.account_name.clone()),
                ]
            });
            let identity = states.identity.iter().map(|known| Name::Identity(known.id));
            account.chain(identity).collect()
        }),
        RetrieveUser::NAME => {
            read::<RetrieveUser>(output, |profile| vec![Name::Profile(profile.id.clone())])
        }
        GetAccounts::NAME => read::<GetAccounts>(output, |found| {
            let ids = found.accounts.iter();
            ids.map(|one| Name::AccountId(one.account_id.clone()))
                .collect()
        }),
        SearchIssues::NAME => read::<SearchIssues>(output, |_| Vec::new()),
        HandleEvents::NAME => read::<HandleEvents>(output, |_| Vec::new()),
        ProcessWorkItems::NAME => read::<ProcessWorkItems>(output, |_| Vec::new()),
        _ => by_hand_later(stage, output),
    }
}

/// The stages from the plan on, and those of follow-ups.
fn by_hand_later(stage: &str, output: &str) -> Result<ByHand, String> {
    match stage {
        SyncAssignees::NAME => read::<SyncAssignees>(output, |plan| {
            let links = plan.links.iter().map(|link| Name::Group(link.group_id));
            let of = plan.organizations.iter().flat_map(|(group, organization)| {
                [Name::Group(*group), Name::Organization(*organization)]
            });
            links.chain(of).collect()
        }),
        UpdateAssignments::NAME => read::<UpdateAssignments>(output, |applied| {
            let assignees = applied
                .assignees
                .iter()
                .map(|one| (one.group_id, one.organization_id));
            let statuses = applied
                .statuses
                .iter()
                .map(|one| (one.group_id, one.organization_id));
            let changed = assignees.chain(statuses).flat_map(|(group, organization)| {
                [Name::Group(group), Name::Organization(organization)]
            });
            let behind = applied.behind.iter().map(|one| Name::Group(one.group_id));
            changed.chain(behind).collect()
        }),
        SendFollowUps::NAME => read::<SendFollowUps>(output, |sent| {
            sent.targets.iter().cloned().map(Name::FollowUp).collect()
        }),
        FindAssignee::NAME => read::<FindAssignee>(output, |found| match found {
            FoundAssignee::Write(target) => vec![
                Name::AccountName(target.account_name.clone()),
                Name::Identity(target.identity_id),
            ],
            FoundAssignee::Nothing(_) | FoundAssignee::Ambiguous(_) => Vec::new(),
        }),
        PatchWorkItem::NAME => read::<PatchWorkItem>(output, |_| Vec::new()),
        RenderMessage::NAME => read::<RenderMessage>(output, |_| Vec::new()),
        DeliverMessage::NAME => {
            read::<DeliverMessage>(output, |sent| vec![Name::Recipient(sent.to)])
        }
        _ => Err(format!("`{stage}` cannot be passed by hand")),
    }
}

/// Decodes an output as the stage's type, and encodes it again, so that nothing else is stored.
fn read<S: Stage<Product = Dispatch>>(
    output: &str,
    names: impl FnOnce(&S::Output) -> Vec<Name>,
) -> Result<ByHand, String> {
    let wrong = |error: serde_json::Error| {
        format!(
            "expected the output of `{}`, got something else: {error}",
            S::NAME
        )
    };
    let decoded: S::Output = serde_json::from_str(output).map_err(wrong)?;
    Ok(ByHand {
        names: names(&decoded),
        output: to_raw_value(&decoded).map_err(wrong)?,
    })
}

/// Returns the output of a stage whose effect a person has found to be done; `None` if the stage has
/// no effect.
///
/// # Errors
/// A text if the input cannot be read.
pub fn done_by_hand(
    stage: &str,
    payload: &str,
    provider_ref: Option<&str>,
) -> Result<Option<Box<RawValue>>, String> {
    match stage {
        DeliverMessage::NAME => {
            let InputNames::Message(to) = input_names(messaging::NAME, payload)? else {
                return Ok(None);
            };
            let (message_id, refused) = (provider_ref.map(str::to_owned), Vec::new());
            raw(&DeliveredMessage {
                to,
                message_id,
                refused,
            })
        }
        PatchWorkItem::NAME => {
            let rev = provider_ref.and_then(|text| text.parse().ok());
            let result = PatchResult::Written;
            raw(&Patched { result, rev })
        }
        _ => Ok(None),
    }
}

fn raw(output: &impl Serialize) -> Result<Option<Box<RawValue>>, String> {
    to_raw_value(output)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Checks the edited input of a follow-up: it may not have another organization, account, group or
/// recipient than before.
///
/// # Errors
/// A text that states what was expected.
pub fn edited_follow_up(pipeline: &str, old: &str, new: &Value) -> Result<Box<RawValue>, String> {
    let old: Value =
        serde_json::from_str(old).map_err(|error| format!("its input cannot be read: {error}"))?;
    let wrong = |error: serde_json::Error| {
        format!("expected an input of `{pipeline}`, got something else: {error}")
    };
    let (known, text) = if pipeline == assignee_sync::NAME {
        let sync: AssigneeSync = serde_json::from_value(new.clone()).map_err(wrong)?;
        (serde_json::to_value(sync), to_raw_value(&sync))
    } else {
        let notice: Notice = serde_json::from_value(new.clone()).map_err(wrong)?;
        (serde_json::to_value(&notice), to_raw_value(&notice))
    };
    let (known, text) = (known.map_err(wrong)?, text.map_err(wrong)?);
    let (before, after) = (named(&old), named(&known));
    match after.iter().find(|name| !before.contains(name)) {
        Some((key, value)) => Err(format!(
            "`{key}` names {value}, which the job's own input does not; an edit keeps organization, account, group and recipient"
        )),
        None => Ok(text),
    }
}

/// The keys of a follow-up's input that name somebody or something.
const NAMING: &[&str] = &[
    "organization_id",
    "integration_id",
    "group_id",
    "destination_id",
    "interaction",
    "account_id",
];

fn named(value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    if NAMING.contains(&key.as_str()) {
                        found.push((key.clone(), value.clone()));
                    }
                    rest.push(value);
                }
            }
            Value::Array(items) => rest.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipelines::messaging::Event;
    use crate::pipelines::registry;

    #[test]
    fn every_stage_of_a_path_can_be_passed_by_hand_and_no_other() {
        for pipeline in registry().iter() {
            for stage in pipeline.stages() {
                let error = by_hand(stage.name, "[]").unwrap_err();
                let is_known = error.starts_with("expected the output of");
                assert_eq!(is_known, !stage.off_path, "{}: {error}", stage.name);
            }
        }
    }

    #[test]
    fn an_edited_follow_up_keeps_whom_it_is_for() {
        let old =
            json!({"group_id": 1, "organization_id": 2, "integration_id": 3, "work_item_id": 4});
        let with = |key: &str| {
            let mut new = old.clone();
            new[key] = json!(9);
            edited_follow_up(assignee_sync::NAME, &old.to_string(), &new)
        };
        assert!(with("work_item_id").is_ok());
        for key in ["group_id", "organization_id", "integration_id"] {
            assert!(with(key).unwrap_err().contains(key));
        }
        let (assignees, statuses) = (Vec::new(), Vec::new());
        let notice = Notice {
            to: Recipient::DestinationId(9),
            happened_at: None,
            event: Event::Outcome {
                assignees,
                statuses,
            },
        };
        let old = json!(notice);
        let mut new = old.clone();
        new["destination_id"] = json!(8);
        let error = edited_follow_up(messaging::NAME, &old.to_string(), &new).unwrap_err();
        assert!(error.contains("destination_id"), "{error}");
        assert!(edited_follow_up(messaging::NAME, &old.to_string(), &old).is_ok());
    }
}
