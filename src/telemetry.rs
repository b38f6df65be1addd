//! Logs to stderr, metrics for Prometheus: what they are called and how they are written.
//!
//! **Invariant:** an event is one line of the log, whatever text of others is in its fields: in text every field is escaped as
//! it is written, in JSON every line.

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

/// Names of metrics, each with its labels. The label sets are closed: no job id, tenant, URL or free text.
pub mod names {
    /// Histogram in seconds, `pipeline`, `stage`, `outcome`: runs of a stage, its commit not included.
    pub const STAGE_SECONDS: &str = "dispatch_stage_seconds";
    /// Counter, `pipeline`, `state`: jobs given up by their worker, by the state they came to.
    pub const JOBS: &str = "dispatch_jobs_total";
    /// Counter, `pipeline`, `stage`, `outcome`: attempts that did not succeed.
    pub const ATTEMPTS: &str = "dispatch_attempts_total";
    /// Counter: jobs taken from replicas whose lease was over.
    pub const TAKEOVERS: &str = "dispatch_takeovers_total";
    /// Counter: writes refused because the lease was lost.
    pub const FENCED: &str = "dispatch_fenced_total";
    /// Counter: wake-ups published.
    pub const WAKEUPS: &str = "dispatch_wakeups_total";
    /// Counter: wake-ups that named no row.
    pub const WAKEUPS_WITHOUT_ROW: &str = "dispatch_wakeups_without_row_total";
    /// Counter: messages that no queue took.
    pub const RETURNED_PUBLISHES: &str = "dispatch_returned_publishes_total";
    /// Counter, `link`: connections rebuilt.
    pub const RECONNECTS: &str = "dispatch_reconnects_total";
    /// Counter: consumers cancelled by the broker.
    pub const CONSUMER_CANCELS: &str = "dispatch_consumer_cancels_total";
    /// Counter, `code`: messages that could not become a job.
    pub const DEAD_LETTERS: &str = "dispatch_dead_letters_total";
    /// Counter, `what` (`event`, `reply`), `why` (`refused`, `unconfirmed`, `returned`, `too_old`): outcome events and replies
    /// given up.
    pub const DROPPED: &str = "dispatch_events_dropped_total";
    /// Counter: effects whose outcome nobody knows.
    pub const UNKNOWN_EFFECTS: &str = "dispatch_unknown_effects_total";
    /// Counter, `lane`: messages received.
    pub const DELIVERIES: &str = "dispatch_deliveries_total";
    /// Histogram in rows: groups of claims and plain commits, each one transaction.
    pub const GROUP_ROWS: &str = "dispatch_group_rows";
    /// Counter, `code`: calls that Postgres or RabbitMQ was too ill for.
    pub const INFRASTRUCTURE_ERRORS: &str = "dispatch_infrastructure_errors_total";
    /// Gauge: 1 while no new messages are taken, as too many jobs or dead letters are there.
    pub const INTAKE_PAUSED: &str = "dispatch_intake_paused";
    /// Counter, `kind` (`open`, `later`, `waiting`, `dead_letters`, `keys`), `by` (`producer`, `organization`): messages, or bodies of
    /// dead letters, that a quota had no room for.
    pub const QUOTA_REFUSALS: &str = "dispatch_quota_refusals_total";
    /// Gauge, `kind`, `by`: how full the fullest quota is that this process has asked about lately; 1 is full.
    pub const QUOTA_FULLEST: &str = "dispatch_quota_fullest";
    /// Gauge in bytes: memory charged to messages that are not rows yet. At `DISPATCH_INTAKE_BYTES`, no more are read.
    pub const INTAKE_BYTES: &str = "dispatch_intake_bytes";
    /// Histogram in seconds, `duty`, `outcome`: runs of a duty: `done`, `more` where its time was over first, `failed`, `cut`.
    pub const DUTY_SECONDS: &str = "dispatch_duty_seconds";
    /// Gauge, `duty`: 1 while the duty has not been done for too long.
    pub const DUTY_LATE: &str = "dispatch_duty_late";
    /// Gauge, `provider`: destinations that this process does not call, or tries with one call, because they failed.
    pub const OPEN_CIRCUITS: &str = "dispatch_open_circuits";
    /// Counter, `provider`: holds of destinations placed.
    pub const HOLDS_PLACED: &str = "dispatch_holds_placed_total";
}

/// Upper bounds of a stage's duration, in seconds: from a local commit to the longest time a stage may take.
const STAGE_BUCKETS: [f64; 14] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 300.0];

/// Upper bounds of a group, in rows.
const GROUP_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0];

/// Upper bounds of a duty's run, in seconds.
const DUTY_BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0];

/// What the drivers may say unless the setting names them. `lapin` logs as errors what it also returns, and what it returns is
/// logged where it is handled; the others' debug events hold parameters and headers.
const DRIVERS: &str = "lapin=off,tokio_postgres=info,reqwest=info,hyper=info,hyper_util=info,h2=info,rustls=info";

/// Telemetry that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not read.
    #[error("DISPATCH_LOG is not a filter; right is for example `info` or `info,dispatch_worker=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A subscriber is there already.
    #[error("logs are set up already")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    /// A recorder is there already.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Sends the process's logs to stderr, as the settings say, and panics with them. Colours only on a terminal and without
/// `NO_COLOR`.
///
/// # Errors
/// [`TelemetryError`]: the filter is not right, or logs were set up before.
pub fn log_to_stderr(settings: &LogSettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(format!("{DRIVERS},{}", settings.log))?;
    let colours = io::stderr().is_terminal() && !no_color();
    // Where nobody reads stderr any more, its end is no reason to panic.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_target(true).log_internal_errors(false);
    match settings.log_format {
        LogFormat::Text => builder.with_writer(io::stderr).fmt_fields(OneLine).finish().try_init()?,
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

/// A panic's message may quote any text (the one whose slice was out of its bounds), so it is an event like others.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let message = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let at = panic.location().map(ToString::to_string);
    tracing::error!(panic.message = message, panic.at = at, "a thread panicked");
}

/// Writes an event's or a span's fields as text, the message too, with [`Escaped`] around all of it: whoever logs need not think
/// of it, drivers neither.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        write!(writer, "{}", Escaped(&text))
    }
}

/// Lines of JSON, with what JSON does not escape of itself; see [`escape::json`].
struct JsonLines<W>(W);

impl<W: io::Write> io::Write for JsonLines<W> {
    /// Takes an event's line, which comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape::json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Makes the process's recorder and describes every metric. Whoever holds the handle calls
/// [`PrometheusHandle::run_upkeep`] every few seconds; otherwise histograms grow until the next scrape.
///
/// # Errors
/// [`TelemetryError::Metrics`] where the process has a recorder already.
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

/// Registers every metric's description with the present recorder.
pub fn describe() {
    describe_histogram!(names::STAGE_SECONDS, Unit::Seconds, "How long stages ran, by pipeline, stage and outcome");
    describe_counter!(names::JOBS, "Jobs that a worker was done with, by pipeline and the state they came to");
    describe_counter!(names::ATTEMPTS, "Attempts that did not succeed, by pipeline, stage and outcome");
    describe_counter!(names::TAKEOVERS, "Jobs taken from replicas whose lease was over");
    describe_counter!(names::FENCED, "Writes refused because the lease was lost");
    describe_counter!(names::WAKEUPS, "Wake-ups published");
    describe_counter!(names::WAKEUPS_WITHOUT_ROW, "Wake-ups that named no row, as after a database was restored");
    describe_counter!(names::RETURNED_PUBLISHES, "Messages that no queue took");
    describe_counter!(names::RECONNECTS, "Connections rebuilt, by link");
    describe_counter!(names::CONSUMER_CANCELS, "Consumers cancelled by the broker");
    describe_counter!(names::DEAD_LETTERS, "Messages that could not become a job, by reason code");
    describe_counter!(names::DROPPED, "Outcome events and replies that were given up, by what and why");
    describe_counter!(names::UNKNOWN_EFFECTS, "Effects whose outcome nobody knows");
    describe_counter!(names::DELIVERIES, "Messages received, by lane");
    describe_histogram!(names::GROUP_ROWS, Unit::Count, "Rows of claims and plain commits in one transaction");
    describe_counter!(names::INFRASTRUCTURE_ERRORS, "Calls that Postgres or RabbitMQ was too ill for, by code");
    describe_gauge!(names::INTAKE_PAUSED, "1 while no new messages are taken, as too many jobs or dead letters are there");
    describe_counter!(
        names::QUOTA_REFUSALS,
        "Messages, or bodies of dead letters, that a quota had no room for, by kind and holder"
    );
    describe_gauge!(
        names::QUOTA_FULLEST,
        "How full the fullest quota is that was asked about lately, by kind and holder; 1 is full"
    );
    describe_gauge!(names::INTAKE_BYTES, Unit::Bytes, "Memory charged to messages that are not rows yet");
    describe_histogram!(names::DUTY_SECONDS, Unit::Seconds, "Runs of a duty, by duty and outcome");
    describe_gauge!(names::DUTY_LATE, "1 while a duty has not been done for too long, by duty");
    describe_gauge!(names::OPEN_CIRCUITS, "Destinations not called, or tried with one call, because they failed, by provider");
    describe_counter!(names::HOLDS_PLACED, "Holds of destinations placed, by provider");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use metrics::{counter, histogram};

    use super::*;

    /// What the others would have written.
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

    /// As any call site, and any driver, might put it.
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
        let logs = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).fmt_fields(OneLine).finish();
        tracing::subscriber::with_default(logs, log_hostile);
        let text = kept.text();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(escape::acts), "{line:?}");
        assert_eq!(line.matches("forged").count(), 7, "{line}");
        assert!(line.contains(r"\r\n2026-01-01") && line.contains(r"\u{1b}[2J"), "{line}");
    }

    #[test]
    fn an_event_is_one_line_of_json_with_what_was_said() {
        let kept = Kept::default();
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt().with_writer(move || JsonLines(writer.clone())).json().flatten_event(true).finish();
        tracing::subscriber::with_default(logs, log_hostile);
        let text = kept.text();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(escape::acts), "{line:?}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((value["plain"].as_str(), value["span"]["plain"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
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
        assert!(text.contains("# HELP dispatch_takeovers_total Jobs taken"), "{text}");
        assert!(text.contains("dispatch_takeovers_total 2"), "{text}");
        let stage = r#"pipeline="dispatch",stage="check_account",outcome="succeeded""#;
        assert!(text.contains(&format!("dispatch_stage_seconds_bucket{{{stage},le=\"0.01\"}} 0")), "{text}");
        assert!(text.contains(&format!("dispatch_stage_seconds_bucket{{{stage},le=\"0.025\"}} 1")), "{text}");
    }
}
