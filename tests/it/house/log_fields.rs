//! No external text is logged unquoted: every `%` field and every interpolated message in the
//! sources is listed here. The formatter escapes line breaks in any case (`telemetry`); this check
//! prevents that one field looks like several.

use std::fs;
use std::path::{Path, PathBuf};

/// The permitted `%` expressions by file: numbers, ids and addresses of the program itself.
const SHOWN: &[(&str, &str)] = &[
    ("app/incarnation.rs", "lease.replica()"),
    ("app/mod.rs", "process.settings.ops_listen"),
    ("maintenance/orphans.rs", "job"),
    ("worker/lease.rs", "self.replica"),
    ("worker/mod.rs", "claim.job.id"),
    ("worker/report.rs", "parent"),
];

/// The permitted interpolations in messages: names of the program's own tables and partitions, and
/// what was done with one.
const IN_MESSAGES: &[(&str, &str)] = &[
    ("store/partitions.rs", "parent"),
    ("store/partitions.rs", "which"),
    ("store/partitions.rs", "done"),
];

const MACROS: [&str; 11] = [
    "error!(",
    "warn!(",
    "info!(",
    "debug!(",
    "trace!(",
    "event!(",
    "error_span!(",
    "warn_span!(",
    "info_span!(",
    "debug_span!(",
    "trace_span!(",
];

/// The `%` expressions and the interpolations of a file.
#[derive(Debug, Default, PartialEq)]
struct Logged {
    shown: Vec<String>,
    in_messages: Vec<String>,
}

/// Collects the expressions of every event and span in a file's code.
fn logged(code: &str) -> Logged {
    let mut logged = Logged::default();
    for name in MACROS.map(|name| format!("tracing::{name}")) {
        code.match_indices(&name)
            .for_each(|(at, _)| read(&code[at + name.len()..], &mut logged));
    }
    logged
}

/// Collects the expressions of one macro call; `arguments` begins after the opening bracket.
fn read(arguments: &str, logged: &mut Logged) {
    let (mut depth, mut characters) = (1, arguments.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let text = literal(&arguments[at + 1..]);
                logged.in_messages.extend(interpolated(text));
                let behind = at + 1 + text.len();
                while characters.next().is_some_and(|(inside, _)| inside < behind) {}
            }
            '%' => logged
                .shown
                .push(expression(&arguments[at + 1..]).trim().to_owned()),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// Returns the text up to the closing quotation mark.
fn literal(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    &text[..end.expect("a closing quotation mark")]
}

/// Returns the names or positions in a format string.
fn interpolated(text: &str) -> impl Iterator<Item = String> {
    let bare = text.replace("{{", "").replace("}}", "");
    let inside: Vec<String> = bare
        .split('{')
        .skip(1)
        .map(|rest| rest.split(['}', ':']).next().unwrap_or_default().to_owned())
        .collect();
    inside.into_iter()
}

/// Returns the expression up to the next comma, or to the closing bracket of the macro.
fn expression(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|character| {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        depth < 0 || depth == 0 && character == ','
    });
    &text[..end.expect("a closing bracket")]
}

/// Returns every `.rs` file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable folder").path());
    entries
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => files(&path),
            Some(extension) if extension == "rs" => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn the_check_detects_what_it_looks_for() {
    let code = r#"tracing::info!(a = %one(x, y).z, b = 3 , %c, "plain, %d"); tracing::warn_span!("x {e:?} {{f}}", g = ?h, %i)"#;
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        logged(code),
        Logged {
            shown: words(&["one(x, y).z", "c", "i"]),
            in_messages: words(&["e"])
        }
    );
}

#[test]
fn only_listed_values_are_logged_unquoted() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut seen) = (Vec::new(), 0);
    for file in files(&src) {
        let path = file
            .strip_prefix(&src)
            .expect("the file is below src")
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&file).expect("a source file is text");
        let code: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let code = code.join("\n");
        // Tests may log anything.
        let logged = logged(
            code.split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default(),
        );
        seen += logged.shown.len() + logged.in_messages.len();
        let is_listed = |list: &[(&str, &str)], what: &str| list.contains(&(path.as_str(), what));
        found.extend(
            logged
                .shown
                .iter()
                .filter(|what| !is_listed(SHOWN, what))
                .map(|what| format!("src/{path}: %{what}")),
        );
        let in_messages = logged
            .in_messages
            .iter()
            .filter(|what| !is_listed(IN_MESSAGES, what));
        found.extend(in_messages.map(|what| format!("src/{path}: {{{what}}}")));
    }
    assert!(
        found.is_empty(),
        "pass text as a value (`error = chain(&error)`), which is quoted:\n  {}",
        found.join("\n  ")
    );
    assert!(
        seen >= SHOWN.len() + IN_MESSAGES.len(),
        "the sources were not found"
    );
}
