//! Keys of the Python original whose capability this build does not have.
//!
//! They are accepted, so that an existing `drakkar.yaml` can be used as it is: `check` names them and
//! `run` warns once. A capability that comes into being leaves this table by itself: what the
//! configuration knows wins over it.

use std::collections::BTreeMap;

use super::schema::{Kind, Schema};

/// Something this build lacks.
#[derive(Debug)]
pub(super) struct Capability {
    /// The key it stands at; `*` where users choose a name.
    pub(super) at: &'static str,
    /// The keys below it; none where it is a single value.
    keys: &'static [&'static str],
    /// When it is worth a word that it is lacking.
    pub(super) noted: Noted,
}

/// When it is worth a word that a capability is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// When it is set to anything but an empty value.
    Set,
    /// When there is any key of it, unless its `enabled` is false.
    UnlessDisabled,
    /// When its `enabled` is true.
    WhenEnabled,
}

impl Capability {
    pub(super) fn schema(&'static self) -> Schema {
        let below = if self.keys.is_empty() {
            Schema::Leaf(Kind::Unknown)
        } else {
            let mut section = BTreeMap::new();
            for key in self.keys {
                insert(&mut section, key);
            }
            Schema::Section(section)
        };
        Schema::Lacking(self, Box::new(below))
    }
}

fn insert(section: &mut BTreeMap<String, Schema>, key: &str) {
    let Some((first, rest)) = key.split_once('.') else {
        section.insert(key.to_owned(), Schema::Leaf(Kind::Unknown));
        return;
    };
    let below = section.entry(first.to_owned()).or_insert(Schema::Section(BTreeMap::new()));
    if let Schema::Section(below) = below {
        insert(below, rest);
    }
}

const fn value(at: &'static str) -> Capability {
    Capability { at, keys: &[], noted: Noted::Set }
}

const fn section(at: &'static str, noted: Noted, keys: &'static [&'static str]) -> Capability {
    Capability { at, keys, noted }
}

/// Everything that is lacking.
pub(super) static CAPABILITIES: &[Capability] = &[
    value("kafka.ui_url"),
    value("kafka.ui_cluster_name"),
    value("executor.backpressure_low_multiplier"),
    value("metrics.task_label_histograms"),
    value("dlq.flush_timeout_seconds"),
    value("dlq.on_send_failure"),
    value("sinks.kafka.*.ui_url"),
    value("sinks.kafka.*.flush_timeout_seconds"),
    value("sinks.filesystem.*.ui_url"),
    value("sinks.postgres.*.ui_url"),
    value("sinks.mongo.*.ui_url"),
    value("sinks.http.*.max_retries"),
    value("sinks.http.*.ui_url"),
    value("sinks.redis.*.ui_url"),
    section("debug", Noted::UnlessDisabled, DEBUG),
    section("ui", Noted::UnlessDisabled, UI),
    section("cache", Noted::WhenEnabled, CACHE),
    section(
        "sources.http",
        Noted::WhenEnabled,
        &[
            "enabled",
            "host",
            "port",
            "path",
            "sinks_enabled",
            "request_timeout_seconds",
            "max_concurrent",
            "max_body_bytes",
            "clients",
        ],
    ),
    section("throughput", Noted::UnlessDisabled, &["cost_label", "min_cost"]),
    section(
        "runtime_health",
        Noted::UnlessDisabled,
        &[
            "enabled",
            "tick_seconds",
            "warn_lag_seconds",
            "stall_seconds",
            "max_stall_stacks",
            "sample_interval_seconds",
            "history_window_seconds",
            "episode_max_seconds",
            "probe_interval_seconds",
        ],
    ),
    section("io", Noted::UnlessDisabled, &["max_threads"]),
    section("offload", Noted::UnlessDisabled, &["max_threads"]),
    section("storage", Noted::UnlessDisabled, &["dir"]),
    section("shared", Noted::UnlessDisabled, &["dir"]),
    section(
        "history",
        Noted::UnlessDisabled,
        &[
            "archive.enabled",
            "archive.window_hours",
            "archive.due_after_hours",
            "archive.retention_days",
            "archive.lock_stale_seconds",
            "merged_retention_days",
        ],
    ),
    section("fleet", Noted::UnlessDisabled, FLEET),
];

const DEBUG: &[&str] = &[
    "enabled",
    "host",
    "port",
    "auth_token",
    "allowed_ws_origins",
    "debug_url",
    "db_dir",
    "store_events",
    "store_config",
    "store_state",
    "state_sync_interval_seconds",
    "expose_env_vars",
    "rotation_interval_minutes",
    "retention_hours",
    "retention_max_events",
    "store_output",
    "flush_interval_seconds",
    "max_buffer",
    "max_flush_retries",
    "max_ui_rows",
    "log_min_duration_ms",
    "ws_min_duration_ms",
    "event_min_duration_ms",
    "output_min_duration_ms",
    "prometheus_url",
    "prometheus_rate_interval",
    "prometheus_worker_label",
    "prometheus_cluster_label",
    "custom_links",
];

const UI: &[&str] = &[
    "enabled",
    "host",
    "port",
    "auth_token",
    "allowed_ws_origins",
    "probe_enabled",
    "merge_enabled",
    "kafka_read_enabled",
    "public_url",
    "expose_env_vars",
    "max_rows",
    "log_min_duration_ms",
    "ws_min_duration_ms",
    "prometheus_url",
    "prometheus_rate_interval",
    "prometheus_worker_label",
    "prometheus_cluster_label",
    "custom_links",
    "link_bases",
    "custom_renderers_path",
    "consume_pause",
    "recorder",
    "release",
    "probe_details",
    "timeline",
    "trace",
    "docs",
];

const CACHE: &[&str] = &[
    "enabled",
    "db_dir",
    "flush_interval_seconds",
    "cleanup_interval_seconds",
    "max_memory_entries",
    "peer_sync.enabled",
    "peer_sync.interval_seconds",
    "peer_sync.batch_size",
    "peer_sync.timeout_seconds",
    "peer_sync.cycle_deadline_seconds",
];

const FLEET: &[&str] = &["registry", "cache_exchange"];

/// Keys of version 2.4.0 of the original that stand elsewhere here. They are not taken over silently:
/// a worker that read another topic than its file says would be worse than one that does not start.
pub(super) const MOVED: [(&str, &str); 1] = [(
    "sources.kafka",
    "is the section kafka here; topic is kafka.source_topic, on_parse_error is kafka.on_invalid, \
     enabled has no counterpart, the other keys keep their names",
)];
