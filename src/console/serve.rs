//! The path of a request: host, session or token, role, form token, body, handler, headers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, ORIGIN, REFRESH, SET_COOKIE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Request};
use axum::response::Response;
use axum::routing::{MethodRouter, get, on};
use axum::{Extension, Router};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::auth::{
    SIGN_IN, Sender, SignedIn, post_sign_in, post_sign_out, recognise, show_sign_in,
};
use super::call::{Call, Form};
use super::live::{PageText, snapshot_key};
use super::problem::Problem;
use super::routes::{Access, Handler, Route, all};
use super::state::Console;
use super::{answer, choose, in_force, pages, query, schema};
use crate::pipelines::configuration_link;
use crate::store::{Action, Role};

/// The most bytes in the body of a request.
const BODY_BYTES: usize = 256 << 10;
/// The longest time until the body has arrived.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The header of a request that a page's script makes by itself.
const BY_ITSELF: &str = "x-by-itself";
/// The paths of the API begin with this.
pub(super) const API: &str = "/api/v1";

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Person,
    Program,
}

/// Returns the router of the console.
pub fn router(console: Arc<Console>) -> Router {
    let mut router = Router::new()
        .route(SIGN_IN, get(show_sign_in).post(post_sign_in))
        .route("/sign-out", axum::routing::post(post_sign_out))
        .route(
            &format!("{}{{token}}", configuration_link::PATH),
            get(choose::show).post(choose::choose),
        );
    for (path, media_type, text) in pages::FILES {
        router = router.route(
            path,
            get(move || async move { answer::file(media_type, text) }),
        );
    }
    for route in all() {
        if route.page.is_some() {
            router = router.route(route.path, method(route, Reader::Person));
        }
        if route.api.is_some() {
            let path = format!("{API}{}", route.path);
            router = router.route(&path, method(route, Reader::Program));
        }
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::clone(&console))
        .layer(axum::middleware::from_fn_with_state(console, guard))
}

fn method(route: &'static Route, reader: Reader) -> MethodRouter<Arc<Console>> {
    let filter = axum::routing::MethodFilter::try_from(route.method.clone())
        .expect("the table has only methods of HTTP");
    on(
        filter,
        move |State(console): State<Arc<Console>>,
              Extension(sender): Extension<Sender>,
              path: Result<Path<HashMap<String, String>>, PathRejection>,
              request: Request<Body>| async move {
            let Ok(Path(path)) = path else {
                return refuse(&request, Problem::not_found("the path is not text"));
            };
            let id = sender.id;
            let is_read = reader == Reader::Person && route.method == Method::GET;
            let seen = is_read.then(|| (request.uri().to_string(), request.headers().clone()));
            let answered = served(&console, route, reader, &sender, path, request).await;
            let answered = answered.inspect_err(|refused| refused.note(&console, route, &sender));
            match (answered, seen) {
                (Ok(response), Some((asked, headers))) => {
                    read(&console, (&headers, &sender), &asked, response)
                }
                (Ok(response), None) => response,
                (Err(refused), Some((asked, headers)))
                    if refused.problem.code == "postgres_away" =>
                {
                    let key = snapshot_key(&console, (&headers, &sender), &asked);
                    let kept = key.and_then(|key| console.snapshots.show(&key, &refused.problem));
                    kept.unwrap_or_else(|| refused.response(reader, id))
                }
                (Err(refused), _) => refused.response(reader, id),
            }
        },
    )
}

/// Finishes the answer to a person who reads a page: keeps it for a time without Postgres, lets the
/// browser load it again if the address asks for that, and leaves it out if the reader has it.
fn read(
    console: &Console,
    (headers, sender): (&HeaderMap, &Sender),
    asked: &str,
    mut response: Response,
) -> Response {
    let text = response.extensions().get::<PageText>().cloned();
    let (Some(PageText(text)), Some(tag)) = (text, response.headers().get(ETAG)) else {
        return response;
    };
    if let Some(key) = snapshot_key(console, (headers, sender), asked) {
        console.snapshots.keep(key, text);
    }
    if headers.get(IF_NONE_MATCH) == Some(tag) {
        return answer::not_modified(&response);
    }
    let query = asked.split_once('?').map_or("", |(_, query)| query);
    if let Some(seconds) = query::refresh(query) {
        answer::set(&mut response, REFRESH, &seconds.to_string());
    }
    response
}

/// A problem, with what its page needs.
struct Refused {
    problem: Problem,
    who: Option<SignedIn>,
    /// Whether the request has a token in a header.
    has_token: bool,
    /// Where the person wants to go.
    asked: String,
}

impl Refused {
    /// Adds the refusal of a change, and of what a role does not permit, to the audit log. A token
    /// that is not valid is there already.
    fn note(&self, console: &Console, route: &Route, sender: &Sender) {
        let after = || json!({"code": self.problem.code, "route": route.name});
        let (log, action) = (&console.security_log, Action::RefuseRequest);
        match (self.problem.code, &self.who) {
            ("forbidden", Some(who)) => log.known(sender, &who.token, action, after()),
            ("unauthorized", None) if route.method != Method::GET && !self.has_token => {
                log.unknown(sender, action, after());
            }
            _ => {}
        }
    }

    fn response(mut self, reader: Reader, id: Uuid) -> Response {
        self.problem.request_id = Some(id);
        if self.problem.status().is_server_error() {
            tracing::warn!(
                request.id = id.to_string(),
                code = self.problem.code,
                "a request to the console failed"
            );
        }
        match reader {
            Reader::Program => answer::problem(&self.problem),
            Reader::Person if self.problem.code == "unauthorized" => {
                let next = percent_encoding::utf8_percent_encode(
                    &self.asked,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                answer::see_other(&format!("{SIGN_IN}?next={next}"))
            }
            Reader::Person => pages::problem(&self.problem, self.who.as_ref()),
        }
    }
}

async fn served(
    console: &Arc<Console>,
    route: &'static Route,
    reader: Reader,
    sender: &Sender,
    path: HashMap<String, String>,
    request: Request<Body>,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let refused = |who: Option<&SignedIn>| {
        let (who, asked) = (who.cloned(), parts.uri.to_string());
        let has_token = parts.headers.contains_key(AUTHORIZATION);
        move |problem| Refused {
            problem,
            who,
            has_token,
            asked,
        }
    };
    let who = recognise(console, &parts.headers, sender)
        .await
        .map_err(refused(None))?;
    let mut who = permitted(route, who.clone()).map_err(refused(who.as_ref()))?;
    let left = console
        .rates
        .take(who.token.id)
        .map_err(refused(Some(&who)))?;
    if reader == Reader::Person && route.method == Method::GET {
        who.bar = in_force::read(console).await;
    }
    if route.method != Method::GET || route.action.is_some() {
        schema::permit_changes(console)
            .await
            .map_err(refused(Some(&who)))?;
    }
    let body = read_body(body).await.map_err(refused(Some(&who)))?;
    let form = is_form(&parts.headers).then(|| Form::parse(&body));
    let form = form.transpose().map_err(refused(Some(&who)))?;
    let call = Call {
        console: Arc::clone(console),
        route,
        who: who.clone(),
        sender: sender.clone(),
        path,
        asked: parts.uri.path().to_owned(),
        query: query::without_refresh(parts.uri.query().unwrap_or_default()),
        headers: parts.headers.clone(),
        body,
        form,
    };
    check_origin(&call, reader).map_err(refused(Some(&who)))?;
    let handler = match reader {
        Reader::Person => route.page,
        Reader::Program => route.api,
    };
    let handler = handler.ok_or_else(|| refused(Some(&who))(Problem::not_found("no such page")))?;
    let mut response = answered(handler, call).await.map_err(refused(Some(&who)))?;
    let left = format!("\"token\";r={}", left.0);
    let id = sender.id.to_string();
    for (name, value) in [("ratelimit", &left), ("x-request-id", &id)] {
        answer::set(&mut response, HeaderName::from_static(name), value);
    }
    if !is_by_itself(&parts) {
        renew(console, &who, &mut response);
    }
    Ok(response)
}

async fn answered(handler: Handler, call: Call) -> Result<Response, Problem> {
    let (console, token) = (Arc::clone(&call.console), call.who.token.clone());
    let answered = handler(call).await;
    if !token.was_used_lately {
        note_use(&console, token.id).await;
    }
    match answered {
        Err(problem) if problem.code == "internal" => {
            Err(schema::explained(&console, problem).await)
        }
        answered => answered,
    }
}

/// Notes that a token was used, unless the database has another schema. If the time of the last use
/// is missing, that is no reason to refuse an answer.
async fn note_use(console: &Console, token: i64) {
    let schema = console.panels.schema(&console.parts.reads).await;
    if matches!(schema.value(), Some(None)) {
        drop(console.parts.acts.token_used(token).await);
    }
}

/// Returns who asks, if the route permits it.
pub(super) fn permitted(route: &Route, who: Option<SignedIn>) -> Result<SignedIn, Problem> {
    let who = who.ok_or_else(|| Problem::unauthorized("expected a token, got none"))?;
    if !route.permits(who.token.role) {
        return Err(Problem::forbidden(format!(
            "expected the role `{}` or one that may do more, got `{}`",
            route.least().map_or("producer", Role::word),
            who.token.role.word()
        )));
    }
    let is_wide = matches!(
        route.access,
        Access::From {
            is_scoped: false,
            ..
        }
    );
    if is_wide && !who.sees_all() {
        return Err(Problem::not_found(
            "a token that is limited to organizations or to a source sees jobs only",
        ));
    }
    Ok(who)
}

pub(super) async fn read_body(body: Body) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_BYTES)).await;
    match read {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::too_large(format!(
            "expected at most {BODY_BYTES} bytes that arrive whole"
        ))),
        Err(_) => Err(Problem::invalid_request(format!(
            "expected the whole body within {} s",
            BODY_TIME.as_secs()
        ))),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    media_type.is_some_and(|text| text.starts_with("application/x-www-form-urlencoded"))
}

/// Checks that a change by a session was made on a page of this console: with the origin that the
/// browser states, and with the session's form token. A token in a header needs neither: no other
/// site can make a browser send it.
fn check_origin(call: &Call, reader: Reader) -> Result<(), Problem> {
    if call.route.method == Method::GET {
        return Ok(());
    }
    let Some(session) = &call.who.session else {
        let is_json = call.form.is_none();
        return if reader == Reader::Person || is_json {
            Ok(())
        } else {
            Err(Problem::unsupported("expected JSON, got a form"))
        };
    };
    if !is_own_origin(&call.headers) {
        return Err(Problem::forbidden(
            "expected a request from a page of this console, got one of another site",
        ));
    }
    let token = call.form.as_ref().and_then(|form| form.form_token.as_ref());
    if token.is_some_and(|token| session.has_form_token(token)) {
        Ok(())
    } else {
        Err(
            Problem::forbidden("expected the form of this session, got another or an old one")
                .hint("Load the page again, then repeat."),
        )
    }
}

/// Returns whether a browser made the request on a page of this server. Browsers state it in
/// `Sec-Fetch-Site` where they trust the connection; elsewhere in `Origin`, which is `null` for
/// pages without a referrer.
pub(super) fn is_own_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = text(ORIGIN.as_str()).and_then(|origin| origin.split_once("://"));
    match (origin, text(HOST.as_str())) {
        (Some((_, of)), Some(host)) => of.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Returns whether a page reads itself again, which does not keep a session from ending.
fn is_by_itself(parts: &Parts) -> bool {
    parts.headers.contains_key(BY_ITSELF)
        || query::refresh(parts.uri.query().unwrap_or_default()).is_some()
}

fn renew(console: &Console, who: &SignedIn, response: &mut Response) {
    let renewed = who
        .session
        .as_ref()
        .and_then(|session| session.renewed(OffsetDateTime::now_utc()));
    if let Some(session) = renewed {
        let cookie = session.cookie(&console.parts.keyring, console.parts.is_behind_proxy);
        answer::set(response, SET_COOKIE, &cookie);
    }
}

/// Refuses requests for another host, and hardens every answer.
async fn guard(
    State(console): State<Arc<Console>>,
    mut request: Request<Body>,
    next: axum::middleware::Next,
) -> Response {
    let sender = Sender::of(console.parts.proxy.as_ref(), &mut request);
    request.extensions_mut().insert(sender);
    let mut response = if console.parts.hosts.names(&request) {
        next.run(request).await
    } else {
        answer::problem(&Problem::wrong_host(
            "expected a name of this server as the Host, got another one",
        ))
    };
    answer::harden(&mut response);
    response
}

async fn not_found(request: Request<Body>) -> Response {
    refuse(&request, Problem::not_found("there is no such page"))
}

async fn method_not_allowed(request: Request<Body>) -> Response {
    refuse(
        &request,
        Problem::method_not_allowed("the path has no such method"),
    )
}

fn refuse(request: &Request<Body>, problem: Problem) -> Response {
    if request.uri().path().starts_with(API) {
        answer::problem(&problem)
    } else {
        pages::problem(&problem, None)
    }
}
