//! A line for a file.

use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{PayloadError, wire};

/// One line for a file sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePayload {
    /// Which `sinks.filesystem` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// File below the sink's `base_path`; missing directories are made.
    pub path: PathBuf,
    /// What is appended; the line feed is added by the sink.
    #[serde(with = "wire")]
    pub line: Bytes,
}

impl FilePayload {
    /// Appends `value` as one line of JSON to `path`.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn json(path: impl Into<PathBuf>, value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self { sink: None, path: path.into(), line: serde_json::to_vec(value)?.into() })
    }

    /// Names the `sinks.filesystem` instance.
    #[must_use]
    pub fn sink(mut self, name: impl Into<String>) -> Self {
        self.sink = Some(name.into());
        self
    }

    /// Bytes of path and line.
    #[must_use]
    pub fn size(&self) -> usize {
        self.line.len() + self.path.as_os_str().len()
    }
}
