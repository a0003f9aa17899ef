//! Which partitions are ours, and where their messages go.

use std::{collections::BTreeMap, sync::Arc};

use drakkar_core::{
    SourceMessage, TopicPartition,
    backpressure::{Intake, Limits, Load},
    source::{Assignment, Position},
};
use rdkafka::{Offset, TopicPartitionList, error::KafkaResult};
use tokio::sync::mpsc;

/// A partition that is ours.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) partition: TopicPartition,
    pub(crate) epoch: u64,
    /// Being handed over: what still arrives is for the next owner.
    pub(crate) fenced: bool,
    /// Where reading began.
    pub(crate) first: Option<drakkar_core::Offset>,
    /// What is read next, once something was read.
    pub(crate) next: Option<drakkar_core::Offset>,
    inbox: mpsc::UnboundedSender<Arc<SourceMessage>>,
    load: Arc<Load>,
}

impl Owned {
    /// Whether it holds too much: a resume that was asked for before it filled up again is overtaken.
    /// Obeyed all the same, it would be read without bound, because a full partition asks only once.
    pub(crate) fn is_full(&self) -> bool {
        self.load.is_paused()
    }

    /// Whether nothing of it is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.load.messages() == 0
    }

    /// Puts `message` into the inbox.
    pub(crate) fn deliver(&self, message: SourceMessage) -> Intake {
        let size = message.size();
        // Counted before it is sent: the partition may settle it before we look again.
        let intake = self.load.add(size);
        if self.inbox.send(Arc::new(message)).is_ok() {
            return intake;
        }
        // The partition ended without a hand-over, which the pipeline reports. Nobody will ever ask
        // to resume, so fetch nothing more.
        Intake::Pause
    }
}

/// All partitions that are ours, by topic and number: looked up for every message without allocating.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Owned>>,
    epochs: u64,
}

impl Ownership {
    /// `partition` is ours from now on.
    pub(crate) fn take(
        &mut self,
        partition: TopicPartition,
        committed: Option<Position>,
        limits: Limits,
    ) -> Assignment {
        self.epochs += 1;
        let (sender, inbox) = mpsc::unbounded_channel();
        let load = Arc::new(Load::new(limits));
        let owned = Owned {
            partition: partition.clone(),
            epoch: self.epochs,
            fenced: false,
            first: None,
            next: None,
            inbox: sender,
            load: Arc::clone(&load),
        };
        let topic = self.topics.entry(Arc::clone(&partition.topic)).or_default();
        topic.insert(partition.partition, owned);
        Assignment { partition, epoch: self.epochs, inbox, load, committed }
    }

    /// `partition` is no longer ours. `true` if it was.
    pub(crate) fn release(&mut self, partition: &TopicPartition) -> bool {
        let topic = self.topics.get_mut(&partition.topic);
        topic.is_some_and(|topic| topic.remove(&partition.partition).is_some())
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Owned> {
        self.topics.get(topic)?.get(&partition)
    }

    pub(crate) fn get_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Owned> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    /// The assignment `epoch` of `partition`, if it is still in force.
    pub(crate) fn current(&mut self, partition: &TopicPartition, epoch: u64) -> Option<&mut Owned> {
        self.get_mut(&partition.topic, partition.partition).filter(|owned| owned.epoch == epoch)
    }

    pub(crate) fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }

    /// From now on each may hold this much. Returns those that have room again by it.
    pub(crate) fn limit(&self, limits: Limits) -> Vec<(TopicPartition, u64)> {
        let roomy = self.iter().filter(|owned| owned.load.limit(limits));
        roomy.map(|owned| (owned.partition.clone(), owned.epoch)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Owned> {
        self.topics.values().flat_map(BTreeMap::values)
    }
}

/// The partitions the client lists.
pub(crate) fn listed(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect()
}

/// `partitions` as a log line shows them.
pub(crate) fn shown(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(TopicPartition::to_string).collect::<Vec<_>>().join(",")
}

/// `partitions` as the client lists them.
pub(crate) fn list<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// `positions` as the client lists them, to be committed.
pub(crate) fn offsets(positions: &[(TopicPartition, Position)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, position) in positions {
        let mut element = list.add_partition(&partition.topic, partition.partition);
        element.set_offset(Offset::Offset(position.next.0))?;
        if !position.metadata.is_empty() {
            element.set_metadata(&position.metadata);
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_assignment_is_told_from_the_current_one() {
        let mut ours = Ownership::default();
        let partition = TopicPartition::new("t", 0);
        let first = ours.take(partition.clone(), None, Limits::new(1, 1)).epoch;
        assert!(ours.release(&partition));
        assert!(!ours.release(&partition), "it goes once");
        let second = ours.take(partition.clone(), None, Limits::new(1, 1)).epoch;
        assert!(ours.current(&partition, first).is_none());
        assert!(ours.current(&partition, second).is_some());
    }
}
