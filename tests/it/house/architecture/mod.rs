//! Checks of the code's structure: dependencies between modules, circles of files within the store, places of drivers, orphaned
//! files, and file lengths.

mod circles;
mod dependencies;
mod files;
mod invariants;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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

/// Returns the path of a file within a folder, with slashes.
fn path_within(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder)
        .expect("the file is below the folder")
        .to_string_lossy()
        .replace('\\', "/")
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut sources: Vec<Source> = rust_files(&src)
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a source file is text");
            let path = path_within(&src, file);
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

fn none(found: &[String], right: &str) {
    assert!(found.is_empty(), "{right}\n  {}", found.join("\n  "));
}
