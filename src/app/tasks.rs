//! The tasks of a worker process: how they are spawned, and how they end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Spawn;

/// The tasks of the process, and the tokens that end them.
pub(super) struct Tasks {
    tracker: TaskTracker,
    pub(super) spawn: Spawn,
    /// Cancelled when the process takes no further jobs.
    pub(super) drain: CancellationToken,
    /// Cancelled when everything that still runs must end.
    pub(super) end: CancellationToken,
}

impl Tasks {
    pub(super) fn new() -> Self {
        let tracker = TaskTracker::new();
        Self {
            spawn: spawner(&tracker),
            tracker,
            drain: CancellationToken::new(),
            end: CancellationToken::new(),
        }
    }

    pub(super) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        (self.spawn)(name, Box::pin(task));
    }

    /// Cancels everything that still runs, and waits for it for a limited time.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        self.end.cancel();
        self.tracker.close();
        // Long enough for refreshed tokens to be saved.
        drop(tokio::time::timeout(Duration::from_secs(6), self.tracker.wait()).await);
        tracing::info!("drained");
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub(super) fn spawner(tasks: &TaskTracker) -> Spawn {
    use tracing::Instrument;
    let tasks = tasks.clone();
    Arc::new(move |name, work| {
        tokio::spawn(tasks.track_future(work.instrument(tracing::debug_span!("run", name))));
    })
}

/// Waits for signals: the first one drains the worker, the second one ends the process.
pub(super) async fn drain_on_signals(drain: CancellationToken, end: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!(
            "the signal handlers cannot be installed: the worker does not drain on SIGTERM or SIGINT"
        );
        return;
    };
    for last in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end.cancelled() => return,
        }
        if last {
            tracing::warn!("a second signal arrived; the process ends at once");
            std::process::exit(1);
        }
        tracing::info!("the worker drains: it finishes the stages in hand and takes nothing new");
        drain.cancel();
    }
}
