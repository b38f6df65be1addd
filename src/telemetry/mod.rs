//! Logs to stderr and metrics for Prometheus: the names of metrics, and the formats of logs.
//!
//! **Invariant:** an event is one line of the log, whatever its fields contain: the text format
//! escapes every field, the JSON format every line.

mod describe;
pub mod names;

use std::fmt;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::util::SubscriberInitExt;

pub use describe::describe;

use crate::config::{LogFormat, LogSettings, no_color};
use crate::escape::{self, Escaped};

/// The buckets of a group's size, in rows.
const GROUP_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0];

/// The buckets of a wait for a pooled connection, in seconds.
const POOL_BUCKETS: [f64; 8] = [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0];

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
    let pools = Matcher::Full(names::POOL_WAIT_SECONDS.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(pools, &POOL_BUCKETS)?
        .set_buckets_for_metric(stages, &names::STAGE_BUCKETS)?
        .set_buckets_for_metric(groups, &GROUP_BUCKETS)?
        .set_buckets_for_metric(duties, &DUTY_BUCKETS)?)
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
