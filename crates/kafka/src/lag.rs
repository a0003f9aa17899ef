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
        let from = commits.committed(&owned.partition).or(owned.first);
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
    use drakkar_core::backpressure::Limits;
    use rdkafka::statistics::{Partition, Topic};

    use super::*;

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
