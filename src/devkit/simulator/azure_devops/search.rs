//! Work item search: matches if every word of the text is in the title, or the text is the work
//! item's id.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Reply, Scope, bad_request};
use crate::devkit::simulator::hooks::{person, timestamp};
use crate::devkit::simulator::state::{AssigneeFormat, WorkItem};
use crate::devkit::simulator::world::World;
use crate::providers::simulated::{ReceivedCall, SimulatedAnswer};

/// The maximum number of results on one page.
const TOP: usize = 1000;

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "searchText")]
    text: String,
    #[serde(rename = "$skip", default)]
    skip: usize,
    #[serde(rename = "$top")]
    top: usize,
    #[serde(default)]
    filters: Option<BTreeMap<String, Vec<String>>>,
}

/// `POST /{org}[/{project}]/_apis/search/workitemsearchresults`, in order of id. `count` includes
/// all matches.
pub(super) fn search(world: &World, call: &ReceivedCall, scope: &Scope<'_>) -> Reply {
    let request: Request = call.json().map_err(|error| bad_request(&error))?;
    if request.text.trim().is_empty() || request.top == 0 || request.top > TOP {
        return Err(bad_request(&format!(
            "searchText is not empty and $top is from 1 to {TOP}"
        )));
    }
    let info_code = world.state.options.search_info_code;
    let mut found = if info_code == 0 {
        matching(world, scope, &request)?
    } else {
        Vec::new()
    };
    found.sort_by_key(|(id, _)| *id);
    let page = found.iter().skip(request.skip).take(request.top);
    let results: Vec<Value> = page
        .map(|(id, item)| result(world, scope, *id, item))
        .collect();
    Ok(SimulatedAnswer::ok(
        &json!({ "count": found.len(), "results": results, "infoCode": info_code, "facets": {} }),
    ))
}

fn matching<'w>(
    world: &'w World,
    scope: &Scope<'_>,
    request: &Request,
) -> Result<Vec<(i64, &'w WorkItem)>, SimulatedAnswer> {
    let words: Vec<String> = request
        .text
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let filters = request.filters.clone().unwrap_or_default();
    let known = [
        "System.TeamProject",
        "System.WorkItemType",
        "System.State",
        "System.AssignedTo",
    ];
    if let Some(unknown) = filters.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(bad_request(&format!(
            "filter {unknown:?}: one of {known:?} is right"
        )));
    }
    let prefix = format!("{}:", scope.organization);
    let of_organization = world
        .state
        .work_items
        .keys()
        .filter_map(|key| key.strip_prefix(&prefix)?.parse().ok());
    let visible = of_organization.filter_map(|id| Some((id, scope.work_item(world, id)?)));
    Ok(visible
        .filter(|(id, item)| {
            let title = item.title.to_lowercase();
            request.text.trim() == id.to_string() || words.iter().all(|word| title.contains(word))
        })
        .filter(|(_, item)| {
            filters
                .iter()
                .all(|(name, values)| values.contains(&filtered_value(world, item, name)))
        })
        .collect())
}

fn filtered_value(world: &World, item: &WorkItem, name: &str) -> String {
    match name {
        "System.TeamProject" => item.project.clone(),
        "System.WorkItemType" => item.work_item_type.clone(),
        "System.State" => item.current().state.clone(),
        _ => {
            let user = item
                .current()
                .assigned_to
                .as_ref()
                .and_then(|name| world.state.users.get(name));
            user.map(|user| user.display_name.clone())
                .unwrap_or_default()
        }
    }
}

fn result(world: &World, scope: &Scope<'_>, id: i64, item: &WorkItem) -> Value {
    let current = item.current();
    let assignee = current.assigned_to.as_ref();
    let assignee = assignee.map_or(json!(""), |name| {
        person(&world.state, name, AssigneeFormat::NameAndMail)
    });
    let created = item.revisions.first().unwrap_or(current).changed_date;
    json!({
        "project": { "name": item.project, "id": world.state.accounts[scope.organization].projects.get(&item.project) },
        "fields": {
            "system.id": id.to_string(),
            "system.workitemtype": item.work_item_type,
            "system.title": item.title,
            "system.assignedto": assignee,
            "system.state": current.state,
            "system.tags": "",
            "system.rev": current.rev.to_string(),
            "system.createddate": timestamp(created),
            "system.changeddate": timestamp(current.changed_date)
        },
        "hits": [{ "fieldReferenceName": "system.title", "highlights": [item.title] }],
        "url": format!("https://dev.azure.com/{}/_apis/wit/workItems/{id}", scope.organization)
    })
}
