//! Answers of the console, and the headers that each of them has.

use axum::body::{Body, Bytes};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use maud::Markup;
use serde::Serialize;

use super::live::{PageText, tag};
use super::problem::Problem;
use super::routes::NDJSON;

/// Nothing but files and requests of the console itself; no script in a page's text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dispatch";

/// Returns JSON.
///
/// # Errors
/// [`Problem`] if the value cannot be encoded.
pub(super) fn json(value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(of("application/json", body))
}

/// Returns JSON with an entity tag.
///
/// # Errors
/// [`Problem`] if the value cannot be encoded.
pub(super) fn json_tagged(value: &impl Serialize, tag: &str) -> Result<Response, Problem> {
    let mut response = json(value)?;
    set(&mut response, ETAG, &format!("\"{tag}\""));
    Ok(response)
}

/// Returns JSON documents, each on a line.
pub(super) fn lines(text: Vec<u8>) -> Response {
    of(NDJSON, text)
}

/// Returns a page. One with parts has an entity tag, see `live`.
pub(super) fn page(markup: Markup) -> Response {
    text_page(markup.into_string())
}

/// Returns a page whose text is there already.
pub(super) fn text_page(text: String) -> Response {
    let tag = tag(&text);
    let text = Bytes::from(text);
    let mut response = of("text/html; charset=utf-8", text.clone());
    if let Some(tag) = tag {
        set(&mut response, ETAG, &tag);
    }
    response.extensions_mut().insert(PageText(text));
    response
}

/// Returns that a page is as the reader knows it.
pub(super) fn not_modified(response: &Response) -> Response {
    let mut unchanged = Response::new(Body::empty());
    *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [ETAG, SET_COOKIE] {
        if let Some(value) = response.headers().get(&name) {
            unchanged.headers_mut().insert(name, value.clone());
        }
    }
    unchanged
}

/// Returns a file that belongs to the program.
pub(super) fn file(media_type: &'static str, text: &'static str) -> Response {
    of(media_type, text.as_bytes())
}

/// Sends the browser to another page (303, so that it reads that page).
pub(super) fn see_other(path: &str) -> Response {
    let mut response = of(
        "text/plain; charset=utf-8",
        b"see the other page\n".as_slice(),
    );
    *response.status_mut() = StatusCode::SEE_OTHER;
    set(&mut response, LOCATION, path);
    response
}

/// Returns a problem for a program.
pub(super) fn problem(problem: &Problem) -> Response {
    let body = serde_json::to_vec(&**problem).unwrap_or_default();
    let mut response = of("application/problem+json", body);
    finish_problem(&mut response, problem);
    response
}

/// Sets the status of a problem and the headers that go with it.
pub(super) fn finish_problem(response: &mut Response, problem: &Problem) {
    *response.status_mut() = problem.status();
    if let Some(seconds) = problem.retry_after {
        set(response, RETRY_AFTER, &seconds.to_string());
    }
    if problem.status() == StatusCode::UNAUTHORIZED {
        set(response, WWW_AUTHENTICATE, "Bearer");
    }
}

/// Sets a header; a value that no header can have is left out.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn of(media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Adds the headers that keep a browser from using an answer otherwise than meant.
pub(super) fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
