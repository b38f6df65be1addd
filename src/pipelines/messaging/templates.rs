//! One template per kind of event. Templates return data; the channel escapes it and applies its
//! limits.

use serde_json::json;

use super::{Choice, Event, Notice, Question};
use crate::providers::channel::Message;
use crate::tracker::{AssigneeChange, StatusChange};

pub(super) fn message(notice: &Notice) -> Message {
    let written = match &notice.event {
        Event::Assignee(change) => assignee(change),
        Event::Status(change) => status(change),
        Event::Outcome {
            assignees,
            statuses,
        } => outcome(assignees, statuses),
        Event::Configuration(question) => configuration(question),
    };
    Message {
        happened_at: notice.happened_at,
        ..written
    }
}

fn assignee(change: &AssigneeChange) -> Message {
    let group = &change.group_short_id;
    let title = match (&change.from, &change.to) {
        (_, Some((_, to))) => format!("{group} is now assigned to {to}"),
        (Some((_, from)), None) => format!("{group} is no longer assigned to {from}"),
        (None, None) => format!("{group} is assigned to nobody"),
    };
    let before = match (&change.from, &change.to) {
        (Some((_, from)), Some(_)) => Some(format!("It was assigned to {from}.")),
        _ => None,
    };
    let lines = [
        Some(change.group_title.clone()),
        before,
        Some(decided_by(change.work_item_id)),
    ];
    let person = |who: &Option<(i64, String)>| {
        who.as_ref()
            .map(|(id, name)| json!({ "id": id, "name": name }))
    };
    Message {
        event: "group.assignee_changed".to_owned(),
        happened_at: None,
        title: one_line(&title),
        lines: lines.into_iter().flatten().collect(),
        details: json!({
            "organization_id": change.organization_id,
            "group_id": change.group_id,
            "group": change.group_short_id,
            "work_item_id": change.work_item_id,
            "from": person(&change.from),
            "to": person(&change.to),
        }),
    }
}

fn status(change: &StatusChange) -> Message {
    Message {
        event: "group.status_changed".to_owned(),
        happened_at: None,
        title: one_line(&format!("{} is now {}", change.group_short_id, change.to)),
        lines: vec![change.group_title.clone(), decided_by(change.work_item_id)],
        details: json!({
            "organization_id": change.organization_id,
            "group_id": change.group_id,
            "group": change.group_short_id,
            "work_item_id": change.work_item_id,
            "to": change.to,
        }),
    }
}

fn outcome(assignees: &[AssigneeChange], statuses: &[StatusChange]) -> Message {
    let changes: Vec<Message> = assignees
        .iter()
        .map(assignee)
        .chain(statuses.iter().map(status))
        .collect();
    let title = match changes.len() {
        0 => "Nothing changed".to_owned(),
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    };
    Message {
        event: "job.outcome".to_owned(),
        happened_at: None,
        title,
        lines: changes
            .iter()
            .map(|message| message.title.clone())
            .collect(),
        details: changes.into_iter().map(|message| message.details).collect(),
    }
}

fn configuration(question: &Question) -> Message {
    let choice = |choice: &Choice| format!("{}: {}", choice.name, choice.account_id);
    Message {
        event: "job.configuration".to_owned(),
        happened_at: None,
        title: "Which Azure DevOps account?".to_owned(),
        lines: std::iter::once(question.help.clone())
            .chain(question.choices.iter().map(choice))
            .collect(),
        details: json!({ "reason": question.reason, "choices": question.choices }),
    }
}

fn decided_by(work_item_id: i64) -> String {
    format!("Work item {work_item_id} in Azure DevOps decided.")
}

/// Joins the lines of a text: names may contain any character, and a title is one line.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: Option<&str>, to: Option<&str>) -> AssigneeChange {
        let person = |name: &str| (i64::try_from(name.len()).unwrap(), name.to_owned());
        AssigneeChange {
            group_id: 5,
            organization_id: 1,
            group_short_id: "WEB-17".to_owned(),
            group_title: "It breaks".to_owned(),
            work_item_id: 17,
            from: from.map(person),
            to: to.map(person),
        }
    }

    #[test]
    fn each_change_of_assignee_is_reported_on_one_line() {
        for (from, to, title) in [
            (None, Some("Ann"), "WEB-17 is now assigned to Ann"),
            (
                Some("Bob"),
                Some("Ann\r\n@everyone"),
                "WEB-17 is now assigned to Ann @everyone",
            ),
            (Some("Bob"), None, "WEB-17 is no longer assigned to Bob"),
        ] {
            assert_eq!(assignee(&change(from, to)).title, title);
        }
        let lines = assignee(&change(Some("Bob"), Some("Ann"))).lines;
        assert_eq!(
            lines,
            [
                "It breaks",
                "It was assigned to Bob.",
                "Work item 17 in Azure DevOps decided."
            ]
        );
    }

    #[test]
    fn a_click_is_answered_with_all_changes_or_with_none() {
        let message = outcome(&[change(None, Some("Ann"))], &[]);
        assert_eq!(
            (message.title.as_str(), message.lines),
            ("1 change", vec!["WEB-17 is now assigned to Ann".to_owned()])
        );
        assert_eq!(message.details[0]["to"]["name"], "Ann");
        let nothing = outcome(&[], &[]);
        assert_eq!(
            (nothing.title.as_str(), nothing.lines.len()),
            ("Nothing changed", 0)
        );
    }

    #[test]
    fn a_click_is_answered_with_the_choices_that_exist() {
        let choices = vec![Choice {
            account_id: "a-1".to_owned(),
            name: "contoso".to_owned(),
        }];
        let asked = configuration(&Question {
            reason: "no_account".to_owned(),
            help: "Choose.".to_owned(),
            choices,
        });
        assert_eq!(asked.lines, ["Choose.", "contoso: a-1"]);
        assert_eq!(
            asked.details,
            json!({"reason": "no_account", "choices": [{"account_id": "a-1", "name": "contoso"}]})
        );
    }

    #[test]
    fn machines_read_the_same() {
        let details = assignee(&change(None, Some("Ann"))).details;
        assert_eq!(details["to"], json!({ "id": 3, "name": "Ann" }));
        assert_eq!(
            (details["from"].is_null(), &details["group"]),
            (true, &json!("WEB-17"))
        );
    }
}
