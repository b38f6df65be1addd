//! Points at which a test can abort the process as `kill -9` would: no destructor runs, no answer
//! is sent.

#[cfg(feature = "devkit")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct CrashPoint {
        stage: String,
        point: String,
        /// The process aborts when the point is reached for this many more times.
        countdown: AtomicU32,
    }

    static ARMED: OnceLock<CrashPoint> = OnceLock::new();

    /// Arms `stage:point[:n]`: the process aborts the n-th time the point is reached. Returns
    /// `false` if the setting cannot be parsed.
    pub fn arm(setting: &str) -> bool {
        let mut parts = setting.split(':');
        let (Some(stage), Some(point)) = (parts.next(), parts.next()) else {
            return false;
        };
        let Ok(countdown) = parts.next().unwrap_or("1").parse::<u32>() else {
            return false;
        };
        let crash_point = CrashPoint {
            stage: stage.to_owned(),
            point: point.to_owned(),
            countdown: AtomicU32::new(countdown),
        };
        countdown > 0 && ARMED.set(crash_point).is_ok()
    }

    pub(crate) fn reach(stage: &str, point: &str) {
        let Some(armed) = ARMED.get() else { return };
        if armed.stage == stage
            && armed.point == point
            && armed.countdown.fetch_sub(1, Ordering::SeqCst) == 1
        {
            tracing::error!(
                stage,
                point,
                "the crash point is reached; the process aborts"
            );
            std::process::abort();
        }
    }
}

#[cfg(feature = "devkit")]
pub use armed::arm;

/// Records that `stage` has reached `point`: `after_claim`, `after_intent`, `after_call`,
/// `after_commit` or `after_publish`; if it refreshes tokens, also `after_refresh_answer` and
/// `after_refresh_saved`. Aborts the process if that crash point is armed.
pub(crate) fn reach(stage: &str, point: &str) {
    #[cfg(feature = "devkit")]
    armed::reach(stage, point);
    #[cfg(not(feature = "devkit"))]
    let _ = (stage, point);
}
