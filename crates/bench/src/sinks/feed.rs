//! Where a loop by hand gets its rows: it has them in memory, or polls them from the topic that the worker
//! reads, which is what it takes to do the same as a worker.

use std::{borrow::Cow, slice::Chunks};

use anyhow::Context;
use rdkafka::{
    Message,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tokio::time::{Duration, Instant};

use super::{Lap, Row, TOGETHER};
use crate::{broker::Topic, usage};

/// How long the consumer waits for a message before it asks again.
const POLL: Duration = Duration::from_millis(5);

/// Rows, [`TOGETHER`] at once.
pub(super) enum Feed<'r> {
    Memory(Chunks<'r, Row<'r>>),
    Topic(&'r mut Polled),
}

/// Rows that are polled. They are committed once, at the end.
pub(super) struct Polled {
    consumer: BaseConsumer,
    /// How many there are, and how many were seen.
    rows: usize,
    seen: usize,
    values: Vec<String>,
    /// When the first was seen, and the processor time until then.
    begun: Option<(Instant, Duration)>,
}

impl<'r> Feed<'r> {
    pub(super) fn of(rows: &'r [Row<'r>]) -> Self {
        Self::Memory(rows.chunks(TOGETHER))
    }

    /// The next rows; none at the end.
    pub(super) fn next(&mut self) -> anyhow::Result<Cow<'_, [Row<'_>]>> {
        match self {
            Self::Memory(chunks) => Ok(Cow::Borrowed(chunks.next().unwrap_or_default())),
            Self::Topic(polled) => polled.next().map(Cow::Owned),
        }
    }
}

impl Polled {
    pub(super) fn new(topic: &Topic, group: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = topic.consumer(group).create()?;
        consumer.subscribe(&[topic.name])?;
        let values = Vec::with_capacity(TOGETHER);
        Ok(Self { consumer, rows: topic.messages, seen: 0, values, begun: None })
    }

    fn next(&mut self) -> anyhow::Result<Vec<Row<'_>>> {
        self.values.clear();
        let first = self.seen as u64;
        while self.values.len() < TOGETHER && self.seen < self.rows {
            let Some(message) = self.consumer.poll(POLL) else { continue };
            let message = message?;
            if self.begun.is_none() {
                self.begun = Some((Instant::now(), usage::own_cpu()?));
            }
            let value = str::from_utf8(message.payload().context("a message without a value")?)?;
            self.values.push(value.to_owned());
            self.seen += 1;
        }
        Ok((first..).zip(&self.values).map(|(id, value)| Row { id, value }).collect())
    }

    /// Everything was written.
    pub(super) fn end(self) -> anyhow::Result<Lap> {
        self.consumer.commit_consumer_state(CommitMode::Sync)?;
        let (start, cpu) = self.begun.context("there was no message")?;
        Ok(Lap::of(self.seen, start.elapsed(), usage::own_cpu()?.saturating_sub(cpu)))
    }
}
