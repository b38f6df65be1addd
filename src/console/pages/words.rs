//! States, times and tables as pages show them. A state is a shape, a word and a colour.

use maud::{Markup, html};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};

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

/// Returns the state of an effect with its shape.
pub(super) fn state_of_effect(state: &str) -> Markup {
    let (shape, class) = look_of_effect(state);
    html! { span class=(format!("state {class}")) { span aria-hidden="true" { (shape) } " " (state) } }
}

/// Returns the shape and the class of an effect's state.
pub(super) fn look_of_effect(state: &str) -> (&'static str, &'static str) {
    match state {
        "confirmed" => ("●", "ok"),
        "failed" => ("○", "off"),
        "in_flight" => ("▶", "running"),
        _ => ("◆", "unknown"),
    }
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

/// Returns a time of day, with the date if it is not that of `now`: `14:09 UTC`.
pub(in crate::console) fn clock(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let (at, now) = (at.to_offset(UtcOffset::UTC), now.to_offset(UtcOffset::UTC));
    let clock = format!("{:02}:{:02} UTC", at.hour(), at.minute());
    if at.date() == now.date() {
        clock
    } else {
        format!("{} {clock}", at.date())
    }
}

/// Returns a length as its largest unit and the next one.
pub(in crate::console) fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Returns what a panel shows, or why it could not be read.
pub(super) fn panel<T>(seen: Result<T, String>, show: impl FnOnce(T) -> Markup) -> Markup {
    match seen {
        Ok(value) => show(value),
        Err(why) => html! { p.problem role="alert" { (why) } },
    }
}

/// Returns a length, which is often short.
pub(super) fn length(millis: i64) -> String {
    match millis {
        ..1_000 => format!("{millis} ms"),
        1_000..10_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => span(millis / 1_000),
    }
}

/// Returns a text that a person can copy: without script, one click selects it whole.
pub(super) fn copyable(name: &str, text: &str) -> Markup {
    html! { input.copy readonly aria-label=(name) value=(text) size=(text.chars().count().clamp(8, 80)); }
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

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now = time::macros::datetime!(2026-01-01 12:00 UTC);
        assert_eq!(clock(now, now), "12:00 UTC");
        assert_eq!(clock(now + Duration::DAY, now), "2026-01-02 12:00 UTC");
    }

    #[test]
    fn a_short_length_has_its_milliseconds() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_290, "1.2 s"),
            (61_000, "1 min 1 s"),
        ] {
            assert_eq!(length(millis), text);
        }
    }
}
