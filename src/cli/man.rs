//! `dispatch man`: the manual pages, from the parser.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;
use serde_json::json;

use super::output::Output;

/// Print the manual page dispatch(1), or write a page for every command
#[derive(Debug, Args)]
pub(super) struct Manual {
    /// Directory to write the pages to, one for every command
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

impl Manual {
    pub(super) fn run(self, mut command: Command, output: Output) -> anyhow::Result<ExitCode> {
        command.build();
        match self.dir {
            None => {
                let page = page(&command)?;
                output.answer(&json!({"page": "dispatch.1", "text": page}), || {
                    page.clone()
                })?;
            }
            Some(dir) => {
                let written = write_all(&command, &dir)
                    .with_context(|| format!("cannot write the pages to {}", dir.display()))?;
                output.answer(&json!({"written": written}), || written.join("\n"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns dispatch(1): the options of the program, and every command with its summary.
fn page(command: &Command) -> anyhow::Result<String> {
    let (man, mut page) = (Man::new(command.clone()), Vec::new());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8(page)?;
    page.push_str(".SH COMMANDS\n");
    for (name, command) in commands("dispatch", command) {
        let about = command.get_about().map(ToString::to_string);
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            ".TP\n\\fB{}\\fR\n{}",
            escaped(&name),
            escaped(&about.unwrap_or_default())
        );
    }
    page.push_str(".SH SEE ALSO\n\\fBdispatch help\\fR \\fICOMMAND\\fR\n");
    Ok(page)
}

/// Writes a page for each command that help shows. Returns the names of the files.
fn write_all(command: &Command, dir: &std::path::Path) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(dir)?;
    let mut pages = vec![("dispatch.1".to_owned(), page(command)?)];
    for (name, command) in commands("dispatch", command) {
        let title = name.replace(' ', "-");
        let mut page = Vec::new();
        Man::new(command.clone()).title(&title).render(&mut page)?;
        pages.push((format!("{title}.1"), String::from_utf8(page)?));
    }
    for (file, text) in &pages {
        std::fs::write(dir.join(file), text)?;
    }
    Ok(pages.into_iter().map(|(file, _)| file).collect())
}

/// Returns every command that does something, with its whole name.
fn commands<'c>(name: &str, command: &'c Command) -> Vec<(String, &'c Command)> {
    let mut found = Vec::new();
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
    {
        let name = format!("{name} {}", inner.get_name());
        let deeper = commands(&name, inner);
        if deeper.is_empty() {
            found.push((name, inner));
        }
        found.extend(deeper);
    }
    found
}

/// Escapes text for roff: backslashes and hyphens, and a control character at the start of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}
