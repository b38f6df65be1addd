//! No text of others is written into a log as it is: an event's field that is shown with `%`, and a message with something in it,
//! are of a kind that this file lists. The formatter escapes what could begin a line all the same (`telemetry`); this keeps a
//! field from looking like several.

use std::fs;
use std::path::{Path, PathBuf};

/// What may be shown as it is, by the file and as its code says it: numbers, ids and addresses of our own.
const SHOWN: &[(&str, &str)] = &[
    ("app/incarnation.rs", "lease.replica()"),
    ("app/mod.rs", "process.settings.ops_listen"),
    ("maintenance/orphans.rs", "job"),
    ("worker/lease.rs", "self.replica"),
    ("worker/mod.rs", "claim.job.id"),
    ("worker/report.rs", "parent"),
];

/// What may stand in a message's text: the names of our own tables and partitions, and what was done with one.
const IN_MESSAGES: &[(&str, &str)] =
    &[("store/partitions.rs", "parent"), ("store/partitions.rs", "which"), ("store/partitions.rs", "done")];

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

/// What a file logs: what is shown with `%`, and what stands in messages.
#[derive(Debug, Default, PartialEq)]
struct Logged {
    shown: Vec<String>,
    in_messages: Vec<String>,
}

/// Of each event and span in a file's code.
fn logged(code: &str) -> Logged {
    let mut logged = Logged::default();
    for name in MACROS.map(|name| format!("tracing::{name}")) {
        code.match_indices(&name).for_each(|(at, _)| read(&code[at + name.len()..], &mut logged));
    }
    logged
}

/// The arguments of one macro, from behind its bracket.
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
            '%' => logged.shown.push(expression(&arguments[at + 1..]).trim().to_owned()),
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// Up to the quotation mark that ends it.
fn literal(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    &text[..end.expect("a text has an end")]
}

/// The names or positions in a format string.
fn interpolated(text: &str) -> impl Iterator<Item = String> {
    let bare = text.replace("{{", "").replace("}}", "");
    let inside: Vec<String> =
        bare.split('{').skip(1).map(|rest| rest.split(['}', ':']).next().unwrap_or_default().to_owned()).collect();
    inside.into_iter()
}

/// Up to the comma behind it, or the bracket that ends the macro.
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
    &text[..end.expect("a macro has an end")]
}

/// Every `.rs` file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder that reads").map(|entry| entry.expect("a folder that reads").path());
    entries
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => files(&path),
            Some(extension) if extension == "rs" => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn this_test_sees_what_it_looks_for() {
    let code = r#"tracing::info!(a = %one(x, y).z, b = 3 , %c, "plain, %d"); tracing::warn_span!("x {e:?} {{f}}", g = ?h, %i)"#;
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    assert_eq!(logged(code), Logged { shown: words(&["one(x, y).z", "c", "i"]), in_messages: words(&["e"]) });
}

#[test]
fn only_values_of_our_own_are_logged_as_they_are() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut seen) = (Vec::new(), 0);
    for file in files(&src) {
        let path = file.strip_prefix(&src).expect("it was found there").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("a source file is text");
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        // What tests plant is about this rule.
        let logged = logged(code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        seen += logged.shown.len() + logged.in_messages.len();
        let is_listed = |list: &[(&str, &str)], what: &str| list.contains(&(path.as_str(), what));
        found.extend(logged.shown.iter().filter(|what| !is_listed(SHOWN, what)).map(|what| format!("src/{path}: %{what}")));
        let in_messages = logged.in_messages.iter().filter(|what| !is_listed(IN_MESSAGES, what));
        found.extend(in_messages.map(|what| format!("src/{path}: {{{what}}}")));
    }
    assert!(found.is_empty(), "give text as a value (`error = chain(&error)`), which is quoted:\n  {}", found.join("\n  "));
    assert!(seen >= SHOWN.len() + IN_MESSAGES.len(), "the sources were not found");
}
