//! A `drakkar.yaml` of the Python original is accepted as it is.

use super::*;

/// Every key of version 0.11.1.
const SEED: &str = "
worker_name_env: WORKER_ID
cluster_name: blue
cluster_name_env: CLUSTER
kafka:
  brokers: localhost:9092
  source_topic: input-events
  consumer_group: drakkar-workers
  max_poll_records: 100
  max_poll_interval_ms: 300000
  session_timeout_ms: 45000
  heartbeat_interval_ms: 3000
  ui_url: http://kafka-ui
  ui_cluster_name: local
  startup_align_enabled: true
  startup_min_wait_seconds: 4.0
  startup_align_interval_seconds: 10
executor:
  binary_path: /bin/true
  env: {A: b}
  env_inherit_parent: true
  env_inherit_deny: ['DK_*']
  max_executors: 4
  task_timeout_seconds: 120
  window_size: 100
  max_retries: 3
  drain_timeout_seconds: 30
  backpressure_high_multiplier: 32
  backpressure_low_multiplier: 4
sinks:
  kafka: {k: {topic: results, brokers: '', ui_url: ''}}
  postgres: {p: {dsn: 'postgresql://u:secret@h/d', pool_min: 2, pool_max: 10, ui_url: ''}}
  mongo: {m: {uri: 'mongodb://h', database: d, ui_url: ''}}
  http: {h: {url: 'http://h', method: POST, timeout_seconds: 30, headers: {a: b}, max_retries: 3, ui_url: ''}}
  redis: {r: {url: 'redis://localhost:6379/0', key_prefix: '', ui_url: ''}}
  filesystem: {f: {base_path: /tmp/out, ui_url: http://files}}
  circuit_breaker: {failure_threshold: 5, cooldown_seconds: 30.0}
dlq: {topic: letters, brokers: ''}
metrics: {enabled: true, port: 9090}
logging: {level: INFO, format: json, output: stderr}
debug:
  enabled: true
  host: 127.0.0.1
  port: 8080
  auth_token: secret
  allowed_ws_origins: []
  debug_url: ''
  db_dir: /tmp
  store_events: true
  store_config: true
  store_state: true
  state_sync_interval_seconds: 10
  expose_env_vars: []
  rotation_interval_minutes: 60
  retention_hours: 24
  retention_max_events: 100000
  store_output: true
  flush_interval_seconds: 5
  max_buffer: 50000
  max_flush_retries: 3
  max_ui_rows: 5000
  log_min_duration_ms: 500
  ws_min_duration_ms: 500
  event_min_duration_ms: 0
  output_min_duration_ms: 500
  prometheus_url: ''
  prometheus_rate_interval: 5m
  prometheus_worker_label: ''
  prometheus_cluster_label: ''
  custom_links: []
cache:
  enabled: true
  db_dir: ''
  flush_interval_seconds: 3.0
  cleanup_interval_seconds: 60.0
  max_memory_entries: 10000
  peer_sync: {enabled: true, interval_seconds: 30.0, batch_size: 500, timeout_seconds: 5.0, cycle_deadline_seconds: 10}
";

#[test]
fn every_key_of_the_original_is_accepted_and_what_is_lacking_is_named() {
    let file = File::new(SEED);
    let loaded = file.load(&[]).unwrap();
    let lacking: Vec<&str> = loaded
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::Lacking { key, .. } => Some(key.as_str()),
            Note::Sink(_) => None, // As this build has it.
            Note::Stray { variable, .. } => panic!("{variable}"),
        })
        .collect();
    assert_eq!(
        lacking,
        [
            "cache",
            "debug",
            "executor.backpressure_low_multiplier",
            "kafka.ui_cluster_name",
            "kafka.ui_url",
            "sinks.filesystem.f.ui_url",
            "sinks.http.h.max_retries",
        ]
    );
    assert!(!format!("{loaded:?}").contains("secret"));
    let config = loaded.config;
    assert_eq!(config.cluster_name, "blue");
    assert_eq!(config.sinks.kafka["k"].topic, "results");
    assert_eq!(config.dlq.topic, "letters");
    assert_eq!(config.executor.env["A"], "b");
}

#[test]
fn a_lacking_key_is_noted_with_its_place() {
    noted(
        "kafka:\n  ui_url: http://x\n",
        &[("DRAKKAR_DEBUG__PORT", "8081")],
        &[
            "DRAKKAR_DEBUG__PORT: debug: this build lacks it; it is ignored",
            "FILE:2: kafka.ui_url: this build lacks it; it is ignored",
        ],
    );
}

#[test]
fn what_is_lacking_and_switched_off_needs_no_word() {
    noted("debug:\nui: {}\nsinks:\n  redis: {}\n", &[], &[]);
    noted(
        "debug:\n  port: 8080\ncache:\n  max_memory_entries: 5\nkafka:\n  ui_url: ''\n",
        &[("DRAKKAR_DEBUG__ENABLED", "false")],
        &[],
    );
}

#[test]
fn sections_of_the_newer_original_are_accepted_and_what_moved_is_an_error() {
    noted(
        "ui:\n  enabled: true\n  recorder: {store_events: true}\nstorage: {dir: /tmp}\n",
        &[],
        &[
            "FILE:4: storage: this build lacks it; it is ignored",
            "FILE:1: ui: this build lacks it; it is ignored",
        ],
    );
    refused(
        "sources:\n  kafka:\n    topic: orders\n",
        &[],
        &["FILE:2: sources.kafka: is the section kafka here; topic is kafka.source_topic, \
           on_parse_error is kafka.on_invalid, enabled has no counterpart, the other keys keep \
           their names"],
    );
}
