//! The page of metrics, from the descriptions that a worker registers.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

use crate::cli::output::markdown_cell;
use crate::telemetry;

/// Keeps descriptions, and measures nothing.
#[derive(Default)]
struct Descriptions(Mutex<Vec<Description>>);

struct Description {
    name: String,
    kind: &'static str,
    unit: Option<Unit>,
    text: String,
}

impl Descriptions {
    fn keep(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        let description = Description {
            name: name.as_str().to_owned(),
            kind,
            unit,
            text: text.clone().into_owned(),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(description);
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.keep("counter", &name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.keep("gauge", &name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.keep("histogram", &name, unit, &text);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A row for each metric, by name.
pub(super) fn page() -> String {
    let descriptions = Descriptions::default();
    with_local_recorder(&descriptions, telemetry::describe);
    let mut rows = descriptions
        .0
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let mut page = "# Metrics\n\nPrinted by `dispatch reference metrics`. A worker serves them for Prometheus at `/metrics` \
        of its operations server; a histogram has the series `_bucket`, `_sum` and `_count`.\n\n\
        | metric | type | unit | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let unit = row
            .unit
            .map_or_else(String::new, |unit| unit.as_str().to_owned());
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {unit} | {} |",
            row.name,
            row.kind,
            markdown_cell(&row.text)
        );
    }
    page
}
