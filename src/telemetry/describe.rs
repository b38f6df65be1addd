//! The descriptions of all metrics, for scrapes and for the reference.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use super::names;

/// Registers the description of every metric with the present recorder.
pub fn describe() {
    describe_jobs();
    describe_messages();
    describe_process();
    describe_load();
    describe_links();
}

fn describe_jobs() {
    describe_histogram!(
        names::STAGE_SECONDS,
        Unit::Seconds,
        "Duration of stage runs, by pipeline, stage and outcome"
    );
    describe_counter!(
        names::JOBS,
        "Claims that ended with a commit, by pipeline and the state of the job after it"
    );
    describe_counter!(
        names::ACCEPTED,
        "Jobs made of messages; follow-ups are not counted"
    );
    describe_counter!(
        names::ATTEMPTS,
        "Stage attempts that did not succeed, by pipeline, stage and outcome"
    );
    describe_counter!(names::TAKEOVERS, "Jobs taken over from dead replicas");
    describe_counter!(
        names::FENCED,
        "Runs that ended because the replica no longer owned the job"
    );
    describe_counter!(names::UNKNOWN_EFFECTS, "Effects with an unknown outcome");
    describe_counter!(names::WAKEUPS, "Wake-ups published");
    describe_counter!(
        names::WAKEUPS_WITHOUT_ROW,
        "Wake-ups for jobs without a row, for example after a database restore"
    );
    describe_histogram!(
        names::GROUP_ROWS,
        Unit::Count,
        "Rows of claims and plain commits in one group commit"
    );
}

fn describe_messages() {
    describe_counter!(names::DELIVERIES, "Messages received, by lane");
    describe_counter!(
        names::DEAD_LETTERS,
        "Messages that became dead letters, by reason code"
    );
    describe_counter!(
        names::DROPPED,
        "Outcome events and replies that were dropped, by what and why"
    );
    describe_counter!(
        names::RETURNED_PUBLISHES,
        "Published messages that RabbitMQ returned as unroutable"
    );
    describe_gauge!(
        names::INTAKE_PAUSED,
        "1 while intake is paused, because too many jobs wait or dead letters are open"
    );
    describe_gauge!(
        names::INTAKE_BYTES,
        Unit::Bytes,
        "Memory charged to received messages that are not stored yet"
    );
    describe_counter!(
        names::QUOTA_REFUSALS,
        "Messages, or bodies of dead letters, refused because a quota was full, by kind and holder"
    );
    describe_gauge!(
        names::QUOTA_FULLEST,
        "Usage of the fullest quota that this process has used lately, by kind and holder; 1 is full"
    );
}

fn describe_process() {
    describe_counter!(
        names::RECONNECTS,
        "Connections made again after they were lost, by link"
    );
    describe_counter!(names::CONSUMER_CANCELS, "Consumers cancelled by RabbitMQ");
    describe_counter!(
        names::INFRASTRUCTURE_ERRORS,
        "Calls that failed because Postgres or RabbitMQ was unavailable, by code"
    );
    describe_histogram!(
        names::DUTY_SECONDS,
        Unit::Seconds,
        "Duration of duty runs, by duty"
    );
    describe_gauge!(names::DUTY_LATE, "1 while a duty is late, by duty");
    describe_gauge!(
        names::OPEN_CIRCUITS,
        "Destinations whose circuit breaker is not closed, by provider"
    );
    describe_counter!(names::HOLDS_PLACED, "Holds placed, by provider");
    describe_gauge!(
        names::KILL_SWITCHES_NOT_UNDERSTOOD,
        "Kill switches in force whose matcher this worker does not understand; they stop no job here"
    );
    describe_counter!(
        names::KILLED,
        "Jobs that a kill switch has parked or cancelled, by action"
    );
    describe_counter!(
        names::EXPORTED_SPANS,
        "Spans that the OpenTelemetry collector has accepted"
    );
    describe_counter!(
        names::DROPPED_SPANS,
        "Spans that the OpenTelemetry collector did not get, by reason"
    );
}

fn describe_load() {
    describe_gauge!(
        names::OPEN_JOBS,
        "Open jobs, by lane and state; of each state at most 10,001"
    );
    describe_gauge!(
        names::DUE_JOBS,
        "Due jobs without a wake-up, by lane; at most 10,001"
    );
    describe_gauge!(
        names::OLDEST_DUE_SECONDS,
        Unit::Seconds,
        "How long the oldest due job without a wake-up has been due, by lane"
    );
    describe_gauge!(
        names::OPEN_DEAD_LETTERS,
        "Open dead letters, counted up to the limit of the backlog"
    );
    describe_gauge!(
        names::OLDEST_HOLD_SECONDS,
        Unit::Seconds,
        "Age of the oldest hold in force"
    );
    describe_gauge!(
        names::DESIRED_REPLICAS,
        "Replicas needed for the work that replicas can do now; not for jobs that wait on a vendor"
    );
    describe_gauge!(
        names::SCALE_JOBS,
        "Jobs from which the number of replicas is computed, by lane and part; waits_on_vendor is not counted"
    );
    describe_gauge!(names::PERMITS_USED, "Permits in use, by lane");
    describe_gauge!(names::PERMITS, "Concurrency limit of a lane, by lane");
    describe_gauge!(
        names::QUEUE_MESSAGES,
        "Messages of a lane's queue that no consumer has received yet, by queue"
    );
    describe_gauge!(
        names::STUCK,
        "Jobs that do not move, by code; counted up to 10,000"
    );
    describe_counter!(
        names::EFFECTS,
        "Effects, by pipeline, stage and what is known of them"
    );
}

fn describe_links() {
    describe_gauge!(names::READY, "1 while every check of /readyz succeeds");
    describe_gauge!(
        names::LINK_UP,
        "1 while the link to Postgres, the publisher, or the consumer of a lane works, by link"
    );
    describe_histogram!(
        names::POOL_WAIT_SECONDS,
        Unit::Seconds,
        "Waits for a pooled connection to Postgres"
    );
    describe_counter!(
        names::POSTGRES_ERRORS,
        "Statements that Postgres did not carry out, by class of error"
    );
    describe_counter!(names::DUTY_RUNS, "Runs of duties, by duty and outcome");
    describe_gauge!(
        names::MISSING_PARTITIONS,
        "Monthly partitions that do not exist yet, of this month, the next three, and rows in default partitions"
    );
    describe_gauge!(names::DATABASE_BYTES, Unit::Bytes, "Size of the database");
}
