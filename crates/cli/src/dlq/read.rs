//! A topic as it is when reading begins: one partition after the other, each up to its end.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use drakkar::TopicPartition;
use drakkar_kafka::message;
use rdkafka::{
    Message as _, Offset as ClientOffset, TopicPartitionList, consumer::Consumer, error::KafkaError,
};
use tokio::time::Instant;

use super::{connect::Client, letter::Letter};

/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What is to be read of a partition: from `next` up to `end`, without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub partition: i32,
    pub next: i64,
    pub end: i64,
}

impl Range {
    /// Whether the record at `offset` is to be read; what is left of the range is behind it.
    fn take(&mut self, offset: i64) -> bool {
        let is_due = self.next <= offset && offset < self.end;
        self.next = self.next.max(offset + 1);
        is_due
    }

    /// How many offsets it has, which may be more than records: a compacted topic has gaps.
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or(0)
    }
}

/// Reads ranges of one topic.
pub(super) struct Reader {
    pub client: Client,
    topic: Arc<str>,
    left: VecDeque<Range>,
    /// Whether the first of `left` is being fetched.
    fetching: bool,
}

impl Reader {
    pub(super) fn new(client: Client, topic: &str) -> Self {
        Self { client, topic: topic.into(), left: VecDeque::new(), fetching: false }
    }

    /// What the topic holds now, or just these partitions of it; `None` when there is no such topic.
    pub(super) fn ranges(&self, only: &[i32]) -> anyhow::Result<Option<Vec<Range>>> {
        let Some(mut partitions) = self.client.partitions(&self.topic)? else { return Ok(None) };
        if let Some(missing) = only.iter().find(|one| !partitions.contains(one)) {
            bail!("{} has no partition {missing}", self.topic);
        }
        partitions.retain(|one| only.is_empty() || only.contains(one));
        partitions.sort_unstable();
        let range = |partition| {
            let consumer = &self.client.consumer;
            let (next, end) = self.client.ask(
                |within| consumer.fetch_watermarks(&self.topic, partition, within),
                |_| true,
            )?;
            Ok(Range { partition, next, end })
        };
        partitions.into_iter().map(range).collect::<anyhow::Result<_>>().map(Some)
    }

    /// The same for a topic that must be there.
    pub(super) fn ranges_of_topic(&self, only: &[i32]) -> anyhow::Result<Vec<Range>> {
        self.ranges(only)?.with_context(|| format!("there is no topic {}", self.topic))
    }

    /// Begins to read `ranges`.
    pub(super) fn read(&mut self, ranges: Vec<Range>) {
        self.left = ranges.into();
        self.fetching = false;
    }

    /// What is left of the partition that is being read is not read.
    pub(super) fn leave_partition(&mut self) {
        if let Some(range) = self.left.front_mut() {
            range.next = range.end;
        }
    }

    /// How many offsets are left to read.
    pub(super) fn left(&self) -> u64 {
        self.left.iter().map(Range::len).sum()
    }

    /// The next record; `None` at the end, or when `is_stopped`.
    pub(super) fn next(&mut self, is_stopped: impl Fn() -> bool) -> anyhow::Result<Option<Letter>> {
        let mut heard = Instant::now();
        while !is_stopped() {
            self.left
                .pop_front_if(|range| range.end <= range.next)
                .inspect(|_| self.fetching = false);
            let Some(range) = self.left.front_mut() else { break };
            if range.end <= range.next {
                continue;
            }
            if !self.fetching {
                assign(&self.client, &self.topic, *range)?;
                self.fetching = true;
                heard = Instant::now();
            }
            match self.client.consumer.poll(LOOK) {
                Some(Ok(record)) if record.partition() == range.partition => {
                    if range.take(record.offset()) {
                        let partition =
                            TopicPartition::new(Arc::clone(&self.topic), range.partition);
                        let letter = Letter::new(message::own(&partition, &record));
                        let is_exact = message::names_are_exact(&record);
                        return Ok(Some(Letter { is_exact, ..letter }));
                    }
                }
                // Nothing more is there: what was before the end is compacted or deleted.
                Some(Err(KafkaError::PartitionEOF(partition))) if partition == range.partition => {
                    range.next = range.end;
                }
                // Another partition's; or an error that the client gets over, or else stays silent.
                Some(Ok(_) | Err(_)) | None if heard.elapsed() < self.client.timeout => {}
                Some(Ok(_)) | None => return Err(self.client.silent("no records came")),
                Some(Err(error)) => return Err(self.client.silent(&error.to_string())),
            }
        }
        Ok(None)
    }
}

fn assign(client: &Client, topic: &str, range: Range) -> anyhow::Result<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, range.partition, ClientOffset::Offset(range.next))?;
    client.consumer.assign(&list).with_context(|| format!("cannot read {topic}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_came_later_is_not_read_and_nothing_is_left_behind_it() {
        let mut range = Range { partition: 0, next: 3, end: 5 };
        assert!(!range.take(2), "it was read before");
        assert!(range.take(3));
        assert_eq!(range.len(), 1);
        assert!(!range.take(5), "4 is gone: the topic is compacted");
        assert_eq!(range.len(), 0);
    }
}
