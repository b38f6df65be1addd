//! The documents describe the program: their commands, settings, codes, examples and links exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};

use dispatch_worker::job::JobId;
use dispatch_worker::message::{Envelope, Intake, decode_intake};
use dispatch_worker::providers::channel::CHANNELS;
use dispatch_worker::providers::governor::default_rates;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::tracker::TrackerDocument;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A document, by its path from the top of the project.
pub(crate) fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text between two markers, which are comments.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text
        .split_once(from)
        .unwrap_or_else(|| panic!("the document has no `{from}`"));
    rest.split_once(to)
        .unwrap_or_else(|| panic!("the document has no `{to}` after `{from}`"))
        .0
        .trim()
}

/// The JSON block after a marker.
fn example<'t>(text: &'t str, marker: &str) -> &'t str {
    between(text, &format!("{marker}\n```json"), "\n```\n")
}

fn dispatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dispatch"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

fn output(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The subcommands that `--help` lists for a command.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = output(&dispatch(&[of, &["-h"]].concat()));
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let names = listed
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Every command of the program that does something, as a person types it.
pub(crate) fn commands() -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    for name in subcommands(&[]) {
        let inner = subcommands(&[&name]);
        if inner.is_empty() {
            commands.insert(format!("dispatch {name}"));
        }
        commands.extend(inner.iter().map(|inner| format!("dispatch {name} {inner}")));
    }
    commands
}

/// The commands in a text: code that begins with `dispatch`, up to what is no name of a command.
fn named_commands(text: &str) -> BTreeSet<String> {
    let starts = text
        .match_indices("dispatch ")
        .filter(|(at, _)| *at == 0 || text[..*at].ends_with(['`', '\n']));
    let ends = |rest: &str| rest.find(['`', '\n']).unwrap_or(rest.len());
    let words = starts
        .map(|(at, start)| &text[at + start.len()..])
        .map(|rest| rest[..ends(rest)].split(' '));
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    let commands = words.map(|words| words.take_while(is_name).collect::<Vec<_>>().join(" "));
    commands
        .filter(|command| !command.is_empty())
        .map(|command| format!("dispatch {command}"))
        .collect()
}

#[test]
fn the_pages_of_the_reference_are_printed_by_the_program() {
    for page in ["commands", "settings", "metrics", "events", "api"] {
        let path = format!("docs/reference/{page}.md");
        let printed = output(&dispatch(&["reference", page]));
        assert!(
            document(&path) == printed,
            "{path} differs; run `dispatch reference {page} > {path}`"
        );
    }
}

/// Modules whose codes stand beside `fn code`, too, dotted behind the module's name.
const CODES_OF: [&str; 9] = [
    "azure_devops.",
    "broker.",
    "email.",
    "engine.",
    "entra.",
    "erasure.",
    "governor.",
    "store.",
    "teams.",
];

#[test]
fn the_page_of_error_codes_has_every_code_of_the_sources_and_no_other() {
    let is_code = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_'))
    };
    let mut known = BTreeSet::new();
    for path in sources(&root().join("src")) {
        let is_part = |part: Component<'_>| {
            ["devkit", "tests", "tests.rs"]
                .iter()
                .any(|name| part.as_os_str() == *name)
        };
        let is_test =
            path.components().any(is_part) || path.to_string_lossy().ends_with("_tests.rs");
        if is_test || path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source");
        let production = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        // The literals of every function that returns a code, up to the end of the function, and
        // those that several modules name.
        let body = |start: &'static str, end: &'static str| {
            let bodies = production.split(start).skip(1);
            bodies.filter_map(move |rest| rest.split(end).next())
        };
        let bodies = body("fn code(", "\n    }\n").chain(body("pub mod codes {", "\n}\n"));
        known.extend(
            bodies
                .flat_map(literals)
                .filter(|word| is_code(word))
                .map(str::to_owned),
        );
        let is_dotted =
            |word: &&str| CODES_OF.iter().any(|module| word.starts_with(module)) && is_code(word);
        known.extend(literals(production).filter(is_dotted).map(str::to_owned));
    }
    let page = document("docs/reference/error-codes.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = rows
        .filter_map(|row| row.split('`').nth(1))
        .filter(|word| is_code(word))
        .map(str::to_owned)
        .collect();
    assert!(known.len() > 80, "{known:?}");
    // Of the kinds that every provider has, the page may explain one of a single provider.
    let of_providers = document("src/providers/http_fault.rs");
    let is_of_a_provider = |code: &&String| {
        code.split_once('.')
            .is_some_and(|(_, kind)| of_providers.contains(&format!("\".{kind}\"")))
    };
    let missing: Vec<_> = known.difference(&listed).collect();
    let extra: Vec<_> = listed
        .difference(&known)
        .filter(|code| !is_of_a_provider(code))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:?}; of no source: {extra:?}"
    );
}

/// The string literals on the lines of a text.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
}

/// The files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path))
        } else {
            found.push(path)
        }
    }
    found
}

#[test]
fn the_rates_in_the_documents_are_the_governor_s() {
    let rates = default_rates();
    for page in ["docs/destinations.md", "docs/reference/settings.md"] {
        assert!(document(page).contains(rates), "{page} lacks {rates}");
    }
}

#[test]
fn every_channel_is_in_the_table_of_channels() {
    let kinds: Vec<&str> = CHANNELS.iter().map(|kind| kind.name()).collect();
    let destinations = document("docs/destinations.md");
    let table = between(&destinations, "<!-- channels -->", "<!-- /channels -->");
    let listed: Vec<&str> = table
        .lines()
        .skip(2)
        .filter_map(|row| row.split('`').nth(1))
        .collect();
    assert_eq!(listed, kinds);
}

#[test]
fn every_command_that_a_document_names_exists() {
    let known = commands();
    let mut named = BTreeSet::new();
    for path in documents()
        .iter()
        .filter(|path| !path.ends_with("CHANGELOG.md"))
    {
        named.extend(named_commands(
            &fs::read_to_string(path).expect("a document"),
        ));
    }
    // A command with subcommands may be named as a whole (`dispatch jobs`), another one with its
    // argument (`dispatch schema job`).
    let begins = |one: &str, other: &str| {
        one.strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let takes_a_word = [
        "dispatch completions",
        "dispatch reference",
        "dispatch schema",
    ];
    let runs = |name: &str| {
        dispatch(&name.split(' ').skip(1).collect::<Vec<_>>())
            .status
            .success()
    };
    let is_known = |name: &&String| {
        known.iter().any(|known| begins(known, name))
            || takes_a_word.iter().any(|command| begins(name, command)) && runs(name)
    };
    let unknown: Vec<&String> = named.iter().filter(|name| !is_known(name)).collect();
    assert!(
        named.len() > 40 && unknown.is_empty(),
        "{unknown:?} are not among {known:?}"
    );
}

#[test]
fn the_readme_and_the_architecture_are_short() {
    for (path, limit) in [("README.md", 180), ("ARCHITECTURE.md", 200)] {
        let lines = document(path).lines().count();
        assert!(
            lines <= limit,
            "{path}: expected at most {limit} lines, got {lines}"
        );
    }
}

#[test]
fn the_summary_of_the_book_lists_every_page() {
    let summary = document("docs/SUMMARY.md");
    let listed: BTreeSet<&str> = links(&summary).into_iter().collect();
    let folder = root().join("docs");
    let pages = documents().into_iter();
    let pages: BTreeSet<String> = pages
        .filter_map(|path| {
            Some(
                path.strip_prefix(&folder)
                    .ok()?
                    .to_string_lossy()
                    .into_owned(),
            )
        })
        .collect();
    let missing: Vec<&String> = pages
        .iter()
        .filter(|page| *page != "SUMMARY.md" && !listed.contains(page.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/SUMMARY.md does not list {missing:?}"
    );
}

#[test]
fn the_example_of_a_job_is_taken() {
    let producers = document("docs/producers.md");
    let keyring = Keyring::parse(&Keyring::fresh_setting()).expect("a fresh keyring is right");
    let envelope = Envelope {
        content_type: Some("application/json".to_owned()),
        ..Envelope::default()
    };
    let body = example(&producers, "<!-- job.json -->");
    let intake = decode_intake(body.as_bytes(), &envelope, &keyring, JobId::fresh());
    assert!(matches!(&intake, Ok(Intake::Request { .. })), "{intake:?}");
}

#[test]
fn the_example_of_a_tracker_document_is_one() {
    let operators = document("docs/operators.md");
    let document: TrackerDocument =
        serde_json::from_str(example(&operators, "<!-- tracker.json -->"))
            .expect("a tracker document");
    assert_eq!(document.organizations.len(), 1);
}

/// Every Markdown document of the project.
fn documents() -> Vec<PathBuf> {
    let top = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    .map(|name| root().join(name));
    let below = sources(&root().join("docs"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let runbooks = sources(&root().join("deploy/runbooks"));
    top.into_iter().chain(below).chain(runbooks).collect()
}

/// What a heading is linked by, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| {
        if c == ' ' {
            '-'
        } else {
            c.to_ascii_lowercase()
        }
    })
    .collect()
}

/// The targets of a document's links, without those to other sites.
fn links(text: &str) -> Vec<&str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_within_the_documents_leads_somewhere() {
    let (mut count, mut broken) = (0, Vec::new());
    for document in documents() {
        let text = fs::read_to_string(&document)
            .unwrap_or_else(|error| panic!("{}: {error}", document.display()));
        for link in links(&text) {
            let (path, heading) = link
                .split_once('#')
                .map_or((link, None), |(path, heading)| (path, Some(heading)));
            let file = if path.is_empty() {
                document.clone()
            } else {
                document.with_file_name(path)
            };
            // A folder has no text, and no headings.
            let is_there = file.exists();
            let there = fs::read_to_string(file).ok();
            let is_heading = |wanted: &str| {
                let lines = there
                    .iter()
                    .flat_map(|there| there.lines().filter(|line| line.starts_with('#')));
                lines
                    .map(|line| anchor(line.trim_start_matches('#').trim_start()))
                    .any(|anchor| anchor == wanted)
            };
            count += 1;
            if !is_there || heading.is_some_and(|heading| !is_heading(heading)) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(
        count > 10 && broken.is_empty(),
        "of {count} links: {broken:#?}"
    );
}
