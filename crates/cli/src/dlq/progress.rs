//! How far a replay came: the committed offsets of a group that has no members.
//!
//! A commit says in its metadata which filters and which target it is about. Another replay under the
//! same name would leave out what these passed over, without a word; so it is refused. Offsets that
//! were set with Kafka's own tools have no metadata and are taken as they are.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    topic_partition_list::TopicPartitionListElem,
};

use super::{Usage, connect::Client, read::Range};

/// How our metadata begins.
const MARK: &str = "drakkar-replay";

/// The longest description of a replay; brokers keep 4 096 bytes.
const LONGEST: usize = 2_000;

/// Progress of one replay of one topic.
#[derive(Debug)]
pub(super) struct Progress {
    topic: String,
    metadata: String,
}

impl Progress {
    /// Progress in `topic` of the replay that `about` describes.
    pub(super) fn new(topic: &str, about: &str) -> anyhow::Result<Self> {
        if LONGEST < about.len() {
            bail!(Usage("the filters are too long to be kept with the progress".to_owned()));
        }
        Ok(Self { topic: topic.to_owned(), metadata: format!("{MARK}{about}") })
    }

    /// Lets `ranges` begin where the last replay stopped.
    pub(super) fn resume(&self, client: &Client, ranges: &mut [Range]) -> anyhow::Result<()> {
        let mut asked = TopicPartitionList::new();
        for range in ranges.iter() {
            asked.add_partition(&self.topic, range.partition);
        }
        let committed = client
            .ask(|within| client.consumer.committed_offsets(asked.clone(), within), |_| true)
            .context("cannot read how far the last replay came")?;
        for range in ranges {
            if let Some(found) = committed.find_partition(&self.topic, range.partition) {
                self.resume_one(&found, range)?;
            }
        }
        Ok(())
    }

    fn resume_one(
        &self,
        found: &TopicPartitionListElem<'_>,
        range: &mut Range,
    ) -> anyhow::Result<()> {
        let Offset::Offset(next) = found.offset() else { return Ok(()) };
        self.accept(found.metadata())?;
        let (topic, partition) = (&self.topic, range.partition);
        if range.end < next {
            bail!(Usage(format!(
                "the last replay came to offset {next} of {topic}:{partition}, which ends at {}: the \
                 topic was made anew; begin again with --restart",
                range.end
            )));
        }
        if next < range.next {
            let gone = range.next - next;
            eprintln!("{topic}:{partition}: {gone} offsets that were not replayed are deleted");
        }
        range.next = range.next.max(next);
        Ok(())
    }

    /// Whether progress with this metadata is ours to go on with.
    fn accept(&self, metadata: &str) -> anyhow::Result<()> {
        let Some(about) = metadata.strip_prefix(MARK).filter(|_| metadata != self.metadata) else {
            return Ok(());
        };
        let about = if about.is_empty() { " no filters" } else { about };
        bail!(Usage(format!(
            "the progress under this name is that of a replay with{about}, which passed over other \
             letters than this one would: give this one a --name of its own, or begin again with \
             --restart"
        )))
    }

    /// Says that everything below these offsets was seen to.
    pub(super) fn commit(
        &self,
        client: &Client,
        passed: &BTreeMap<i32, i64>,
    ) -> anyhow::Result<()> {
        if passed.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (&partition, &next) in passed {
            let mut element = list.add_partition(&self.topic, partition);
            element.set_offset(Offset::Offset(next))?;
            element.set_metadata(&self.metadata);
        }
        client.consumer.commit(&list, CommitMode::Sync).context(
            "cannot commit how far this came; what was just sent will be sent again by the next run",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_other_filters_is_not_gone_on_with() {
        let progress = Progress::new("t", " --class \"a\"").unwrap();
        assert!(progress.accept(&progress.metadata).is_ok());
        assert!(progress.accept("").is_ok(), "set with Kafka's own tools");
        let refused = progress.accept("drakkar-replay --class \"b\"").unwrap_err();
        assert!(
            refused.is::<Usage>() && refused.to_string().contains("--class \"b\""),
            "{refused}"
        );
        assert!(progress.accept(MARK).unwrap_err().to_string().contains("no filters"));
    }
}
