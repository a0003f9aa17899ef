//! How far a replay came: the committed offsets of a group that has no members.
//!
//! A commit says in its metadata which filters and which target it is about. Another replay under the
//! same name would leave out what these passed over, without a word; so it is refused. Offsets that
//! were set with Kafka's own tools have no metadata and are taken as they are. Brokers forget offsets after
//! a while, each by itself: where some are there and some are not, nobody knows what was sent, and that
//! is said instead of sending it again.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::KafkaResult,
};

use super::{
    Usage,
    args::Replay,
    connect::Client,
    read::{Range, Reader},
};
use crate::say::say;

/// How our metadata begins.
const MARK: &str = "drakkar-replay";

/// The longest description of a replay; brokers keep 4 096 bytes.
const LONGEST: usize = 2_000;

/// Where the next letter of each partition is, and the metadata that says so.
pub(super) type Positions = BTreeMap<i32, (i64, String)>;

/// Letters before the progress that are looked at again, in all partitions together.
const LOOK_BACK: usize = 10_000;

/// What a run begins with.
#[derive(Debug)]
pub(super) struct Begin {
    /// What is to be read.
    pub ranges: Vec<Range>,
    /// What an earlier run has seen to last: letters of the same messages may be in `ranges`.
    pub before: Vec<Range>,
    /// To be kept before anything is read.
    pub kept: Positions,
}

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

    /// A run begins where the last replay stopped, or at the first letter.
    pub(super) fn begin(&self, reader: &Reader, args: &Replay) -> anyhow::Result<Begin> {
        let mut chosen = reader.ranges_of_topic(&args.choice.partition)?;
        let all = reader.ranges_of_topic(&[])?;
        let known = self.known(&reader.client, &all)?;
        if !args.restart {
            self.resume(&known, &mut chosen)?;
        }
        let has_any = chosen.iter().any(|range| 0 < range.len());
        let looks_back = has_any && !args.restart && !args.to_sink;
        let before = if looks_back { self.before(&known, &all) } else { Vec::new() };
        let kept = self.kept(&known, &all, &chosen);
        Ok(Begin { ranges: chosen, before, kept })
    }

    /// The last letters that a replay like this one has seen to. What was passed over with Kafka's own
    /// tools is none of them.
    fn before(&self, known: &Positions, all: &[Range]) -> Vec<Range> {
        let each = i64::try_from(LOOK_BACK.div_ceil(all.len().max(1))).unwrap_or(i64::MAX);
        let before = |range: &Range| {
            let (next, metadata) = known.get(&range.partition)?;
            let end = (*next).min(range.end);
            let next = range.next.max(end.saturating_sub(each)).min(end);
            (*metadata == self.metadata).then_some(Range { next, end, ..*range })
        };
        all.iter().filter_map(before).collect()
    }

    /// Commits the positions of all partitions, also of those that hold nothing new or are not chosen:
    /// brokers forget each by itself, some time after its last commit.
    pub(super) fn keep(&self, client: &Client, kept: &Positions) -> anyhow::Result<()> {
        let positions = kept.iter().map(|(&partition, (next, by))| (partition, *next, &**by));
        self.store(client, positions).context("cannot keep how far this came")
    }

    /// What is committed.
    fn known(&self, client: &Client, all: &[Range]) -> anyhow::Result<Positions> {
        let mut asked = TopicPartitionList::new();
        for range in all {
            asked.add_partition(&self.topic, range.partition);
        }
        let committed = client
            .ask(|within| client.consumer.committed_offsets(asked.clone(), within), |_| true)
            .context("cannot read how far the last replay came")?;
        let elements = committed.elements();
        let known = elements.iter().filter_map(|found| {
            let Offset::Offset(next) = found.offset() else { return None };
            Some((found.partition(), (next, found.metadata().to_owned())))
        });
        Ok(known.collect())
    }

    /// Lets `ranges` begin where the last replay stopped.
    fn resume(&self, known: &Positions, ranges: &mut [Range]) -> anyhow::Result<()> {
        let mut forgotten = Vec::new();
        for range in ranges.iter_mut() {
            match known.get(&range.partition) {
                Some((next, metadata)) => self.resume_one(*next, metadata, range)?,
                None if 0 < range.len() => forgotten.push(range.partition),
                None => {}
            }
        }
        let topic = &self.topic;
        if forgotten.is_empty() {
            return Ok(());
        }
        if known.is_empty() {
            say(&format!(
                "{topic}: there is no progress under this name, so this begins at the first letter. Brokers \
                 forget progress some time after the last run (offsets.retention.minutes, by default 7 \
                 days): if there was any, letters are sent again."
            ));
            return Ok(());
        }
        let named = |before: &str, between: &str| {
            let names = forgotten.iter().map(|partition| format!("{before}{partition}"));
            names.collect::<Vec<_>>().join(between)
        };
        bail!(Usage(format!(
            "there is no progress of {} under this name, though there is of other partitions: the brokers \
             have forgotten it (offsets.retention.minutes), or the partition is new. Its letters may have \
             been replayed before; to send them all: --restart{}",
            named(&format!("{topic}:"), ", "),
            named(" --partition ", ""),
        )))
    }

    fn resume_one(&self, next: i64, metadata: &str, range: &mut Range) -> anyhow::Result<()> {
        self.accept(metadata)?;
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
            say(&format!("{topic}:{partition}: {gone} offsets that were not replayed are deleted"));
        }
        range.next = range.next.max(next);
        Ok(())
    }

    /// The positions to commit before anything is read. What is not chosen stays where it is; where it
    /// is nowhere although others are somewhere, that must be seen when it is chosen.
    fn kept(&self, known: &Positions, all: &[Range], chosen: &[Range]) -> Positions {
        let position = |range: &Range| {
            let partition = range.partition;
            let begins = |range: &Range| (range.next, self.metadata.clone());
            let is_it = |range: &&Range| range.partition == partition;
            let kept = match (chosen.iter().find(is_it), known.get(&partition)) {
                (Some(range), _) => begins(range),
                (None, Some(known)) => known.clone(),
                (None, None) if known.is_empty() => begins(range),
                (None, None) => return None,
            };
            Some((partition, kept))
        };
        all.iter().filter_map(position).collect()
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
        let positions = passed.iter().map(|(&partition, &next)| (partition, next, &*self.metadata));
        self.store(client, positions).context(
            "cannot commit how far this came; what was just sent will be sent again by the next run",
        )
    }

    fn store<'a>(
        &self,
        client: &Client,
        positions: impl Iterator<Item = (i32, i64, &'a str)>,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, next, metadata) in positions {
            let mut element = list.add_partition(&self.topic, partition);
            element.set_offset(Offset::Offset(next))?;
            element.set_metadata(metadata);
        }
        client.consumer.commit(&list, CommitMode::Sync)
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
    fn range(partition: i32, next: i64, end: i64) -> Range {
        Range { partition, next, end }
    }

    fn positions<const N: usize>(of: [(i32, i64, &str); N]) -> Positions {
        of.map(|(partition, next, by)| (partition, (next, by.to_owned()))).into()
    }

    #[test]
    fn a_partition_whose_progress_is_forgotten_is_named_unless_all_of_it_is_or_nothing_is_there() {
        let progress = Progress::new("t", "").unwrap();
        let known = positions([(1, 5, MARK)]);
        let mut ranges = [range(0, 0, 3), range(1, 0, 9), range(2, 7, 7), range(3, 1, 2)];
        let refused = progress.resume(&known, &mut ranges).unwrap_err();
        assert!(refused.is::<Usage>(), "{refused}");
        for part in ["of t:0, t:3 under", "--restart --partition 0 --partition 3"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
        progress.resume(&known, &mut ranges[1..3]).unwrap();
        assert_eq!(ranges[1..3], [range(1, 5, 9), range(2, 7, 7)]);
        progress.resume(&Positions::new(), &mut ranges).unwrap();
        assert_eq!(ranges[0], range(0, 0, 3));
    }

    #[test]
    fn the_position_of_every_partition_is_kept_and_none_is_made_up() {
        let progress = Progress::new("t", " --class \"a\"").unwrap();
        let own = &*progress.metadata;
        let all = [range(0, 2, 9), range(1, 0, 9), range(2, 0, 0)];
        let chosen = [range(0, 4, 9)];
        let nothing_known = positions([(0, 4, own), (1, 0, own), (2, 0, own)]);
        assert_eq!(progress.kept(&Positions::new(), &all, &chosen), nothing_known);
        let known = positions([(0, 4, own), (1, 6, "of others")]);
        assert_eq!(progress.kept(&known, &all, &chosen), known);
    }
}
