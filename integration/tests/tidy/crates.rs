//! Who may use whom: the picture in `docs/architecture.md`, as a list.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use crate::workspace::{metadata, read, root};

/// Crates by directory name, and which of ours each may use. What is written here is drawn there.
const EDGES: [(&str, &[&str]); 15] = [
    ("core", &[]),
    ("kafka", &["core"]),
    ("executor", &["core"]),
    ("program", &[]),
    ("sinks", &["core"]),
    ("telemetry", &["core"]),
    ("pipeline", &["core", "executor", "sinks", "telemetry"]),
    ("debug", &["core", "telemetry"]),
    ("drakkar", &["core", "debug", "executor", "kafka", "pipeline", "sinks", "telemetry"]),
    ("cli", &["core", "drakkar", "kafka", "mock", "sinks"]),
    ("mock", &[]),
    ("testing", &["core", "executor", "kafka", "mock", "pipeline", "sinks", "telemetry"]),
    ("bench", &["core", "drakkar", "executor", "mock", "program", "sinks"]),
    ("integration", &["core", "drakkar", "sinks"]),
    ("example-worker", &["drakkar"]),
];

/// The only crates that may name these.
const ONLY: [(&str, &[&str]); 12] = [
    ("rdkafka", &["kafka", "sinks", "cli", "mock", "testing", "bench", "integration"]),
    ("sqlx", &["sinks", "bench"]),
    ("mongodb", &["sinks", "drakkar", "bench"]),
    ("redis", &["sinks", "drakkar", "bench"]),
    ("reqwest", &["sinks"]),
    ("axum", &["debug"]),
    ("rustix", &["executor"]),
    ("nix", &["executor", "mock"]),
    ("prometheus", &["telemetry"]),
    ("tracing-subscriber", &["telemetry"]),
    ("figment", &["drakkar"]),
    ("anyhow", &["cli", "bench", "integration"]),
];

fn short(package: &str) -> String {
    package.strip_prefix("drakkar-").unwrap_or(package).to_owned()
}

/// What each crate of ours uses, tests aside.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let ours = |id: &str| metadata.workspace_members.iter().any(|member| member == id);
    metadata
        .packages
        .iter()
        .filter(|package| ours(&package.id))
        .map(|package| {
            let lasting = package.dependencies.iter().filter(|used| used.kind.is_none());
            (short(&package.name), lasting.map(|used| used.name.clone()).collect())
        })
        .collect()
}

#[test]
fn crates_use_each_other_as_drawn() {
    let drawn: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .map(|(name, uses)| {
            ((*name).to_owned(), uses.iter().map(|&used| used.to_owned()).collect())
        })
        .collect();
    let built: BTreeMap<String, BTreeSet<String>> = used()
        .into_iter()
        .map(|(name, uses)| {
            let ours = uses.iter().filter(|used| used.starts_with("drakkar"));
            (name, ours.map(|used| short(used)).collect())
        })
        .collect();
    assert_eq!(built, drawn);
}

#[test]
fn every_crate_of_the_workspace_is_in_the_code_map() {
    let map = crate::workspace::read("docs/architecture.md");
    for (name, _) in EDGES {
        let directory = match name {
            "integration" => "integration".to_owned(),
            "example-worker" => "integration/worker".to_owned(),
            name => format!("crates/{name}"),
        };
        assert!(
            map.contains(&format!("`{directory}`")),
            "docs/architecture.md leaves out {directory}"
        );
    }
}

#[test]
fn what_is_hard_to_replace_is_used_in_one_place() {
    for (name, uses) in used() {
        for (library, places) in ONLY {
            let may = places.contains(&name.as_str());
            assert!(
                may || !uses.contains(library),
                "{name} must not use {library}: see {places:?}"
            );
        }
    }
}

#[test]
fn the_check_for_drivers_fails_where_it_cannot_ask_and_where_it_finds_one() {
    let script = read("integration/test");
    let (_, rest) = script.split_once("\ndrivers() {").unwrap();
    let (body, _) = rest.split_once("\n}\n").unwrap();
    for (package, passes) in
        [("drakkar-core", true), ("drakkar-integration", false), ("no-such-package", false)]
    {
        let check = format!("set -uo pipefail; drivers() {{{body}\n}}; drivers {package}");
        let ended = Command::new("bash").args(["-c", &check]).current_dir(root()).output().unwrap();
        assert_eq!(ended.status.success(), passes, "{package}: {ended:?}");
    }
}
