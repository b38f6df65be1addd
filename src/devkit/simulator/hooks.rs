//! Service-hook events as Azure DevOps sends them: `workitem.updated`, resource version 1.0, based
//! on the documented sample
//! (<https://learn.microsoft.com/azure/devops/service-hooks/events#work-item-updated>).

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

use super::state::{AssigneeFormat, Revision, State, User, WorkItem, work_item_key};

/// A change of a work item, from one revision to the next.
pub(super) struct Update<'a> {
    pub(super) organization: &'a str,
    pub(super) id: i64,
    pub(super) old: &'a Revision,
    pub(super) new: &'a Revision,
    pub(super) format: AssigneeFormat,
    pub(super) event_id: Uuid,
}

/// Returns the event's body, or `None` if the organization, project or work item is not in
/// `state`.
pub(super) fn updated(state: &State, update: &Update<'_>) -> Option<Value> {
    let account = state.accounts.get(update.organization)?;
    let item = state
        .work_items
        .get(&work_item_key(update.organization, update.id))?;
    let (new, id) = (update.new, update.id);
    let by = display_name(state, &new.changed_by);
    let base = format!(
        "https://dev.azure.com/{}/_apis/wit/workItems/{id}",
        update.organization
    );
    let page = format!(
        "https://dev.azure.com/{}/web/wi.aspx?pcguid={}&id={id}",
        update.organization, account.collection_id
    );
    let text = format!(
        "{} #{id} ({}) updated by {by}.\r\n({page})",
        item.work_item_type, item.title
    );
    let update_url = format!("{base}/updates/{}", new.rev);
    Some(json!({
        "id": update.event_id,
        "eventType": "workitem.updated",
        "publisherId": "tfs",
        "scope": "all",
        "message": { "text": text },
        "detailedMessage": { "text": format!("{text}\r\n\r\n- New State: {}\r\n", new.state) },
        "resource": {
            "id": new.rev,
            "workItemId": id,
            "rev": new.rev,
            "revisedBy": person(state, &new.changed_by, AssigneeFormat::Identity),
            "revisedDate": "9999-01-01T00:00:00Z",
            "fields": changed_fields(state, update),
            "_links": {
                "self": { "href": update_url },
                "parent": { "href": base },
                "workItemUpdates": { "href": format!("{base}/updates") }
            },
            "url": update_url,
            "revision": {
                "id": id,
                "rev": new.rev,
                "fields": fields(state, item, new, update.format),
                "url": format!("{base}/revisions/{}", new.rev)
            }
        },
        "resourceVersion": "1.0",
        "resourceContainers": {
            "collection": { "id": account.collection_id, "baseUrl": format!("https://dev.azure.com/{}/", update.organization) },
            "account": { "id": account.id, "baseUrl": format!("https://dev.azure.com/{}/", update.organization) },
            "project": { "id": account.projects.get(&item.project)?, "baseUrl": format!("https://dev.azure.com/{}/", update.organization) }
        },
        "createdDate": timestamp(new.changed_date + time::Duration::SECOND)
    }))
}

/// Returns the fields that differ, with `oldValue` and `newValue`; a missing value is absent.
fn changed_fields(state: &State, update: &Update<'_>) -> Value {
    let (old, new) = (update.old, update.new);
    let mut fields = Map::new();
    let mut differ = |name: &str, before: Option<Value>, after: Option<Value>| {
        if before != after {
            let sides = [("oldValue", before), ("newValue", after)];
            let sides = sides
                .into_iter()
                .filter_map(|(side, value)| Some((side.to_owned(), value?)));
            fields.insert(name.to_owned(), Value::Object(sides.collect()));
        }
    };
    let assignee =
        |revision: &Revision| Some(person(state, revision.assigned_to.as_ref()?, update.format));
    differ(
        "System.Rev",
        Some(json!(old.rev.to_string())),
        Some(json!(new.rev.to_string())),
    );
    differ(
        "System.AuthorizedDate",
        Some(json!(timestamp(old.changed_date))),
        Some(json!(timestamp(new.changed_date))),
    );
    differ(
        "System.RevisedDate",
        Some(json!(timestamp(new.changed_date))),
        Some(json!("9999-01-01T00:00:00Z")),
    );
    differ(
        "System.ChangedDate",
        Some(json!(timestamp(old.changed_date))),
        Some(json!(timestamp(new.changed_date))),
    );
    differ(
        "System.Watermark",
        Some(json!(old.rev.to_string())),
        Some(json!(new.rev.to_string())),
    );
    differ(
        "System.State",
        Some(json!(old.state)),
        Some(json!(new.state)),
    );
    differ(
        "System.Reason",
        Some(json!(reason(old))),
        Some(json!(reason(new))),
    );
    differ("System.AssignedTo", assignee(old), assignee(new));
    let changer = |revision: &Revision| Some(person(state, &revision.changed_by, update.format));
    differ("System.ChangedBy", changer(old), changer(new));
    Value::Object(fields)
}

/// Returns all fields of a revision, with identities in `format`. Without an assignee there is no
/// `System.AssignedTo`.
pub(super) fn fields(
    state: &State,
    item: &WorkItem,
    revision: &Revision,
    format: AssigneeFormat,
) -> Map<String, Value> {
    let first = item.revisions.first().unwrap_or(revision);
    let fields = [
        ("System.AreaPath", json!(item.project)),
        ("System.TeamProject", json!(item.project)),
        ("System.IterationPath", json!(item.project)),
        ("System.WorkItemType", json!(item.work_item_type)),
        ("System.State", json!(revision.state)),
        ("System.Reason", json!(reason(revision))),
        ("System.CreatedDate", json!(timestamp(first.changed_date))),
        ("System.CreatedBy", person(state, &first.changed_by, format)),
        (
            "System.ChangedDate",
            json!(timestamp(revision.changed_date)),
        ),
        (
            "System.ChangedBy",
            person(state, &revision.changed_by, format),
        ),
        ("System.CommentCount", json!(0)),
        ("System.Title", json!(item.title)),
        ("Microsoft.VSTS.Common.Priority", json!(2)),
    ];
    let mut fields: Map<String, Value> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let as_is = item.assigned_to_as_is.clone();
    if let Some(assignee) =
        as_is.or_else(|| Some(person(state, revision.assigned_to.as_ref()?, format)))
    {
        fields.insert("System.AssignedTo".to_owned(), assignee);
    }
    fields
}

/// Returns a person in one of the formats that occur in practice. An unknown person is represented
/// by their unique name.
pub(super) fn person(state: &State, unique_name: &str, format: AssigneeFormat) -> Value {
    let Some(user) = state.users.get(unique_name) else {
        return json!(unique_name);
    };
    let name = &user.display_name;
    match format {
        AssigneeFormat::Identity => identity(unique_name, user),
        AssigneeFormat::NameAndMail => json!(format!(
            "{name} <{}>",
            user.mail_address.as_deref().unwrap_or(unique_name)
        )),
        AssigneeFormat::DisplayName => json!(name),
        AssigneeFormat::NameAndLogin => {
            let invented = || {
                format!(
                    "FABRIKAM\\{}",
                    unique_name.split('@').next().unwrap_or_default()
                )
            };
            json!(format!(
                "{name} <{}>",
                user.login.clone().unwrap_or_else(invented)
            ))
        }
    }
}

fn identity(unique_name: &str, user: &User) -> Value {
    let avatar = format!(
        "https://dev.azure.com/_apis/GraphProfile/MemberAvatars/{}",
        user.descriptor
    );
    json!({
        "displayName": user.display_name,
        "url": format!("https://vssps.dev.azure.com/_apis/Identities/{}", user.id),
        "_links": { "avatar": { "href": avatar } },
        "id": user.id,
        "uniqueName": unique_name,
        "imageUrl": avatar,
        "descriptor": user.descriptor
    })
}

fn reason(revision: &Revision) -> String {
    format!("Moved to state {}", revision.state)
}

fn display_name<'a>(state: &'a State, unique_name: &'a str) -> &'a str {
    state
        .users
        .get(unique_name)
        .map_or(unique_name, |user| &user.display_name)
}

/// Formats a time as the vendor does, such as `2014-07-15T17:42:44.663Z`.
pub(super) fn timestamp(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .expect("a date and time in UTC has all these parts")
}
