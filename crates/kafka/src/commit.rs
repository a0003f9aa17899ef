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
mod tests {
    use drakkar_core::DoneMap;

    use super::*;

    fn partition() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn position(next: i64, metadata: &str) -> Position {
        Position { next: Offset(next), metadata: metadata.to_owned() }
    }

    fn ours() -> Commits {
        let mut commits = Commits::default();
        commits.begin(partition(), None);
        commits
    }

    /// What is sent next, as offsets.
    fn sent(commits: &mut Commits) -> Vec<i64> {
        let batch = commits.next_batch().unwrap_or_default();
        batch.into_iter().map(|(_, position)| position.next.0).collect()
    }

    #[test]
    fn many_wishes_make_one_commit() {
        let mut commits = ours();
        (1..100).for_each(|next| commits.want(&partition(), position(next, "")));
        assert_eq!(sent(&mut commits), [99]);
    }

    #[test]
    fn one_commit_at_a_time_is_on_its_way() {
        let mut commits = ours();
        commits.want(&partition(), position(1, ""));
        assert_eq!(sent(&mut commits), [1]);
        commits.want(&partition(), position(2, ""));
        assert_eq!(sent(&mut commits), [0_i64; 0]);
        assert_eq!(commits.settle(|_| Answer::Accepted), [(partition(), Offset(1))]);
        assert_eq!(sent(&mut commits), [2]);
    }

    #[test]
    fn a_commit_never_goes_back() {
        let mut commits = ours();
        commits.want(&partition(), position(5, ""));
        commits.want(&partition(), position(4, ""));
        assert_eq!(sent(&mut commits), [5]);
        commits.want(&partition(), position(3, ""));
        commits.settle(|_| Answer::Accepted);
        commits.want(&partition(), position(2, ""));
        assert_eq!(sent(&mut commits), [0_i64; 0]);
    }

    #[test]
    fn nothing_is_committed_twice() {
        let mut commits = Commits::default();
        commits.begin(partition(), Some(position(7, "map")));
        commits.want(&partition(), position(7, "map"));
        assert_eq!(sent(&mut commits), [0_i64; 0], "the group knows it already");
        commits.want(&partition(), position(7, "fuller map"));
        assert_eq!(sent(&mut commits), [7], "same offset, more settled behind it");
        commits.want(&partition(), position(7, "fuller map"));
        commits.settle(|_| Answer::Accepted);
        assert_eq!(sent(&mut commits), [0_i64; 0]);
        assert!(commits.all_done());
    }

    #[test]
    fn a_refused_commit_is_made_again_unless_a_newer_one_came() {
        let mut commits = ours();
        commits.want(&partition(), position(1, ""));
        assert_eq!(sent(&mut commits), [1]);
        assert_eq!(commits.settle(|_| Answer::Refused), []);
        assert_eq!(sent(&mut commits), [1]);
        commits.want(&partition(), position(2, ""));
        commits.settle(|_| Answer::Refused);
        assert_eq!(sent(&mut commits), [2]);
    }

    /// A position with a done map of every other offset above it.
    fn with_map(next: i64, count: i64) -> Position {
        let settled = (0..count).map(|nth| Offset(next + 2 * nth + 1));
        let metadata = DoneMap::encode(Offset(next), settled, 4096).metadata;
        Position { next: Offset(next), metadata }
    }

    /// Sends until a broker that takes `limit` bytes of metadata accepts; how often, and what.
    fn until_accepted(commits: &mut Commits, limit: usize) -> (usize, Position) {
        for nth in 1..20 {
            let batch = commits.next_batch().expect("it is sent again");
            let [(_, sent)] = &batch[..] else { panic!("one partition: {batch:?}") };
            let too_long = limit < sent.metadata.len();
            let answer = if too_long { Answer::TooLong } else { Answer::Accepted };
            let committed = commits.settle(|_| answer);
            if !too_long {
                assert_eq!(committed, [(partition(), sent.next)]);
                return (nth, sent.clone());
            }
        }
        panic!("it is sent again and again");
    }

    #[test]
    fn metadata_that_is_too_long_is_shortened_and_the_commit_is_made() {
        let mut commits = ours();
        let full = with_map(5, 2_000);
        commits.want(&partition(), full.clone());
        let (sent, accepted) = until_accepted(&mut commits, 200);
        assert!(1 < sent && accepted.next == Offset(5), "{sent} times, {accepted:?}");
        let kept: Vec<Offset> =
            DoneMap::decode(Offset(5), &accepted.metadata).unwrap().iter().collect();
        assert!(100 < kept.len(), "as much as fits is kept, not nothing: {}", kept.len());
        assert_eq!(kept[..2], [Offset(6), Offset(8)], "the lowest ones, which run again first");

        commits.want(&partition(), with_map(9, 2_000));
        let (sent, accepted) = until_accepted(&mut commits, 200);
        assert_eq!((sent, accepted.next), (1, Offset(9)), "the broker is not asked twice");
    }

    #[test]
    fn a_broker_that_takes_no_metadata_gets_the_offset_alone() {
        let mut commits = ours();
        commits.want(&partition(), with_map(5, 2_000));
        let (_, accepted) = until_accepted(&mut commits, 0);
        assert_eq!(accepted, position(5, ""));
        commits.want(&partition(), position(7, "not ours to shorten"));
        assert_eq!(until_accepted(&mut commits, 0), (1, position(7, "")));
    }

    #[test]
    fn what_is_asked_for_while_too_much_is_on_its_way_is_shortened_as_well() {
        let mut commits = ours();
        commits.want(&partition(), with_map(5, 2_000));
        let first = commits.next_batch().unwrap()[0].1.metadata.len();
        commits.want(&partition(), with_map(6, 2_000));
        commits.settle(|_| Answer::TooLong);
        let second = commits.next_batch().unwrap();
        assert_eq!(second[0].1.next, Offset(6), "the newer one");
        assert!(second[0].1.metadata.len() <= first / 2);
    }

    #[test]
    fn a_partition_that_is_refused_does_not_take_back_what_was_accepted_for_the_others() {
        use RDKafkaErrorCode as Code;
        assert_eq!(Answer::of(None, true), Answer::Accepted);
        assert_eq!(Answer::of(None, false), Answer::Refused, "the broker did not get that far");
        assert_eq!(Answer::of(Some(Code::TopicAuthorizationFailed), true), Answer::Refused);
        assert_eq!(Answer::of(Some(Code::OffsetMetadataTooLarge), true), Answer::TooLong);
        assert_eq!(Answer::of(Some(Code::UnknownTopicOrPartition), true), Answer::Gone);
    }

    #[test]
    fn of_a_topic_that_is_gone_nothing_is_committed_again_but_what_settles_later() {
        let mut commits = ours();
        commits.want(&partition(), position(5, ""));
        assert_eq!(sent(&mut commits), [5]);
        commits.want(&partition(), position(6, ""));
        commits.settle(|_| Answer::Gone);
        assert_eq!(sent(&mut commits), [0_i64; 0], "it may be a new log by then");
        assert!(commits.all_done(), "nothing waits for it");
        commits.want(&partition(), position(6, ""));
        assert_eq!(sent(&mut commits), [6]);
    }

    #[test]
    fn a_log_that_was_cut_is_read_again_from_what_was_committed_or_from_the_cut() {
        let from = |committed: i64, found: i64| {
            let mut commits = Commits::default();
            commits.begin(partition(), Some(position(committed, "map")));
            let from = commits.rewind(&partition(), Some(Offset(420)), Offset(found));
            assert_eq!(sent(&mut commits), [from.0], "the group must not keep an offset above it");
            from
        };
        assert_eq!(from(450, 500), Offset(450), "what was open below the cut is still there");
        assert_eq!(from(1_000, 500), Offset(500), "these are other messages");
        assert_eq!(from(10, 500), Offset(420), "what is below was not there any more");
        let mut uncommitted = ours();
        assert_eq!(uncommitted.rewind(&partition(), Some(Offset(7)), Offset(500)), Offset(7));
    }

    #[test]
    fn after_a_log_was_cut_nothing_of_the_old_log_is_committed() {
        let mut commits = Commits::default();
        commits.begin(partition(), Some(position(3, "")));
        commits.want(&partition(), position(8, "on its way"));
        assert_eq!(sent(&mut commits), [8]);
        commits.want(&partition(), position(9, "waits"));
        assert_eq!(commits.rewind(&partition(), Some(Offset(3)), Offset(5)), Offset(3));
        assert_eq!(commits.settle(|_| Answer::Accepted), [], "the answer is for the old log");
        assert_eq!(sent(&mut commits), [3], "also where the old one was accepted");
    }

    #[test]
    fn of_a_partition_that_went_nothing_is_sent() {
        let mut commits = ours();
        commits.want(&partition(), position(1, ""));
        commits.end(&partition());
        commits.want(&partition(), position(2, ""));
        assert_eq!(sent(&mut commits), [0_i64; 0]);
    }

    #[test]
    fn a_late_answer_does_not_settle_a_newer_assignment() {
        let mut commits = ours();
        commits.want(&partition(), position(5, ""));
        assert_eq!(sent(&mut commits), [5]);
        commits.end(&partition());
        commits.begin(partition(), Some(position(3, "")));
        assert_eq!(commits.settle(|_| Answer::Accepted), []);
        assert_eq!(commits.committed(&partition()), Some(Offset(3)));
    }

    #[test]
    fn a_log_that_begins_anew_may_be_committed_from_its_start() {
        let mut commits = Commits::default();
        commits.begin(partition(), Some(position(1_000, "")));
        commits.started(&partition(), Offset(0));
        assert_eq!(sent(&mut commits), [0], "or the next owner would skip what comes below 1000");
        commits.settle(|_| Answer::Accepted);
        commits.want(&partition(), position(1, ""));
        assert_eq!(sent(&mut commits), [1]);
    }

    #[test]
    fn reading_that_begins_at_or_above_what_was_committed_changes_nothing() {
        let mut commits = Commits::default();
        commits.begin(partition(), Some(position(5, "map")));
        commits.started(&partition(), Offset(7));
        assert_eq!(sent(&mut commits), [0_i64; 0]);
        assert_eq!(commits.committed(&partition()), Some(Offset(5)));
    }
}
