//! Logs to stderr and metrics for Prometheus: the names of metrics, and the formats of logs.
//!
//! **Invariant:** an event is one line of the log, whatever its fields contain: the text format
//! escapes every field, the JSON format every line.

use std::fmt;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings, no_color};
use crate::escape::{self, Escaped};

/// Names of metrics, each with its labels. The label sets are closed: no job id, tenant, URL or
/// free text.
pub mod names {
    /// Histogram in seconds, `pipeline`, `stage`, `outcome`: durations of stage runs, without
    /// their commits.
    pub const STAGE_SECONDS: &str = "dispatch_stage_seconds";
    /// Counter, `pipeline`, `state`: claims that ended with a commit, by the state of the job
    /// after it.
    pub const JOBS: &str = "dispatch_jobs_total";
    /// Counter, `pipeline`, `stage`, `outcome`: attempts that did not succeed.
    pub const ATTEMPTS: &str = "dispatch_attempts_total";
    /// Counter: jobs taken over from dead replicas.
    pub const TAKEOVERS: &str = "dispatch_takeovers_total";
    /// Gauge, `code`: jobs that do not move, by stuck code; counted up to 10,000.
    pub const STUCK: &str = "dispatch_stuck";
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
    /// Histogram in seconds, `duty`, `outcome`: durations of a duty's runs: `done`; `more` if the
    /// time limit ended the run first; `failed`; `cut` if a round did not return in time.
    pub const DUTY_SECONDS: &str = "dispatch_duty_seconds";
    /// Gauge, `duty`: 1 while the duty is late.
    pub const DUTY_LATE: &str = "dispatch_duty_late";
    /// Gauge, `provider`: destinations whose circuit breaker is open or lets one probe through, in
    /// this process.
    pub const OPEN_CIRCUITS: &str = "dispatch_open_circuits";
    /// Gauge: kill switches in force whose matcher this worker does not understand.
    pub const KILL_SWITCHES_NOT_UNDERSTOOD: &str = "dispatch_kill_switches_not_understood";
    /// Counter, `action`: jobs that a kill switch has parked or cancelled.
    pub const KILLED: &str = "dispatch_jobs_killed_total";
    /// Counter, `provider`: holds placed.
    pub const HOLDS_PLACED: &str = "dispatch_holds_placed_total";
    /// Counter: spans that the collector of `DISPATCH_OTLP_ENDPOINT` has accepted.
    pub const EXPORTED_SPANS: &str = "dispatch_otlp_spans_total";
    /// Counter, `why` (`queue_full`, `unavailable`, `rejected`, `shutdown`): spans that the
    /// collector did not get.
    pub const DROPPED_SPANS: &str = "dispatch_otlp_dropped_spans_total";
}

/// The buckets of a stage's duration, in seconds: from a local commit to the longest time that a
/// stage may take.
const STAGE_BUCKETS: [f64; 14] = [
    0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 300.0,
];

/// The buckets of a group's size, in rows.
const GROUP_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0];

/// The buckets of a duty's run, in seconds.
const DUTY_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0];

/// The log levels of the drivers, unless the setting names them. `lapin` logs as errors what it
/// also returns, and returned errors are logged where they are handled. The debug events of the
/// others contain parameters and headers.
const DRIVERS: &str =
    "lapin=off,tokio_postgres=info,reqwest=info,hyper=info,hyper_util=info,h2=info,rustls=info";

/// A failure to set up logs or metrics.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "DISPATCH_LOG is not a valid filter; use for example `info` or `info,dispatch_worker=debug`"
    )]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a subscriber already.
    #[error("logs are set up already")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    /// The recorder cannot be built, or the process has one already.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Sends the logs of the process to stderr, in the format of the settings, and panics as events.
/// Colours are used only on a terminal and without `NO_COLOR`.
///
/// # Errors
/// [`TelemetryError`]: the filter is not valid, or logs were set up before.
pub fn log_to_stderr(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(format!("{DRIVERS},{}", settings.log))?;
    let colours = io::stderr().is_terminal() && !no_color();
    // A closed stderr is no reason to panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_target(true)
        .log_internal_errors(false);
    match settings.log_format {
        LogFormat::Text => builder
            .with_writer(io::stderr)
            .fmt_fields(OneLine)
            .finish()
            .try_init()?,
        LogFormat::Json => {
            builder
                .with_writer(|| JsonLines(io::stderr()))
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .finish()
                .try_init()?;
        }
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic as an event, because its message may quote untrusted text (for example one whose
/// slice was out of bounds).
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let at = panic.location().map(ToString::to_string);
    tracing::error!(panic.message = message, panic.at = at, "a thread panicked");
}

/// Formats the fields of an event or a span as text, the message included, and escapes all of it
/// with [`Escaped`], so that no caller has to, in this crate or in a driver.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        write!(writer, "{}", Escaped(&text))
    }
}

/// Writes lines of JSON, and escapes what JSON itself does not; see [`escape::json`].
struct JsonLines<W>(W);

impl<W: io::Write> io::Write for JsonLines<W> {
    /// Writes the line of an event, which arrives in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(escape::json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Installs the recorder of the process and describes every metric. The caller must call
/// [`PrometheusHandle::run_upkeep`] every few seconds; otherwise histograms grow until the next
/// scrape.
///
/// # Errors
/// [`TelemetryError::Metrics`] if the process has a recorder already.
pub fn record_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, TelemetryError> {
    let stages = Matcher::Full(names::STAGE_SECONDS.to_owned());
    let groups = Matcher::Full(names::GROUP_ROWS.to_owned());
    let duties = Matcher::Full(names::DUTY_SECONDS.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(stages, &STAGE_BUCKETS)?
        .set_buckets_for_metric(groups, &GROUP_BUCKETS)?
        .set_buckets_for_metric(duties, &DUTY_BUCKETS)?)
}

/// Registers the description of every metric with the present recorder.
pub fn describe() {
    describe_jobs();
    describe_messages();
    describe_process();
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
        names::ATTEMPTS,
        "Stage attempts that did not succeed, by pipeline, stage and outcome"
    );
    describe_gauge!(
        names::STUCK,
        "Jobs that do not move, by code; counted up to 10,000"
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
        "Duration of duty runs, by duty and outcome"
    );
    describe_gauge!(names::DUTY_LATE, "1 while a duty is late, by duty");
    describe_gauge!(
        names::OPEN_CIRCUITS,
        "Destinations whose circuit breaker is not closed, by provider"
    );
    describe_gauge!(
        names::KILL_SWITCHES_NOT_UNDERSTOOD,
        "Kill switches in force whose matcher this worker does not understand; they stop no job here"
    );
    describe_counter!(
        names::KILLED,
        "Jobs that a kill switch has parked or cancelled, by action"
    );
    describe_counter!(names::HOLDS_PLACED, "Holds placed, by provider");
    describe_counter!(
        names::EXPORTED_SPANS,
        "Spans that the OpenTelemetry collector has accepted"
    );
    describe_counter!(
        names::DROPPED_SPANS,
        "Spans that the OpenTelemetry collector did not get, by reason"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use metrics::{counter, histogram};

    use super::*;

    /// Untrusted text that tries to forge a line.
    const HOSTILE: &str = "x\r\n2026-01-01T00:00:00Z INFO forged\u{1b}[2J\u{85}\u{2028}\u{202e}y";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Logs the text in the ways that any call site or driver might.
    fn log_hostile() {
        let span = tracing::info_span!("job", plain = HOSTILE, shown = %HOSTILE);
        let _entered = span.enter();
        let error = io::Error::other(HOSTILE);
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::info!(shown = %HOSTILE, quoted = ?HOSTILE, plain = HOSTILE, error, "a message with {HOSTILE}");
    }

    #[test]
    fn an_event_is_one_line_of_text_whatever_is_in_it() {
        let kept = Kept::default();
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(OneLine)
            .finish();
        tracing::subscriber::with_default(logs, log_hostile);
        let text = kept.text();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(escape::acts), "{line:?}");
        assert_eq!(line.matches("forged").count(), 7, "{line}");
        assert!(
            line.contains(r"\r\n2026-01-01") && line.contains(r"\u{1b}[2J"),
            "{line}"
        );
    }

    #[test]
    fn an_event_is_one_line_of_json_with_what_was_said() {
        let kept = Kept::default();
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt()
            .with_writer(move || JsonLines(writer.clone()))
            .json()
            .flatten_event(true)
            .finish();
        tracing::subscriber::with_default(logs, log_hostile);
        let text = kept.text();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(escape::acts), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (value["plain"].as_str(), value["span"]["plain"].as_str()),
            (Some(HOSTILE), Some(HOSTILE))
        );
    }

    #[test]
    fn a_scrape_shows_counters_with_their_meaning_and_histograms_with_buckets() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            counter!(names::TAKEOVERS).increment(2);
            histogram!(names::STAGE_SECONDS, "pipeline" => "dispatch", "stage" => "check_account", "outcome" => "succeeded")
                .record(0.02);
        });
        let text = recorder.handle().render();
        assert!(
            text.contains("# HELP dispatch_takeovers_total Jobs taken"),
            "{text}"
        );
        assert!(text.contains("dispatch_takeovers_total 2"), "{text}");
        let stage = r#"pipeline="dispatch",stage="check_account",outcome="succeeded""#;
        assert!(
            text.contains(&format!(
                "dispatch_stage_seconds_bucket{{{stage},le=\"0.01\"}} 0"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "dispatch_stage_seconds_bucket{{{stage},le=\"0.025\"}} 1"
            )),
            "{text}"
        );
    }
}
