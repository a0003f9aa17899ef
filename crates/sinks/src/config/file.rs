//! One directory: `sinks.filesystem.<name>`.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use drakkar_core::lenient;
use serde::{Deserialize, Serialize};

use super::BatchConfig;
use crate::file::template::Template;

/// One directory: `sinks.filesystem.<name>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSinkConfig {
    /// Directory below which every file is, made if it does not exist. Default: none, required.
    pub base_path: PathBuf,
    /// File for payloads that name none, with placeholders: `{date}` and `{hour}` (UTC, when it is
    /// written), `{worker_id}`, and the parameters of the payload. See `docs/sinks/files.md`.
    /// Default: none: a payload must name its file.
    #[serde(deserialize_with = "lenient::text")]
    pub path: String,
    /// When a line counts as written: `batch` (on the disk, one `fdatasync` for all lines that were
    /// waiting) or `never` (the kernel has it). Default: `batch`.
    pub fsync: Fsync,
    /// When a file is renamed and a new one begun.
    pub rotate: RotateConfig,
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

/// When a file is renamed and a new one begun: `sinks.filesystem.<name>.rotate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotateConfig {
    /// Bytes of a file: one that would get larger is renamed, and a new one begun; a larger payload
    /// has a file of its own. Default: no limit.
    pub max_bytes: Option<NonZeroU64>,
    /// Age at which the next payload begins a new file. Default: no limit.
    #[serde(with = "lenient::optional_duration")]
    pub max_age: Option<Duration>,
    /// What is done with a renamed file: `none` or `gzip`. Default: `none`.
    pub compress: Compress,
    /// Renamed files that are kept of each file; older ones are deleted. Default: `0`, all.
    pub keep: usize,
}

/// What is done with a renamed file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compress {
    /// It stays as it is.
    #[default]
    None,
    /// It becomes a `.gz`.
    Gzip,
}

impl RotateConfig {
    /// Whether files are renamed at all.
    pub(crate) fn is_on(&self) -> bool {
        self.max_bytes.is_some() || self.max_age.is_some()
    }
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
        if let Err(why) = Template::parse(&self.path) {
            wrong.push(format!("{at}.path: {why}"));
        }
        if self.rotate.max_age.is_some_and(|age| age.is_zero()) {
            wrong.push(format!("{at}.rotate.max_age: must not be zero"));
        }
        let is_off = !self.rotate.is_on();
        if is_off && (self.rotate.compress != Compress::None || self.rotate.keep != 0) {
            wrong.push(format!(
                "{at}.rotate: compress and keep are about renamed files; set max_bytes or max_age"
            ));
        }
    }
}
