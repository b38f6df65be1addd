//! `/events`: the stream that says which parts of a page have changed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::parts::{PageText, stated};
use super::streams::Open;
use crate::console::auth::recognise;
use crate::console::call::Call;
use crate::console::in_force;
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{Access, Parameter, Route, all, handler, schema};
use crate::console::serve::permitted;
use crate::store::Role;

/// How often a page is looked at while its stream is open.
const EVERY: Duration = Duration::from_secs(2);
/// How long a stream stays open. A browser opens it again by itself.
const LASTS: Duration = Duration::from_secs(50);
/// When a browser opens an ended stream again.
const AGAIN: Duration = Duration::from_secs(1);

pub(in crate::console) const ROUTES: &[Route] = &[Route {
    name: "events",
    method: Method::GET,
    path: "/events",
    about: "Streams which parts of a page have changed (server-sent events)",
    access: Access::From {
        role: Role::Viewer,
        is_scoped: true,
    },
    action: None,
    parameters: &[Parameter {
        name: "page",
        about: "the path of the page, with its query",
        is_several: false,
    }],
    input: None,
    output: schema::<String>,
    media_type: "text/event-stream",
    api: Some(handler!(events)),
    page: Some(handler!(events)),
}];

#[derive(Debug, Deserialize)]
struct EventQuery {
    page: String,
}

/// A page that somebody reads, and what its reader knows of it.
struct Watched {
    call: Call,
    known: Option<String>,
    ends_at: Instant,
    /// The time until the next look.
    pause: Duration,
    /// The result of the first look.
    first: Option<Result<String, Problem>>,
    _open: Open,
}

async fn events(call: Call) -> Result<Response, Problem> {
    let EventQuery { page } = call.query()?;
    let open = call.console.streams.enter(call.who.token.id)?;
    let call = of_page(&call, &page)?;
    let mut watched = Watched {
        call,
        known: None,
        ends_at: Instant::now() + LASTS,
        pause: EVERY,
        first: None,
        _open: open,
    };
    watched.first = Some(match look(&mut watched).await {
        Ok(versions) if versions.is_empty() => {
            return Err(Problem::invalid_filter(format!(
                "expected a page that follows what it shows, got `{page}`"
            )));
        }
        found => found,
    });
    let events = stream::unfold(watched, |watched| Box::pin(next(watched)));
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// Returns the request for a page by the sender of `call`.
fn of_page(call: &Call, page: &str) -> Result<Call, Problem> {
    let (asked, query) = page.split_once('?').unwrap_or((page, ""));
    let found = all()
        .filter(|route| route.method == Method::GET && route.has_page() && route.name != "events")
        .find_map(|route| Some((route, parts_of(route.path, asked)?)));
    let (route, path) = found.ok_or_else(|| {
        Problem::invalid_filter(format!("expected the path of a page, got `{page}`"))
    })?;
    permitted(route, Some(call.who.clone()))?;
    let query = query::without_refresh(query);
    Ok(call.to_read(call.who.clone(), (route, path), (asked, &query)))
}

/// Returns the named parts of a path that fits `pattern`.
fn parts_of(pattern: &str, path: &str) -> Option<HashMap<String, String>> {
    let (mut names, mut parts) = (pattern.split('/'), path.split('/'));
    let mut found = HashMap::new();
    loop {
        match (names.next(), parts.next()) {
            (None, None) => return Some(found),
            (Some(name), Some(part)) => {
                let variable = name
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_suffix('}'));
                match variable {
                    Some(variable) if !part.is_empty() => {
                        found.insert(variable.to_owned(), decoded(part)?);
                    }
                    None if name == part => {}
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
}

fn decoded(part: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(part).decode_utf8();
    text.ok().map(std::borrow::Cow::into_owned)
}

/// Waits until there is something to say about the page. Ends after its time, and when the session
/// or the token has ended.
async fn next(mut watched: Watched) -> Option<(Result<Event, Infallible>, Watched)> {
    loop {
        if Instant::now() >= watched.ends_at {
            return None;
        }
        let found = match watched.first.take() {
            Some(found) => found,
            None => {
                tokio::time::sleep(watched.pause).await;
                look(&mut watched).await
            }
        };
        let event = match found {
            Ok(versions) if watched.known.as_ref() == Some(&versions) => continue,
            Ok(versions) => {
                watched.known = Some(versions.clone());
                Event::default().event("versions").data(versions)
            }
            Err(problem) if problem.status().is_server_error() => {
                watched.known = None;
                let why = json!({"title": problem.title, "hint": problem.hint});
                Event::default().event("away").data(why.to_string())
            }
            Err(problem) if problem.status() == StatusCode::TOO_MANY_REQUESTS => continue,
            // The token may do this no longer: the next request of the page says so.
            Err(_) => return None,
        };
        return Some((Ok(event.retry(AGAIN)), watched));
    }
}

/// Returns the versions of the page as it is now. The next look waits at least as long as this one
/// takes.
async fn look(watched: &mut Watched) -> Result<String, Problem> {
    let begun = Instant::now();
    let versions = versions_now(&watched.call).await;
    watched.pause = EVERY.max(begun.elapsed());
    versions
}

async fn versions_now(call: &Call) -> Result<String, Problem> {
    let who = recognise(&call.console, &call.headers, &call.sender).await?;
    let mut who = permitted(call.route, who)?;
    call.console.rates.take(who.token.id)?;
    who.bar = in_force::read(&call.console).await;
    let place = (call.route, call.path.clone());
    let call = call.to_read(who, place, (&call.asked, &call.query));
    let page = call
        .route
        .page
        .ok_or_else(|| Problem::not_found("no such page"))?;
    let answer = page(call).await?;
    let text = answer.extensions().get::<PageText>();
    let text = text.and_then(|text| std::str::from_utf8(&text.0).ok());
    Ok(text.and_then(stated).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_the_pattern_of_its_route_only() {
        let id = parts_of("/jobs/{id}", "/jobs/a%20b").expect("it fits");
        assert_eq!(id["id"], "a b");
        assert_eq!(parts_of("/", "/"), Some(HashMap::new()));
        for (pattern, path) in [
            ("/jobs/{id}", "/jobs"),
            ("/jobs/{id}", "/jobs/"),
            ("/jobs/{id}", "/jobs/1/timeline"),
            ("/jobs", "/groups"),
            ("/", "/jobs"),
            ("/jobs/{id}", "/jobs/%ff"),
        ] {
            assert_eq!(parts_of(pattern, path), None, "{pattern} {path}");
        }
    }
}
