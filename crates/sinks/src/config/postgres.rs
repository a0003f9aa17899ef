//! One PostgreSQL database: `sinks.postgres.<name>`.

use serde::{Deserialize, Serialize};

use super::BatchConfig;

/// One PostgreSQL database: `sinks.postgres.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSinkConfig {
    /// How payloads are written together.
    pub batch: BatchConfig,
}

impl PostgresSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
    }
}
