//! One loop per partition; it owns everything that belongs to one assignment of it.
//!
//! The loop awaits nothing but its own events: messages, ended runs, ended flows (hooks and
//! deliveries, which run beside it), retries that are due, the commit clock, and the order to hand
//! over. Finishing comes before starting. When the loop ends, everything in it is dropped: nothing
//! of this assignment can settle afterwards. That is the fence.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
};

use drakkar_core::{
    Cause, DoneMap, Handler, Offset, Payload, SourceMessage, Task, TopicPartition,
    backpressure::Load,
    contain::let_go,
    done_map::{Extras, Noted},
    flood::Flood,
    hold::HoldBoard,
    ledger::{Freed, Ledger, TaskKey},
    numbered::NumberedMap,
    order,
    source::{Assignment, Position, SourceCommand, SourceControl},
};
use drakkar_executor::{CancelReason, Pool, Rank, Run, Ticket};
use drakkar_sinks::Sinks;
use drakkar_telemetry::{Metrics, PartitionMetrics, SkipReason};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, time::DelayQueue};
use tracing::warn;

use crate::{
    aggregate::Groups,
    arrange::Plan,
    attendance::Admission,
    collect::{Collecting, Ended, Here},
    commit::{CommitClock, position},
    execute::Weight,
    flood::{Failed, Gate, GivenUp},
    flows::Flows,
    handover::{Drain, Order},
    held::{Fate, Held},
    lines::{Line, Lines, Spot},
    post::Deliveries,
    settings::Settings,
    status::Status,
    turn::Rejected,
};

/// What all partitions share.
pub(crate) struct Shared<H> {
    pub handler: H,
    pub pool: Pool,
    pub sinks: Sinks,
    pub metrics: Arc<Metrics>,
    pub settings: Settings,
    pub control: SourceControl,
    pub status: Arc<Status>,
    /// Why a message stops the worker, as configured.
    pub fatal: mpsc::UnboundedSender<String>,
    /// Any time that has passed; the time of flood limits is counted from here.
    pub born: Instant,
}

/// A task that has not ended.
pub(crate) struct Active {
    pub task: Arc<Task>,
    /// From 1.
    pub attempt: u32,
    /// Attempts that do not count: it failed for good after them and was taken up again.
    pub forgiven: u32,
    /// How many replacements led to it.
    pub chain: u32,
    /// Its place among those that wait for a slot; a retry keeps it.
    pub rank: Rank,
    /// The line it waits in.
    pub line: Line,
    pub stage: TaskStage,
}

/// Where a task is.
pub(crate) enum TaskStage {
    /// Waits for its turn.
    Waiting,
    /// Waits for room in the pool.
    Backlog(Spot),
    /// Waits for a slot or runs.
    InPool(Ticket, Spot),
    /// Has run and waits for room among the hooks.
    Ran,
    /// Its result is in a hook or on its way to a sink.
    Collecting,
    /// Waits for its next attempt.
    BackingOff,
    /// Failed for good, and waits until its dead letters may be written.
    GivenUp,
}

/// What ran beside the loop and ended.
#[derive(Debug)]
pub(crate) enum Flow<I> {
    /// A window was arranged. Boxed: the others are many, and small.
    Arranged { window: u64, plan: Box<Plan<I>> },
    /// A task was collected; it ends when these are delivered.
    Collected { key: TaskKey, held_bytes: Weight, payloads: Vec<Payload>, ended: Ended },
    /// So many payloads of a task are confirmed, or given up for these reasons.
    Delivered { key: TaskKey, delivered: usize, given_up: Vec<Cause> },
    /// A message or a window was dealt with as a whole; the output of these tasks was kept for it.
    Closed { key: TaskKey, kept: Vec<TaskKey> },
    /// Something failed for good.
    GivenUp(Box<GivenUp<I>>),
    /// The dead letters of something are confirmed.
    DeadLettered(Box<Failed<I>>),
}

/// Messages that were arranged together.
pub(crate) struct Window {
    pub open: usize,
    pub since: Instant,
}

pub(crate) struct Partition<H: Handler> {
    pub shared: Arc<Shared<H>>,
    pub id: TopicPartition,
    pub epoch: u64,
    pub metrics: PartitionMetrics,
    pub orders: mpsc::UnboundedReceiver<Order>,
    pub inbox: mpsc::UnboundedReceiver<Arc<SourceMessage>>,
    pub inbox_open: bool,
    pub load: Arc<Load>,
    /// What was committed when it was assigned, until the first message came.
    pub committed: Option<Offset>,
    /// What an earlier owner settled above that.
    pub done: DoneMap,
    pub ledger: Ledger<Held>,
    pub tasks: NumberedMap<TaskKey, Active>,
    pub groups: Groups<H::Input>,
    pub windows: NumberedMap<u64, Window>,
    pub next_window: u64,
    pub incoming: Vec<Arc<SourceMessage>>,
    pub arranging: Option<AbortHandle>,
    pub order: order::Order,
    /// What waits for its turn to be given up.
    pub rejected: Rejected,
    pub backlog: Lines,
    pub ran: VecDeque<(TaskKey, Run)>,
    /// How many tasks are in the pool, queued or running.
    pub pooled: usize,
    /// The same, by line.
    pub pooled_in: Vec<usize>,
    /// Those of them that were not seen to have a slot.
    pub queued: Lines,
    pub collecting: usize,
    /// Bytes of what was said of these tasks.
    pub task_bytes: usize,
    /// The same for one message, as the last window had it.
    pub message_task_bytes: usize,
    /// Bytes of output of the tasks that have run and not ended.
    pub result_bytes: Weight,
    pub report_run: mpsc::UnboundedSender<(TaskKey, Run)>,
    runs: mpsc::UnboundedReceiver<(TaskKey, Run)>,
    pub flows: Flows<Collecting<H>>,
    /// What they need of this partition.
    pub here: Arc<Here<H>>,
    /// Cancelled when `on_assign` has returned; nothing is arranged before.
    on_assign: CancellationToken,
    pub prepared: bool,
    /// What ended tasks led to and is not confirmed.
    pub deliveries: Deliveries,
    pub retries: DelayQueue<TaskKey>,
    pub board: Arc<HoldBoard>,
    pub gate: Gate<H::Input>,
    pub clock: CommitClock,
    pub drain: Option<Drain>,
}

impl<H: Handler> Partition<H> {
    pub(crate) fn new(
        shared: Arc<Shared<H>>,
        assignment: Assignment,
        admission: Admission,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        let Assignment { partition: id, epoch, inbox, load, committed } = assignment;
        let (report_run, runs) = mpsc::unbounded_channel();
        let next = committed.as_ref().map(|committed| committed.next);
        shared.metrics.partition_assigned(&id, epoch, next);
        let noted = committed.map_or_else(Noted::default, |committed| {
            Noted::decode(committed.next, &committed.metadata).unwrap_or_else(|foreign| {
                warn!(category = "kafka", partition = %id, reason = %foreign,
                    "commit metadata is not ours and is ignored");
                Noted::default()
            })
        });
        let board = Arc::<HoldBoard>::default();
        let flood = Flood::resume(shared.settings.flood, noted.extras.flood, shared.born.elapsed());
        let metrics = shared.metrics.partition(&id);
        shared.status.show_load(&id, epoch, &load, &metrics.queue_size);
        let programs = shared.pool.lines();
        Self {
            metrics,
            clock: CommitClock::new(shared.settings.commit),
            order: order::Order::new(shared.settings.ordering),
            backlog: Lines::new(programs, shared.settings.priority_ageing),
            queued: Lines::new(programs, shared.settings.priority_ageing),
            pooled_in: vec![0; programs + 1],
            here: Arc::new(Here {
                shared: Arc::clone(&shared),
                partition: id.clone(),
                board: Arc::clone(&board),
            }),
            shared,
            id,
            epoch,
            orders,
            inbox,
            inbox_open: true,
            load,
            committed: next,
            done: noted.done,
            gate: Gate::new(flood),
            ledger: Ledger::default(),
            tasks: NumberedMap::default(),
            groups: Groups::default(),
            windows: NumberedMap::default(),
            next_window: 0,
            incoming: Vec::new(),
            arranging: None,
            rejected: Rejected::new(),
            ran: VecDeque::new(),
            pooled: 0,
            collecting: 0,
            task_bytes: 0,
            message_task_bytes: 0,
            result_bytes: Weight::default(),
            report_run,
            runs,
            flows: Flows::new(admission.present),
            on_assign: admission.prepared,
            prepared: false,
            deliveries: Deliveries::new(),
            retries: DelayQueue::new(),
            board,
            drain: None,
        }
    }

    /// Runs until it is ordered to end.
    pub(crate) async fn run(mut self) {
        self.work().await;
        let_go(self);
    }

    async fn work(&mut self) {
        self.announce_hold();
        loop {
            self.tend_gate();
            self.start_what_fits();
            if self.is_drained() {
                self.hand_over();
                return;
            }
            let due = self.clock.due();
            let deadline = self.drain.as_ref().map(Drain::deadline);
            let (room, next_try) = (self.window_room(), self.next_try());
            tokio::select! {
                biased; // Finish before starting: work in flight only shrinks under load.
                Some(order) = self.orders.recv() => match order {
                    Order::HandOver(until) => self.begin_drain(until),
                    Order::Fence => return self.lost(),
                },
                () = sleep_until(deadline.unwrap_or(self.shared.born)), if deadline.is_some() => {
                    self.cut_off();
                }
                Some((key, run)) = self.runs.recv() => self.task_ran(key, run),
                () = self.deliveries.receive() => self.take_receipts(),
                Some(ended) = self.flows.join_next() => self.flows_ended(ended),
                Some(retry) = poll_fn(|cx| self.retries.poll_expired(cx)) => {
                    self.retry_due(retry.into_inner());
                }
                () = self.on_assign.cancelled(), if !self.prepared => self.prepared = true,
                () = self.board.changed(), if deadline.is_some() => {}
                () = sleep_until(due.unwrap_or(self.shared.born)), if due.is_some() => {
                    self.report();
                }
                () = sleep_until(next_try.unwrap_or(self.shared.born)), if next_try.is_some() => {
                    self.try_one();
                }
                count = self.inbox.recv_many(&mut self.incoming, room), if room > 0 => {
                    self.inbox_open = count > 0;
                    self.open_window();
                }
            }
        }
    }

    pub(crate) fn flows_ended(&mut self, ended: Result<Vec<Flow<H::Input>>, JoinError>) {
        match ended {
            Ok(ended) => {
                let mut freed = Freed::default();
                for flow in ended {
                    self.flow_ended(flow, &mut freed);
                }
                self.freed(freed);
            }
            // Aborted by a hand-over.
            Err(error) if error.is_cancelled() => {}
            // Hooks are contained, so this is a fault of ours: let it end the partition loudly.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn flow_ended(&mut self, ended: Flow<H::Input>, freed: &mut Freed<Held>) {
        match ended {
            Flow::Arranged { window, plan } => self.arranged(window, *plan),
            Flow::GivenUp(given_up) => {
                self.collecting -= 1;
                self.give_up(*given_up);
            }
            Flow::DeadLettered(what) => self.dead_lettered(*what),
            Flow::Closed { key, kept } => self.closed(key, kept),
            Flow::Collected { key, held_bytes, payloads, ended } if payloads.is_empty() => {
                self.collected(key, held_bytes, ended, freed);
            }
            Flow::Collected { key, held_bytes, payloads, ended } => {
                self.deliver(key, held_bytes, payloads, ended);
            }
            Flow::Delivered { key, delivered, given_up } => {
                self.delivery_ended(key, delivered, given_up, freed);
            }
        }
    }

    /// Books messages that settled: room for more, and something to commit.
    pub(crate) fn settled(&mut self, settled: Vec<Held>) {
        if settled.is_empty() {
            return;
        }
        self.count_settled(&settled);
        let now = Instant::now();
        self.clock.settled(settled.len(), now);
        self.metrics.settled.inc_by(settled.len() as u64);
        self.unload(settled.len(), settled.iter().map(|held| held.message.size()).sum());
        for held in settled {
            if let (Fate::Skipped(label), false) = (&held.fate, held.given_up) {
                let reason = SkipReason::OnError;
                self.shared.metrics.message_skipped(&held.message, label.as_deref(), reason);
            }
            self.leave_window(held.window, now);
        }
    }

    /// A message does not belong to its window any more.
    pub(crate) fn leave_window(&mut self, window: u64, now: Instant) {
        let Some(open) = self.windows.get_mut(&window) else { return };
        open.open -= 1;
        if open.open == 0 {
            let took = now - open.since;
            self.shared.metrics.batch_duration.observe(took.as_secs_f64());
            self.windows.remove(&window);
        }
    }

    /// So many messages of so many bytes are held no longer.
    pub(crate) fn unload(&self, messages: usize, bytes: usize) {
        if self.load.remove_all(messages, bytes) {
            self.shared
                .control
                .send(SourceCommand::Resume { partition: self.id.clone(), epoch: self.epoch });
        }
    }

    /// What may be committed, and what the next owner must know.
    pub(crate) fn position(&self) -> Option<Position> {
        let extras = Extras { flood: self.gate.flood().mark() };
        let (position, left_out) = position(self.ledger.watermark(), &self.done, &extras)?;
        let gauge = &self.metrics.done_map_left_out;
        if gauge.get() == 0 && 0 < left_out {
            self.shared.metrics.done_map_over(&self.id, position.next, left_out);
        }
        gauge.set(i64::try_from(left_out).unwrap_or(i64::MAX));
        Some(position)
    }

    fn report(&mut self) {
        self.clock.reported();
        if let Some(position) = self.position() {
            self.shared.control.send(SourceCommand::Commit {
                partition: self.id.clone(),
                epoch: self.epoch,
                position,
            });
        }
    }
}

impl<H: Handler> Drop for Partition<H> {
    fn drop(&mut self) {
        self.shared.status.show_hold(&self.id, self.epoch, None);
        self.shared.status.hide_load(&self.id, self.epoch);
        let stops = self.shared.status.draining.load(Ordering::Relaxed);
        let reason = if stops { CancelReason::Shutdown } else { CancelReason::Revoke };
        for active in self.tasks.values() {
            if let TaskStage::InPool(ticket, _) = &active.stage {
                ticket.kill(reason);
            }
        }
        self.shared.status.assigned.fetch_sub(1, Ordering::Relaxed);
    }
}
