//! What commands say: data on stdout, as JSON or for people, everything else on stderr. Nothing else in the program prints.
//!
//! **Invariant:** nothing that a command says drives a terminal, but for the colours of its own tables: each way out of here
//! looks at every character.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::Context;
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};

use crate::config::no_color;
use crate::escape::{self, acts};
use crate::job::JobState;

/// Where a command's answer goes and in which form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    colours: bool,
}

impl Output {
    /// For people, or one JSON document.
    pub(super) fn new(json: bool) -> Self {
        Self { json, colours: io::stdout().is_terminal() && !no_color() }
    }

    /// Whether the answer is JSON.
    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// The command's answer: `value` as JSON on one line, or the text for people.
    pub(super) fn answer(self, value: &impl Serialize, people: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = if self.json {
            escape::json(&serde_json::to_string(value).context("the answer as JSON")?).into_owned()
        } else {
            without_commands(&people(), self.colours).into_owned()
        };
        if text.is_empty() {
            return Ok(());
        }
        raw(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }

    /// A line for people that comes before the answer; JSON has the answer alone.
    pub(super) fn line(self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { raw(format!("{}\n", plain(text)).as_bytes()) }
    }

    /// An empty table with these headings, as wide as the terminal.
    pub(super) fn table(self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !headings.is_empty() {
            table.set_header(
                headings.iter().map(|heading| self.styled(Cell::new(heading), |cell| cell.add_attribute(Attribute::Bold))),
            );
        }
        table
    }

    /// A state in its colour.
    pub(super) fn state(self, state: JobState) -> Cell {
        let colour = match state {
            JobState::Ready => Color::Reset,
            JobState::Running => Color::Cyan,
            JobState::Waiting => Color::Yellow,
            JobState::Succeeded => Color::Green,
            JobState::Cancelled => Color::DarkGrey,
            JobState::Parked => Color::Red,
        };
        self.styled(Cell::new(state), |cell| cell.fg(colour))
    }

    fn styled(self, cell: Cell, style: impl FnOnce(Cell) -> Cell) -> Cell {
        if self.colours { style(cell) } else { cell }
    }
}

/// A table as text, without blanks at the ends of its lines.
pub(super) fn rendered(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A stored text for stdout as it is, but for control characters that would reach a terminal.
pub(super) fn verbatim(text: &str) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        return raw(text.as_bytes());
    }
    raw(format!("{}\n", without_commands(text, false).trim_end_matches('\n')).as_bytes())
}

/// Bytes for stdout.
pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // The reader has seen enough (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("writing to stdout"),
    }
}

/// A line for whoever watches, on stderr.
pub(super) fn say(line: &str) {
    // A stderr that is closed has nobody watching.
    drop(writeln!(io::stderr(), "{}", plain(line)));
}

/// Lines for whoever watches.
pub(super) fn say_lines(text: &str) {
    text.lines().for_each(say);
}

/// Whether somebody can be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal; anything but yes is no.
pub(super) fn ask(question: &str) -> anyhow::Result<bool> {
    write!(io::stderr(), "{} [y/N] ", plain(question)).context("asking")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("reading the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Stored text for a terminal, as one line: what could move its cursor, or worse (see [`acts`]), becomes U+FFFD.
pub(super) fn plain(text: &str) -> String {
    text.replace(acts, "\u{fffd}")
}

/// Lines for a terminal, as [`plain`] has each of them. The colours that tables have stay where they are wanted.
fn without_commands(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.contains(|character| character != '\n' && acts(character)) {
        return Cow::Borrowed(text);
    }
    let (mut safe, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(acts) {
        let (before, from) = rest.split_at(at);
        safe.push_str(before);
        let kept = match from.strip_prefix('\n') {
            Some(_) => 1,
            None if colours => colour(from),
            None => 0,
        };
        safe.push_str(&from[..kept]);
        let dropped = if kept == 0 { from.chars().next().map_or(0, char::len_utf8) } else { 0 };
        if dropped > 0 {
            safe.push('\u{fffd}');
        }
        rest = &from[kept + dropped..];
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// The length of a colour or style (`ESC [ … m`) that `text` begins with, in bytes.
fn colour(text: &str) -> usize {
    let parameters =
        text.strip_prefix("\u{1b}[").map(|rest| (rest, rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')));
    parameters.filter(|(_, behind)| behind.starts_with('m')).map_or(0, |(rest, behind)| 3 + rest.len() - behind.len())
}

/// An optional text, `-` where there is none.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), plain)
}

/// `2025-03-04 14:05:00Z`.
pub(super) fn when(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!("{} {:02}:{:02}:{:02}Z", at.date(), at.hour(), at.minute(), at.second())
}

/// `12 ms`, `3.4 s`.
pub(super) fn milliseconds(ms: i64) -> String {
    if ms < 1000 {
        return format!("{ms} ms");
    }
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_text_cannot_drive_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d\u{2028}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}");
    }

    #[test]
    fn a_page_keeps_its_lines_and_colours_whatever_was_put_into_it() {
        let text = "\u{1b}[1;38;5;9mparked\u{1b}[0m\n\u{1b}]0;title\u{7}\u{9b}2J\u{202e}é";
        assert_eq!(without_commands(text, true), "\u{1b}[1;38;5;9mparked\u{1b}[0m\n\u{fffd}]0;title\u{fffd}\u{fffd}2J\u{fffd}é");
        assert!(!without_commands(text, false).contains('\u{1b}'));
        assert!(matches!(without_commands("two\nlines", false), Cow::Borrowed(_)));
    }

    #[test]
    fn a_table_without_a_terminal_is_plain_text() {
        let output = Output { json: false, colours: false };
        let mut table = output.table(&["state"]);
        table.add_row([output.state(JobState::Parked)]);
        assert_eq!(rendered(table), "state\nparked");
    }

    #[test]
    fn times_are_utc_and_durations_short() {
        assert_eq!(when(time::macros::datetime!(2025-03-04 15:05:00 +1)), "2025-03-04 14:05:00Z");
        assert_eq!([milliseconds(7), milliseconds(3456)], ["7 ms", "3.4 s"]);
    }
}
