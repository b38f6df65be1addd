//! Microsoft Entra's token endpoint: the refresh grant of a confidential client
//! (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow#refresh-the-access-token>).

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::hooks::timestamp;
use super::state::{State, Token};
use super::world::World;
use crate::providers::simulated::{Description, ReceivedCall, SimulatedAnswer};

/// The simulated Microsoft Entra. Access tokens that it issues go to [`State::tokens`].
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Entra {
    /// Secrets of registered clients, by client id.
    pub clients: BTreeMap<String, String>,
    /// Refresh tokens, by the token itself.
    pub refresh_tokens: BTreeMap<String, RefreshToken>,
}

/// A refresh token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshToken {
    /// The unique name of the user it belongs to.
    pub user: String,
    /// The number of times that tokens were issued for it.
    #[serde(default)]
    pub uses: u64,
    /// Whether it is answered with `invalid_grant`.
    #[serde(default)]
    pub revoked: bool,
}

impl State {
    /// Adds a client of Microsoft Entra.
    #[must_use]
    pub fn entra_client(mut self, id: &str, secret: &str) -> Self {
        self.entra.clients.insert(id.to_owned(), secret.to_owned());
        self
    }

    /// Adds a refresh token of a person.
    #[must_use]
    pub fn refresh_token(mut self, token: &str, unique_name: &str) -> Self {
        let of_user = RefreshToken {
            user: unique_name.to_owned(),
            uses: 0,
            revoked: false,
        };
        self.entra.refresh_tokens.insert(token.to_owned(), of_user);
        self
    }
}

const GRANT: &str = "refresh_token";
/// The resource id of Azure DevOps.
const RESOURCE: &str = "499b84ac-1321-427f-aa17-267ca6975798";

/// Describes a request by its client, with the beginning of the refresh token's SHA-256 as key.
/// The witness log contains no token.
pub(super) fn describe(call: &ReceivedCall) -> Description {
    let form = call.form();
    let key = form
        .get("refresh_token")
        .map(|token| HEXLOWER.encode(&Sha256::digest(token)[..8]));
    Description {
        key,
        subject: form
            .get("client_id")
            .map(|client| format!("entra:{client}")),
    }
}

/// Answers one request.
pub(super) fn answer(world: &mut World, call: &ReceivedCall) -> SimulatedAnswer {
    issue(world, call).unwrap_or_else(|refused| refused)
}

fn issue(world: &mut World, call: &ReceivedCall) -> Result<SimulatedAnswer, SimulatedAnswer> {
    if call.method != Method::POST || call.media_type() != "application/x-www-form-urlencoded" {
        return Err(error(
            world,
            "invalid_request",
            900_144,
            "The request body must be a form that is posted.",
        ));
    }
    let form = call.form();
    let given = |name: &str| form.get(name).map_or("", String::as_str);
    if given("grant_type") != GRANT {
        return Err(error(
            world,
            "unsupported_grant_type",
            70_003,
            "The app requested an unsupported grant type.",
        ));
    }
    check_client(world, given("client_id"), given("client_secret"))?;
    if !given("scope").contains(RESOURCE) || !given("scope").contains("offline_access") {
        return Err(error(
            world,
            "invalid_scope",
            70_011,
            "The provided value for the input parameter 'scope' isn't valid.",
        ));
    }
    let user = use_up(world, given("refresh_token"))?;
    let (access, refresh) = (fresh("canary-sim-access"), fresh("canary-sim-refresh"));
    let options = &world.state.options;
    let (seconds, expired) = (options.access_token_seconds, options.issued_tokens_refused);
    world.state.tokens.insert(
        access.clone(),
        Token {
            user: user.clone(),
            expired,
            sign_in_page: false,
        },
    );
    world.state.entra.refresh_tokens.insert(
        refresh.clone(),
        RefreshToken {
            user: user.clone(),
            uses: 0,
            revoked: false,
        },
    );
    let body = json!({
        "token_type": "Bearer",
        "scope": format!("{RESOURCE}/.default"),
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": access,
        "refresh_token": refresh
    });
    Ok(SimulatedAnswer::ok(&body)
        .effect()
        .detail(json!({ "issued_to": user })))
}

fn check_client(world: &mut World, id: &str, secret: &str) -> Result<(), SimulatedAnswer> {
    match world.state.entra.clients.get(id) {
        Some(right) if right == secret => Ok(()),
        Some(_) => Err(error(
            world,
            "invalid_client",
            7_000_215,
            "Invalid client secret provided.",
        )),
        None => Err(error(
            world,
            "unauthorized_client",
            700_016,
            "The application wasn't found in the directory.",
        )),
    }
}

/// Returns the user of a valid refresh token, and counts a use of the token.
fn use_up(world: &mut World, presented: &str) -> Result<String, SimulatedAnswer> {
    let once = world.state.options.refresh_tokens_once;
    match world.state.entra.refresh_tokens.get_mut(presented) {
        Some(token) if !token.revoked && (!once || token.uses == 0) => {
            token.uses += 1;
            Ok(token.user.clone())
        }
        Some(token) => {
            let why = if token.revoked {
                "it being revoked"
            } else {
                "it having been used"
            };
            let message = format!(
                "The provided grant has expired due to {why}, a fresh auth token is needed."
            );
            Err(error(world, "invalid_grant", 50_173, &message))
        }
        None => Err(error(
            world,
            "invalid_grant",
            9_002_313,
            "Invalid request. The refresh token is malformed.",
        )),
    }
}

/// Returns a token of 256 random bits with a prefix of ours, which secret scans look for.
fn fresh(prefix: &str) -> String {
    format!(
        "{prefix}-{}",
        BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
    )
}

/// Returns an error in the vendor's form: 401 if the client is unknown, else 400.
fn error(world: &mut World, error: &str, code: u32, message: &str) -> SimulatedAnswer {
    let status = if error == "invalid_client" {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::BAD_REQUEST
    };
    let at = timestamp(world.tick());
    let trace = "0000aaaa-11bb-cccc-dd22-eeeeee333333";
    let body: Value = json!({
        "error": error,
        "error_description": format!("AADSTS{code}: {message}\r\nTrace ID: {trace}\r\nCorrelation ID: {trace}\r\nTimestamp: {at}"),
        "error_codes": [code],
        "timestamp": at,
        "trace_id": trace,
        "correlation_id": trace
    });
    SimulatedAnswer::json(status, &body).detail(json!({ "refused": error }))
}
