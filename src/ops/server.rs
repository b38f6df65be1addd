//! The routes of the operations server, and the headers of every answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, html};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Mutex;

use super::health::{Readiness, livez, readyz};
use super::hosts::{HostNames, only_ours};

/// The state that the routes share.
#[derive(Clone)]
pub struct OpsState {
    pub(super) readiness: Arc<dyn Readiness>,
    /// Held by the one request that runs the readiness checks.
    pub(super) checking: Arc<Mutex<()>>,
    metrics: PrometheusHandle,
}

impl OpsState {
    /// Creates the state. `readiness` is for `/readyz`, `metrics` for `/metrics`.
    #[must_use]
    pub fn new(readiness: Arc<dyn Readiness>, metrics: PrometheusHandle) -> Self {
        Self {
            readiness,
            checking: Arc::default(),
            metrics,
        }
    }
}

/// The paths of [`router`] besides the index, with their meaning: the links of the index.
const LINKS: [(&str, &str); 3] = [
    ("/livez", "whether the process answers; checks nothing else"),
    (
        "/readyz",
        "whether the worker takes jobs, with the result of every check",
    ),
    ("/metrics", "metrics in the Prometheus text format"),
];

/// Returns the routes `/`, `/livez`, `/readyz` and `/metrics`, all `GET`, for requests to one of
/// `hosts`. Every answer has headers that prevent a browser from using it.
pub fn router(state: OpsState, hosts: HostNames) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .with_state(state)
        .layer(axum::middleware::from_fn_with_state(hosts, only_ours))
        .layer(axum::middleware::map_response(harden))
}

async fn index() -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "dispatch" } }
            body {
                h1 { "dispatch " (env!("CARGO_PKG_VERSION")) }
                ul {
                    @for (path, meaning) in LINKS {
                        li { a href=(path) { (path) } " " (meaning) }
                    }
                }
            }
        }
    };
    Html(page.into_string())
}

async fn metrics(State(state): State<OpsState>) -> Response {
    // <https://prometheus.io/docs/instrumenting/exposition_formats/>
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        state.metrics.render(),
    )
        .into_response()
}

async fn not_found() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "there is no such page; / lists the pages\n",
    )
}

async fn harden(mut response: Response) -> Result<Response, Infallible> {
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::ops::{Check, serve};

    struct Fake(Vec<Check>);

    impl Readiness for Fake {
        fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
            std::future::ready(self.0.clone()).boxed()
        }
    }

    fn check(name: &str, ok: bool) -> Check {
        Check {
            name: name.to_owned(),
            ok,
            detail: "as seen".to_owned(),
        }
    }

    /// Returns the whole answer to a `GET`, as sent.
    async fn get(readiness: Fake, path: &str) -> String {
        asked(readiness, &format!("GET {path}")).await
    }

    /// Returns the whole answer to a request line, which is passed without its version.
    async fn asked(readiness: Fake, line: &str) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("dispatch_takeovers_total").increment(1)
        });
        let state = OpsState::new(Arc::new(readiness), recorder.handle());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request =
                format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            cancel.cancel();
            answer
        };
        tokio::join!(
            serve(
                listener,
                router(state, HostNames::new(address, &[])),
                cancel.clone()
            ),
            client
        )
        .1
    }

    #[tokio::test]
    async fn a_worker_is_ready_if_every_check_succeeds_and_names_those_that_do_not() {
        let ready = get(
            Fake(vec![check("postgres", true), check("schema", true)]),
            "/readyz",
        )
        .await;
        assert!(
            ready.starts_with("HTTP/1.1 200 ") && ready.contains(r#""ready":true"#),
            "{ready}"
        );
        let not = get(
            Fake(vec![check("postgres", true), check("draining", false)]),
            "/readyz",
        )
        .await;
        assert!(not.starts_with("HTTP/1.1 503 "), "{not}");
        assert!(
            not.contains(r#""draining":{"detail":"as seen","ok":false}"#)
                && not.contains(r#""ready":false"#),
            "{not}"
        );
    }

    #[tokio::test]
    async fn a_process_is_alive_whatever_its_checks_report() {
        let alive = get(Fake(vec![check("postgres", false)]), "/livez").await;
        assert!(
            alive.starts_with("HTTP/1.1 200 ") && alive.ends_with("ok\n"),
            "{alive}"
        );
    }

    #[tokio::test]
    async fn every_answer_carries_the_headers_that_disarm_a_browser() {
        for (path, wanted) in [
            ("/", "href=\"/metrics\""),
            ("/metrics", "dispatch_takeovers_total 1"),
            ("/none", "no such page"),
        ] {
            let answer = get(Fake(Vec::new()), path).await;
            assert!(answer.contains(wanted), "{answer}");
            for header in [
                "x-content-type-options: nosniff",
                "content-security-policy: default-src 'none'",
            ] {
                assert!(answer.contains(header), "{path}: {answer}");
            }
        }
    }
    #[tokio::test]
    async fn only_reading_is_answered() {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = asked(Fake(Vec::new()), &format!("{method} /livez")).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        }
        let answer = asked(Fake(Vec::new()), "GET http://evil.example/metrics").await;
        assert!(
            answer.starts_with("HTTP/1.1 421 ")
                && answer.contains("nosniff")
                && !answer.contains("evil"),
            "{answer}"
        );
    }
}
