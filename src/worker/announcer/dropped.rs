//! Reports dropped events and replies: each is counted at once, and logged within a second.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::verdict::{Dropped, What, Why};
use crate::job::JobId;
use crate::telemetry::names;

/// The interval between log lines: while a subscriber's queue is full, events are dropped as fast
/// as they are made.
const EVERY: Duration = Duration::from_secs(1);
/// The most jobs that a log line names.
const NAMED: usize = 20;

/// The dropped events and replies that are not logged yet.
#[derive(Default)]
pub(super) struct Drops {
    kinds: BTreeMap<(What, Why), Named>,
    /// When the next log lines are due.
    at: Option<Instant>,
}

#[derive(Default)]
struct Named {
    count: usize,
    jobs: Vec<JobId>,
}

impl Drops {
    /// Counts dropped messages.
    pub(super) fn add(&mut self, dropped: impl IntoIterator<Item = Dropped>) {
        for Dropped { what, why, job } in dropped {
            metrics::counter!(names::DROPPED, "what" => what.word(), "why" => why.word())
                .increment(1);
            let kind = self.kinds.entry((what, why)).or_default();
            kind.count += 1;
            kind.jobs.extend(job.filter(|_| kind.jobs.len() < NAMED));
            self.at.get_or_insert_with(|| Instant::now() + EVERY);
        }
    }

    /// Waits until log lines are due.
    pub(super) async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Logs a line for each kind and reason with dropped messages.
    pub(super) fn log(&mut self) {
        for ((what, why), Named { count, jobs }) in std::mem::take(&mut self.kinds) {
            let jobs: Vec<String> = jobs.iter().map(JobId::to_string).collect();
            tracing::warn!(
                what = what.word(),
                why = why.word(),
                dropped = count,
                job.ids = jobs.join(", "),
                "outcome events or replies are dropped: they are not published again"
            );
        }
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_all_and_names_twenty() {
        let mut drops = Drops::default();
        let one = Dropped {
            what: What::Event,
            why: Why::Refused,
            job: Some(JobId::fresh()),
        };
        drops.add([one; 30]);
        drops.add([Dropped {
            what: What::Reply,
            job: None,
            ..one
        }]);
        let logged: Vec<_> = drops
            .kinds
            .values()
            .map(|named| (named.count, named.jobs.len()))
            .collect();
        assert_eq!(logged, [(30, NAMED), (1, 0)]);
        assert!(drops.at.is_some());
        drops.log();
        assert!(drops.kinds.is_empty() && drops.at.is_none());
    }
}
