//! Source events → partitions: starts one task per assigned partition and ends it again.
//!
//! This is the only place that knows which partitions there are. It touches no message.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use drakkar_core::{
    Handler, Ready, TopicPartition,
    source::{Assignment, SourceCommand, SourceControl, SourceEvent},
};
use drakkar_executor::Pool;
use drakkar_sinks::Sinks;
use drakkar_telemetry::{Hook, Metrics};
use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    HookFailure, Settings, Status,
    attendance::Attendance,
    handover::{Order, Until},
    hook::apart,
    partition::{Partition, Shared},
    periodic::Periodic,
};

/// How much longer than the deadline of a stop the loops of partitions may take to hand over.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Why the pipeline ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The poll thread cannot go on.
    #[error("the Kafka consumer failed: {0}")]
    Source(String),
    /// A message that does not decode, with `kafka.on_invalid: fail`, or whose offset was passed.
    #[error("{0}")]
    Invalid(String),
    /// A fault of ours.
    #[error("the task of partition {0} died; this is a bug in drakkar, please report it")]
    PartitionDied(String),
}

/// How the pipeline is stopped.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Take no more work; finish what was started.
    pub drain: CancellationToken,
    /// Drop what is left now.
    pub now: CancellationToken,
}

struct Running {
    epoch: u64,
    task: Id,
    orders: mpsc::UnboundedSender<Order>,
}

impl Running {
    fn command(&self, order: Order) {
        if self.orders.send(order).is_err() {
            info!(category = "worker", epoch = self.epoch, "the partition has ended already");
        }
    }
}

/// The pipeline of one worker.
pub struct Pipeline<H: Handler> {
    pub(crate) shared: Arc<Shared<H>>,
    /// What is to be done by the clock.
    pub(crate) periodics: Vec<Periodic<H>>,
    events: mpsc::UnboundedReceiver<SourceEvent>,
    fatal: mpsc::UnboundedReceiver<String>,
    running: HashMap<TopicPartition, Running>,
    tasks: JoinSet<()>,
    attendance: Attendance<H>,
}

impl<H: Handler> Pipeline<H> {
    /// A pipeline that takes `events` from a source and answers through `control`.
    #[allow(clippy::too_many_arguments)] // Every part of a worker meets here, once.
    pub fn new(
        handler: H,
        pool: Pool,
        sinks: Sinks,
        metrics: Arc<Metrics>,
        settings: Settings,
        events: mpsc::UnboundedReceiver<SourceEvent>,
        control: SourceControl,
        status: Arc<Status>,
    ) -> Self {
        let (report_fatal, fatal) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            handler,
            pool,
            sinks,
            metrics,
            settings,
            control,
            status,
            fatal: report_fatal,
            born: Instant::now(),
        });
        Self {
            attendance: Attendance::new(Arc::clone(&shared)),
            shared,
            periodics: Vec::new(),
            events,
            fatal,
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Asks `on_ready`: the first step, before the source has anything to tell.
    ///
    /// # Errors
    ///
    /// How the hook failed; then the pipeline is not to be run.
    pub async fn ready(&self, ready: Ready) -> Result<(), HookFailure> {
        let shared = Arc::clone(&self.shared);
        apart(self.shared.settings.hook_timeout, async move {
            let hook = async { shared.handler.on_ready(&ready).await };
            shared.ask(Hook::OnReady, None, hook).await
        })
        .await
    }

    /// Runs until `stop`, then hands every partition over within `drain_timeout`. The last step is
    /// [`Pipeline::close`].
    ///
    /// # Errors
    ///
    /// When it ended although nobody asked it to; what could be handed over was.
    pub async fn run(&mut self, stop: Stop, drain_timeout: Duration) -> Result<(), PipelineError> {
        let clockwork = self.start_periodics();
        let outcome = loop {
            tokio::select! {
                biased;
                () = stop.drain.cancelled() => break Ok(()),
                () = stop.now.cancelled() => break Ok(()),
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Err(error) = self.ended(&ended) {
                        break Err(error);
                    }
                }
                Some(reason) = self.fatal.recv() => break Err(PipelineError::Invalid(reason)),
                event = self.events.recv() => match event {
                    Some(event) => if let Err(error) = self.handle(event) {
                        break Err(error);
                    },
                    None => break Err(PipelineError::Source("its thread ended".to_owned())),
                },
            }
        };
        drop(clockwork);
        if let Err(error) = &outcome {
            // A message at which it stops by configuration is no fault that a restart cures.
            let died = !matches!(error, PipelineError::Invalid(_));
            self.shared.status.failed.store(died, Ordering::Relaxed);
            error!(category = "worker", %error, "the pipeline stops");
        }
        let drained = self.drain(&stop, drain_timeout).await;
        let (running_tasks, unsettled) = self.shared.status.at_stop();
        self.shared.metrics.stopped(running_tasks, unsettled);
        outcome.and(drained)
    }

    /// The last step, when the source has ended and nothing will be committed any more: asks
    /// `on_revoke` for every partition that was left, and waits for the hooks for at most `within`.
    pub async fn close(self, within: Duration) {
        self.attendance.close(within).await;
    }

    fn handle(&mut self, event: SourceEvent) -> Result<(), PipelineError> {
        match event {
            SourceEvent::Assigned(assignments) => {
                self.shared.status.member.store(true, Ordering::Relaxed);
                for assignment in assignments {
                    self.assign(assignment);
                }
            }
            SourceEvent::Revoked { partitions, grace } => {
                let until = Until::deadline(Instant::now() + grace);
                self.order(&partitions, &Order::HandOver(until));
            }
            SourceEvent::Lost { partitions } => {
                self.shared.status.member.store(false, Ordering::Relaxed);
                self.order(&partitions, &Order::Fence);
            }
            SourceEvent::Released { partitions } => {
                for partition in &partitions {
                    self.attendance.released(partition);
                }
            }
            SourceEvent::Failed(failure) => {
                // Nothing can be committed any more, and others may own the partitions by now.
                self.shared.status.draining.store(true, Ordering::Relaxed);
                self.order_all(&Order::Fence);
                return Err(PipelineError::Source(failure.to_string()));
            }
            // The enum grows with the source; what we do not know we cannot act on.
            other => info!(category = "kafka", ?other, "source event ignored"),
        }
        Ok(())
    }

    fn assign(&mut self, assignment: Assignment) {
        let (id, epoch) = (assignment.partition.clone(), assignment.epoch);
        if self.running.contains_key(&id) {
            // Lost and given back at once: it has not ended, and what it shows is of the past.
            self.shared.metrics.forget_partition(&id);
        }
        let (orders, receiver) = mpsc::unbounded_channel();
        self.shared.status.assigned.fetch_add(1, Ordering::Relaxed);
        let admission = self.attendance.assigned(&id);
        let present = admission.present.clone();
        let partition = Partition::new(Arc::clone(&self.shared), assignment, admission, receiver);
        let task = self.tasks.spawn(present.track_future(partition.run())).id();
        if let Some(old) = self.running.insert(id, Running { epoch, task, orders }) {
            // The source hands a partition over before it assigns it again; be safe all the same.
            old.command(Order::Fence);
        }
    }

    fn order(&self, partitions: &[TopicPartition], order: &Order) {
        for partition in partitions {
            if let Some(running) = self.running.get(partition) {
                running.command(order.clone());
            }
        }
    }

    fn ended(&mut self, ended: &Result<(Id, ()), JoinError>) -> Result<(), PipelineError> {
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, ())| *task);
        let id = self.running.iter().find(|(_, r)| r.task == task).map(|(id, _)| id.clone());
        if let Some(id) = &id {
            // Of a partition that came back meanwhile, the newer assignment is the one that runs.
            self.running.remove(id);
            self.shared.metrics.forget_partition(id);
        }
        match ended {
            Ok(_) => Ok(()),
            Err(_) => Err(PipelineError::PartitionDied(
                id.map_or_else(|| "(handed over)".to_owned(), |id| id.to_string()),
            )),
        }
    }

    /// Ends all partitions in order, at the latest after `timeout`, or at once on `stop.now`.
    async fn drain(&mut self, stop: &Stop, timeout: Duration) -> Result<(), PipelineError> {
        self.shared.status.draining.store(true, Ordering::Relaxed);
        self.shared.control.send(SourceCommand::Quiesce);
        let mut deadline = Instant::now() + timeout;
        self.order_all(&Order::HandOver(Until::deadline(deadline)));
        let mut hurried = false;
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                biased;
                () = stop.now.cancelled(), if !hurried => {
                    hurried = true;
                    deadline = deadline.min(Instant::now());
                    self.order_all(&Order::HandOver(Until::now()));
                }
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => outcome = outcome.and(self.ended(&ended)),
                    None => return outcome,
                },
                Some(event) = self.events.recv() => {
                    outcome = outcome.and(self.handle_in_drain(event));
                }
                () = sleep_until(deadline + ANSWER_WITHIN) => {
                    self.abandon();
                    return outcome;
                }
            }
        }
    }

    /// Gives up the partitions whose loops do not answer: user code keeps the thread that is to go on with
    /// them. Nothing of them is reported any more; what they settled of late is processed again.
    fn abandon(&mut self) {
        self.tasks.abort_all();
        let hook = self.shared.status.stuck_hook(Duration::ZERO);
        let hook = hook.map_or_else(|| "none is seen".to_owned(), |hook| hook.to_string());
        for partition in self.running.keys() {
            let unsettled = self.shared.status.load(partition);
            self.shared.status.left_behind(0, unsettled);
            warn!(category = "worker", %partition, unsettled, hook,
                "a partition does not end in time; it is left to the next owner as it was last committed");
        }
    }

    /// A revoke shortens the time of the partitions concerned: the group waits less long than a stop.
    fn handle_in_drain(&mut self, event: SourceEvent) -> Result<(), PipelineError> {
        let SourceEvent::Assigned(assignments) = event else {
            return self.handle(event);
        };
        // Never started. Answered now, so that nobody waits for us when they are taken away.
        for Assignment { partition, epoch, inbox, .. } in assignments {
            self.shared.status.left_behind(0, inbox.len());
            let position = None;
            self.shared.control.send(SourceCommand::HandOver { partition, epoch, position });
        }
        Ok(())
    }

    fn order_all(&self, order: &Order) {
        for running in self.running.values() {
            running.command(order.clone());
        }
    }
}
