//! Partitions come and go.

use std::{
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use drakkar_core::{
    Offset, TopicPartition,
    source::{Position, SourceEvent},
};
use rdkafka::{
    Offset as ClientOffset, TopicPartitionList,
    consumer::{Consumer, RebalanceProtocol},
    error::{KafkaResult, RDKafkaErrorCode::UnknownTopicOrPartition},
    topic_partition_list::TopicPartitionListElem,
};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Poller;
use crate::{
    GroupProtocol,
    assignment::{self, listed, shown},
    context::give_back,
    native,
    rebalance::GiveUp,
};

/// How long reading the last commits may hold up the loop.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(3);

/// Before the last commits are asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Partitions that are given to us and not begun, because it is not known what was committed. Begun all
/// the same they would do all that was settled ahead again, and write over what the group knows of
/// it. The client reads nothing of them before they are begun.
pub(super) struct Awaited {
    list: TopicPartitionList,
    pub(super) ask_at: Instant,
    until: Instant,
}

impl Poller<'_> {
    /// Partitions are given to us, perhaps none.
    pub(super) fn assigned(&mut self, list: &TopicPartitionList) {
        self.begin_awaited();
        let partitions = listed(list);
        info!(category = "kafka", partitions = shown(&partitions), "assigned");
        self.admitted = true;
        if partitions.iter().any(|partition| self.hand_overs.contains(partition)) {
            // Given back before we gave it up: end the old assignment first, or the client refuses
            // the new one.
            self.give_up_now();
        }
        let stale: Vec<TopicPartition> = partitions
            .iter()
            .filter(|p| self.ours.get(&p.topic, p.partition).is_some())
            .cloned()
            .collect();
        self.lose(stale);

        // As long as the group keeps a member that it does not hear of.
        let ask_at = Instant::now();
        let until = ask_at + Duration::from_millis(self.config.session_timeout_ms.into());
        self.awaited = Some(Awaited { list: list.clone(), ask_at, until });
        self.ask_committed();
    }

    /// Begins the partitions that wait for it as soon as it is known what was committed, or when their
    /// time is over.
    pub(super) fn ask_committed(&mut self) {
        let Some(mut awaited) = self.awaited.take_if(|a| a.ask_at <= Instant::now()) else {
            return;
        };
        match self.last_commits(&listed(&awaited.list)) {
            Ok(positions) => self.begin(&awaited.list, positions),
            Err(error) => {
                let told = format!("what was committed before cannot be read: {error}");
                self.outlet.observer.client_error(&told);
                let now = Instant::now();
                if now < awaited.until && !self.consumer.assignment_lost() {
                    awaited.ask_at = now + ASK_AGAIN;
                    self.awaited = Some(awaited);
                } else {
                    error!(category = "kafka", %error, "what was committed before cannot be read, and is passed over: what was \
                        settled ahead is done again, and dead letters are counted anew");
                    self.begin(&awaited.list, Vec::new());
                }
            }
        }
    }

    /// Begins the partitions that wait as they are: something else comes before they are known. Nothing
    /// of them was read, so nothing will be committed.
    pub(super) fn begin_awaited(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            self.begin(&awaited.list, Vec::new());
        }
    }

    /// The partitions of `list` are ours from now on. Of those that have no position none is known.
    fn begin(&mut self, list: &TopicPartitionList, positions: Vec<Option<Position>>) {
        let partitions = listed(list);
        let positions = positions.into_iter().chain(iter::repeat(None));
        let limits = self.config.limits(1); // Their share follows.
        let mut assignments = Vec::with_capacity(partitions.len());
        for (partition, position) in partitions.iter().zip(positions) {
            self.commits.begin(partition.clone(), position.clone());
            assignments.push(self.ours.take(partition.clone(), position, limits));
        }
        self.share();
        // Told before it is fetched: no message can arrive earlier than the news.
        self.outlet.observer.rebalanced("assign", &partitions);
        self.tell(SourceEvent::Assigned(assignments));
        if let Err(error) = self.accept(list) {
            self.outlet.observer.client_error(&format!("the assignment was overtaken: {error}"));
            self.lose(partitions);
        }
    }

    /// By KIP-848 a member for which no partition is left is told nothing.
    pub(super) fn look_for_admission(&mut self) {
        let may_be_silent = self.config.group_protocol == GroupProtocol::Consumer;
        if !self.admitted && may_be_silent && native::is_member(self.consumer) {
            self.admitted = true;
            self.tell(SourceEvent::Assigned(Vec::new()));
        }
    }

    /// Starts fetching `list`, wherever a former pause left it.
    fn accept(&self, list: &TopicPartitionList) -> KafkaResult<()> {
        if self.is_incremental() {
            self.consumer.incremental_assign(list)?;
        } else {
            self.consumer.assign(list)?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        // A pause of ours outlives the assignment it was meant for.
        if self.quiet { self.consumer.pause(list) } else { self.consumer.resume(list) }
    }

    /// Partitions are taken from us.
    pub(super) fn revoked(&mut self, taken: &TopicPartitionList, lost: bool) {
        self.begin_awaited();
        let partitions = listed(taken);
        info!(category = "kafka", partitions = shown(&partitions), lost, "revoked");
        if lost || !self.is_incremental() {
            // Lost: others read them already. All at once: no time to finish anything.
            if !lost {
                self.commit();
            }
            self.hand_overs.forget(&partitions);
            give_back(self.consumer, taken);
            self.lose(partitions);
            return;
        }
        let grace = self.config.revoke_timeout;
        let mut worked_on = Vec::new();
        let mut open = Vec::new();
        for partition in partitions {
            let owned = self.ours.get_mut(&partition.topic, partition.partition);
            let epoch = owned.and_then(|owned| {
                // Fenced without a revoke: it was handed over before, and there is no second answer.
                let answered = std::mem::replace(&mut owned.fenced, true);
                let answered = answered && !self.hand_overs.contains(&partition);
                (!answered).then_some(owned.epoch)
            });
            if epoch.is_some() {
                worked_on.push(partition.clone());
            }
            open.push((partition, epoch));
        }
        self.hurry_commits();
        self.hand_overs.begin(open, grace, Instant::now());
        self.outlet.observer.rebalanced("revoke", &worked_on);
        self.tell(SourceEvent::Revoked { partitions: worked_on, grace });
    }

    /// Gives up what was handed over, once all of it was, or its time is over.
    pub(super) fn hand_over(&mut self) {
        if !self.hand_overs.any() {
            return;
        }
        if self.consumer.assignment_lost() {
            // The group did not wait for us.
            let given = self.hand_overs.give_up(|_| false);
            give_back(self.consumer, &assignment::list(&given.partitions));
            self.lose(given.partitions);
            return;
        }
        let commits = &self.commits;
        let given = self.hand_overs.advance(Instant::now(), |partition| commits.is_done(partition));
        if let Some(given) = given {
            self.give_up(&given);
        }
    }

    /// Gives up what is being handed over as far as it came.
    pub(super) fn give_up_now(&mut self) {
        if self.hand_overs.any() {
            let commits = &self.commits;
            let given = self.hand_overs.give_up(|partition| commits.is_done(partition));
            self.give_up(&given);
        }
    }

    fn give_up(&mut self, given: &GiveUp) {
        if given.unfinished.is_empty() {
            info!(category = "kafka", partitions = shown(&given.partitions), "handed over");
        } else {
            warn!(
                category = "kafka",
                partitions = shown(&given.partitions),
                unfinished = shown(&given.unfinished),
                "handed over unfinished: what was not committed is read again by the next owner"
            );
        }
        let mut released = given.partitions.clone();
        released.retain(|partition| {
            self.commits.end(partition);
            self.ours.release(partition)
        });
        give_back(self.consumer, &assignment::list(&given.partitions));
        self.released(released);
        self.share();
    }

    /// Tells that nothing of these assignments will be committed any more.
    fn released(&self, partitions: Vec<TopicPartition>) {
        if !partitions.is_empty() {
            self.tell(SourceEvent::Released { partitions });
        }
    }

    /// What may be held is shared equally among the partitions that are ours now.
    fn share(&mut self) {
        for (partition, epoch) in self.ours.limit(self.config.limits(self.ours.len())) {
            self.resume(&partition, epoch);
        }
    }

    /// `partitions` are gone, whatever was going on there.
    fn lose(&mut self, partitions: Vec<TopicPartition>) {
        let lost: Vec<TopicPartition> = partitions
            .into_iter()
            .filter(|partition| {
                self.commits.end(partition);
                self.ours.release(partition)
            })
            .collect();
        if !lost.is_empty() {
            self.admitted = false;
            self.share();
            self.outlet.observer.rebalanced("lost", &lost);
            self.tell(SourceEvent::Lost { partitions: lost.clone() });
            self.released(lost);
        }
    }

    /// The log of `partition` went on at `found`, below what was read: these are other messages under
    /// offsets that were taken already. Nothing of this assignment counts any more, so it ends, and
    /// another one begins where everything before is settled. Where the client merely fetched
    /// twice, some work is done again.
    pub(super) fn rewind(&mut self, partition: &TopicPartition, found: Offset) {
        let owned = self.ours.get(&partition.topic, partition.partition);
        let Some((first, next)) = owned.map(|owned| (owned.first, owned.next)) else { return };
        let from = self.commits.rewind(partition, first, found);
        // From here on the client gives out nothing that it fetched before.
        if let Err(error) = self.seek(partition, from) {
            error!(category = "kafka", %partition, %error, "cannot read again; left to the group");
            self.lose(vec![partition.clone()]);
            return;
        }
        self.ours.release(partition);
        self.tell(SourceEvent::Lost { partitions: vec![partition.clone()] });
        self.released(vec![partition.clone()]);
        let limits = self.config.limits(1); // Its share follows.
        let assignment = self.ours.take(partition.clone(), None, limits);
        let epoch = assignment.epoch;
        self.share();
        self.tell(SourceEvent::Assigned(vec![assignment]));
        self.resume(partition, epoch);
        self.outlet.observer.rewound(partition, next.unwrap_or(found).0, from.0);
    }

    fn is_incremental(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
    }

    /// What the group last committed for each of `partitions`.
    fn last_commits(&self, partitions: &[TopicPartition]) -> KafkaResult<Vec<Option<Position>>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = assignment::list(partitions);
        let list = self.consumer.committed_offsets(list, COMMITTED_TIMEOUT)?;
        let of = |p: &TopicPartition| list.find_partition(&p.topic, p.partition);
        partitions.iter().map(|p| of(p).map_or(Ok(None), |found| position(&found))).collect()
    }
}

fn position(element: &TopicPartitionListElem<'_>) -> KafkaResult<Option<Position>> {
    match element.error() {
        Err(error) if error.rdkafka_error_code() == Some(UnknownTopicOrPartition) => {
            return Ok(None);
        }
        answer => answer?,
    }
    let ClientOffset::Offset(next) = element.offset() else {
        return Ok(None);
    };
    // The client panics over metadata that is not UTF-8, which another program may have written.
    let metadata = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned()));
    let metadata = metadata.unwrap_or_else(|_| {
        let (topic, partition) = (element.topic(), element.partition());
        warn!(category = "kafka", topic, partition, "foreign commit metadata is ignored");
        String::new()
    });
    Ok(Some(Position { next: Offset(next), metadata }))
}
