//! A job from its message to its end: stages, retries, waits, follow-ups, and the epoch that
//! fences its owner.

mod children;
mod crash_loop;
mod deadlines;
mod fence;
mod line;
mod resume;
mod retries;
mod takeover;
mod waits;
pub(crate) mod wake_ups;
