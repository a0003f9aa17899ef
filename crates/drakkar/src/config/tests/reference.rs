//! `config/reference.yaml` is the defaults, every key of them.

use super::*;

const REFERENCE: &str = include_str!("../../../../../config/reference.yaml");

#[test]
fn the_reference_is_the_default_configuration() {
    let loaded = loaded(REFERENCE, &[]);
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.notes, []);
}

#[test]
fn the_reference_names_every_key() {
    let loaded = loaded(REFERENCE, &[]);
    let unnamed: Vec<String> = loaded
        .explain()
        .into_iter()
        .map(|line| line.key)
        .filter(|key| !loaded.provenance.contains_key(key))
        .collect();
    assert_eq!(unnamed, Vec::<String>::new(), "set these in config/reference.yaml");
}

#[test]
fn the_configuration_of_the_example_worker_loads() {
    let loaded = loaded(include_str!("../../../../../config/worker.yaml"), &[]);
    assert_eq!(loaded.notes, []);
}

#[test]
fn the_documentation_names_every_key() {
    let documentation = include_str!("../../../../../docs/configuration.md");
    let known = Schema::new();
    let keys = known.keys().into_iter().filter(|key| is_value(&known, key));
    let unnamed: Vec<String> = keys
        .filter(|key| !names(documentation, key) && !names(documentation, &of_any_kind(key)))
        .collect();
    assert_eq!(unnamed, Vec::<String>::new(), "describe these in docs/configuration.md");
}

#[test]
fn the_reference_shows_every_key_of_a_sink() {
    let sinks = [
        ("kafka", serde_json::to_value(drakkar_sinks::KafkaSinkConfig::default()).unwrap()),
        ("filesystem", serde_json::to_value(drakkar_sinks::FileSinkConfig::default()).unwrap()),
        ("mongo", serde_json::to_value(drakkar_sinks::MongoSinkConfig::default()).unwrap()),
    ];
    for (kind, keys) in sinks {
        for key in keys.as_object().unwrap().keys() {
            assert!(
                REFERENCE
                    .lines()
                    .any(|line| line.trim_start().starts_with(&format!("#     {key}:"))),
                "sinks.{kind}: {key} is not shown in config/reference.yaml"
            );
        }
    }
}

#[test]
fn the_reference_shows_every_key_of_a_program() {
    let keys = serde_json::to_value(drakkar_executor::ProgramConfig::default()).unwrap();
    for key in keys.as_object().unwrap().keys() {
        let shown = format!("#     {key}:");
        let is_shown = REFERENCE.lines().any(|line| line.starts_with(&shown));
        assert!(is_shown, "{key} is not shown in config/reference.yaml");
    }
}

#[test]
fn a_statement_for_mongodb_is_read_as_it_is_written() {
    let yaml = "sinks: {mongo: {m: {uri: 'mongodb://h', database: d, statements: {s: {
        collection: c, op: upsert, filter: {_id: ':id'}, update: {$set: {n: 1, t: '1'}}}}}}}";
    let set = [("DRAKKAR_SINKS__MONGO__M__URI", "mongodb://u:hunter2@h")];
    let loaded = loaded(yaml, &set);
    assert!(!format!("{loaded:?} {:?}", loaded.explain()).contains("hunter2"));
    let mongo = &loaded.config.sinks.mongo["m"];
    assert_eq!(mongo.uri.expose(), "mongodb://u:hunter2@h");
    let update = serde_json::json!({"$set": {"n": 1, "t": "1"}});
    assert_eq!(mongo.statements["s"].update, update);
}

#[test]
fn a_program_is_configured_by_file_and_variable() {
    let yaml = "executor: {programs: {convert: {mode: persistent, depth: 4}}}";
    let set = [("DRAKKAR_EXECUTOR__PROGRAMS__CONVERT__PROTOCOL", "frames")];
    let program = loaded(yaml, &set).config.executor.programs["convert"].clone();
    assert_eq!((program.depth.get(), program.protocol), (4, drakkar_executor::Protocol::Frames));
}

fn names(documentation: &str, key: &str) -> bool {
    documentation.contains(&format!("`{key}`"))
}

/// What every kind of sink has is described once: `sinks.<kind>.<name>.batch.linger`.
fn of_any_kind(key: &str) -> String {
    match key.split('.').collect::<Vec<_>>()[..] {
        ["sinks", _, name, "batch", last] => format!("sinks.<kind>.{name}.batch.{last}"),
        _ => key.to_owned(),
    }
}

/// Whether `key` is one value, of something this build has.
fn is_value(schema: &Schema, key: &str) -> bool {
    let Some((first, rest)) = key.split_once('.') else {
        return matches!(schema.child(key), Some(Schema::Leaf(_) | Schema::Free));
    };
    match schema.child(first) {
        Some(Schema::Lacking(..)) | None => false,
        Some(below) => is_value(below, rest),
    }
}
