//! Whether the process lives and whether it is ready for work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::server::OpsState;

/// One thing that must be right before a worker is ready: `postgres`, `schema`, a lane, `draining`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Unique among a worker's checks, lowercase.
    pub name: String,
    /// Whether it is right.
    pub ok: bool,
    /// What was seen, or what would be right. Shown to whoever can reach the server: no secrets.
    pub detail: String,
}

/// Who knows whether the worker is ready.
pub trait Readiness: Send + Sync + 'static {
    /// Looks at everything now. A look that takes longer than 3 s is given up: then the worker is not ready.
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
}

/// The longest that a look is waited for; a probe's own timeout is to be longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The event loop answers: nothing else is looked at, so that an ill neighbour does not get the process killed.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 or 503, `{"ready": bool, "checks": {name: {"ok": bool, "detail": text}}}`.
pub(super) async fn readyz(State(state): State<OpsState>) -> Response {
    let checks = look(state.readiness.as_ref(), &state.looking, PATIENCE).await;
    let ready = checks.iter().all(|check| check.ok);
    let shown: Map<String, Value> =
        checks.into_iter().map(|check| (check.name, json!({"ok": check.ok, "detail": check.detail}))).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready, "checks": shown}))).into_response()
}

/// One look at a time, so that many who ask at once have no more than one connection to Postgres of the worker's between them.
async fn look(readiness: &dyn Readiness, looking: &Mutex<()>, patience: Duration) -> Vec<Check> {
    let in_turn = async {
        let _turn = looking.lock().await;
        readiness.checks().await
    };
    tokio::time::timeout(patience, in_turn).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {} s", patience.as_secs());
        vec![Check { name: "checks".to_owned(), ok: false, detail }]
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
    async fn a_look_that_hangs_is_not_ready() {
        let checks = look(&Hangs, &Mutex::default(), Duration::ZERO).await;
        assert!(!checks[0].ok && checks[0].detail.contains("no answer"), "{checks:?}");
    }
    /// Counts who looks at the same time.
    #[derive(Default)]
    struct Crowded {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Readiness for Crowded {
        fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
            async {
                self.most.fetch_max(1 + self.now.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                tokio::task::yield_now().await;
                self.now.fetch_sub(1, Ordering::Relaxed);
                Vec::new()
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_look_one_after_the_other() {
        let (crowded, looking) = (Crowded::default(), Mutex::default());
        let all = futures_util::future::join_all((0..50).map(|_| look(&crowded, &looking, PATIENCE))).await;
        assert!(all.iter().all(Vec::is_empty) && crowded.most.load(Ordering::Relaxed) == 1);
    }
}
