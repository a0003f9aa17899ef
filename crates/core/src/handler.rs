//! What users write: one trait, one required hook.

use std::{
    collections::HashSet,
    error::Error,
    future::Future,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use crate::{
    Collect, DeliveryFailure, Input, Message, MessageGroup, Ready, SourceMessage, Task,
    TaskFailure, TaskId, TaskResult, TopicPartition, WindowGroup,
};

/// Anything a hook may fail with; `?` takes every error and `"text".into()`.
pub type HookError = Box<dyn Error + Send + Sync>;

/// What a hook returns.
pub type HookResult<T> = Result<T, HookError>;

/// Turns messages into subprocess tasks, and what the tasks printed into payloads.
///
/// Only [`arrange`](Handler::arrange) must be written. Hooks take `&self` because partitions call
/// them concurrently. They share the runtime with everything else: what blocks or computes for more
/// than some milliseconds belongs into a program, or on a thread of its own. A hook that returns an
/// error, panics or exceeds its time-out (`executor.hook_timeout_seconds`) loses nothing: each hook
/// says what becomes of the messages concerned.
///
/// For one message the order is: [`decode`](Handler::decode), [`arrange`](Handler::arrange), then
/// per task [`on_task_complete`](Handler::on_task_complete) or [`on_error`](Handler::on_error), then
/// [`on_message_complete`](Handler::on_message_complete), then, when its whole window has come that
/// far, [`on_window_complete`](Handler::on_window_complete). What a hook returns is delivered before
/// the next one is called; after the last delivery the message is settled, and only then committed.
#[allow(unused_variables)] // Default bodies keep readable parameter names in the documentation.
pub trait Handler: Send + Sync + 'static {
    /// What the value of a message decodes to: [`Json<T>`](crate::Json), [`bytes::Bytes`], an
    /// `Option` of these to receive tombstones, or a type of your own that implements [`Input`].
    type Input: Input;

    /// Whether [`on_message_complete`](Handler::on_message_complete) is called. Then the results of
    /// a message are kept until its last task has ended, and it settles after that hook.
    ///
    /// Rust cannot see whether a hook is overridden, so a handler that overrides it says so here.
    const AGGREGATES_MESSAGES: bool = false;

    /// Whether [`on_window_complete`](Handler::on_window_complete) is called. Then no message of a
    /// window settles before the output of the window is delivered.
    const AGGREGATES_WINDOWS: bool = false;

    /// Decodes the value of a message; the default asks [`Input::decode`]. Override it where decoding
    /// needs something the handler has: a schema registry, a key.
    ///
    /// # Errors
    ///
    /// What is wrong with the message. `kafka.on_invalid` says what becomes of it.
    fn decode(&self, message: &SourceMessage) -> HookResult<Self::Input> {
        Self::Input::decode(message)
    }

    /// Called once, when everything is connected and before the first message is read: the place to
    /// register metrics and to take the connections of sinks.
    ///
    /// # Errors
    ///
    /// The worker does not start.
    fn on_ready(&self, ready: &Ready) -> impl Future<Output = HookResult<()>> + Send {
        async { Ok(()) }
    }

    /// Called when a partition was assigned to this worker, before its first
    /// [`arrange`](Handler::arrange), and after [`on_revoke`](Handler::on_revoke) of the assignment
    /// before. Other partitions do not wait for it.
    ///
    /// # Errors
    ///
    /// Logged and counted; the partition is worked on all the same.
    fn on_assign(&self, partition: &TopicPartition) -> impl Future<Output = HookResult<()>> + Send {
        async { Ok(()) }
    }

    /// Called when a partition is no longer this worker's, after its final commit, and when it was
    /// lost; also at the end of the worker, by when sinks are closed. No hook and no delivery of the
    /// partition is under way any more; a program that was cut off may still be on its way out.
    ///
    /// # Errors
    ///
    /// Logged and counted.
    fn on_revoke(&self, partition: &TopicPartition) -> impl Future<Output = HookResult<()>> + Send {
        async { Ok(()) }
    }

    /// Answers a window of messages with the tasks to run.
    ///
    /// Called for one window of a partition at a time; windows of other partitions are arranged
    /// concurrently. A task names the messages it stands for ([`Task::for_message`],
    /// [`Task::for_messages`]); one that names none stands for the whole window. A message that no
    /// task stands for is done at once: returning no task for it is how a handler filters.
    ///
    /// # Errors
    ///
    /// The window is arranged again after a backoff, up to `executor.max_retries` times; then it is
    /// split in halves, down to single messages. A message whose `arrange` fails alone is
    /// dead-lettered. The same holds for a panic, a time-out, and a task that names a message outside
    /// of its window.
    fn arrange(
        &self,
        window: &[Message<Self::Input>],
        pending: &Pending,
    ) -> impl Future<Output = HookResult<Vec<Task>>> + Send;

    /// Which of the tasks that wait for a slot goes first: the lowest number, among equals the oldest
    /// task. The default is what the task says ([`Task::with_priority`], else 0).
    ///
    /// Called once per task, when it was arranged. A task that has waited for
    /// `executor.priority_ageing` goes first whatever its priority. A panic counts as an error of the
    /// hook, and the task keeps its own priority.
    fn priority(&self, task: &Task) -> i64 {
        task.priority()
    }

    /// What people call a message, for the logs: an order number, a file name. It stands there beside
    /// the coordinates. The default is nothing.
    fn message_label(&self, message: &SourceMessage) -> Option<String> {
        None
    }

    /// Turns one finished task (exit code 0) into payloads for the sinks.
    ///
    /// # Errors
    ///
    /// The messages the task stands for are dead-lettered.
    fn on_task_complete(
        &self,
        done: &TaskResult,
    ) -> impl Future<Output = HookResult<Collect>> + Send {
        async { Ok(Collect::new()) }
    }

    /// Turns a message whose tasks have all ended into payloads. Called only if
    /// [`AGGREGATES_MESSAGES`](Handler::AGGREGATES_MESSAGES) is `true`, and then once for every message that was arranged, also
    /// if no task stands for it or all failed. What its tasks led to is delivered by then.
    ///
    /// # Errors
    ///
    /// The message is dead-lettered. While its partition is held it waits instead, and is asked about again.
    fn on_message_complete(
        &self,
        group: &MessageGroup<Self::Input>,
    ) -> impl Future<Output = HookResult<Collect>> + Send {
        NotOverridden
    }

    /// Turns a window whose messages are all complete into payloads. Called only if
    /// [`AGGREGATES_WINDOWS`](Handler::AGGREGATES_WINDOWS) is `true`, and then once for every window of which a message was
    /// arranged.
    ///
    /// # Errors
    ///
    /// Every message of the window is dead-lettered. While its partition is held the window waits instead, and
    /// is asked about again.
    fn on_window_complete(
        &self,
        window: &WindowGroup<Self::Input>,
    ) -> impl Future<Output = HookResult<Collect>> + Send {
        NotOverridden
    }

    /// Decides what becomes of a failed task.
    ///
    /// The default retries while attempts remain and dead-letters then; what can never start (no
    /// such program, not executable) is dead-lettered at once.
    ///
    /// # Errors
    ///
    /// The messages the task stands for are dead-lettered.
    fn on_error(&self, failed: &TaskFailure) -> impl Future<Output = HookResult<OnError>> + Send {
        let verdict =
            if failed.failure.is_permanent() { OnError::DeadLetter } else { OnError::Retry };
        async { Ok(verdict) }
    }

    /// Decides what becomes of a payload that a sink refused for good. A sink that is down refuses
    /// nothing: what is meant for it waits.
    ///
    /// The default dead-letters the messages the payload was made from.
    ///
    /// # Errors
    ///
    /// Those messages are dead-lettered.
    fn on_delivery_error(
        &self,
        failed: &DeliveryFailure,
    ) -> impl Future<Output = HookResult<OnDeliveryError>> + Send {
        async { Ok(OnDeliveryError::Dlq) }
    }
}

/// What a hook that aggregates answers where the handler does not override it. A type with a name,
/// so that the test kit can tell whether it does.
#[derive(Debug, Clone, Copy)]
pub struct NotOverridden;

impl Future for NotOverridden {
    type Output = HookResult<Collect>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Collect::new()))
    }
}

/// What [`Handler::on_delivery_error`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeliveryError {
    /// Send the messages behind the payload to the dead-letter topic.
    Dlq,
    /// Deliver the same payload again after a backoff. Once `executor.max_retries` are used up this is
    /// [`OnDeliveryError::Dlq`].
    Retry,
    /// Give the payload up; counted and logged.
    Skip,
}

/// What [`Handler::on_error`] decides.
#[derive(Debug, Clone, PartialEq)]
pub enum OnError {
    /// Run the same task again after a backoff. Once `executor.max_retries` are used up this is
    /// [`OnError::DeadLetter`].
    Retry,
    /// Give the task up without a trace in the sinks; counted and logged.
    Skip,
    /// Run these instead. They stand for the messages of the failed task, whatever they name.
    /// None at all is [`OnError::Skip`].
    Replace(Vec<Task>),
    /// Send the messages the task stands for to the dead-letter topic.
    DeadLetter,
}

/// The tasks of the same partition that were arranged earlier and have not ended.
#[derive(Debug, Default)]
pub struct Pending {
    ids: Vec<TaskId>,
    set: OnceLock<HashSet<TaskId>>,
}

impl Pending {
    /// Lists `ids` as pending.
    #[must_use]
    pub fn new(ids: Vec<TaskId>) -> Self {
        Self { ids, set: OnceLock::new() }
    }

    /// Whether a task of this id is under way, so that arranging it again would repeat work.
    /// Useful with [`TaskId::stable`].
    #[must_use]
    pub fn contains(&self, id: &TaskId) -> bool {
        self.set.get_or_init(|| self.ids.iter().cloned().collect()).contains(id)
    }

    /// Ids of the pending tasks, in no particular order.
    #[must_use]
    pub fn ids(&self) -> &[TaskId] {
        &self.ids
    }

    /// How many tasks are pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
