//! States, times and tables as pages show them. A state is a shape, a word and a colour.

use maud::{Markup, html};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::job::JobState;

/// Returns a state with its shape.
pub(super) fn state(state: JobState) -> Markup {
    let (shape, class) = match state {
        JobState::Ready => ("▷", "ready"),
        JobState::Running => ("▶", "running"),
        JobState::Waiting => ("◔", "waiting"),
        JobState::Succeeded => ("●", "ok"),
        JobState::Parked => ("■", "parked"),
        JobState::Cancelled => ("○", "off"),
    };
    html! { span class=(format!("state {class}")) { span aria-hidden="true" { (shape) } " " (state.word()) } }
}

/// Returns a time, relative to the database's `now`; the exact one is its title and its `datetime`,
/// which the script turns into the reader's own zone.
pub(super) fn time(at: OffsetDateTime, now: OffsetDateTime) -> Markup {
    let exact = at.format(&Rfc3339).unwrap_or_default();
    html! { time datetime=(exact) title=(exact) { (relative(at - now)) } }
}

/// Returns a time of day, UTC, which the script turns into the reader's own zone.
pub(in crate::console) fn exact_time(at: OffsetDateTime) -> Markup {
    let at = at.to_offset(time::UtcOffset::UTC);
    let exact = at.format(&Rfc3339).unwrap_or_default();
    html! {
        time datetime=(exact) title=(exact) {
            (format!("{:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second()))
        }
    }
}

/// Returns how long ago or in how long.
fn relative(from_now: Duration) -> String {
    let seconds = from_now.whole_seconds();
    match seconds {
        -1..=0 => "now".to_owned(),
        1.. => format!("in {}", span(seconds)),
        _ => format!("{} ago", span(-seconds)),
    }
}

/// Returns a length as its largest unit and the next one.
pub(super) fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Returns a table that becomes a list of cards on a narrow screen.
pub(super) fn table(headings: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        table {
            thead { tr { @for heading in headings { th scope="col" { (heading) } } } }
            tbody {
                @for row in rows {
                    tr {
                        @for (heading, cell) in headings.iter().zip(row) {
                            td data-name=(heading) { (cell) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_relative_to_the_database_s_clock() {
        for (seconds, text) in [
            (0, "now"),
            (-4, "4 s ago"),
            (65, "in 1 min 5 s"),
            (-90_061, "1 d 1 h ago"),
        ] {
            assert_eq!(relative(Duration::seconds(seconds)), text);
        }
    }
}
