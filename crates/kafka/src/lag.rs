//! How far the committed position of each partition lies behind the end of its log.
//!
//! From the statistics of the client, and only for partitions that are ours now, and not being
//! handed over: their lag is somebody else's to report. What is not known is not reported: unknown
//! is not zero.

use drakkar_core::{Offset, TopicPartition};
use rdkafka::Statistics;

use crate::{assignment::Ownership, commit::Commits};

/// The lag of every partition for which it is known.
pub(crate) fn lags(
    statistics: &Statistics,
    ours: &Ownership,
    commits: &Commits,
) -> Vec<(TopicPartition, i64)> {
    let mut lags = Vec::new();
    for owned in ours.iter().filter(|owned| !owned.fenced) {
        let known = statistics
            .topics
            .get(&*owned.partition.topic)
            .and_then(|topic| topic.partitions.get(&owned.partition.partition));
        let Some(known) = known else { continue };
        // Before the first commit, what was not even read yet is behind where reading began.
        let committed = commits.committed(&owned.partition);
        let settled = committed.is_some() && committed == owned.next && owned.is_empty();
        let from = if settled && known.fetchq_cnt == 0 {
            // What the client has read since were no messages: markers of transactions, and gaps.
            committed.max(Some(Offset(known.next_offset)))
        } else {
            // Before anything was read, where reading begins: what is read is behind it, or waits.
            let begins = (known.fetchq_cnt == 0).then_some(Offset(known.next_offset));
            committed.or(owned.first).or(begins.filter(|begins| 0 <= begins.0))
        };
        if let Some(lag) = lag(known.lo_offset, known.hi_offset, from) {
            lags.push((owned.partition.clone(), lag));
        }
    }
    lags
}

/// Messages between `from` and the end of a log that reaches from `low` to `high`; negative marks
/// are unknown.
fn lag(low: i64, high: i64, from: Option<Offset>) -> Option<i64> {
    let Offset(from) = from?;
    // Below the low mark messages are gone: nobody can be behind by them.
    (0 <= high).then(|| (high - from.max(low)).max(0))
}

#[cfg(test)]
mod tests {
    use drakkar_core::{
        backpressure::{Intake, Limits},
        source::Position,
    };
    use rdkafka::statistics::{Partition, Topic};

    use super::*;
    use crate::commit::Answer;

    #[test]
    fn a_partition_that_is_being_handed_over_is_not_reported() {
        let mut statistics = Statistics::default();
        let mut topic = Topic::default();
        topic.partitions.insert(0, Partition { hi_offset: 10, ..Partition::default() });
        statistics.topics.insert("t".to_owned(), topic);
        let (mut ours, partition) = (Ownership::default(), TopicPartition::new("t", 0));
        drop(ours.take(partition.clone(), None, Limits::new(1, 1)));
        let owned = ours.get_mut("t", 0).unwrap();
        owned.first = Some(Offset(4));
        assert_eq!(lags(&statistics, &ours, &Commits::default()), [(partition, 6)]);
        ours.get_mut("t", 0).unwrap().fenced = true;
        assert_eq!(lags(&statistics, &ours, &Commits::default()), []);
    }

    #[test]
    fn what_comes_behind_the_last_message_and_is_none_does_not_count() {
        let (mut ours, partition) = (Ownership::default(), TopicPartition::new("t", 0));
        let assignment = ours.take(partition.clone(), None, Limits::new(9, 9));
        let owned = ours.get_mut("t", 0).unwrap();
        (owned.first, owned.next) = (Some(Offset(0)), Some(Offset(10)));
        let mut commits = Commits::default();
        commits.begin(partition.clone(), None);
        commits.want(&partition, Position { next: Offset(10), metadata: String::new() });
        commits.next_batch().unwrap();
        // A marker at 10, and one more at 11 that was not read yet.
        let known = Partition { hi_offset: 12, next_offset: 11, ..Partition::default() };
        let lag = |known: &Partition, commits: &Commits| {
            let mut topic = Topic::default();
            topic.partitions.insert(0, known.clone());
            let mut statistics = Statistics::default();
            statistics.topics.insert("t".to_owned(), topic);
            lags(&statistics, &ours, commits)[0].1
        };
        assert_eq!(lag(&known, &commits), 12, "nothing is committed yet");
        commits.settle(|_| Answer::Accepted);
        assert_eq!(lag(&known, &commits), 1);
        let waiting = Partition { fetchq_cnt: 1, ..known.clone() };
        assert_eq!(lag(&waiting, &commits), 2, "a message may be among what was read");
        assert_eq!(assignment.load.add(1), Intake::Open);
        assert_eq!(lag(&known, &commits), 2, "a message is held");
    }

    #[test]
    fn what_is_unknown_is_not_zero() {
        assert_eq!(lag(0, -1001, Some(Offset(5))), None);
        assert_eq!(lag(0, 10, None), None);
    }

    #[test]
    fn deleted_messages_do_not_count_and_lag_is_never_negative() {
        assert_eq!(lag(-1001, 10, Some(Offset(4))), Some(6));
        assert_eq!(lag(7, 10, Some(Offset(4))), Some(3));
        assert_eq!(lag(0, 10, Some(Offset(12))), Some(0));
    }
}
