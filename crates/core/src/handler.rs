//! What users write: one trait, one required hook.

use std::{collections::HashSet, error::Error, future::Future, sync::OnceLock};

use crate::{Collect, Input, Message, Task, TaskFailure, TaskId, TaskResult};

/// Anything a hook may fail with; `?` takes every error and `"text".into()`.
pub type HookError = Box<dyn Error + Send + Sync>;

/// What a hook returns.
pub type HookResult<T> = Result<T, HookError>;

/// Turns messages into subprocess tasks, and what the tasks printed into payloads.
///
/// Only [`arrange`](Handler::arrange) must be written. Hooks take `&self` because partitions call
/// them concurrently. They share the runtime with everything else: what blocks or computes for more
/// than some milliseconds belongs into a program, or on a thread of its own. A hook that returns an error, panics or exceeds its time-out
/// (`executor.hook_timeout_seconds`) loses nothing: the messages concerned go to the dead-letter
/// topic with the reason.
#[allow(unused_variables)] // Default bodies keep readable parameter names in the documentation.
pub trait Handler: Send + Sync + 'static {
    /// What the value of a message decodes to: [`Json<T>`](crate::Json), [`bytes::Bytes`], an
    /// `Option` of these to receive tombstones, or a type of your own that implements [`Input`].
    type Input: Input;

    /// Answers a window of messages with the tasks to run.
    ///
    /// Called for one window of a partition at a time; windows of other partitions are arranged
    /// concurrently. A task names the messages it stands for ([`Task::for_message`],
    /// [`Task::for_messages`]); one that names none stands for the whole window. A message that no
    /// task stands for is settled at once: returning no task for it is how a handler filters.
    ///
    /// # Errors
    ///
    /// The window is split in halves and arranged again, down to single messages; a message whose
    /// `arrange` fails alone is dead-lettered. The same holds for a panic, a time-out, and a task
    /// that names a message outside of its window.
    fn arrange(
        &self,
        window: &[Message<Self::Input>],
        pending: &Pending,
    ) -> impl Future<Output = HookResult<Vec<Task>>> + Send;

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
