//! Liveness and readiness of the process.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::server::OpsState;

/// One condition of a worker's readiness: `postgres`, `schema`, a lane, `draining`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The name, lowercase and unique among the checks of a worker.
    pub name: String,
    /// Whether the condition holds.
    pub ok: bool,
    /// What was found, or what is expected. Everyone who can reach the server can read it: no
    /// secrets.
    pub detail: String,
}

/// The source of the readiness checks.
pub trait Readiness: Send + Sync + 'static {
    /// Runs all checks now. If they take longer than 3 s, they are abandoned and the worker is not
    /// ready.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// The longest time for the checks. The timeout of a probe must be longer.
pub(super) const CHECKS_LIMIT: Duration = Duration::from_secs(3);

/// Answers as long as the event loop runs. Nothing else is checked, so an unavailable dependency
/// does not get the process killed.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Answers 200 or 503 with `{"ready": bool, "checks": {name: {"ok": bool, "detail": text}}}`.
pub(super) async fn readyz(State(state): State<OpsState>) -> Response {
    let checks = run_checks(state.readiness.as_ref(), &state.checking, CHECKS_LIMIT).await;
    let ready = checks.iter().all(|check| check.ok);
    let shown: Map<String, Value> = checks
        .into_iter()
        .map(|check| (check.name, json!({"ok": check.ok, "detail": check.detail})))
        .collect();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"ready": ready, "checks": shown}))).into_response()
}

/// Runs the checks of one request at a time, so that concurrent requests use no more than one of
/// the worker's connections to Postgres.
async fn run_checks(
    readiness: &dyn Readiness,
    checking: &Mutex<()>,
    limit: Duration,
) -> Vec<Check> {
    let in_turn = async {
        let _turn = checking.lock().await;
        readiness.checks().await
    };
    tokio::time::timeout(limit, in_turn)
        .await
        .unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", limit.as_secs());
            vec![Check {
                name: "checks".to_owned(),
                ok: false,
                detail,
            }]
        })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    struct Hangs;

    impl Readiness for Hangs {
        fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn checks_that_hang_are_not_ready() {
        let checks = run_checks(&Hangs, &Mutex::default(), Duration::ZERO).await;
        assert!(
            !checks[0].ok && checks[0].detail.contains("no answer"),
            "{checks:?}"
        );
    }
    /// Counts checks that run at the same time.
    #[derive(Default)]
    struct Crowded {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Readiness for Crowded {
        fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
            async {
                self.most.fetch_max(
                    1 + self.now.fetch_add(1, Ordering::Relaxed),
                    Ordering::Relaxed,
                );
                tokio::task::yield_now().await;
                self.now.fetch_sub(1, Ordering::Relaxed);
                Vec::new()
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn concurrent_requests_run_the_checks_one_after_the_other() {
        let (crowded, checking) = (Crowded::default(), Mutex::default());
        let all = futures_util::future::join_all(
            (0..50).map(|_| run_checks(&crowded, &checking, CHECKS_LIMIT)),
        )
        .await;
        assert!(all.iter().all(Vec::is_empty) && crowded.most.load(Ordering::Relaxed) == 1);
    }
}
