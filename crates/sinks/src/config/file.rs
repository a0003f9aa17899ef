//! One directory: `sinks.filesystem.<name>`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::BatchConfig;

/// One directory: `sinks.filesystem.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSinkConfig {
    /// Directory below which every file is; it is made if it does not exist. Required.
    pub base_path: PathBuf,
    /// When a line counts as written. Default `batch`.
    pub fsync: Fsync,
    /// How lines are written together: 4 096 items, 8 MiB, one in flight, unless said.
    pub batch: BatchConfig,
}

/// When a line counts as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When it is on the disk: one `fdatasync` per file for all lines that were waiting.
    #[default]
    Batch,
    /// When the kernel has it; a power failure may lose it.
    Never,
}

impl FileSinkConfig {
    pub(super) fn validate(&self, at: &str, wrong: &mut Vec<String>) {
        self.batch.validate(at, wrong);
        if self.batch.in_flight.is_some_and(|many| 1 < many.get()) {
            wrong.push(format!("{at}.batch.in_flight: must be 1: lines keep their order"));
        }
        if self.base_path.as_os_str().is_empty() {
            wrong.push(format!("{at}.base_path: is required; name a directory"));
        }
    }
}
