//! What is to be committed, what is on its way, and what arrived.
//!
//! Pure: the poll thread asks [`Commits::next_batch`] what to send and reports what became of it. At
//! most one commit is on its way. A newer position replaces an older one that was not sent yet; a
//! position below what was committed is never sent, nor one that says nothing new. What was refused
//! is sent again, unless something newer came or the partition went. A broker may take less metadata
//! than ours allow: what it finds too long is sent again with half of it, and so is what follows. Only a
//! log that was cut or made anew takes a mark back: an offset above its end would make the next owner
//! skip what comes below.

use std::collections::BTreeMap;

use drakkar_core::{Offset, TopicPartition, done_map::Noted, source::Position};
use rdkafka::error::RDKafkaErrorCode;

/// What is known about the commits of the partitions that are ours.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    partitions: BTreeMap<TopicPartition, Marks>,
    in_flight: bool,
    /// Bytes of metadata that the broker takes, where it has refused more.
    longest: Option<usize>,
}

#[derive(Debug, Default)]
struct Marks {
    wanted: Option<Position>,
    sent: Option<Position>,
    committed: Option<Position>,
}

/// What the broker said about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    /// Not now.
    Refused,
    /// Not with so much metadata.
    TooLong,
    /// There is no such partition any more.
    Gone,
}

impl Answer {
    /// What was said of one partition, where nothing means that it was accepted: but only if the
    /// partitions were answered for one by one, and not refused together.
    pub(crate) fn of(error: Option<RDKafkaErrorCode>, by_partition: bool) -> Self {
        match error {
            None if by_partition => Self::Accepted,
            Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => Self::TooLong,
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Self::Gone,
            _ => Self::Refused,
        }
    }
}

impl Marks {
    /// A log whose first message that counts is at `next`.
    fn anew(next: Offset) -> Self {
        let metadata = String::new();
        Self { wanted: Some(Position { next, metadata }), ..Self::default() }
    }

    /// The newest that was asked for or committed.
    fn newest(&self) -> Option<&Position> {
        self.wanted.as_ref().or(self.sent.as_ref()).or(self.committed.as_ref())
    }
}

impl Commits {
    /// `partition` is ours; `committed` is what the group last committed for it.
    pub(crate) fn begin(&mut self, partition: TopicPartition, committed: Option<Position>) {
        self.partitions.insert(partition, Marks { committed, ..Marks::default() });
    }

    /// `partition` is no longer ours: nothing of it will be sent any more.
    pub(crate) fn end(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
    }

    /// Reading began at `first`. Below what was committed, the log was cut or made anew: the old mark
    /// means nothing, and must not stay.
    pub(crate) fn started(&mut self, partition: &TopicPartition, first: Offset) {
        if let Some(marks) = self.partitions.get_mut(partition)
            && marks.newest().is_some_and(|newest| first < newest.next)
        {
            *marks = Marks::anew(first);
        }
    }

    /// Reading began at `first`, came further and went on at `found`, below what was read: the log was
    /// cut or made anew. Nothing that was asked for counts any more. Returns where to read again: below
    /// that everything is settled, and the group is told so.
    ///
    /// A commit that is on its way may still be accepted; the one that is made now comes after it.
    pub(crate) fn rewind(
        &mut self,
        partition: &TopicPartition,
        first: Option<Offset>,
        found: Offset,
    ) -> Offset {
        // What was read below a cut and not committed is still there, and no longer worked on.
        let settled = self.committed(partition).max(first);
        let from = settled.map_or(found, |settled| settled.min(found));
        self.partitions.insert(partition.clone(), Marks::anew(from));
        from
    }

    /// `position` may be committed.
    pub(crate) fn want(&mut self, partition: &TopicPartition, position: Position) {
        let position = shortened(position, self.longest);
        let Some(marks) = self.partitions.get_mut(partition) else {
            return;
        };
        let news =
            marks.newest().is_none_or(|newest| newest.next <= position.next && *newest != position);
        if news {
            marks.wanted = Some(position);
        }
    }

    /// What to send now. Until [`Self::settle`] is called, there is nothing more.
    pub(crate) fn next_batch(&mut self) -> Option<Vec<(TopicPartition, Position)>> {
        if self.in_flight {
            return None;
        }
        let mut batch = Vec::new();
        for (partition, marks) in &mut self.partitions {
            if let Some(position) = marks.wanted.take() {
                batch.push((partition.clone(), position.clone()));
                marks.sent = Some(position);
            }
        }
        self.in_flight = !batch.is_empty();
        self.in_flight.then_some(batch)
    }

    /// The broker answered; `answer` says what for which partition. Returns what was committed.
    pub(crate) fn settle(
        &mut self,
        answer: impl Fn(&TopicPartition) -> Answer,
    ) -> Vec<(TopicPartition, Offset)> {
        self.in_flight = false;
        let mut committed = Vec::new();
        for (partition, marks) in &mut self.partitions {
            let Some(position) = marks.sent.take() else { continue };
            match answer(partition) {
                Answer::Accepted => {
                    committed.push((partition.clone(), position.next));
                    marks.committed = Some(position);
                }
                Answer::Refused => {
                    marks.wanted.get_or_insert(position);
                }
                // The offset is what counts: what the map leaves out is done again.
                Answer::TooLong => {
                    let half = position.metadata.len() / 2;
                    self.longest = Some(self.longest.map_or(half, |longest| longest.min(half)));
                    marks.wanted.get_or_insert(position);
                }
                // Sent again it could be accepted for a new topic of the same name, whose messages it
                // knows nothing of.
                Answer::Gone => marks.wanted = None,
            }
        }
        for marks in self.partitions.values_mut() {
            marks.wanted = marks.wanted.take().map(|wanted| shortened(wanted, self.longest));
        }
        committed
    }

    /// Whether everything asked for `partition` was committed.
    pub(crate) fn is_done(&self, partition: &TopicPartition) -> bool {
        self.partitions
            .get(partition)
            .is_none_or(|marks| marks.wanted.is_none() && marks.sent.is_none())
    }

    /// Whether everything asked for was committed.
    pub(crate) fn all_done(&self) -> bool {
        self.partitions.keys().all(|partition| self.is_done(partition))
    }

    /// The last committed offset of `partition`, if it is known.
    pub(crate) fn committed(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition)?.committed.as_ref().map(|position| position.next)
    }
}

/// `position` with no more metadata than the broker takes.
fn shortened(mut position: Position, longest: Option<usize>) -> Position {
    if let Some(longest) = longest.filter(|&longest| longest < position.metadata.len()) {
        position.metadata = Noted::shorten(position.next, &position.metadata, longest);
    }
    position
}

#[cfg(test)]
mod tests;
