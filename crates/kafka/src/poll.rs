//! The loop of the poll thread: commands, messages, rebalances, commits, in turn and without waiting.
//!
//! Owns everything there is to know about the membership in the group. It answers a revoke late: the
//! partitions stay ours, although nothing is fetched, until the pipeline has handed them over. It
//! never waits for the pipeline or, apart from reading what was committed before, for the broker.

mod group; // rebalances
mod commands; // what the pipeline asks
mod close; // the last commits

use std::{
    sync::{Arc, mpsc as queue},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use drakkar_core::{
    Offset, TopicPartition,
    backpressure::Intake,
    observe::SourceObserver,
    source::{SourceCommand, SourceEvent, SourceFailure},
};
use rdkafka::{
    Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    topic_partition_list::TopicPartitionListElem,
};
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, info, trace, warn};

use crate::{
    KafkaConfig, align,
    assignment::{self, Ownership},
    commit::{Answer, Commits},
    context::{Context, Notice},
    lag, message, native,
    rebalance::HandOvers,
};

/// Longest sleep while nothing happens. Both sides wake the thread; this bounds what a lost wake
/// could cost.
const IDLE: Duration = Duration::from_millis(100);

/// Before a refused commit is made again; doubles while it is refused.
const COMMIT_BACKOFF: Duration = Duration::from_millis(100);

const LONGEST_COMMIT_BACKOFF: Duration = Duration::from_secs(5);

/// Where the poll thread reports.
pub(crate) struct Outlet {
    pub(crate) events: mpsc::UnboundedSender<SourceEvent>,
    pub(crate) observer: Arc<dyn SourceObserver>,
}

/// The state of the loop.
pub(crate) struct Poller<'a> {
    config: &'a KafkaConfig,
    consumer: &'a BaseConsumer<Context>,
    outlet: Outlet,
    ours: Ownership,
    hand_overs: HandOvers,
    awaited: Option<group::Awaited>,
    commits: Commits,
    commit_not_before: Option<Instant>,
    commit_backoff: Duration,
    subscribe_at: Option<Instant>,
    /// Whether the group told us what is ours.
    admitted: bool,
    quiet: bool,
    last_trouble: String,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    /// The last commits may take this long.
    Close(Duration),
}

/// Whether there may be more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    MayHoldMore,
    Empty,
}

impl<'a> Poller<'a> {
    pub(crate) fn new(
        config: &'a KafkaConfig,
        consumer: &'a BaseConsumer<Context>,
        outlet: Outlet,
    ) -> Self {
        Self {
            config,
            consumer,
            outlet,
            ours: Ownership::default(),
            hand_overs: HandOvers::default(),
            awaited: None,
            commits: Commits::default(),
            commit_not_before: None,
            commit_backoff: COMMIT_BACKOFF,
            subscribe_at: None,
            admitted: false,
            quiet: false,
            last_trouble: String::new(),
        }
    }

    /// Runs until it is told to close, or cannot go on.
    pub(crate) fn run(
        mut self,
        commands: &queue::Receiver<SourceCommand>,
    ) -> Result<(), SourceFailure> {
        loop {
            if let Flow::Close(within) = self.execute(commands) {
                return self.close(within);
            }
            self.subscribe()?;
            let queue = self.receive()?;
            self.ask_committed();
            self.commit();
            self.hand_over();
            if queue == Queue::Empty {
                self.look_for_admission();
                thread::park_timeout(self.idle());
            }
        }
    }

    /// The group is to be joined, at the moment all workers have in common.
    fn join(&mut self) {
        self.subscribe_at = Some(Instant::now() + alignment(self.config));
    }

    /// Joins the group when it is time.
    fn subscribe(&mut self) -> Result<(), SourceFailure> {
        if self.subscribe_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.subscribe_at = None;
        let topics = self.config.topics();
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        info!(category = "kafka", ?topics, group = self.config.consumer_group, "joining the group");
        self.consumer.subscribe(&names).map_err(|error| SourceFailure {
            message: format!("cannot subscribe to {topics:?}: {error}"),
        })?;
        Ok(())
    }

    /// Reads until there is nothing more, at most `max_poll_records`: then commands have their turn.
    fn receive(&mut self) -> Result<Queue, SourceFailure> {
        for _ in 0..self.config.max_poll_records.get() {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => self.route(&message),
                // The end of a partition is no trouble; trouble is a notice as well, in words.
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    self.serve_notices()?;
                    return Err(self.fatal(code));
                }
                Some(Err(_)) => {
                    self.serve_notices()?;
                }
                // Nothing, or a report. Only without a report the queue was empty.
                None if self.serve_notices()? == 0 => return Ok(Queue::Empty),
                None => {}
            }
        }
        Ok(Queue::MayHoldMore)
    }

    /// Puts a message into the inbox of its partition; pauses the partition if it holds too much.
    fn route(&mut self, message: &BorrowedMessage<'_>) {
        let Some(owned) = self.ours.get_mut(message.topic(), message.partition()) else {
            trace!(category = "kafka", offset = message.offset(), "not ours any more; dropped");
            return;
        };
        if owned.fenced {
            return;
        }
        let found = Offset(message.offset());
        if owned.next.is_some_and(|next| found < next) {
            let partition = owned.partition.clone();
            self.rewind(&partition, found);
            return;
        }
        let copy = message::own(&owned.partition, message);
        owned.next = Some(copy.offset.next());
        if owned.first.is_none() {
            owned.first = Some(copy.offset);
            self.commits.started(&owned.partition, copy.offset);
        }
        if owned.deliver(copy) == Intake::Pause {
            let partition = owned.partition.clone();
            self.pause(&partition);
        }
    }

    fn pause(&self, partition: &TopicPartition) {
        match self.consumer.pause(&assignment::list([partition])) {
            Ok(()) => self.outlet.observer.paused(partition, true),
            // Only of a partition that the client no longer has.
            Err(error) => warn!(category = "kafka", %partition, %error, "cannot pause"),
        }
    }

    /// Acts on what the client reported during the last poll. How much that was.
    fn serve_notices(&mut self) -> Result<usize, SourceFailure> {
        let notices = self.consumer.context().take();
        let count = notices.len();
        for notice in notices {
            match notice {
                Notice::Assign(partitions) => self.assigned(&partitions),
                Notice::Revoke { partitions, lost } => self.revoked(&partitions, lost),
                Notice::Committed { outcome, offsets } => self.committed(&outcome, &offsets),
                Notice::Statistics(statistics) => {
                    for (partition, lag) in lag::lags(&statistics, &self.ours, &self.commits) {
                        self.outlet.observer.lag(&partition, lag);
                    }
                }
                Notice::Error { code: Some(code @ RDKafkaErrorCode::Fatal), reason } => {
                    self.last_trouble = reason;
                    return Err(self.fatal(code));
                }
                Notice::Error { code: Some(RDKafkaErrorCode::AutoOffsetReset), reason } => {
                    return Err(self.nowhere_to_start(&reason));
                }
                Notice::Error { code: Some(code), reason } if self.is_unreadable(code) => {
                    return Err(self.unreadable(code, &reason));
                }
                Notice::Error { reason, .. } => self.trouble(reason),
                Notice::Log => {}
            }
        }
        Ok(count)
    }

    /// Sends what is to be committed, unless something is on its way.
    fn commit(&mut self) {
        if self.commit_not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.commit_not_before = None;
        let Some(batch) = self.commits.next_batch() else {
            return;
        };
        let sent =
            assignment::offsets(&batch).and_then(|offsets| native::commit(self.consumer, &offsets));
        if let Err(error) = sent {
            self.committed(&Err(error), &TopicPartitionList::new());
        }
    }

    /// What is to be committed now has no time to wait for.
    fn hurry_commits(&mut self) {
        self.commit_not_before = None;
        self.commit_backoff = COMMIT_BACKOFF;
    }

    /// A commit was answered. "Not committed" is never fatal: what is still ours is sent again.
    fn committed(&mut self, outcome: &KafkaResult<()>, offsets: &TopicPartitionList) {
        let told = offsets.elements();
        let told_of = |partition: &TopicPartition| {
            told.iter().find(|element| {
                element.partition() == partition.partition && element.topic() == &*partition.topic
            })
        };
        let refused = told.iter().find_map(|element| element.error().err());
        let by_partition = outcome.is_ok() || refused.is_some();
        let accepted = self.commits.settle(|partition| {
            told_of(partition)
                .map_or(Answer::Refused, |element| Answer::of(code_of(element), by_partition))
        });
        for (partition, next) in &accepted {
            self.outlet.observer.committed(partition, next.0);
        }
        let Some(error) = refused.or_else(|| outcome.as_ref().err().cloned()) else {
            self.commit_backoff = COMMIT_BACKOFF;
            return;
        };
        if self.hand_overs.any() || !accepted.is_empty() {
            // The group waits, and this commit has but seconds; or the others must not wait for it.
            self.commit_backoff = COMMIT_BACKOFF;
        }
        self.commit_not_before = Some(Instant::now() + self.commit_backoff);
        self.commit_backoff = (self.commit_backoff * 2).min(LONGEST_COMMIT_BACKOFF);
        self.outlet.observer.commit_refused(&error.to_string());
        debug!(category = "kafka", %error, "not committed; made again while still ours");
    }

    /// Trouble the client recovers from by itself.
    fn trouble(&mut self, reason: String) {
        self.outlet.observer.client_error(&reason);
        self.last_trouble = reason;
    }

    /// The client was told not to choose, and will not read the partition again.
    fn nowhere_to_start(&self, reason: &str) -> SourceFailure {
        SourceFailure {
            message: format!(
                "a partition cannot be read where the group {} left it, and \
                 kafka.client_config.auto.offset.reset is error: {reason}; set the offsets of the \
                 group to where it should go on, or choose earliest or latest",
                self.config.consumer_group
            ),
        }
    }

    /// Whether the client knows a compression or a format not, which no worker of this build does, or
    /// found a checksum wrong: it passes over that. What is compressed and damaged it tries for ever,
    /// in that partition alone.
    fn is_unreadable(&self, code: RDKafkaErrorCode) -> bool {
        let yes =
            |value: &String| ["true", "t", "1"].iter().any(|it| it.eq_ignore_ascii_case(value));
        let checks = || self.config.client_config.get("check.crcs").is_some_and(yes);
        match code {
            RDKafkaErrorCode::NotImplemented => true,
            RDKafkaErrorCode::BadMessage => checks(),
            _ => false,
        }
    }

    /// Nobody may commit past what cannot be read, and waiting cures nothing.
    fn unreadable(&self, code: RDKafkaErrorCode, reason: &str) -> SourceFailure {
        let ours: Vec<TopicPartition> =
            self.ours.iter().map(|owned| owned.partition.clone()).collect();
        let advice = match code {
            RDKafkaErrorCode::NotImplemented if cfg!(not(feature = "zstd")) => {
                "; zstd is not compiled in: build with the cargo feature `zstd`"
            }
            _ => "",
        };
        SourceFailure {
            message: format!(
                "messages of one of {} cannot be read by this client: {reason}{advice}",
                assignment::shown(&ours)
            ),
        }
    }

    fn fatal(&self, code: RDKafkaErrorCode) -> SourceFailure {
        use RDKafkaErrorCode as Code;
        // Of several reports about one error only the client itself knows which it was.
        let known = self.consumer.client().fatal_error();
        let (code, reason) = known.unwrap_or_else(|| (code, self.last_trouble.clone()));
        let advice = match code {
            Code::FencedInstanceId => {
                "; a newer worker with the same kafka.group_instance_id has taken its place"
            }
            Code::UnreleasedInstanceId => {
                "; another worker uses the same kafka.group_instance_id, or one that died holds it \
                 until its session ends"
            }
            _ => "",
        };
        SourceFailure { message: format!("the Kafka client cannot go on: {reason}{advice}") }
    }

    /// How long to sleep when there is nothing to do.
    fn idle(&self) -> Duration {
        let now = Instant::now();
        let ask_at = self.awaited.as_ref().map(|awaited| awaited.ask_at);
        [self.subscribe_at, self.commit_not_before, self.hand_overs.due(), ask_at]
            .into_iter()
            .flatten()
            .map(|due| due.saturating_duration_since(now))
            .fold(IDLE, Duration::min)
    }

    fn tell(&self, event: SourceEvent) {
        // A pipeline that is gone needs no news: it has closed us, or soon will.
        drop(self.outlet.events.send(event));
    }
}

/// How long to wait before joining the group.
fn alignment(config: &KafkaConfig) -> Duration {
    if !config.startup_align_enabled {
        return Duration::ZERO;
    }
    let least = Duration::from_secs_f64(config.startup_min_wait_seconds);
    let interval = Duration::from_secs(config.startup_align_interval_seconds);
    // A clock before 1970 has no common moments.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wait = align::wait(now, least, interval);
    info!(category = "kafka", ?wait, "joining the group at the moment all workers have in common");
    wait
}

/// What the broker refused a partition for.
fn code_of(element: &TopicPartitionListElem<'_>) -> Option<RDKafkaErrorCode> {
    element.error().err().as_ref().and_then(KafkaError::rdkafka_error_code)
}
