//! Checks of the code's structure: dependencies between modules, places of drivers, orphaned
//! files, and file lengths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules without I/O and without dependencies except on each other.
const NOUNS: &[&str] = &[
    "job",
    "message",
    "fault",
    "quota",
    "secrets",
    "tls_policy",
    "trace",
    "pg_error",
    "reconnect",
    "crash_point",
    "escape",
];

/// The modules that a module may name, besides itself and [`NOUNS`]. `module::item` allows that
/// item only.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "broker",
            "config",
            "devkit",
            "engine",
            "erasure",
            "pipelines",
            "store",
            "telemetry",
            "tracker",
        ],
    ),
    (
        "app",
        &[
            "broker",
            "config",
            "engine",
            "holds",
            "maintenance",
            "ops",
            "pipelines",
            "providers",
            "readiness",
            "store",
            "telemetry",
            "tracker",
            "worker",
        ],
    ),
    ("holds", &["providers", "store"]),
    (
        "readiness",
        &["broker", "maintenance", "ops", "store", "worker"],
    ),
    (
        "maintenance",
        &[
            "broker",
            "engine",
            "store",
            "telemetry::names",
            "tracker",
            "worker",
        ],
    ),
    ("worker", &["broker", "engine", "store", "telemetry::names"]),
    ("pipelines", &["engine", "providers", "tracker"]),
    ("store", &["engine", "telemetry::names"]),
    ("broker", &["engine::Lane", "telemetry::names"]),
    ("tracker", &["providers::channel"]),
    ("erasure", &["tracker"]),
    ("providers", &["telemetry::names"]),
    ("ops", &[]),
    ("engine", &[]),
    ("telemetry", &["config"]),
    ("config", &["providers"]),
    // The devkit stands for everything around the worker: servers, providers, producers,
    // operators.
    (
        "devkit",
        &[
            "broker",
            "engine",
            "pipelines",
            "providers",
            "store",
            "telemetry",
            "tracker",
        ],
    ),
];

/// A driver or a restricted call, and the only modules whose code may name it; a path stands for
/// one file.
const ONLY: &[(&str, &[&str])] = &[
    ("lapin::", &["broker"]),
    ("async_rs::", &["broker"]),
    ("reqwest::", &["providers", "devkit"]),
    ("lettre::", &["providers"]),
    ("backoff::", &["reconnect"]),
    ("refinery::", &["store"]),
    ("axum::", &["ops", "devkit"]),
    ("clap::", &["cli", "config"]),
    ("anyhow::", &["app", "cli", "devkit"]),
    ("deadpool_postgres::", &["store", "tracker", "devkit"]),
    (
        "tokio_postgres::",
        &["store", "tracker", "erasure", "pg_error", "app", "devkit"],
    ),
    ("tokio::spawn", &["app", "devkit", "store/pool.rs"]),
    ("JoinSet", &["app", "devkit"]),
    ("thread::", &["app", "devkit"]),
    ("env::var", &["config"]),
    ("println!", &["cli"]),
    ("eprintln!", &["cli"]),
    ("print!", &["cli"]),
    ("stdout()", &["cli", "devkit"]),
    ("Fence {", &["store/claim.rs"]),
    ("Caller {", &["pipelines/signed_in.rs"]),
];

const LONGEST_FILE: usize = 760;

/// A file of `src`.
struct Source {
    /// The path within `src`, with slashes.
    path: String,
    /// The top-level module: a folder of `src`, or the file's own name.
    module: String,
    text: String,
    /// The text without comments.
    code: String,
    /// The text without comments and tests; empty for a file of tests.
    production: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every `.rs` file below `folder`, in order.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => rust_files(&path),
            Some(extension) if extension == "rs" => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut sources: Vec<Source> = rust_files(&src)
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a source file is text");
            let path = file
                .strip_prefix(&src)
                .expect("the file is below src")
                .to_string_lossy()
                .replace('\\', "/");
            let module = path
                .split('/')
                .next()
                .unwrap_or_default()
                .trim_end_matches(".rs")
                .to_owned();
            let code = without_comments(&text);
            let production = without_tests(&code);
            Source {
                path,
                module,
                text,
                code,
                production,
            }
        })
        .collect();
    let test_files: BTreeSet<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        if test_files.iter().any(|file| {
            source.path == format!("{file}.rs") || source.path.starts_with(&format!("{file}/"))
        }) {
            source.production.clear();
        }
    }
    assert!(sources.len() > 100, "the sources were not found");
    sources
}

/// Removes comments: whole lines, and ends of lines after a space.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        code.push_str(line.split(" // ").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Removes the tests at the end of a file.
fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Returns the modules that a file declares, each with whether it is for tests only.
fn declared(code: &str) -> Vec<(bool, &str)> {
    let (mut declared, mut for_tests) = (Vec::new(), false);
    for line in code.lines().map(str::trim) {
        let bare = ["pub(crate) ", "pub(super) ", "pub "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
            .unwrap_or(line);
        if let Some(name) = bare
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            declared.push((for_tests, name));
        }
        for_tests = line == "#[cfg(test)]";
    }
    declared
}

/// Returns the folder of a file's submodules, within `src`.
fn folder_of(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    match stem {
        "lib" | "main" => String::new(),
        _ => format!("{}/", stem.trim_end_matches("/mod")),
    }
}

/// Returns the files, without `.rs`, of the modules that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let folder = folder_of(&source.path);
    declared(&source.code)
        .iter()
        .filter(|(for_tests, _)| *for_tests)
        .map(|(_, name)| format!("{folder}{name}"))
        .collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the places where `needle` begins a path or a name and is not the end of another one.
fn places<'c>(code: &'c str, needle: &'c str) -> impl Iterator<Item = &'c str> {
    let begins =
        move |at: &usize| !code[..*at].ends_with(|before: char| is_word(before) || before == ':');
    code.match_indices(needle)
        .map(|(at, _)| at)
        .filter(begins)
        .map(move |at| &code[at + needle.len()..])
}

/// Returns what a file names of the crate, as `module` or `module::item`; a group in braces names
/// each of its members.
fn named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for prefix in ["crate::", "dispatch_worker::"] {
        for rest in places(code, prefix) {
            match rest.strip_prefix('{') {
                Some(group) => {
                    let group = group.split('}').next().unwrap_or_default();
                    named.extend(
                        group
                            .split(',')
                            .map(str::trim)
                            .filter(|name| !name.is_empty())
                            .map(str::to_owned),
                    );
                }
                None => {
                    named.insert(
                        rest.split(|c: char| !is_word(c) && c != ':')
                            .next()
                            .unwrap_or_default()
                            .to_owned(),
                    );
                }
            }
        }
    }
    named
}

fn is_allowed(module: &str, path: &str) -> bool {
    let target = path.split("::").next().unwrap_or_default();
    if target == module || NOUNS.contains(&target) {
        return true;
    }
    let arrows = ARROWS
        .iter()
        .find(|(from, _)| *from == module)
        .map_or(&[][..], |(_, to)| *to);
    arrows
        .iter()
        .any(|to| *to == target || path == *to || path.starts_with(&format!("{to}::")))
}

fn none(found: &[String], right: &str) {
    assert!(found.is_empty(), "{right}\n  {}", found.join("\n  "));
}

#[test]
fn the_checks_detect_what_they_look_for() {
    let code = without_comments(
        "//! `crate::cli`\nuse crate::{store, tracker::Group};\nlet pool = crate::broker::connect(); // crate::ops\n",
    );
    assert_eq!(
        named(&code),
        ["store", "tracker::Group", "broker::connect"]
            .map(str::to_owned)
            .into()
    );
    assert!(is_allowed("broker", "engine::Lane") && is_allowed("engine", "job::JobId"));
    assert!(
        !is_allowed("broker", "engine::Stage")
            && !is_allowed("store", "pipelines::Dispatch")
            && !is_allowed("engine", "store")
    );
    assert!(
        code_names("use lapin::Connection;", "lapin::")
            && !code_names("use crate::lapin::x;", "lapin::")
    );
    assert!(
        code_names("std::thread::spawn(f)", "thread::spawn") && !code_names("respawn()", "spawn")
    );
    assert_eq!(
        declared("pub mod a;\n#[cfg(test)]\nmod tests;\nmod inner {"),
        [(false, "a"), (true, "tests")]
    );
    assert_eq!(
        invariants("//! It is so.\n//! **Invariant:** one\n//! thing.\n\nuse x;"),
        ["one thing"]
    );
}

#[test]
fn modules_depend_only_on_the_modules_that_are_listed_for_them() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs") {
        if !NOUNS.contains(&&*source.module)
            && !ARROWS.iter().any(|(module, _)| *module == source.module)
        {
            found.push(format!(
                "src/{}: `{}` is not in this test's table of dependencies",
                source.path, source.module
            ));
        }
        let wrong = named(&source.code)
            .into_iter()
            .filter(|path| !is_allowed(&source.module, path));
        found.extend(wrong.map(|path| {
            format!(
                "src/{}: `{}` may not name `crate::{path}`",
                source.path, source.module
            )
        }));
    }
    none(&found, "dependencies that ARCHITECTURE.md does not show:");
}

#[test]
fn no_file_reaches_another_module_through_super() {
    let mut found = Vec::new();
    for source in sources() {
        let depth = source
            .path
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .split('/')
            .count();
        // One `super::` per level of depth reaches the crate root.
        let out = "super::".repeat(depth);
        if !["lib.rs", "main.rs"].contains(&source.path.as_str())
            && places(&source.production, &out).next().is_some()
        {
            found.push(format!("src/{}: `{out}`", source.path));
        }
    }
    none(
        &found,
        "name other modules as `crate::…`, so that dependencies are visible:",
    );
}

#[test]
fn each_driver_and_each_restricted_call_is_named_only_in_its_place() {
    let mut found = Vec::new();
    for source in sources() {
        for (needle, modules) in ONLY {
            let is_here = modules.contains(&source.module.as_str())
                || modules.contains(&source.path.as_str());
            if !is_here && code_names(&source.production, needle) {
                found.push(format!(
                    "src/{}: `{needle}` belongs to {}",
                    source.path,
                    modules.join(", ")
                ));
            }
        }
    }
    none(&found, "named outside its place:");
}

/// Returns whether the code names `needle`. `thread::spawn` counts behind `std::` too, a driver
/// only at the start of a path.
fn code_names(code: &str, needle: &str) -> bool {
    let is_deed = !needle.ends_with("::") || needle.contains("thread");
    if is_deed {
        let begins = |at: &usize| !code[..*at].ends_with(is_word);
        return code
            .match_indices(needle)
            .map(|(at, _)| at)
            .any(|at| begins(&at));
    }
    places(code, needle).next().is_some()
}

#[test]
fn a_stage_holds_no_connection_and_no_transaction() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.module == "pipelines")
    {
        for needle in [
            "Pool",
            "Transaction",
            "Client",
            "GenericClient",
            "prepare_cached",
        ] {
            if code_names(&source.production, needle) {
                found.push(format!("src/{}: `{needle}`", source.path));
            }
        }
    }
    none(
        &found,
        "stages reach Postgres through the tracker, which holds nothing between calls:",
    );
}

#[test]
fn every_file_is_part_of_the_crate() {
    let sources = sources();
    let mut reached = BTreeSet::from(["lib.rs".to_owned(), "main.rs".to_owned()]);
    let mut open: Vec<String> = reached.iter().cloned().collect();
    while let Some(path) = open.pop() {
        let source = sources
            .iter()
            .find(|source| source.path == path)
            .expect("only existing files are queued");
        assert!(
            !source.code.contains("#[path"),
            "src/{path}: use the default paths of modules"
        );
        let folder = folder_of(&path);
        for (_, name) in declared(&source.code) {
            let files = [
                format!("{folder}{name}.rs"),
                format!("{folder}{name}/mod.rs"),
            ];
            let file = files
                .into_iter()
                .find(|file| sources.iter().any(|source| source.path == *file));
            let file = file.unwrap_or_else(|| panic!("src/{path}: `mod {name};` has no file"));
            if reached.insert(file.clone()) {
                open.push(file);
            }
        }
    }
    let orphans: Vec<String> = sources
        .iter()
        .filter(|source| !reached.contains(&source.path))
        .map(|s| s.path.clone())
        .collect();
    none(&orphans, "files of src that no `mod` line names:");
}

#[test]
fn every_test_file_is_part_of_the_test_binary() {
    let tests = root().join("tests/it");
    let main = fs::read_to_string(tests.join("main.rs")).expect("tests/it/main.rs");
    let names: Vec<&str> = declared(&main).into_iter().map(|(_, name)| name).collect();
    let entries = fs::read_dir(&tests)
        .expect("tests/it")
        .map(|entry| entry.expect("a readable folder").path());
    let mut orphans = Vec::new();
    for path in entries {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_module = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("mod.rs").exists();
        if is_module && name != "main" && !names.contains(&name.as_str()) {
            orphans.push(name);
        }
    }
    none(&orphans, "files of tests/it that main.rs does not name:");
}

#[test]
fn no_file_is_too_long() {
    let folders = ["src", "tests"].map(|folder| root().join(folder));
    let lines = |file: &PathBuf| {
        fs::read_to_string(file)
            .expect("a source file is text")
            .lines()
            .count()
    };
    let long: Vec<String> = folders
        .iter()
        .flat_map(|folder| rust_files(folder))
        .filter(|file| lines(file) > LONGEST_FILE)
        .map(|file| format!("{}: {} lines", file.display(), lines(&file)))
        .collect();
    none(&long, &format!("a file has at most {LONGEST_FILE} lines:"));
}

#[test]
fn every_file_begins_with_a_doc_comment() {
    let speaks = |source: &Source| source.production.is_empty() || source.text.starts_with("//! ");
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|one| !speaks(one))
        .map(|one| one.path)
        .collect();
    none(&silent, "files that do not begin with a doc comment:");
}

#[test]
fn every_invariant_of_the_sources_is_in_the_documents() {
    let read = |name: &str| {
        fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let documents = plain(
        &["ARCHITECTURE.md", "docs/internals/line.md"]
            .map(read)
            .concat(),
    );
    let mut missing = Vec::new();
    for source in sources() {
        for sentence in invariants(&source.text) {
            if !documents.contains(&plain(&sentence)) {
                missing.push(format!("src/{}: {sentence}", source.path));
            }
        }
    }
    none(
        &missing,
        "invariants that neither ARCHITECTURE.md nor docs/internals/line.md has word for word:",
    );
}

/// Returns the sentences that begin with `**Invariant:**` in a file's doc comments.
fn invariants(text: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    for line in text.lines().map(str::trim) {
        let doc = line
            .strip_prefix("//!")
            .or_else(|| line.strip_prefix("///"))
            .map(str::trim);
        match (doc, paragraphs.last_mut()) {
            (Some(doc), Some(last)) if !doc.is_empty() => {
                last.push(' ');
                last.push_str(doc);
            }
            _ => paragraphs.push(String::new()),
        }
    }
    let sentences = |paragraph: &String| {
        paragraph
            .split("**Invariant:**")
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    paragraphs
        .iter()
        .flat_map(sentences)
        .map(|sentence| sentence.trim().trim_end_matches('.').to_owned())
        .collect()
}

/// Removes Markdown characters and normalizes white space.
fn plain(text: &str) -> String {
    let bare: String = text
        .chars()
        .filter(|character| !"`[]*".contains(*character))
        .collect();
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}
