//! The contract of every stage of the registry: contract lines in its doc, a unique name, and an
//! effect class in its doc.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dispatch_worker::engine::StageInfo;
use dispatch_worker::pipelines::registry;

/// Returns every stage of every pipeline, with its file's path and text. A stage's file is named
/// after the stage and is in its pipeline's folder.
fn stages() -> Vec<(String, StageInfo, String)> {
    let mut all = Vec::new();
    for pipeline in registry().iter() {
        for stage in pipeline.stages() {
            let path = format!("src/pipelines/{}/{}.rs", pipeline.name, stage.name);
            let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
            let text = fs::read_to_string(&whole)
                .unwrap_or_else(|error| panic!("{path} must hold its stage: {error}"));
            all.push((path, *stage, text));
        }
    }
    all
}

/// Returns the head of a file: its `//!` lines.
fn module_doc(text: &str) -> Vec<&str> {
    text.lines()
        .take_while(|line| line.starts_with("//!"))
        .collect()
}

#[test]
fn every_stage_s_file_documents_its_needs_its_effects_and_why_it_is_safe_to_repeat() {
    for (path, _, text) in stages() {
        let doc = module_doc(&text);
        let lines = ["*Needs*: ", "*Effects*: ", "*Safe to repeat*: "];
        let places: Vec<usize> = lines
            .iter()
            .map(|wanted| {
                let place = doc
                    .iter()
                    .position(|line| line.starts_with(&format!("//! {wanted}")));
                place.unwrap_or_else(|| panic!("{path} lacks the doc line `{wanted}…`"))
            })
            .collect();
        assert!(places.is_sorted(), "{path}: expected the order {lines:?}");
    }
}

#[test]
fn every_stage_s_doc_names_the_needs_that_its_code_declares() {
    for (path, stage, text) in stages() {
        let doc = module_doc(&text);
        let from = doc
            .iter()
            .position(|line| line.starts_with("//! *Needs*"))
            .unwrap_or_default();
        let to = doc
            .iter()
            .position(|line| line.starts_with("//! *Effects*"))
            .unwrap_or(doc.len());
        let needs = doc[from..to].concat();
        for need in stage.needs {
            assert!(
                needs.contains(&format!("`{need}`")),
                "{path}: `{need}` is needed and not in its doc"
            );
        }
        assert_eq!(
            needs.contains("nothing"),
            stage.needs.is_empty(),
            "{path}: {needs}"
        );
    }
}

#[test]
fn every_stage_s_doc_names_the_class_of_its_effect_or_none() {
    for (path, stage, text) in stages() {
        let doc = module_doc(&text);
        let line = doc
            .iter()
            .find(|line| line.starts_with("//! *Effects*"))
            .copied()
            .unwrap_or_default();
        match stage.effect {
            Some(class) => assert!(line.contains(class.word()), "{path}: {line}"),
            None => assert!(line.contains("*Effects*: none"), "{path}: {line}"),
        }
    }
}

#[test]
fn names_are_unique_and_no_stage_s_file_is_too_long() {
    let registry = registry();
    let pipelines: Vec<_> = registry.iter().map(|pipeline| pipeline.name).collect();
    let lanes: Vec<_> = registry
        .iter()
        .flat_map(|one| [one.lane.name, one.lane.queue, one.lane.wake_key])
        .collect();
    let stages = stages();
    let names: Vec<_> = stages.iter().map(|(_, stage, _)| stage.name).collect();
    for list in [pipelines, lanes, names] {
        let unique: BTreeSet<_> = list.iter().collect();
        assert_eq!(unique.len(), list.len(), "{list:?}");
    }
    for (path, _, text) in &stages {
        assert!(
            text.lines().count() <= 500,
            "{path} has more than 500 lines"
        );
    }
}

#[test]
fn every_file_in_a_pipeline_s_folder_is_a_stage_or_a_part_of_the_pipeline() {
    const PARTS: [&str; 4] = ["event_resource", "mod", "samples", "templates"];
    for pipeline in registry().iter() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/pipelines")
            .join(pipeline.name);
        for entry in fs::read_dir(&folder).expect("a pipeline has a folder") {
            let path = entry.expect("a folder can be listed").path();
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .expect("file names are ASCII");
            let known = PARTS.contains(&name) || pipeline.stage(name).is_some();
            assert!(known, "{} is not a stage of its pipeline", path.display());
        }
    }
}
