//! The part of the Azure DevOps Services REST API 7.1
//! (<https://learn.microsoft.com/rest/api/azure/devops>) that the product calls: routing,
//! authentication and access checks.

mod directory;
mod search;
mod work_items;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::state::{Account, WorkItem};
use super::world::World;
use crate::providers::simulated::{Description, ReceivedCall, SimulatedAnswer};

/// The answer of a handler. `Err` is a refusal, which is also sent; it is an error only so that
/// `?` ends a handler early.
type Reply = Result<SimulatedAnswer, SimulatedAnswer>;

/// The parts of a path.
struct Target<'a> {
    organization: Option<&'a str>,
    /// By name or id.
    project: Option<&'a str>,
    resource: Resource<'a>,
}

enum Resource<'a> {
    Profile,
    Accounts,
    Users,
    Search,
    Batch,
    WorkItem(i64),
    States(&'a str),
}

impl<'a> Target<'a> {
    /// Parses a path. Returns `None` for an unknown path.
    fn of(parts: &[&'a str]) -> Option<Self> {
        let api = parts.iter().position(|part| *part == "_apis")?;
        let (organization, project) = match parts[..api] {
            [] => (None, None),
            [organization] => (Some(organization), None),
            [organization, project] => (Some(organization), Some(project)),
            _ => return None,
        };
        let resource = match parts[api + 1..] {
            ["profile", "profiles", "me"] => Resource::Profile,
            ["accounts"] => Resource::Accounts,
            ["graph", "users"] => Resource::Users,
            ["search", "workitemsearchresults"] => Resource::Search,
            ["wit", "workitemsbatch"] => Resource::Batch,
            ["wit", "workitems" | "workItems", id] => Resource::WorkItem(id.parse().ok()?),
            ["wit", "workitemtypes" | "workItemTypes", name, "states"] => Resource::States(name),
            _ => return None,
        };
        Some(Self {
            organization,
            project,
            resource,
        })
    }
}

/// The caller and the scope of a call. The organization exists and the user is a member of it; the
/// project, if any, exists.
struct Scope<'a> {
    /// The unique name of the token's user.
    user: &'a str,
    organization: &'a str,
    /// The project's name.
    project: Option<String>,
}

impl Scope<'_> {
    /// Returns the work item, if it exists in the scope.
    fn work_item<'w>(&self, world: &'w World, id: i64) -> Option<&'w WorkItem> {
        let item = world.work_item(self.organization, id)?;
        self.project
            .as_ref()
            .is_none_or(|project| *project == item.project)
            .then_some(item)
    }
}

/// Describes a request by the work item in its path. The key of a PATCH is the revision that it
/// tests, of a search page its start, of a batch its first id.
pub(super) fn describe(call: &ReceivedCall) -> Description {
    let parts = call.parts();
    match Target::of(&parts) {
        Some(Target {
            organization: Some(organization),
            resource: Resource::WorkItem(id),
            ..
        }) => {
            let subject = format!("work_item:{organization}:{id}");
            let tested = call
                .json::<Value>()
                .ok()
                .and_then(|patch| work_items::tested_rev(&patch));
            Description {
                key: tested.map(|rev| format!("{subject}@{rev}")),
                subject: Some(subject),
            }
        }
        Some(Target {
            organization: Some(organization),
            resource: Resource::Search,
            ..
        }) => {
            let skip = call
                .json::<Value>()
                .ok()
                .and_then(|request| request["$skip"].as_u64());
            Description {
                key: skip.map(|skip| format!("search:{organization}@{skip}")),
                subject: None,
            }
        }
        Some(Target {
            organization: Some(organization),
            resource: Resource::Batch,
            ..
        }) => {
            let first = call
                .json::<Value>()
                .ok()
                .and_then(|request| request["ids"][0].as_i64());
            Description {
                key: first.map(|first| format!("work_items:{organization}@{first}")),
                subject: None,
            }
        }
        Some(_) | None => Description::default(),
    }
}

/// Answers one request.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> SimulatedAnswer {
    route(world, call).unwrap_or_else(|refused| refused)
}

fn route(world: &mut World, call: &ReceivedCall) -> Reply {
    let parts = call.parts();
    let user = authenticated(world, call)?;
    let target =
        Target::of(&parts).ok_or_else(|| not_found("the path is none of those simulated"))?;
    check_version(call, matches!(target.resource, Resource::Users))?;
    if matches!(target.resource, Resource::Profile | Resource::Accounts)
        && target.organization.is_some()
    {
        return Err(not_found("profile and accounts belong to no organization"));
    }
    match (&call.method, &target.resource) {
        (&Method::GET, Resource::Profile) => directory::profile(world, &user),
        (&Method::GET, Resource::Accounts) => directory::accounts(world, call),
        (method, resource) => {
            let scope = scope(world, &user, &target)?;
            match (method, resource) {
                (&Method::GET, Resource::Users) => directory::users(world, call, &scope),
                (&Method::GET, Resource::States(name)) => directory::states(world, &scope, name),
                (&Method::POST, Resource::Search) => search::search(world, call, &scope),
                (&Method::POST, Resource::Batch) => work_items::batch(world, call, &scope),
                (&Method::GET, Resource::WorkItem(id)) => work_items::get(world, call, &scope, *id),
                (&Method::PATCH, Resource::WorkItem(id)) => {
                    work_items::patch(world, call, &scope, *id)
                }
                _ => Err(error(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "HttpMethodNotSupportedException",
                    "another method is right",
                )),
            }
        }
    }
}

/// Returns the unique name of the user whose valid token the request has.
fn authenticated(world: &World, call: &ReceivedCall) -> Result<String, SimulatedAnswer> {
    match call
        .bearer()
        .and_then(|token| world.state.tokens.get(token))
    {
        Some(token) if token.sign_in_page => {
            let page = "<!DOCTYPE html><html><head><title>Azure DevOps Services | Sign In</title></head><body></body></html>";
            Err(SimulatedAnswer::text(
                StatusCode::NON_AUTHORITATIVE_INFORMATION,
                "text/html; charset=utf-8",
                page,
            ))
        }
        Some(token) if !token.expired => Ok(token.user.clone()),
        Some(_) | None => Err(unauthorized("")),
    }
}

/// Checks `api-version`, which is required, and the preview flag, which a preview call requires.
fn check_version(call: &ReceivedCall, preview: bool) -> Result<(), SimulatedAnswer> {
    let version = call.query.get("api-version").map_or("", String::as_str);
    let bad = |key, message: String| Err(error(StatusCode::BAD_REQUEST, key, &message));
    let is_preview = version.starts_with("7.1-preview");
    if version != "7.1" && !is_preview {
        return bad(
            "VssVersionOutOfRangeException",
            format!("api-version {version:?}: 7.1 or 7.1-preview.N is right"),
        );
    }
    if preview && !is_preview {
        let message = "The requested version \"7.1\" of the resource is under preview. The -preview flag must be supplied.";
        return bad("VssInvalidPreviewVersionException", message.to_owned());
    }
    Ok(())
}

fn scope<'a>(
    world: &World,
    user: &'a str,
    target: &Target<'a>,
) -> Result<Scope<'a>, SimulatedAnswer> {
    let organization = target
        .organization
        .ok_or_else(|| not_found("the path begins with an organization"))?;
    let account = world
        .state
        .accounts
        .get(organization)
        .ok_or_else(|| not_found("there is no such organization"))?;
    if !account.members.contains(user) {
        let id = world.state.users.get(user).map(|user| user.id.to_string());
        return Err(unauthorized(&id.unwrap_or_default()));
    }
    let project = target
        .project
        .map(|wanted| project_name(account, wanted))
        .transpose()?;
    Ok(Scope {
        user,
        organization,
        project,
    })
}

/// Returns the name of the project with the name or id `wanted`.
fn project_name(account: &Account, wanted: &str) -> Result<String, SimulatedAnswer> {
    let fits = |(name, id): &(&String, &uuid::Uuid)| {
        name.eq_ignore_ascii_case(wanted) || id.to_string() == wanted
    };
    let found = account
        .projects
        .iter()
        .find(fits)
        .map(|(name, _)| name.clone());
    found.ok_or_else(|| {
        let message = format!("TF200016: The following project does not exist: {wanted}.");
        error(
            StatusCode::NOT_FOUND,
            "ProjectDoesNotExistWithNameException",
            &message,
        )
    })
}

/// Returns an error in the vendor's form.
fn error(status: StatusCode, type_key: &str, message: &str) -> SimulatedAnswer {
    let body = json!({
        "$id": "1",
        "innerException": null,
        "message": message,
        "typeName": format!("Microsoft.VisualStudio.Services.WebApi.{type_key}, Microsoft.VisualStudio.Services.WebApi"),
        "typeKey": type_key,
        "errorCode": 0,
        "eventId": 3000
    });
    SimulatedAnswer::json(status, &body).detail(json!({ "refused": message }))
}

fn bad_request(message: &str) -> SimulatedAnswer {
    error(
        StatusCode::BAD_REQUEST,
        "VssPropertyValidationException",
        message,
    )
}

fn not_found(message: &str) -> SimulatedAnswer {
    error(
        StatusCode::NOT_FOUND,
        "VssResourceNotFoundException",
        message,
    )
}

/// Returns the refusal of a user. The vendor names the user by id, and no user if it does not
/// accept the token (<https://github.com/microsoft/azure-devops-auth-samples/issues/52>).
fn unauthorized(user: &str) -> SimulatedAnswer {
    let message = format!("TF400813: The user '{user}' is not authorized to access this resource.");
    error(
        StatusCode::UNAUTHORIZED,
        "UnauthorizedRequestException",
        &message,
    )
    .header(
        "www-authenticate",
        "Bearer authorization_uri=https://login.microsoftonline.com/common".to_owned(),
    )
}
