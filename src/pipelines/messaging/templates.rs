//! One template per kind of event. They make data: escaping and limits are the channel's business.

use serde_json::json;

use super::{Event, Notice};
use crate::providers::channel::Message;
use crate::tracker::{AssigneeChange, StatusChange};

pub(super) fn message(notice: &Notice) -> Message {
    let written = match &notice.event {
        Event::Assignee(change) => assignee(change),
        Event::Status(change) => status(change),
    };
    Message { happened_at: notice.happened_at, ..written }
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
    let lines = [Some(change.group_title.clone()), before, Some(decided_by(change.work_item_id))];
    let person = |who: &Option<(i64, String)>| who.as_ref().map(|(id, name)| json!({ "id": id, "name": name }));
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

fn decided_by(work_item_id: i64) -> String {
    format!("Work item {work_item_id} in Azure DevOps decided.")
}

/// Names may hold anything; a title is one line.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
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
    fn each_change_of_assignee_is_told_in_one_line() {
        for (from, to, title) in [
            (None, Some("Ann"), "WEB-17 is now assigned to Ann"),
            (Some("Bob"), Some("Ann\r\n@everyone"), "WEB-17 is now assigned to Ann @everyone"),
            (Some("Bob"), None, "WEB-17 is no longer assigned to Bob"),
        ] {
            assert_eq!(assignee(&change(from, to)).title, title);
        }
        let lines = assignee(&change(Some("Bob"), Some("Ann"))).lines;
        assert_eq!(lines, ["It breaks", "It was assigned to Bob.", "Work item 17 in Azure DevOps decided."]);
    }

    #[test]
    fn machines_read_the_same() {
        let details = assignee(&change(None, Some("Ann"))).details;
        assert_eq!(details["to"], json!({ "id": 3, "name": "Ann" }));
        assert_eq!((details["from"].is_null(), &details["group"]), (true, &json!("WEB-17")));
    }
}
