//! The `executor.job_log` section. The log itself is written where metrics are; here it is only decided
//! whether to measure what it shows.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One JSON line per run of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobLogConfig {
    /// File with a line for each run of a task (`docs/executor.md#the-job-log`). Default: none: no
    /// log.
    pub path: Option<PathBuf>,
    /// Bytes after which the file is renamed to `<path>.1`, in the place of the one before, and
    /// begun anew. Default: `104857600` (100 MiB).
    pub max_bytes: u64,
}

impl Default for JobLogConfig {
    fn default() -> Self {
        Self { path: None, max_bytes: 100 << 20 }
    }
}

impl JobLogConfig {
    /// What cannot be, each text with its key below `executor`.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            wrong.push("job_log.path: must not be empty; leave it out for no log".to_owned());
        }
        if self.max_bytes == 0 {
            wrong.push("job_log.max_bytes: must be at least 1".to_owned());
        }
        wrong
    }
}
