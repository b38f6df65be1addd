//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The interval between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(120);

/// Displays the progress of the demo. Clones share the display.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    last_plain: Arc<Mutex<Instant>>,
}

impl Progress {
    /// Creates a display for `jobs` jobs.
    pub(super) fn new(jobs: u64) -> Self {
        let bar = ProgressBar::new(jobs);
        // The template is a constant and valid. Without it, only the look of the bar would differ.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {elapsed:>3} {bar:32} {pos}/{len} jobs  {msg}")
        {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self {
            bar,
            started: now,
            last_plain: Arc::new(Mutex::new(now)),
        }
    }

    pub(super) fn tick(&self) {
        self.bar.enable_steady_tick(TICK);
    }

    /// Prints a line that stays.
    pub(super) fn say(&self, line: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        let line = format!("[{seconds:5.1} s] {line}");
        if self.bar.is_hidden() {
            plain(&line);
        } else {
            self.bar.println(line);
        }
    }

    /// Updates the number of ended jobs, with a note.
    pub(super) fn moved(&self, ended: u64, note: String) {
        if self.bar.is_hidden() {
            let Ok(mut last) = self.last_plain.lock() else {
                return;
            };
            if last.elapsed() >= PLAIN_EVERY {
                *last = Instant::now();
                drop(last);
                let jobs = self.bar.length().unwrap_or_default();
                self.say(&format!("{ended} of {jobs} jobs have ended; {note}"));
            }
            return;
        }
        self.bar.set_position(ended);
        self.bar.set_message(note);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints on stderr, and ignores failures: nobody may be reading.
fn plain(line: &str) {
    let _nobody = writeln!(std::io::stderr(), "{line}");
}
