//! Lines of JSON in a file, on the disk at the end, beside a buffered writer.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use drakkar::{Config, FilePayload, Payload, PayloadError, sections::FileSinkConfig};
use rdkafka::{
    Message,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    time::{Duration, Instant},
};

use super::{Far, Lap, Row};
use crate::{broker::Topic, usage};

/// How long the consumer waits for a message before it asks again.
const POLL: Duration = Duration::from_millis(5);

/// A directory with a file per lap.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    fn path(&self, lap: &str) -> PathBuf {
        self.0.path().join(name(lap))
    }

    /// The reference again, with rows that have to be polled first: all that a loop by hand can do of what
    /// ours does. It commits once, at the end.
    pub(super) fn polled(&self, topic: &Topic) -> anyhow::Result<Lap> {
        let consumer: BaseConsumer = topic.consumer("bench-file-polled").create()?;
        consumer.subscribe(&[topic.name])?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(self.path("polled"))?);
        let (mut begun, mut id) = (None, 0);
        while id < topic.messages {
            let Some(message) = consumer.poll(POLL) else { continue };
            let message = message?;
            if begun.is_none() {
                begun = Some((Instant::now(), usage::own_cpu()?));
            }
            let value = str::from_utf8(message.payload().context("a message without a value")?)?;
            serde_json::to_writer(&mut file, &Row { id: id as u64, value })?;
            file.write_all(b"\n")?;
            id += 1;
        }
        file.into_inner()?.sync_data()?;
        consumer.commit_consumer_state(CommitMode::Sync)?;
        let (start, cpu) = begun.context("there was no message")?;
        Ok(Lap::of(id, start.elapsed(), usage::own_cpu()?.saturating_sub(cpu)))
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

    fn by_hand(&self, _: &Runtime, lap: &str, rows: &[Row<'_>]) -> anyhow::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(self.path(lap))?);
        for row in rows {
            serde_json::to_writer(&mut file, row)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_data()?;
        Ok(())
    }

    fn count(&self, _: &Runtime, lap: &str) -> anyhow::Result<usize> {
        Ok(BufReader::new(File::open(self.path(lap))?).lines().count())
    }
}
