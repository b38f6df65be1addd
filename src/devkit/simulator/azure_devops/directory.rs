//! People, organizations and work item types, which are only read.

use std::ops::Bound;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{Reply, Scope, bad_request, not_found};
use crate::devkit::simulator::state::User;
use crate::devkit::simulator::world::World;
use crate::providers::simulated::{ReceivedCall, SimulatedAnswer};

/// `GET /_apis/profile/profiles/me`.
pub(super) fn profile(world: &World, unique_name: &str) -> Reply {
    let user = world
        .state
        .users
        .get(unique_name)
        .ok_or_else(|| not_found("the token's user does not exist"))?;
    Ok(SimulatedAnswer::ok(&json!({
        "displayName": user.display_name,
        "publicAlias": user.id,
        "emailAddress": user.mail_address.as_deref().unwrap_or(unique_name),
        "coreRevision": 1,
        "timeStamp": "2020-01-01T00:00:00.000Z",
        "id": user.id,
        "revision": 1
    })))
}

/// `GET /_apis/accounts?memberId=`: the organizations of that person, which may differ from the
/// caller.
pub(super) fn accounts(world: &World, call: &ReceivedCall) -> Reply {
    let member = call
        .query
        .get("memberId")
        .ok_or_else(|| bad_request("memberId or ownerId is required"))?;
    let person = world
        .state
        .users
        .iter()
        .find(|(_, user)| user.id.to_string() == *member);
    let accounts = world.state.accounts.iter();
    let of_person = accounts
        .filter(|(_, account)| person.is_some_and(|(name, _)| account.members.contains(name)));
    let shown = of_person.map(|(name, account)| {
        json!({
            "accountId": account.id,
            "accountName": name,
            "accountUri": format!("https://vssps.dev.azure.com:443/{name}/"),
            "accountStatus": "enabled",
            "properties": {}
        })
    });
    Ok(SimulatedAnswer::list(&shown.collect::<Vec<_>>()))
}

/// `GET /{org}/_apis/graph/users`, in order of unique name. The continuation token names the last
/// user of the page.
pub(super) fn users(world: &World, call: &ReceivedCall, scope: &Scope<'_>) -> Reply {
    let members = &world.state.accounts[scope.organization].members;
    let after = match call.query.get("continuationToken") {
        Some(token) => Some(
            page_end(token)
                .ok_or_else(|| bad_request("continuationToken is none that was handed out"))?,
        ),
        None => None,
    };
    let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = members
        .range::<str, _>((from, Bound::Unbounded))
        .filter_map(|name| world.state.users.get_key_value(name));
    let page: Vec<(&String, &User)> = rest
        .by_ref()
        .take(world.state.options.graph_page_size.max(1))
        .collect();
    let shown: Vec<Value> = page
        .iter()
        .map(|(name, user)| graph_user(name, user))
        .collect();
    let answer = SimulatedAnswer::list(&shown);
    match (rest.next(), page.last()) {
        (Some(_), Some((last, _))) => Ok(answer.header(
            "x-ms-continuationtoken",
            BASE64URL_NOPAD.encode(last.as_bytes()),
        )),
        _ => Ok(answer),
    }
}

fn page_end(token: &str) -> Option<String> {
    String::from_utf8(BASE64URL_NOPAD.decode(token.as_bytes()).ok()?).ok()
}

fn graph_user(unique_name: &str, user: &User) -> Value {
    let url = format!(
        "https://vssps.dev.azure.com/_apis/Graph/Users/{}",
        user.descriptor
    );
    json!({
        "subjectKind": "user",
        "metaType": "member",
        "domain": "68a9c6a5-7d3b-4b3a-9b0c-2f1d7ad5d7f1",
        "principalName": unique_name,
        "mailAddress": user.mail_address,
        "origin": "aad",
        "originId": user.id,
        "displayName": user.display_name,
        "_links": { "self": { "href": url } },
        "url": url,
        "descriptor": user.descriptor
    })
}

/// `GET /{org}/{project}/_apis/wit/workitemtypes/{type}/states`.
pub(super) fn states(world: &World, scope: &Scope<'_>, wanted: &str) -> Reply {
    if scope.project.is_none() {
        return Err(not_found("the path names a project"));
    }
    let found = world
        .state
        .work_item_types
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let (_, states) = found.ok_or_else(|| {
        not_found(&format!(
            "VS402323: Work item type {wanted} does not exist in project"
        ))
    })?;
    let shown = states
        .iter()
        .map(|state| json!({ "name": state.name, "color": "b2b2b2", "category": state.category }));
    Ok(SimulatedAnswer::list(&shown.collect::<Vec<_>>()))
}
