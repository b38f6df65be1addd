//! Dependencies between modules, and the places of drivers.

use std::collections::BTreeSet;

use super::{declared, is_word, none, sources, without_comments};

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
    "alerts",
    "fuzz",
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
            "console",
            "devkit",
            "engine",
            "erasure",
            "operations",
            "pipelines",
            "store",
            "telemetry",
            "tracker",
        ],
    ),
    (
        "operations",
        &[
            "broker",
            "erasure",
            "pipelines",
            "providers",
            "store",
            "tracker",
        ],
    ),
    (
        "app",
        &[
            "broker",
            "config",
            "console",
            "engine",
            "holds",
            "maintenance",
            "ops",
            "otlp",
            "pipelines",
            "providers",
            "readiness",
            "store",
            "telemetry",
            "tracker",
            "worker",
        ],
    ),
    ("console", &["operations", "ops", "pipelines", "store"]),
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
            "operations",
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
    ("otlp", &["telemetry::names"]),
    ("engine", &[]),
    ("telemetry", &["config"]),
    ("config", &["providers"]),
    // For unit tests only.
    ("fuzz", &["config"]),
    // The devkit stands for everything around the worker: servers, providers, producers,
    // operators.
    (
        "devkit",
        &[
            "broker",
            "engine",
            "operations",
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
    ("reqwest::", &["providers", "otlp", "devkit"]),
    ("opentelemetry_proto::", &["otlp"]),
    ("prost::", &["otlp"]),
    ("lettre::", &["providers"]),
    ("backoff::", &["reconnect"]),
    ("refinery::", &["store"]),
    ("axum::", &["console", "ops", "devkit"]),
    ("clap::", &["cli", "config"]),
    ("anyhow::", &["app", "cli", "devkit"]),
    ("deadpool_postgres::", &["store", "tracker", "devkit"]),
    (
        "tokio_postgres::",
        &[
            "store",
            "tracker",
            "erasure",
            "operations",
            "pg_error",
            "app",
            "devkit",
        ],
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
    // What is audited is done by an operation, or by the store for a producer and for retention.
    ("audited(", &["store", "operations", "tracker"]),
    ("change_job(", &["store", "operations"]),
    ("audit_on(", &["store", "operations"]),
    ("Caller {", &["pipelines/signed_in.rs"]),
];

/// Returns the places where `needle` begins a path or a name and is not the end of another one.
pub(super) fn places<'c>(code: &'c str, needle: &'c str) -> impl Iterator<Item = &'c str> {
    let begins =
        move |at: &usize| !code[..*at].ends_with(|before: char| is_word(before) || before == ':');
    code.match_indices(needle)
        .map(|(at, _)| at)
        .filter(begins)
        .map(move |at| &code[at + needle.len()..])
}

/// Returns what a file names of the crate, as `module` or `module::item`; a group in braces names
/// each of its members.
pub(super) fn named(code: &str) -> BTreeSet<String> {
    ["crate::", "dispatch_worker::"]
        .into_iter()
        .flat_map(|prefix| places(code, prefix))
        .flat_map(members)
        .map(str::to_owned)
        .collect()
}

/// Returns the path at the start of `rest`, or each member of the group in braces there.
pub(super) fn members(rest: &str) -> Vec<&str> {
    match rest.strip_prefix('{') {
        Some(group) => group
            .split('}')
            .next()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect(),
        None => rest
            .split(|c: char| !is_word(c) && c != ':')
            .take(1)
            .collect(),
    }
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
