//! The invariants of the sources are in the documents.

use std::fs;

use super::{none, root, sources};

#[test]
fn the_check_detects_an_invariant_that_spans_lines() {
    assert_eq!(
        invariants("//! It is so.\n//! **Invariant:** one\n//! thing.\n\nuse x;"),
        ["one thing"]
    );
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
