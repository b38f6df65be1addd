//! The page of a job that waits for an account. The link that the job was announced with is the
//! permission: nobody signs in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::pages::{self, bare};
use super::problem::Problem;
use super::schema::permit_changes;
use super::serve::{is_own_origin, read_body};
use super::state::Console;
use super::{answer, query};
use crate::operations::{self, Offer};
use crate::pipelines::configuration_link;
use crate::store::ActionResult;

/// The form of the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    account: String,
}

/// Shows the choice.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(token): Path<String>,
) -> Response {
    match offered(&console, &token).await {
        Ok(offer) => page(&form(&offer)),
        Err(problem) => pages::problem(&problem, None),
    }
}

/// Takes the choice.
pub(super) async fn choose(
    State(console): State<Arc<Console>>,
    Path(token): Path<String>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    match chosen(&console, &token, &parts.headers, body).await {
        Ok(offer) => page(&html! {
            h1 { "The account is chosen" }
            p { "The job " code { (offer.job.id) } " of " (offer.job.organization) " goes on by itself. You can close this page." }
        }),
        Err(problem) => pages::problem(&problem, None),
    }
}

async fn chosen(
    console: &Console,
    token: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Offer, Problem> {
    if !is_own_origin(headers) {
        return Err(Problem::forbidden(
            "expected the form of this page, got one of another site",
        ));
    }
    let body = read_body(body).await?;
    let Chosen { account } = query::form(&body).map_err(Problem::invalid_input)?;
    let offer = offered(console, token).await?;
    let acts = &console.parts.acts;
    match operations::choose_account(acts, &offer, &account, Uuid::now_v7()).await? {
        ActionResult::Done { .. } | ActionResult::Already(..) => Ok(offer),
        ActionResult::Refused(..) | ActionResult::NoSuchJob | ActionResult::MovedOn { .. } => {
            Err(over())
        }
    }
}

/// Returns what a link offers. Wrong links count as bad tokens do.
async fn offered(console: &Console, token: &str) -> Result<Offer, Problem> {
    let parts = &console.parts;
    let Some(linked) = configuration_link::open(&parts.keyring, token) else {
        return Err(match console.refusals.refused("the link").status {
            429 => Problem::too_many("expected a valid link, got too many that are not"),
            _ => over(),
        });
    };
    console.rates.take(rate_of(linked.job.0))?;
    permit_changes(console).await?;
    let offer = operations::offer(&parts.reads, linked).await?;
    offer.ok_or_else(over)
}

/// Returns the bucket of a job's link: below zero, where no token has its number.
fn rate_of(job: Uuid) -> i64 {
    let (_, low) = job.as_u64_pair();
    low.cast_signed() | i64::MIN
}

fn over() -> Problem {
    Problem::not_found("the link is not valid, or an account was chosen already")
        .hint("If the job still waits, use the newest link that it was announced with.")
}

fn form(offer: &Offer) -> Markup {
    let Offer { job, configuration } = offer;
    html! {
        h1 { "Choose an Azure DevOps account" }
        p { "A job of " strong { (job.organization) } " from " strong { (job.source) } " waits for it." }
        dl.facts { dt { "Job" } dd { code { (job.id) } } dt { "Key" } dd { code { (job.dedupe_key) } } }
        @if configuration.no_accounts {
            p.problem { "The identity may use no account. Give it access to one in Azure DevOps first." }
        }
        form method="post" {
            @if configuration.choices.is_empty() {
                label for="account" { "Id of the account" }
                input #account name="account" required maxlength="200" autocomplete="off" spellcheck="false";
            } @else {
                fieldset {
                    legend { "Account" }
                    @for (at, choice) in configuration.choices.iter().enumerate() {
                        p {
                            input type="radio" name="account" id=(format!("account-{at}")) value=(choice.account_id) required;
                            label for=(format!("account-{at}")) { " " (choice.name) " " span.hint { (choice.account_id) } }
                        }
                    }
                }
            }
            button type="submit" { "Go on with this account" }
        }
    }
}

fn page(content: &Markup) -> Response {
    answer::page(bare("Choose an account", content))
}
