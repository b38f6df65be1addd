//! The alerts of `deploy/alerts.yml`: the list that the console's pages `/go/{Alert}` are for.

/// An alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Its name in Prometheus, and that of its runbook in `deploy/runbooks/`.
    pub name: &'static str,
    /// `critical`, `warning` or `info`.
    pub severity: &'static str,
    /// One sentence.
    pub summary: &'static str,
}

/// Every alert, in the order of the file.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "DispatchWorkerDown",
        severity: "critical",
        summary: "No worker is scraped",
    },
    Alert {
        name: "DispatchNotReady",
        severity: "critical",
        summary: "A worker is not ready",
    },
    Alert {
        name: "DispatchLinkDown",
        severity: "critical",
        summary: "A worker has lost the link to Postgres or RabbitMQ",
    },
    Alert {
        name: "DispatchBacklogOld",
        severity: "warning",
        summary: "Due jobs wait too long for their turn",
    },
    Alert {
        name: "DispatchParkedGrowing",
        severity: "warning",
        summary: "Many jobs are parked",
    },
    Alert {
        name: "DispatchErrorBudget",
        severity: "warning",
        summary: "More than 5 % of the finished jobs are parked",
    },
    Alert {
        name: "DispatchUnknownOutcome",
        severity: "warning",
        summary: "An effect has an unknown outcome",
    },
    Alert {
        name: "DispatchStuck",
        severity: "warning",
        summary: "Jobs are stuck for a reason that workers should have removed",
    },
    Alert {
        name: "DispatchTakeovers",
        severity: "warning",
        summary: "Replicas lose their jobs often",
    },
    Alert {
        name: "DispatchDutyLate",
        severity: "warning",
        summary: "A duty of a worker is late",
    },
    Alert {
        name: "DispatchDeadLetters",
        severity: "warning",
        summary: "Messages are refused as dead letters",
    },
    Alert {
        name: "DispatchIntakePaused",
        severity: "warning",
        summary: "Intake is paused",
    },
    Alert {
        name: "DispatchHoldLong",
        severity: "info",
        summary: "A hold has been in force for more than four hours",
    },
    Alert {
        name: "DispatchPartitionsMissing",
        severity: "warning",
        summary: "Monthly partitions of the history are missing",
    },
];
