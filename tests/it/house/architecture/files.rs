//! Orphaned files, long files, and files without a doc comment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::{
    Source, declared, folder_of, none, path_within, root, rust_files, sources, without_comments,
};

const LONGEST_FILE: usize = 500;

#[test]
fn every_file_is_part_of_the_crate() {
    let files = sources().into_iter().map(|file| (file.path, file.code));
    let orphans = orphans(&files.collect(), &["lib.rs", "main.rs"]);
    none(&orphans, "files of src that no `mod` line names:");
}

#[test]
fn every_test_file_is_part_of_the_test_binary() {
    let tests = root().join("tests/it");
    let files = rust_files(&tests).into_iter().map(|file| {
        let text = fs::read_to_string(&file).expect("a source file is text");
        (path_within(&tests, &file), without_comments(&text))
    });
    let orphans = orphans(&files.collect(), &["main.rs"]);
    none(&orphans, "files of tests/it that no `mod` line names:");
}

/// Returns the files that no `mod` line names, starting from the roots. The map is from a file's
/// path to its code.
fn orphans(files: &BTreeMap<String, String>, roots: &[&str]) -> Vec<String> {
    let mut reached: BTreeSet<String> = roots.iter().map(|&root| root.to_owned()).collect();
    let mut open: Vec<String> = reached.iter().cloned().collect();
    while let Some(path) = open.pop() {
        let code = files.get(&path).expect("only existing files are queued");
        assert!(
            !code
                .lines()
                .any(|line| line.trim_start().starts_with("#[path")),
            "{path}: use the default paths of modules"
        );
        let folder = folder_of(&path);
        for (_, name) in declared(code) {
            let candidates = [
                format!("{folder}{name}.rs"),
                format!("{folder}{name}/mod.rs"),
            ];
            let file = candidates.into_iter().find(|file| files.contains_key(file));
            let file = file.unwrap_or_else(|| panic!("{path}: `mod {name};` has no file"));
            if reached.insert(file.clone()) {
                open.push(file);
            }
        }
    }
    let is_orphan = |path: &&String| !reached.contains(*path);
    files.keys().filter(is_orphan).cloned().collect()
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
