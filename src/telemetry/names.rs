//! Names of metrics, each with its labels. The label sets are closed: no job id, tenant, URL or
//! free text.

/// Histogram in seconds, `pipeline`, `stage`, `outcome`: durations of stage runs, without
/// their commits.
pub const STAGE_SECONDS: &str = "dispatch_stage_seconds";
/// The buckets of a stage's duration, in seconds: from a local commit to the longest time that a
/// stage may take.
pub const STAGE_BUCKETS: [f64; 14] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 300.0,
];
/// Counter, `pipeline`, `state`: claims that ended with a commit, by the state of the job
/// after it.
pub const JOBS: &str = "dispatch_jobs_total";
/// Counter: jobs made of messages; follow-ups are not counted.
pub const ACCEPTED: &str = "dispatch_jobs_accepted_total";
/// Counter, `pipeline`, `stage`, `outcome`: attempts that did not succeed.
pub const ATTEMPTS: &str = "dispatch_attempts_total";
/// Counter: jobs taken over from dead replicas.
pub const TAKEOVERS: &str = "dispatch_takeovers_total";
/// Counter: runs that ended because another owner or an action had raised the job's epoch.
pub const FENCED: &str = "dispatch_fenced_total";
/// Counter: wake-ups published.
pub const WAKEUPS: &str = "dispatch_wakeups_total";
/// Counter: wake-ups for jobs without a row.
pub const WAKEUPS_WITHOUT_ROW: &str = "dispatch_wakeups_without_row_total";
/// Counter: published messages that RabbitMQ returned, because no queue is bound for them.
pub const RETURNED_PUBLISHES: &str = "dispatch_returned_publishes_total";
/// Counter, `link`: connections made again after they were lost.
pub const RECONNECTS: &str = "dispatch_reconnects_total";
/// Counter: consumers that RabbitMQ cancelled.
pub const CONSUMER_CANCELS: &str = "dispatch_consumer_cancels_total";
/// Counter, `code`: messages that became dead letters.
pub const DEAD_LETTERS: &str = "dispatch_dead_letters_total";
/// Counter, `what` (`event`, `reply`), `why` (`refused`, `unconfirmed`, `returned`,
/// `too_old`): outcome events and replies dropped.
pub const DROPPED: &str = "dispatch_events_dropped_total";
/// Counter: effects with an unknown outcome.
pub const UNKNOWN_EFFECTS: &str = "dispatch_unknown_effects_total";
/// Counter, `lane`: messages received.
pub const DELIVERIES: &str = "dispatch_deliveries_total";
/// Histogram in rows: sizes of group commits, each one transaction of claims and plain
/// commits.
pub const GROUP_ROWS: &str = "dispatch_group_rows";
/// Counter, `code`: calls that failed because Postgres or RabbitMQ was unavailable.
pub const INFRASTRUCTURE_ERRORS: &str = "dispatch_infrastructure_errors_total";
/// Gauge: 1 while intake is paused, because too many jobs wait or too many dead letters are
/// open.
pub const INTAKE_PAUSED: &str = "dispatch_intake_paused";
/// Gauge in bytes: memory charged to messages that are not rows yet. At
/// `DISPATCH_INTAKE_BYTES` no further ones are read.
pub const INTAKE_BYTES: &str = "dispatch_intake_bytes";
/// Counter, `kind` (`open`, `later`, `waiting`, `dead_letters`, `keys`), `by` (`producer`,
/// `organization`): messages, or bodies of dead letters, that a quota had no room for.
pub const QUOTA_REFUSALS: &str = "dispatch_quota_refusals_total";
/// Gauge, `kind`, `by`: usage of the fullest quota that this process has used lately; 1 is
/// full.
pub const QUOTA_FULLEST: &str = "dispatch_quota_fullest";
/// Histogram in seconds, `duty`: durations of a duty's runs.
pub const DUTY_SECONDS: &str = "dispatch_duty_seconds";
/// Gauge, `duty`: 1 while the duty is late.
pub const DUTY_LATE: &str = "dispatch_duty_late";
/// Gauge, `provider`: destinations whose circuit breaker is open or lets one probe through, in
/// this process.
pub const OPEN_CIRCUITS: &str = "dispatch_open_circuits";
/// Counter, `provider`: holds placed.
pub const HOLDS_PLACED: &str = "dispatch_holds_placed_total";
/// Histogram in seconds: waits for a connection of the pool to Postgres.
pub const POOL_WAIT_SECONDS: &str = "dispatch_pool_wait_seconds";
/// Counter, `class` (`connection`, `resources`, `shutdown`, `system`, `read_only`, `contention`,
/// `timeout`, `no_answer`, `refused`): statements that Postgres did not carry out.
pub const POSTGRES_ERRORS: &str = "dispatch_postgres_errors_total";
/// Counter, `duty`, `outcome`: runs of a duty: `done`; `more` if the time limit ended the run
/// first; `failed`; `cut` if a round did not return in time.
pub const DUTY_RUNS: &str = "dispatch_duty_runs_total";
/// Counter, `pipeline`, `stage`, `outcome` (`confirmed`, `failed`, `unknown`): effects by what is
/// known of them.
pub const EFFECTS: &str = "dispatch_effects_total";
/// Gauge, `lane`, `state` (`ready`, `running`, `waiting`, `parked`): open jobs, of each state at
/// most 10,001 of all lanes.
pub const OPEN_JOBS: &str = "dispatch_open_jobs";
/// Gauge, `lane`: jobs that are due and have no wake-up, at most 10,001.
pub const DUE_JOBS: &str = "dispatch_due_jobs";
/// Gauge in seconds, `lane`: how long the oldest due job without a wake-up has been due.
pub const OLDEST_DUE_SECONDS: &str = "dispatch_oldest_due_seconds";
/// Gauge: open dead letters, counted up to the limit of the backlog.
pub const OPEN_DEAD_LETTERS: &str = "dispatch_open_dead_letters";
/// Gauge in seconds: the age of the oldest hold in force.
pub const OLDEST_HOLD_SECONDS: &str = "dispatch_oldest_hold_seconds";
/// Gauge: monthly partitions that are missing, of this month, the next three, and the months of
/// rows in a default partition.
pub const MISSING_PARTITIONS: &str = "dispatch_missing_partitions";
/// Gauge in bytes: the size of the database.
pub const DATABASE_BYTES: &str = "dispatch_database_bytes";
/// Gauge: replicas that are needed for the work that replicas can do now.
pub const DESIRED_REPLICAS: &str = "dispatch_desired_replicas";
/// Gauge, `lane`, `part` (`ready`, `in_flight`, `due_60s`, `waits_on_vendor`): the jobs from which
/// the number of replicas is computed. Those that wait on a vendor are shown and not counted.
pub const SCALE_JOBS: &str = "dispatch_scale_jobs";
/// Gauge, `lane`: permits in use.
pub const PERMITS_USED: &str = "dispatch_permits_used";
/// Gauge, `lane`: the concurrency limit of the lane in this process.
pub const PERMITS: &str = "dispatch_permits";
/// Gauge, `queue`: messages of the queue of a lane that no consumer has received yet, as this
/// process last saw it.
pub const QUEUE_MESSAGES: &str = "dispatch_queue_messages";
/// Gauge: 1 while every check of `/readyz` succeeds.
pub const READY: &str = "dispatch_ready";
/// Gauge, `link` (`postgres`, `publisher`, and each lane with a consumer): 1 while the link works.
pub const LINK_UP: &str = "dispatch_link_up";
/// Gauge, `code`: jobs that do not move, by stuck code; counted up to 10,000.
pub const STUCK: &str = "dispatch_stuck";
/// Gauge: kill switches in force whose matcher this worker does not understand.
pub const KILL_SWITCHES_NOT_UNDERSTOOD: &str = "dispatch_kill_switches_not_understood";
/// Counter, `action`: jobs that a kill switch has parked or cancelled.
pub const KILLED: &str = "dispatch_jobs_killed_total";
/// Counter: spans that the collector of `DISPATCH_OTLP_ENDPOINT` has accepted.
pub const EXPORTED_SPANS: &str = "dispatch_otlp_spans_total";
/// Counter, `why` (`queue_full`, `unavailable`, `rejected`, `shutdown`): spans that the collector
/// did not get.
pub const DROPPED_SPANS: &str = "dispatch_otlp_dropped_spans_total";
