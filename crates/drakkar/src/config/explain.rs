//! The configuration in effect, key by key, with where each value came from.

use std::{collections::BTreeMap, fmt};

use serde_json::Value as Json;

use super::{Config, Origin, mask, schema::joined};

/// One key of the configuration in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The full key, `kafka.brokers`.
    pub key: String,
    /// Its value; secrets are masked.
    pub value: String,
    /// Where the value came from.
    pub from: Origin,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  ({})", self.key, self.value, self.from)
    }
}

/// Every key of `config`.
pub(super) fn lines(config: &Config, origins: &BTreeMap<String, Origin>) -> Vec<Line> {
    let mut lines = Vec::new();
    // A configuration that cannot be written would explain nothing; a test writes it.
    let written = serde_json::to_value(config).unwrap_or_default();
    collect("", &written, origins, &mut lines);
    lines
}

fn collect(at: &str, value: &Json, origins: &BTreeMap<String, Origin>, lines: &mut Vec<Line>) {
    match value {
        Json::Object(keys) if !keys.is_empty() => {
            for (key, value) in keys {
                collect(&joined(at, key), value, origins, lines);
            }
        }
        _ => lines.push(Line {
            key: at.to_owned(),
            value: shown(at, value),
            from: origins.get(at).cloned().unwrap_or_default(),
        }),
    }
}

fn shown(key: &str, value: &Json) -> String {
    match value {
        Json::String(text) => format!("{:?}", mask::masked(key, text)),
        Json::Null => "unset".to_owned(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(key, item)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

impl fmt::Debug for Config {
    /// Shows every key; secrets are masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = lines(self, &BTreeMap::new());
        let entries =
            lines.iter().map(|line| (&line.key, format_args!("{}", line.value).to_string()));
        f.debug_map().entries(entries).finish()
    }
}
