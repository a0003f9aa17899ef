//! What users read when they get a key wrong, and what is accepted.

mod reference;
mod seed;
mod variables;

use std::{collections::BTreeSet, io::Write, path::PathBuf, time::Duration};

use drakkar_executor::ProgramConfig;
use tempfile::NamedTempFile;

use super::*;

/// A file that exists as long as this value.
struct File(NamedTempFile);

impl File {
    fn new(text: &str) -> Self {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Self(file)
    }

    /// What `load` answers, with the path of the file written as `FILE`.
    fn load(&self, env: &[(&str, &str)]) -> Result<Loaded, String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(self.0.path()), env).map_err(|error| self.named(&error))
    }

    fn named(&self, text: &impl ToString) -> String {
        text.to_string().replace(&*self.0.path().to_string_lossy(), "FILE")
    }
}

fn no_variables() -> impl Iterator<Item = (String, String)> {
    std::iter::empty()
}

fn loaded(yaml: &str, env: &[(&str, &str)]) -> Loaded {
    File::new(yaml).load(env).unwrap()
}

#[track_caller]
fn refused(yaml: &str, env: &[(&str, &str)], expected: &[&str]) {
    let error = File::new(yaml).load(env).unwrap_err();
    assert_eq!(error.lines().collect::<Vec<_>>(), expected);
}

#[track_caller]
fn noted(yaml: &str, env: &[(&str, &str)], expected: &[&str]) -> Loaded {
    let file = File::new(yaml);
    let loaded = file.load(env).unwrap();
    let notes: Vec<String> = loaded.notes.iter().map(|note| file.named(note)).collect();
    assert_eq!(notes, expected);
    loaded
}

#[test]
fn nothing_at_all_is_the_default() {
    assert_eq!(load(None, no_variables()).unwrap().config, Config::default());
    assert_eq!(loaded("", &[]).config, Config::default());
    assert_eq!(loaded("# only a comment\n", &[]).config, Config::default());
    assert_eq!(loaded("kafka:\nsinks:\n  kafka:\n", &[]).config, Config::default());
}

#[test]
fn a_name_with_nothing_below_it_is_there_with_its_defaults() {
    for yaml in ["sinks:\n  kafka:\n    results:\n", "sinks:\n  kafka:\n    results: {}\n"] {
        refused(yaml, &[], &["FILE:3: sinks.kafka.results.topic: is required; name a topic"]);
    }
    let yaml = "sinks:\n  redis:\n    cache:\nexecutor:\n  programs:\n    convert:\n";
    let config = loaded(yaml, &[]).config;
    assert_eq!(config.sinks.redis.keys().collect::<Vec<_>>(), ["cache"]);
    assert_eq!(config.executor.programs["convert"], ProgramConfig::default());
    let yaml = "sinks: {mongo: {m: {uri: 'mongodb://h', database: d, statements: {touch: }}}}";
    let error = File::new(yaml).load(&[]).unwrap_err();
    assert!(error.contains("sinks.mongo.m.statements.touch.collection: is required"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let path = PathBuf::from("/nowhere/drakkar.yaml");
    let error = load(Some(&path), no_variables()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration file /nowhere/drakkar.yaml");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("No such file"));
}

#[test]
fn what_is_not_yaml_is_named_with_line_and_column() {
    refused(
        "kafka:\n  brokers: a\n   source_topic: b\n",
        &[],
        &["FILE:3:16: not valid YAML: mapping values are not allowed in this context"],
    );
    refused(
        "kafka:\n  brokers: a\n  brokers: b\n",
        &[],
        &["FILE:3:3: not valid YAML: duplicate mapping key: brokers, set DuplicateKeyPolicy in \
           Options if acceptable"],
    );
    refused("- a\n", &[], &["FILE:1: must be a section with keys, not a list"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_one_that_was_meant() {
    refused(
        "kafka:\n  brokers: a\n  source_topik: b\n",
        &[],
        &["FILE:3: kafka.source_topik: unknown key; did you mean kafka.source_topic?"],
    );
    refused(
        "executor:\n  consumer_group: g\n",
        &[],
        &["FILE:2: executor.consumer_group: unknown key; did you mean kafka.consumer_group?"],
    );
    refused(
        "sinks:\n  kafka:\n    results:\n      topic: t\n      tpic: u\n",
        &[],
        &["FILE:5: sinks.kafka.results.tpic: unknown key; did you mean sinks.kafka.results.topic?"],
    );
    refused("zebra: 1\n", &[], &["FILE:1: zebra: unknown key"]);
    refused(
        "debug:\n  prot: 8080\n",
        &[],
        &["FILE:2: debug.prot: unknown key; did you mean debug.port?"],
    );
}

#[test]
fn a_wrong_type_is_named_with_its_place_and_what_was_expected() {
    refused(
        "kafka:\n  max_poll_records: many\n",
        &[],
        &["FILE:2: kafka.max_poll_records: expected a whole number of at least 1, found \"many\""],
    );
    refused(
        "kafka: {}\n",
        &[("DRAKKAR_METRICS__PORT", "70000")],
        &["DRAKKAR_METRICS__PORT: metrics.port: expected a whole number from 0 to 65535, \
           found 70000"],
    );
    refused(
        "",
        &[("DRAKKAR_METRICS__ENABLED", "perhaps")],
        &["DRAKKAR_METRICS__ENABLED: metrics.enabled: expected true or false, found \"perhaps\""],
    );
    refused(
        "kafka:\n  group_protocol: eager\n",
        &[],
        &["FILE:2: kafka.group_protocol: expected one of classic, consumer, found \"eager\""],
    );
    refused(
        "kafka:\n  revoke_timeout: soon\n",
        &[],
        &[
            "FILE:2: kafka.revoke_timeout: \"soon\" is not a duration (expected number at 0); write \
           seconds or a unit: 5, 1.5, 500ms, 2m",
        ],
    );
    refused("kafka: here\n", &[], &["FILE:1: kafka: must be a section with keys, not text"]);
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    refused(
        "kafka:\n  brokerz: a\n  max_poll_records: many\n  brokers: ''\nexecutor:\n  window_size: x\n",
        &[("DRAKKAR_METRICS__PORT", "x"), ("DRAKKAR_KAFKA__NOPE", "1")],
        &[
            "FILE:2: kafka.brokerz: unknown key; did you mean kafka.brokers?",
            "DRAKKAR_KAFKA__NOPE: kafka.nope: unknown key",
            "FILE:6: executor.window_size: expected a whole number of at least 1, found \"x\"",
            "FILE:3: kafka.max_poll_records: expected a whole number of at least 1, found \"many\"",
            "DRAKKAR_METRICS__PORT: metrics.port: expected a whole number from 0 to 65535, \
             found \"x\"",
            "FILE:4: kafka.brokers: must name at least one broker",
        ],
    );
}

#[test]
fn what_cannot_be_is_named_with_the_place_of_the_key() {
    refused(
        "kafka:\n  source_topic: a\n  source_topics: [b]\n",
        &[("DRAKKAR_METRICS__HOST", "")],
        &[
            "FILE:3: kafka.source_topics: excludes kafka.source_topic; list every topic in one of \
             them",
            "DRAKKAR_METRICS__HOST: metrics.host: must not be empty",
        ],
    );
    let missing_topic = "sinks:\n  kafka:\n    results: {}\n";
    refused(missing_topic, &[], &["FILE:3: sinks.kafka.results.topic: is required; name a topic"]);
    let revoke = "kafka:\n  revoke_timeout: 300\n";
    let error = File::new(revoke).load(&[]).unwrap_err();
    assert!(error.starts_with("FILE:2: kafka.revoke_timeout: must be"), "{error}");
}

#[test]
fn no_time_is_so_long_that_its_end_cannot_be_told() {
    let year = Duration::from_hours(365 * 24);
    let mut config = Config::default();
    config.executor.drain_timeout_seconds = year;
    assert_eq!(config.validate().err().map(|error| error.to_string()), None);
    config.executor.drain_timeout_seconds = Duration::MAX;
    config.kafka.commit_interval = year + Duration::from_nanos(1);
    config.kafka.revoke_timeout = Duration::MAX;
    let program = ProgramConfig { recycle_after: Some(Duration::MAX), ..ProgramConfig::default() };
    config.executor.programs.insert("stay".to_owned(), program);
    config.sinks.delivery_timeout_seconds = Duration::MAX;
    let ConfigError::Wrong(wrong) = config.validate().unwrap_err() else { panic!("no keys") };
    let keys: BTreeSet<&str> = wrong.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "executor.drain_timeout_seconds",
        "executor.programs.stay.recycle_after",
        "kafka.commit_interval",
        "kafka.revoke_timeout",
        "sinks.delivery_timeout_seconds",
    ];
    assert_eq!(keys, BTreeSet::from(expected));
    assert_eq!(wrong[0].message, "is longer than 365 days");
}

#[test]
fn a_topic_of_dead_letters_is_not_consumed_by_the_worker_that_writes_them() {
    let own = "kafka: {source_topic: a}\ndlq: {topic: a}";
    refused(own, &[], &["FILE:2: dlq.topic: a is consumed by this worker (kafka.source_topics)"]);
    let default = "kafka: {source_topics: [a, a_dlq]}";
    refused(default, &[], &["dlq.topic: a_dlq is consumed by this worker (kafka.source_topics)"]);
    loaded("kafka: {source_topic: a}\ndlq: {topic: a, brokers: 'other:9092'}", &[]);
}

#[test]
fn variables_win_over_the_file_and_case_does_not_matter() {
    let config = loaded(
        "kafka:\n  brokers: file:9092\n  consumer_group: file\n",
        &[("DRAKKAR_KAFKA__BROKERS", "env:9092"), ("DRAKKAR_CLUSTER_NAME", "blue")],
    )
    .config;
    assert_eq!(config.kafka.brokers, "env:9092");
    assert_eq!(config.kafka.consumer_group, "file");
    assert_eq!(config.cluster_name, "blue");
}

#[test]
fn texts_are_taken_as_they_were_written() {
    let yaml = "kafka:\n  consumer_group: 007\n  source_topic: on\n  group_instance_id: 01\n";
    let config = loaded(yaml, &[("DRAKKAR_KAFKA__SECURITY__SASL_PASSWORD", "0123")]).config;
    assert_eq!(config.kafka.consumer_group, "007");
    assert_eq!(config.kafka.source_topic, "on");
    assert_eq!(config.kafka.group_instance_id.as_deref(), Some("01"));
    assert_eq!(config.kafka.security.sasl_password.expose(), "0123");
    let config = loaded("", &[("DRAKKAR_KAFKA__CONSUMER_GROUP", "123")]).config;
    assert_eq!(config.kafka.consumer_group, "123");
}

/// Optional texts and paths, where they may be set.
const OPTIONAL_TEXTS: [&str; 12] = [
    "executor.binary_path",
    "executor.job_log.path",
    "executor.programs.p.binary",
    "executor.spool.dir",
    "kafka.group_instance_id",
    "kafka.security.ssl_endpoint_identification_algorithm",
    "sinks.http.h.tls.ca_location",
    "sinks.http.h.tls.certificate_location",
    "sinks.http.h.tls.key_location",
    "sinks.redis.r.tls.ca_location",
    "sinks.redis.r.tls.certificate_location",
    "sinks.redis.r.tls.key_location",
];

#[test]
fn optional_texts_in_variables_are_taken_as_they_were_written() {
    let texts = ["{worker_id}", "[a]", "1e3", "1.10", "007", "on", "a: b"];
    for (key, text) in OPTIONAL_TEXTS.into_iter().flat_map(|key| texts.map(|text| (key, text))) {
        let variable = format!("DRAKKAR_{}", key.to_uppercase().replace('.', "__"));
        let mut layers = Layers::new(Schema::new());
        env::add(&mut layers, std::iter::once((variable.into(), text.into())));
        let read = layers.figment().extract_inner::<String>(key);
        assert_eq!(read.as_deref(), Ok(text), "{key}");
    }
    let config = loaded("", &[("DRAKKAR_KAFKA__GROUP_INSTANCE_ID", "{worker_id}")]).config;
    assert_eq!(config.kafka.group_instance_id.as_deref(), Some("{worker_id}"));
}

#[test]
fn numbers_and_switches_may_be_quoted() {
    let yaml = "metrics:\n  port: '9191'\n  enabled: 0\n";
    let config = loaded(yaml, &[("DRAKKAR_KAFKA__STARTUP_ALIGN_ENABLED", "1")]).config;
    assert_eq!(config.metrics.port, 9191);
    assert!(!config.metrics.enabled);
    assert!(config.kafka.startup_align_enabled);
}

#[test]
fn secrets_are_masked_wherever_a_configuration_is_shown() {
    let yaml = "kafka:\n  security:\n    sasl_password: hunter2\n  client_config:\n    \
                sasl.password: hunter2\n    linger.ms: 5\nexecutor:\n  env:\n    API_KEY: hunter2\n    \
                DB: postgres://me:hunter2@db/x\n";
    let loaded = loaded(yaml, &[]);
    let lines: Vec<String> = loaded.explain().iter().map(ToString::to_string).collect();
    let shown = format!("{}\n{:?}\n{loaded:#?}", lines.join("\n"), loaded.config);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("postgres://me:***@db/x"), "{shown}");
    refused(
        "kafka:\n  security:\n    sasl_password: [hunter2]\n",
        &[],
        &["FILE:3: kafka.security.sasl_password: expected text or a number, found a list"],
    );
}

#[test]
fn every_key_is_explained_with_where_it_came_from() {
    let file = File::new("kafka:\n  brokers: b:9092\n");
    let loaded = file.load(&[("DRAKKAR_METRICS__PORT", "9191")]).unwrap();
    let lines: Vec<String> = loaded.explain().iter().map(|line| file.named(line)).collect();
    for expected in [
        "kafka.brokers = \"b:9092\"  (FILE:2)",
        "metrics.port = 9191  (DRAKKAR_METRICS__PORT)",
        "kafka.group_instance_id = unset  (default)",
        "kafka.source_topics = []  (default)",
        "logging.level = \"INFO\"  (default)",
    ] {
        assert!(lines.iter().any(|line| line == expected), "no {expected:?} in {lines:#?}");
    }
}
