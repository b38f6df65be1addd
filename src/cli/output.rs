//! Output of commands: data on stdout, as JSON or text, everything else on stderr. No other module
//! prints.
//!
//! **Invariant:** no output of a command controls a terminal, apart from the colours of its own
//! tables; `cli/output.rs` checks every character.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::Context;
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use serde::Serialize;
use serde_json::json;
use time::{OffsetDateTime, UtcOffset};

use crate::config::no_color;
use crate::escape::{self, acts};
use crate::job::JobState;
use crate::operations::Registered;

/// The form of a command's answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    colours: bool,
}

impl Output {
    /// Output as text, or as one JSON document.
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            colours: io::stdout().is_terminal() && !no_color(),
        }
    }

    /// Returns whether the answer is JSON.
    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// Prints the command's answer: `value` as JSON on one line, or the text of `people`.
    pub(super) fn answer(
        self,
        value: &impl Serialize,
        people: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json {
            escape::json(
                &serde_json::to_string(value).context("the answer cannot be encoded as JSON")?,
            )
            .into_owned()
        } else {
            without_commands(&people(), self.colours).into_owned()
        };
        if text.is_empty() {
            return Ok(());
        }
        raw(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }

    /// Prints rows: as JSON, or as the text of `table`, which is empty if there are none.
    pub(super) fn rows<R: Serialize>(
        self,
        rows: &[R],
        table: impl FnOnce(Self, &[R]) -> String,
    ) -> anyhow::Result<()> {
        self.answer(&rows, || {
            if rows.is_empty() {
                String::new()
            } else {
                table(self, rows)
            }
        })
    }

    /// Prints a changed row and the numbers of released jobs.
    pub(super) fn changed<R: Serialize + PartialEq>(
        self,
        changed: &Registered<R>,
        table: impl FnOnce(Self, &[R]) -> String,
    ) -> anyhow::Result<()> {
        let Registered { row, released } = changed;
        let is_changed = row.before.as_ref() != Some(&row.after);
        let value = json!({"changed": is_changed, "now": row.after, "jobs_released": released.now, "jobs_to_follow": released.later});
        self.answer(&value, || {
            let row = table(self, std::slice::from_ref(&row.after));
            format!("{row}\n\njobs released: {released}")
        })
    }

    /// Prints a line before the answer. With JSON output it prints nothing.
    pub(super) fn line(self, text: &str) -> anyhow::Result<()> {
        if self.json {
            Ok(())
        } else {
            raw(format!("{}\n", plain(text)).as_bytes())
        }
    }

    /// Returns an empty table with these headings, as wide as the terminal.
    pub(super) fn table(self, headings: &[&str]) -> Table {
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if !headings.is_empty() {
            table.set_header(headings.iter().map(|heading| {
                self.styled(Cell::new(heading), |cell| {
                    cell.add_attribute(Attribute::Bold)
                })
            }));
        }
        table
    }

    /// Returns a cell with the state in its colour.
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

/// Renders a table as text without trailing blanks.
pub(super) fn rendered(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Prints stored text on stdout unchanged. On a terminal it replaces control characters.
pub(super) fn verbatim(text: &str) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        return raw(text.as_bytes());
    }
    raw(format!("{}\n", without_commands(text, false).trim_end_matches('\n')).as_bytes())
}

/// Writes bytes to stdout.
pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // The reader closed the pipe (`| head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Prints a line on stderr.
pub(super) fn say(line: &str) {
    // A closed stderr has no reader.
    drop(writeln!(io::stderr(), "{}", plain(line)));
}

/// Prints several lines on stderr.
pub(super) fn say_lines(text: &str) {
    text.lines().for_each(say);
}

/// Returns whether a prompt is possible: stdin and stderr are terminals.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Prompts on the terminal. Every answer except `y` and `yes` counts as no.
pub(super) fn ask(question: &str) -> anyhow::Result<bool> {
    write!(io::stderr(), "{} [y/N] ", plain(question)).context("cannot print the prompt")?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer to the prompt")?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// Returns stored text as one line that is safe on a terminal: each character that acts on a
/// terminal (see [`acts`]) becomes U+FFFD.
pub(super) fn plain(text: &str) -> String {
    text.replace(acts, "\u{fffd}")
}

/// Returns lines that are safe on a terminal, each as [`plain`] makes it. With `colours` the
/// colours of tables are kept.
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
        let dropped = if kept == 0 {
            from.chars().next().map_or(0, char::len_utf8)
        } else {
            0
        };
        if dropped > 0 {
            safe.push('\u{fffd}');
        }
        rest = &from[kept + dropped..];
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// Returns the length in bytes of the colour or style sequence (`ESC [ … m`) at the start of
/// `text`, or 0.
fn colour(text: &str) -> usize {
    let parameters = text.strip_prefix("\u{1b}[").map(|rest| {
        (
            rest,
            rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'),
        )
    });
    parameters
        .filter(|(_, behind)| behind.starts_with('m'))
        .map_or(0, |(rest, behind)| 3 + rest.len() - behind.len())
}

/// Formats text for a cell of a Markdown table.
pub(super) fn markdown_cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}

/// Returns the text, or `-` for `None`.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), plain)
}

/// Formats a time in UTC: `2025-03-04 14:05:00Z`.
pub(super) fn when(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!(
        "{} {:02}:{:02}:{:02}Z",
        at.date(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Formats milliseconds: `12 ms`, `3.4 s`.
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
        assert_eq!(
            plain("a\u{1b}[2Jb\nc\u{202e}d\u{2028}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}"
        );
    }

    #[test]
    fn a_page_keeps_its_lines_and_colours_whatever_was_put_into_it() {
        let text = "\u{1b}[1;38;5;9mparked\u{1b}[0m\n\u{1b}]0;title\u{7}\u{9b}2J\u{202e}é";
        assert_eq!(
            without_commands(text, true),
            "\u{1b}[1;38;5;9mparked\u{1b}[0m\n\u{fffd}]0;title\u{fffd}\u{fffd}2J\u{fffd}é"
        );
        assert!(!without_commands(text, false).contains('\u{1b}'));
        assert!(matches!(
            without_commands("two\nlines", false),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn a_table_without_a_terminal_is_plain_text() {
        let output = Output {
            json: false,
            colours: false,
        };
        let mut table = output.table(&["state"]);
        table.add_row([output.state(JobState::Parked)]);
        assert_eq!(rendered(table), "state\nparked");
    }

    #[test]
    fn times_are_utc_and_durations_short() {
        assert_eq!(
            when(time::macros::datetime!(2025-03-04 15:05:00 +1)),
            "2025-03-04 14:05:00Z"
        );
        assert_eq!([milliseconds(7), milliseconds(3456)], ["7 ms", "3.4 s"]);
    }
}
