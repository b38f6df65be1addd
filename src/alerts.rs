//! The alerts of `deploy/alerts.yml`, each with its runbook: the list that the console's pages
//! `/go/{Alert}` are for.

/// An alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Its name in Prometheus, and that of its runbook in `deploy/runbooks/`.
    pub name: &'static str,
    /// `critical`, `warning` or `info`.
    pub severity: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The runbook, Markdown.
    pub runbook: &'static str,
}

/// Declares [`ALERTS`]: name, severity and summary of each.
macro_rules! alerts {
    ($($name:literal $severity:literal $summary:literal;)+) => {
        /// Every alert, in the order of the file.
        pub const ALERTS: &[Alert] = &[$(Alert {
            name: $name,
            severity: $severity,
            summary: $summary,
            runbook: include_str!(concat!("../deploy/runbooks/", $name, ".md")),
        }),+];
    };
}

alerts! {
    "DispatchWorkerDown" "critical" "No worker is scraped";
    "DispatchNotReady" "critical" "A worker is not ready";
    "DispatchLinkDown" "critical" "A worker has lost the link to Postgres or RabbitMQ";
    "DispatchBacklogOld" "warning" "Due jobs wait too long for their turn";
    "DispatchParkedGrowing" "warning" "Many jobs are parked";
    "DispatchErrorBudget" "warning" "More than 5 % of the finished jobs are parked";
    "DispatchUnknownOutcome" "warning" "An effect has an unknown outcome";
    "DispatchStuck" "warning" "Jobs are stuck for a reason that workers should have removed";
    "DispatchTakeovers" "warning" "Replicas lose their jobs often";
    "DispatchDutyLate" "warning" "A duty of a worker is late";
    "DispatchDeadLetters" "warning" "Messages are refused as dead letters";
    "DispatchIntakePaused" "warning" "Intake is paused";
    "DispatchHoldLong" "info" "A hold has been in force for more than four hours";
    "DispatchPartitionsMissing" "warning" "Monthly partitions of the history are missing";
}
