//! The README says what is so: its settings, its commands and its examples are those of the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use dispatch_worker::job::JobId;
use dispatch_worker::message::{Envelope, Intake, decode_intake};
use dispatch_worker::providers::ProviderSettings;
use dispatch_worker::providers::channel::channels;
use dispatch_worker::providers::governor::DEFAULT_RATES;
use dispatch_worker::providers::http::HttpClient;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::tracker::TrackerDocument;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    fs::read_to_string(path).expect("there is a README.md")
}

/// What stands between two markers, which are comments.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("README.md has no `{from}`"));
    rest.split_once(to).unwrap_or_else(|| panic!("README.md has no `{to}` after `{from}`")).0.trim()
}

/// The JSON block after a marker.
fn example<'t>(text: &'t str, marker: &str) -> &'t str {
    between(text, &format!("{marker}\n```json"), "\n```\n")
}

fn dispatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dispatch")).args(arguments).output().expect("the program runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The subcommands that `--help` lists for a command.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = said(&dispatch(&[of, &["-h"]].concat()));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
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
    let starts = text.match_indices("dispatch ").filter(|(at, _)| *at == 0 || text[..*at].ends_with(['`', '\n']));
    let ends = |rest: &str| rest.find(['`', '\n']).unwrap_or(rest.len());
    let words = starts.map(|(at, start)| &text[at + start.len()..]).map(|rest| rest[..ends(rest)].split(' '));
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    let commands = words.map(|words| words.take_while(is_name).collect::<Vec<_>>().join(" "));
    commands.filter(|command| !command.is_empty()).map(|command| format!("dispatch {command}")).collect()
}

#[test]
fn the_table_of_settings_is_the_program_s() {
    let readme = readme();
    let told = between(&readme, "<!-- settings -->", "<!-- /settings -->");
    let right = said(&dispatch(&["settings"]));
    assert_eq!(told, right.trim(), "right is what `dispatch settings` prints");
}

#[test]
fn the_rates_in_the_settings_are_the_governor_s() {
    let told = said(&dispatch(&["settings"]));
    assert!(told.contains(&format!("`{DEFAULT_RATES}`")), "`config` may not name the governor, so it says them again: {told}");
}

#[test]
fn every_channel_is_in_the_table_of_channels() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = HttpClient::new(false).expect("an HTTP client");
    let kinds: Vec<&str> = channels(&http, &ProviderSettings::default(), None).iter().map(|channel| channel.kind()).collect();
    let readme = readme();
    let table = between(&readme, "<!-- channels -->", "<!-- /channels -->");
    let told: Vec<&str> = table.lines().skip(2).filter_map(|row| row.split('`').nth(1)).collect();
    assert_eq!(told, kinds);
}

#[test]
fn the_table_of_commands_has_every_command_and_no_other() {
    let readme = readme();
    let table = between(&readme, "<!-- commands -->", "<!-- /commands -->");
    let told: BTreeSet<String> = named_commands(table).into_iter().collect();
    assert_eq!(told, commands());
}

#[test]
fn every_command_that_the_readme_names_exists() {
    let known = commands();
    let named = named_commands(&readme());
    assert!(named.len() > 10, "{named:?}");
    let unknown: Vec<&String> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not among {known:?}");
}

#[test]
fn the_example_of_a_job_is_taken() {
    let readme = readme();
    let keyring = Keyring::parse(&Keyring::fresh_setting()).expect("a fresh keyring is right");
    let envelope = Envelope { content_type: Some("application/json".to_owned()), ..Envelope::default() };
    let body = example(&readme, "<!-- job.json -->");
    let intake = decode_intake(body.as_bytes(), &envelope, &keyring, JobId::fresh());
    assert!(matches!(&intake, Ok(Intake::Request { .. })), "{intake:?}");
}

#[test]
fn the_example_of_a_tracker_document_is_one() {
    let readme = readme();
    let document: TrackerDocument = serde_json::from_str(example(&readme, "<!-- tracker.json -->")).expect("a tracker document");
    assert_eq!(document.organizations.len(), 1);
}

/// The documents, from the top of the project.
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/THREATS.md"];

/// What a heading is linked by, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The targets of a document's links, without those to other sites.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn every_link_within_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut broken) = (0, Vec::new());
    for document in DOCUMENTS.map(|name| root.join(name)) {
        let text = fs::read_to_string(&document).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
        for link in links(&text) {
            let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
            let file = if path.is_empty() { document.clone() } else { document.with_file_name(path) };
            // A folder has no text, and no headings.
            let is_there = file.exists();
            let there = fs::read_to_string(file).ok();
            let is_heading = |wanted: &str| {
                let lines = there.iter().flat_map(|there| there.lines().filter(|line| line.starts_with('#')));
                lines.map(|line| anchor(line.trim_start_matches('#').trim_start())).any(|anchor| anchor == wanted)
            };
            count += 1;
            if !is_there || heading.is_some_and(|heading| !is_heading(heading)) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(count > 10 && broken.is_empty(), "of {count} links: {broken:#?}");
}
