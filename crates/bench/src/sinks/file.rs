//! Lines of JSON in a file, on the disk at the end, beside a buffered writer.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::PathBuf,
};

use drakkar::{Config, FilePayload, Payload, PayloadError, sections::FileSinkConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Far, Feed, Row};

/// A directory with a file per lap.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    fn path(&self, lap: &str) -> PathBuf {
        self.0.path().join(name(lap))
    }
}

fn name(lap: &str) -> String {
    format!("{lap}.jsonl")
}

impl Far for Files {
    const NAME: &'static str = "file";
    const GOAL: f64 = 0.5;

    fn prepare(&self, _: &Runtime, _: &str) -> anyhow::Result<()> {
        Ok(())
    }

    fn configure(&self, _: &str, config: &mut Config) -> anyhow::Result<()> {
        let sink =
            FileSinkConfig { base_path: self.0.path().to_owned(), ..FileSinkConfig::default() };
        config.sinks.filesystem.insert("rows".to_owned(), sink);
        Ok(())
    }

    fn payload(lap: &str, row: Row<'_>) -> Result<Payload, PayloadError> {
        Ok(FilePayload::json(name(lap), &row)?.into())
    }

    fn by_hand(&self, _: &Runtime, lap: &str, rows: &mut Feed<'_>) -> anyhow::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(self.path(lap))?);
        loop {
            let some = rows.next()?;
            if some.is_empty() {
                break;
            }
            for row in &*some {
                serde_json::to_writer(&mut file, row)?;
                file.write_all(b"\n")?;
            }
        }
        file.into_inner()?.sync_data()?;
        Ok(())
    }

    fn count(&self, _: &Runtime, lap: &str) -> anyhow::Result<usize> {
        Ok(BufReader::new(File::open(self.path(lap))?).lines().count())
    }
}
