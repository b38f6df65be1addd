//! Circles among the files of the store.

use std::collections::{BTreeMap, BTreeSet};

use super::dependencies::{members, named, places};
use super::{declared, none, sources};

/// Returns the path of a file's module within the crate.
fn module_path(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    stem.trim_end_matches("/mod").replace('/', "::")
}

/// The modules that each module depends on.
type Dependencies = BTreeMap<String, BTreeSet<String>>;

/// Returns which of these modules, each with its code, names or declares which other ones.
fn dependencies(modules: &[(String, &str)]) -> Dependencies {
    // The longest one; the others contain it.
    let of_path = |path: &String| {
        let is_at = |module: &&String| path == *module || path.starts_with(&format!("{module}::"));
        let all = modules.iter().map(|(module, _)| module);
        all.filter(is_at).max_by_key(|module| module.len()).cloned()
    };
    let one = |(module, code): &(String, &str)| {
        let (parent, _) = module.rsplit_once("::").unwrap_or_default();
        let within = |base: &str, name: &str| match base {
            "" => name.to_owned(),
            _ => format!("{base}::{name}"),
        };
        let mut paths: Vec<String> = named(code).into_iter().collect();
        for (_, child) in declared(code) {
            paths.push(within(module, child));
        }
        for mut rest in places(code, "super::") {
            let mut base = parent;
            while let Some(higher) = rest.strip_prefix("super::") {
                (base, rest) = (base.rsplit_once("::").unwrap_or_default().0, higher);
            }
            paths.extend(members(rest).into_iter().map(|name| within(base, name)));
        }
        let on = paths.iter().filter_map(of_path);
        (module.clone(), on.filter(|other| other != module).collect())
    };
    modules.iter().map(one).collect()
}

/// Returns the modules that depend on each other in a circle, with those in between.
fn circles(mut rest: Dependencies) -> Dependencies {
    loop {
        let before = rest.len();
        let names: BTreeSet<String> = rest.keys().cloned().collect();
        let needed: BTreeSet<String> = rest.values().flatten().cloned().collect();
        for on in rest.values_mut() {
            on.retain(|other| names.contains(other));
        }
        rest.retain(|module, on| needed.contains(module) && !on.is_empty());
        if rest.len() == before {
            return rest;
        }
    }
}

#[test]
fn the_check_detects_circles() {
    assert_eq!(module_path("store/explain/mod.rs"), "store::explain");
    let circle = |below: &str| {
        let modules = [
            ("store", "mod above;\nmod below;\npub use above::Above;"),
            ("store::above", "use super::below::{Below, low};"),
            ("store::above::inner", "let far = super::super::below::FAR;"),
            ("store::below", below),
        ];
        let found = circles(dependencies(
            &modules.map(|(path, code)| (path.to_owned(), code)),
        ));
        found.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(circle("use crate::job::JobId;"), Vec::<String>::new());
    assert_eq!(
        circle("use crate::store::above::Above;"),
        ["store::above", "store::below"]
    );
    assert_eq!(
        circle("use super::Above;"),
        ["store", "store::above", "store::below"]
    );
    assert_eq!(
        circle("use super::above::inner::deep;"),
        ["store::above::inner", "store::below"]
    );
}

#[test]
fn the_files_of_the_store_depend_on_each_other_without_a_circle() {
    let sources = sources();
    let modules: Vec<(String, &str)> = sources
        .iter()
        .filter(|source| source.module == "store")
        .map(|source| (module_path(&source.path), source.production.as_str()))
        .collect();
    let dependencies = dependencies(&modules);
    assert!(
        dependencies["store::commit"].contains("store::rows"),
        "the dependencies were not found"
    );
    let found: Vec<String> = circles(dependencies)
        .iter()
        .map(|(module, on)| format!("{module} → {}", Vec::from_iter(on.clone()).join(", ")))
        .collect();
    none(
        &found,
        "circles of files; move what both need into a file below them:",
    );
}
