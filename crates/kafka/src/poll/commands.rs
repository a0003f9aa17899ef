//! What the pipeline asks for. Whatever belongs to an older assignment is ignored.

use std::{
    sync::mpsc::{Receiver, TryRecvError},
    time::Duration,
};

use drakkar_core::{
    Offset, TopicPartition,
    source::{Position, SourceCommand},
};
use rdkafka::{Offset as ClientOffset, consumer::Consumer, error::KafkaResult};
use tracing::{debug, info, warn};

use super::{Flow, Poller};
use crate::{
    assignment::{self, Owned},
    native,
};

/// How long the last commits may take where nobody was left to say.
const UNASKED: Duration = Duration::from_secs(5);

impl Poller<'_> {
    /// Does everything that was asked for. Nobody left to ask is the wish to close.
    pub(super) fn execute(&mut self, commands: &Receiver<SourceCommand>) -> Flow {
        loop {
            match commands.try_recv() {
                Ok(SourceCommand::Commit { partition, epoch, position }) => {
                    self.want(&partition, epoch, position);
                }
                Ok(SourceCommand::Resume { partition, epoch }) => self.resume(&partition, epoch),
                Ok(SourceCommand::HandOver { partition, epoch, position }) => {
                    if let Some(position) = position {
                        self.want(&partition, epoch, position);
                    }
                    if let Some(owned) = self.ours.current(&partition, epoch) {
                        // Also without a revoke, when the worker stops: nobody works on it any more.
                        owned.fenced = true;
                    }
                    self.hand_overs.answer(&partition, epoch);
                }
                Ok(SourceCommand::Join) => self.join(),
                Ok(SourceCommand::Quiesce) => self.quiesce(),
                Ok(SourceCommand::Close { within }) => return Flow::Close(within),
                Err(TryRecvError::Disconnected) => return Flow::Close(UNASKED),
                Ok(other) => warn!(category = "kafka", ?other, "unknown command ignored"),
                Err(TryRecvError::Empty) => return Flow::Continue,
            }
        }
    }

    fn want(&mut self, partition: &TopicPartition, epoch: u64, position: Position) {
        if self.ours.current(partition, epoch).is_some() {
            self.commits.want(partition, position);
        } else {
            debug!(category = "kafka", %partition, epoch, "a commit came too late; not made");
        }
    }

    pub(super) fn resume(&mut self, partition: &TopicPartition, epoch: u64) {
        let wanted = |owned: &&mut Owned| !owned.fenced && !owned.is_full();
        let Some(owned) = self.ours.current(partition, epoch).filter(wanted) else { return };
        let next = owned.next;
        if self.quiet {
            return;
        }
        match self.consumer.resume(&assignment::list([partition])) {
            Ok(()) => self.outlet.observer.paused(partition, false),
            // Only of a partition that the client no longer has.
            Err(error) => warn!(category = "kafka", %partition, %error, "cannot resume"),
        }
        if let Some(next) = next {
            self.wake_fetch(partition, next);
        }
    }

    /// Has the client fetch again now. Resumed alone it would find out within a second: its thread
    /// sleeps when all partitions of a broker are paused, and a resume does not wake it
    /// (librdkafka 2.12). To seek to where reading stopped changes nothing else.
    fn wake_fetch(&self, partition: &TopicPartition, next: Offset) {
        if native::position(self.consumer, partition) != Some(next) {
            return; // Moved by the client itself: the log was cut meanwhile.
        }
        if let Err(error) = self.seek(partition, next) {
            debug!(category = "kafka", %partition, %error, "not woken; fetched within a second");
        }
    }

    /// Reads on at `next`; nothing that was fetched before is given out.
    pub(super) fn seek(&self, partition: &TopicPartition, next: Offset) -> KafkaResult<()> {
        let mut list = assignment::list([partition]);
        let next = ClientOffset::Offset(next.0);
        list.set_partition_offset(&partition.topic, partition.partition, next)?;
        // No time-out: it is not waited for.
        self.consumer.seek_partitions(list, Duration::ZERO).map(drop)
    }

    /// Fetches nothing more, from no partition, not even from those that are yet to come.
    pub(super) fn quiesce(&mut self) {
        self.quiet = true;
        let all = assignment::list(self.ours.iter().map(|owned| &owned.partition));
        if all.count() == 0 {
            return;
        }
        match self.consumer.pause(&all) {
            Ok(()) => info!(category = "kafka", "reading stopped"),
            Err(error) => warn!(category = "kafka", %error, "cannot stop reading"),
        }
    }
}
