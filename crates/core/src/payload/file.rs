//! Something to append to a file: a line, bytes as they are, or a row of CSV.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{PayloadError, csv, json, wire};

/// Something to append to a file of a file sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePayload {
    /// Which `sinks.filesystem` instance; `None` where exactly one is configured.
    pub sink: Option<String>,
    /// File below the sink's `base_path`, taken as it is; missing directories are made. Empty: the
    /// sink's own `path`, filled in.
    pub path: PathBuf,
    /// Values for the placeholders of the sink's `path`.
    pub params: BTreeMap<String, String>,
    /// What is appended.
    pub content: FileContent,
}

/// What is appended to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileContent {
    /// One line; the sink adds the line feed.
    Line(#[serde(with = "wire")] Bytes),
    /// Bytes as they are.
    Raw(#[serde(with = "wire")] Bytes),
    /// One row of CSV, quoted where it must be; the sink adds the line feed.
    Row {
        /// The row a file begins with, where the columns have names.
        #[serde(with = "wire::option")]
        columns: Option<Bytes>,
        /// The row itself.
        #[serde(with = "wire")]
        row: Bytes,
    },
}

impl FileContent {
    /// The line, the bytes or the row, without what the sink adds.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Line(bytes) | Self::Raw(bytes) | Self::Row { row: bytes, .. } => bytes,
        }
    }
}

impl FilePayload {
    /// Appends `value` as one line of JSON to `path`, or to the sink's own where `path` is empty.
    ///
    /// # Errors
    ///
    /// When `value` does not serialise.
    pub fn json(path: impl Into<PathBuf>, value: &impl Serialize) -> Result<Self, PayloadError> {
        Ok(Self::line(path, json::bytes(value)?))
    }

    /// Appends `text`, which holds no line feed, as a line.
    #[must_use]
    pub fn line(path: impl Into<PathBuf>, text: impl Into<Bytes>) -> Self {
        Self::new(path, FileContent::Line(text.into()))
    }

    /// Appends these bytes and nothing else.
    #[must_use]
    pub fn raw(path: impl Into<PathBuf>, bytes: impl Into<Bytes>) -> Self {
        Self::new(path, FileContent::Raw(bytes.into()))
    }

    /// Appends `row` as CSV: a struct, whose fields name the columns in the first row of each file, or
    /// a sequence, whose columns have no names. Values are text, numbers, booleans or optional.
    ///
    /// # Errors
    ///
    /// When `row` does not serialise: a map, or a struct in which there are structs.
    pub fn csv(path: impl Into<PathBuf>, row: &impl Serialize) -> Result<Self, PayloadError> {
        let (columns, row) = csv::row(row)?;
        Ok(Self::new(path, FileContent::Row { columns, row }))
    }

    fn new(path: impl Into<PathBuf>, content: FileContent) -> Self {
        Self { sink: None, path: path.into(), params: BTreeMap::new(), content }
    }

    /// Fills the placeholder `{name}` of the sink's `path`.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.insert(name.into(), value.into());
        self
    }

    /// Bytes of path, parameters and content.
    #[must_use]
    pub fn size(&self) -> usize {
        let params: usize = self.params.iter().map(|(name, value)| name.len() + value.len()).sum();
        let columns = match &self.content {
            FileContent::Row { columns: Some(columns), .. } => columns.len(),
            _ => 0,
        };
        self.path.as_os_str().len() + params + columns + self.content.bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_survives_being_written_and_read_as_json() {
        let payloads = [
            FilePayload::line("a", "text").sink("s").param("k", "v"),
            FilePayload::raw("a", &b"\xff\x00"[..]),
            FilePayload::csv("a", &(1, "x")).unwrap(),
        ];
        for payload in payloads {
            let json = serde_json::to_string(&payload).unwrap();
            assert_eq!(serde_json::from_str::<FilePayload>(&json).unwrap(), payload, "{json}");
        }
    }
}
