//! One HTTP endpoint: `sinks.http.<name>`.

use serde::{Deserialize, Serialize};

use super::BatchConfig;

/// One HTTP endpoint: `sinks.http.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSinkConfig {
    /// How payloads are written together.
    pub batch: BatchConfig,
}

impl HttpSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
    }
}
