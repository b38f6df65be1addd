//! The sender's own token, all tokens, and the document of the API.

use axum::http::Method;
use axum::response::Response;
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::console::answer;
use crate::console::call::{Call, Changed};
use crate::console::openapi::document;
use crate::console::problem::Problem;
use crate::console::routes::{Access, JSON, Route, handler, schema};
use crate::operations::{self, TokenSettings};
use crate::store::{Action, ApiToken, Role};

const ADMIN: Access = Access::From {
    role: Role::Admin,
    is_scoped: false,
};

pub(in crate::console) const ROUTES: &[Route] = &[
    Route {
        name: "openapi",
        method: Method::GET,
        path: "/openapi.json",
        about: "Returns this document",
        access: Access::From {
            role: Role::Producer,
            is_scoped: true,
        },
        action: None,
        parameters: &[],
        input: None,
        output: schema::<serde_json::Value>,
        media_type: JSON,
        api: Some(handler!(openapi)),
        page: None,
    },
    Route {
        name: "me",
        method: Method::GET,
        path: "/me",
        about: "Returns the sender's token",
        access: Access::From {
            role: Role::Producer,
            is_scoped: true,
        },
        action: None,
        parameters: &[],
        input: None,
        output: schema::<ApiToken>,
        media_type: JSON,
        api: Some(handler!(me)),
        page: None,
    },
    Route {
        name: "list_tokens",
        method: Method::GET,
        path: "/tokens",
        about: "Lists the tokens, the newest first",
        access: ADMIN,
        action: None,
        parameters: &[],
        input: None,
        output: schema::<Vec<ApiToken>>,
        media_type: JSON,
        api: Some(handler!(tokens)),
        page: None,
    },
    Route {
        name: "create_token",
        method: Method::POST,
        path: "/tokens",
        about: "Creates a token, and returns it once",
        access: ADMIN,
        action: Some(Action::CreateToken),
        parameters: &[],
        input: Some(schema::<NewToken>),
        output: schema::<CreatedToken>,
        media_type: JSON,
        api: Some(handler!(create)),
        page: None,
    },
    Route {
        name: "revoke_token",
        method: Method::POST,
        path: "/tokens/{name}/revoke",
        about: "Revokes a token: requests and sessions with it end",
        access: ADMIN,
        action: Some(Action::RevokeToken),
        parameters: &[],
        input: Some(schema::<super::jobs::Reason>),
        output: schema::<Changed>,
        media_type: JSON,
        api: Some(handler!(revoke)),
        page: None,
    },
];

/// A token to create.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// The name of the person or program.
    name: String,
    /// What it permits.
    role: Role,
    /// The source of a producer's jobs.
    #[serde(default)]
    source: Option<String>,
    /// The organizations that it may see; without it, all.
    #[serde(default)]
    organizations: Option<Vec<String>>,
    /// How long it is valid, 1 to 366 days.
    days: u16,
    /// Why, for the audit log.
    reason: String,
}

/// A created token.
#[derive(Serialize, JsonSchema)]
struct CreatedToken {
    /// The token. It is not shown again.
    token: String,
    /// Its row.
    row: ApiToken,
}

async fn openapi(_: Call) -> Result<Response, Problem> {
    answer::json(&document())
}

async fn me(call: Call) -> Result<Response, Problem> {
    answer::json(&call.who.token)
}

async fn tokens(call: Call) -> Result<Response, Problem> {
    answer::json(&call.reads().tokens().await?)
}

async fn create(call: Call) -> Result<Response, Problem> {
    let new: NewToken = call.input()?;
    let mut actor = call.actor(&new.reason)?;
    // The answer has a secret, so it is not kept for a repetition.
    if let Some(request) = &mut actor.request {
        request.key = None;
    }
    let settings = TokenSettings {
        name: new.name,
        role: new.role,
        source: new.source,
        organizations: new.organizations,
        valid: std::time::Duration::from_hours(u64::from(new.days) * 24),
    };
    let (row, token) = operations::create_token(call.acts(), &actor, settings).await?;
    answer::json(&CreatedToken {
        token: token.expose_secret().to_owned(),
        row,
    })
}

async fn revoke(call: Call) -> Result<Response, Problem> {
    let name: String = call.part("name")?;
    let actor = call.actor(&call.input::<super::jobs::Reason>()?.reason)?;
    let changed = call.once(&actor, async |store, actor| {
        let token = operations::revoke_token(store, actor, &name).await?;
        Ok(Changed {
            changed: true,
            before: serde_json::json!({"name": name, "revoked": false}),
            now: serde_json::to_value(token).map_err(operations::OperationError::from)?,
        })
    });
    answer::json(&changed.await?)
}
