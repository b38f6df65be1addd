//! Charts as SVG made by the server, with their numbers as a table below.

use maud::{Markup, html};
use time::{OffsetDateTime, UtcOffset};

use super::words::table;
use crate::console::changes::Change;
use crate::store::{ChartPoint, Charts};

/// The size of a chart, in units of its own.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;
/// The heights of the rows of labels above and below the lines.
const ABOVE: f64 = 20.0;
const BELOW: f64 = 20.0;

/// A line of a chart: its name, its class, and its value at a point; `None` where nothing is known.
struct Line {
    name: &'static str,
    class: &'static str,
    value: fn(&ChartPoint) -> Option<f64>,
}

/// A chart: title, unit, lines.
struct Chart {
    title: &'static str,
    unit: &'static str,
    lines: &'static [Line],
}

macro_rules! line {
    ($name:literal, $class:literal, $value:expr) => {
        Line {
            name: $name,
            class: $class,
            value: $value,
        }
    };
}

const CHARTS: &[Chart] = &[
    Chart {
        title: "In and out",
        unit: "jobs a minute",
        lines: &[
            line!("accepted", "line-a", |point| known(point, point.accepted)),
            line!("done", "line-b", |point| known(point, point.done)),
        ],
    },
    Chart {
        title: "Failures",
        unit: "a minute",
        lines: &[
            line!("failed attempts", "line-c", |point| known(
                point,
                point.failed_attempts
            )),
            line!("parked jobs", "line-d", |point| known(point, point.parked)),
        ],
    },
    Chart {
        title: "Oldest due job",
        unit: "s",
        lines: &[line!("oldest due", "line-c", |point| known(
            point,
            point.oldest_due_seconds
        ))],
    },
    Chart {
        title: "Stages, 95 % within",
        unit: "s",
        lines: &[line!("p95", "line-a", |point| point.stage_p95_seconds)],
    },
    Chart {
        title: "Backlog",
        unit: "jobs or messages",
        lines: &[
            line!("ready jobs", "line-a", |point| known(point, point.ready)),
            line!("messages in queues", "line-b", |point| known(
                point,
                point.queued
            )),
        ],
    },
];

fn known(point: &ChartPoint, value: f64) -> Option<f64> {
    (point.replicas > 0).then_some(value)
}

/// Returns the charts, with the times of changes as marks, and their numbers.
pub(super) fn charts(charts: &Charts, changes: &[Change]) -> Markup {
    if charts.points.iter().all(|point| point.replicas == 0) {
        return html! { p { "No worker has stored a sample within this time. A worker stores one every 15 s." } };
    }
    html! {
        div.charts { @for chart in CHARTS { (figure(chart, charts, changes)) } }
        details {
            summary { "The numbers" }
            (numbers(charts))
            @if !charts.stages.is_empty() { (stages(charts)) }
        }
    }
}

fn figure(chart: &Chart, charts: &Charts, changes: &[Change]) -> Markup {
    let values = |line: &Line| charts.points.iter().map(line.value).collect::<Vec<_>>();
    let most = chart
        .lines
        .iter()
        .flat_map(values)
        .flatten()
        .fold(0.0, f64::max);
    let whole = HEIGHT + ABOVE + BELOW;
    let x = |at: OffsetDateTime| place(charts, at);
    html! {
        figure.chart {
            figcaption {
                (chart.title) ", " (chart.unit) ":"
                @for line in chart.lines { " " span class=(line.class) { "— " (line.name) } }
            }
            svg viewBox=(format!("0 0 {WIDTH} {whole}")) role="img" aria-label=(format!("{}, at most {}", chart.title, short(most))) {
                @for (at, label) in hours(charts) {
                    line.rule x1=(at) y1=(ABOVE) x2=(at) y2=(ABOVE + HEIGHT) {}
                    text.axis-label x=(at) y=(whole - 3.0) { (label) }
                }
                line.rule x1="0" y1=(ABOVE + HEIGHT) x2=(WIDTH) y2=(ABOVE + HEIGHT) {}
                text.axis-label x="0" y=(ABOVE - 4.0) { (short(most)) }
                @for change in changes {
                    @if let Some(at) = x(change.at) {
                        line.mark x1=(at) y1=(ABOVE) x2=(at) y2=(ABOVE + HEIGHT) { title { (change.text) } }
                    }
                }
                @for line in chart.lines {
                    @for points in segments(&values(line), most) { polyline class=(line.class) points=(points) {} }
                }
            }
        }
    }
}

/// Returns the horizontal place of a time; `None` outside of the chart.
fn place(charts: &Charts, at: OffsetDateTime) -> Option<f64> {
    let seconds = (at - charts.from).as_seconds_f64();
    let all = charts.step_seconds as f64 * charts.points.len() as f64;
    (0.0..=all)
        .contains(&seconds)
        .then(|| round(seconds / all * WIDTH))
}

/// Returns a place and a label for each quarter of an hour.
fn hours(charts: &Charts) -> Vec<(f64, String)> {
    let quarters = charts.points.iter().filter_map(|point| {
        let at = point.at.to_offset(UtcOffset::UTC);
        let label = format!("{:02}:{:02}", at.hour(), at.minute());
        (at.minute() % 15 == 0).then_some((place(charts, at)?, label))
    });
    quarters.collect()
}

/// Returns the points of the lines between gaps. A point stands in the middle of its step; one alone
/// is drawn as a short line.
fn segments(values: &[Option<f64>], most: f64) -> Vec<String> {
    let step = WIDTH / values.len().max(1) as f64;
    let mut segments: Vec<String> = Vec::new();
    let mut is_open = false;
    for (at, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_open = false;
            continue;
        };
        let x = round((at as f64 + 0.5) * step);
        let y = round(ABOVE + HEIGHT - value / most.max(f64::MIN_POSITIVE) * HEIGHT);
        if !is_open {
            segments.push(format!("{},{y}", round(x - step / 4.0)));
            is_open = true;
        }
        if let Some(segment) = segments.last_mut() {
            segment.push_str(&format!(" {x},{y}"));
        }
    }
    segments
}

fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// Formats a number with at most three digits behind the point.
fn short(number: f64) -> String {
    if number >= 10.0 || number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.3}").trim_end_matches('0').to_owned()
    }
}

fn numbers(charts: &Charts) -> Markup {
    let lines: Vec<&Line> = CHARTS.iter().flat_map(|chart| chart.lines).collect();
    let headings: Vec<&str> = std::iter::once("minute (UTC)")
        .chain(lines.iter().map(|line| line.name))
        .collect();
    let rows: Vec<Vec<Markup>> = charts
        .points
        .iter()
        .rev()
        .map(|point| {
            let at = point.at.to_offset(UtcOffset::UTC);
            let time = html! { (format!("{:02}:{:02}", at.hour(), at.minute())) };
            let cells = lines.iter().map(|line| {
                let value = (line.value)(point).map_or_else(|| "–".to_owned(), short);
                html! { (value) }
            });
            std::iter::once(time).chain(cells).collect()
        })
        .collect();
    table(&headings, &rows)
}

fn stages(charts: &Charts) -> Markup {
    let rows: Vec<Vec<Markup>> = charts
        .stages
        .iter()
        .map(|stage| {
            vec![
                html! { (stage.stage) },
                html! { (stage.runs) },
                html! { (short(stage.p95_seconds)) " s" },
            ]
        })
        .collect();
    table(&["stage", "runs", "95 % within"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let values = [Some(0.0), Some(10.0), None, Some(5.0)];
        assert_eq!(
            segments(&values, 10.0),
            ["37.5,120 75,120 225,20", "487.5,70 525,70"]
        );
        assert_eq!(
            segments(&[Some(0.0)], 0.0),
            ["150,120 300,120"],
            "nothing is at the bottom"
        );
        assert_eq!(segments(&[], 0.0), [""; 0]);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.002, 2.5, 12.7, 300.0].map(short);
        assert_eq!(shown, ["0", "0.002", "2.5", "13", "300"]);
    }
}
