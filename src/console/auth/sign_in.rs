//! Signing in: a person gives a token once, and the browser keeps a session.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::session::{Session, no_cookie};
use super::{Sender, by_token, session_of};
use crate::console::answer::{self, see_other, set};
use crate::console::pages::{self, bare};
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::schema::permit_changes;
use crate::console::serve::{is_own_origin, read_body};
use crate::console::state::Console;
use crate::store::{self, Action, Actor, Role};

/// The path of the page.
pub(in crate::console) const SIGN_IN: &str = "/sign-in";

/// The form of the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignInForm {
    token: String,
    #[serde(default)]
    next: String,
}

/// The query of the page.
#[derive(Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

/// Shows the page.
pub(in crate::console) async fn show_sign_in(request: Request<Body>) -> Response {
    let next = query::parse::<Next>(request.uri().query().unwrap_or_default());
    sign_in_page(&next.map(|query| query.next).unwrap_or_default(), None)
}

/// Takes the form of the page.
pub(in crate::console) async fn post_sign_in(
    State(console): State<Arc<Console>>,
    Extension(sender): Extension<Sender>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let form = async {
        if !is_own_origin(&parts.headers) {
            return Err(Problem::forbidden(
                "expected the form of this console, got one of another site",
            ));
        }
        let body = read_body(body).await?;
        query::form::<SignInForm>(&body).map_err(Problem::invalid_input)
    };
    let form = form
        .await
        .and_then(|form| by_itself(&sender).map(|()| form));
    match form {
        Ok(form) => sign_in(&console, &sender, form).await,
        Err(problem) => sign_in_page("/", Some(&problem)),
    }
}

/// Returns the page. `next` is where the person wants to go.
fn sign_in_page(next: &str, problem: Option<&Problem>) -> Response {
    let mut response = answer::page(bare("Sign in", &form(next, problem)));
    if let Some(problem) = problem {
        answer::finish_problem(&mut response, problem);
    }
    response
}

fn form(next: &str, problem: Option<&Problem>) -> Markup {
    html! {
        h1 { "Sign in" }
        @if let Some(problem) = problem {
            p.problem role="alert" { (problem.detail) ". " (problem.hint) }
        }
        form method="post" action=(SIGN_IN) {
            input type="hidden" name="next" value=(local(next));
            label for="token" { "Token" }
            input #token type="password" name="token" required autofocus autocomplete="off" spellcheck="false";
            p.hint { "`dispatch tokens create NAME --role operator` makes one." }
            button type="submit" { "Sign in" }
        }
    }
}

/// Signs a person in, and sends the browser to the page that it asked for.
async fn sign_in(console: &Console, sender: &Sender, form: SignInForm) -> Response {
    match begin(console, sender, form.token.trim()).await {
        Ok(session) => {
            let mut response = see_other(local(&form.next));
            let parts = &console.parts;
            let cookie = session.cookie(&parts.keyring, parts.is_behind_proxy);
            set(&mut response, SET_COOKIE, &cookie);
            response
        }
        Err(problem) => sign_in_page(&form.next, Some(&problem)),
    }
}

async fn begin(console: &Console, sender: &Sender, token: &str) -> Result<Session, Problem> {
    let found = by_token(console, token, sender, Action::RefuseSignIn);
    let token = found.await?.token;
    if token.role == Role::Producer {
        let log = &console.security_log;
        log.known(
            sender,
            &token,
            Action::RefuseSignIn,
            json!({"token": "of a producer"}),
        );
        return Err(Problem::forbidden(
            "expected a token of a person, got one of a producer",
        )
        .hint("Use it for the API; for the console, use a token with the role viewer, operator or admin."));
    }
    let actor = Actor {
        who: token.name.clone(),
        role: token.role,
        reason: None,
        request: Some(store::Request {
            id: sender.id,
            token: token.name.clone(),
            key: None,
        }),
    };
    let after = json!({"role": token.role, "address": sender.peer});
    // With another schema nothing is written, but people must be able to look.
    match permit_changes(console).await {
        Ok(()) => {
            let acts = &console.parts.acts;
            acts.audit(&actor, Action::SignIn, &Value::Null, &after)
                .await?;
        }
        Err(problem) if problem.code == "other_schema" => {
            tracing::warn!(
                error = problem.detail,
                who = actor.who,
                "a sign-in is not in the audit log"
            );
        }
        Err(problem) => return Err(problem),
    }
    Ok(Session::begin(token.id, OffsetDateTime::now_utc()))
}

/// Refuses what is about sessions of the console to somebody whom the proxy has signed in.
fn by_itself(sender: &Sender) -> Result<(), Problem> {
    match &sender.user {
        None => Ok(()),
        Some(_) => Err(Problem::forbidden(
            "expected nobody signed in, got a user whom the proxy has signed in",
        )
        .hint("Sign in and out at the proxy, which decides who you are here.")),
    }
}

/// Ends the session in this browser.
pub(in crate::console) async fn post_sign_out(
    State(console): State<Arc<Console>>,
    Extension(sender): Extension<Sender>,
    headers: HeaderMap,
) -> Response {
    if !is_own_origin(&headers) {
        let problem = Problem::forbidden("expected the form of this console");
        return pages::problem(&problem, None);
    }
    if let Err(problem) = by_itself(&sender) {
        return pages::problem(&problem, None);
    }
    if let Some(session) = session_of(&console, &headers, &sender)
        && let Ok(Some(token)) = console.parts.reads.token(session.token).await
    {
        let log = &console.security_log;
        log.known(&sender, &token, Action::SignOut, json!({}));
    }
    let mut response = see_other(SIGN_IN);
    let cookie = no_cookie(console.parts.is_behind_proxy);
    set(&mut response, SET_COOKIE, &cookie);
    response
}

/// Returns `path` if it is a path of this server, or `/`: a link must not send a person who has
/// just signed in to another site.
fn local(path: &str) -> &str {
    let is_local = path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains(|c: char| c == '\\' || c.is_control())
        && !path.starts_with(SIGN_IN);
    if is_local { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_sent_only_to_a_page_of_this_server() {
        assert_eq!(local("/jobs?state=parked"), "/jobs?state=parked");
        for wrong in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "/a\r\nx: y",
            "/\t/evil.example",
            "/sign-in?next=/",
        ] {
            assert_eq!(local(wrong), "/", "{wrong}");
        }
    }
}
