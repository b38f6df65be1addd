//! Waiting for conditions.

use std::time::Duration;

use tokio::time::Instant;

/// The polling interval.
const LOOK: Duration = Duration::from_millis(40);

/// Polls the condition until it returns `Ok`. Panics with its last error when the limit is over.
pub(crate) async fn wait_for<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    condition: impl AsyncFn() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(instead) if Instant::now() > deadline => {
                panic!("waited {} s for {what}; last: {instead}", limit.as_secs());
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
