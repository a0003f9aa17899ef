//! A handler made of closures: by default every message becomes one precomputed task that echoes its
//! value, and every result one record for the sink `results`.
#![allow(dead_code, unreachable_pub)] // Each test binary uses its part.

use bytes::Bytes;
use drakkar_core::{
    Collect, Handler, HookResult, KafkaPayload, Message, MessageGroup, OnError, Pending,
    Precomputed, Stage, Task, TaskFailure, TaskResult, WindowGroup,
};
use drakkar_testing::{World, WorldBuilder};

type Arrange = dyn Fn(&[Message<Bytes>]) -> HookResult<Vec<Task>> + Send + Sync;
type Complete = dyn Fn(&TaskResult) -> HookResult<Collect> + Send + Sync;
type Failed = dyn Fn(&TaskFailure) -> HookResult<OnError> + Send + Sync;

pub struct Echo {
    arrange: Box<Arrange>,
    complete: Box<Complete>,
    failed: Box<Failed>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            arrange: Box::new(|window| Ok(window.iter().map(echo).collect())),
            complete: Box::new(|done| Ok(record(done))),
            failed: Box::new(|failed| {
                Ok(if failed.failure.is_permanent() { OnError::DeadLetter } else { OnError::Retry })
            }),
        }
    }
}

impl Echo {
    pub fn arrange(
        mut self,
        hook: impl Fn(&[Message<Bytes>]) -> HookResult<Vec<Task>> + Send + Sync + 'static,
    ) -> Self {
        self.arrange = Box::new(hook);
        self
    }

    pub fn complete(
        mut self,
        hook: impl Fn(&TaskResult) -> HookResult<Collect> + Send + Sync + 'static,
    ) -> Self {
        self.complete = Box::new(hook);
        self
    }

    pub fn failed(
        mut self,
        hook: impl Fn(&TaskFailure) -> HookResult<OnError> + Send + Sync + 'static,
    ) -> Self {
        self.failed = Box::new(hook);
        self
    }
}

impl Handler for Echo {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        (self.arrange)(window)
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        (self.complete)(done)
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        (self.failed)(failed)
    }
}

/// A precomputed task that ends with `exit_code`.
pub fn ending(message: &Message<Bytes>, exit_code: i32) -> Task {
    Task::for_message(message).precomputed(Precomputed {
        stdout: message.input.clone(),
        stderr: Bytes::new(),
        exit_code,
    })
}

/// A precomputed task that prints the value of the message.
pub fn echo(message: &Message<Bytes>) -> Task {
    ending(message, 0)
}

/// A shell script that runs for one message.
pub fn shell(message: &Message<Bytes>, script: &str) -> Task {
    Task::for_message(message).program("/bin/sh").arg("-c").arg(script)
}

/// What the task printed, as one record.
pub fn record(done: &TaskResult) -> Collect {
    Collect::new().kafka(KafkaPayload::raw(done.output.stdout.clone()))
}

/// The values of records, sorted: their order is not promised.
pub fn values(records: &[KafkaPayload]) -> Vec<String> {
    let text = |value: &Option<Bytes>| {
        String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned()
    };
    let mut values: Vec<String> = records.iter().map(|record| text(&record.value)).collect();
    values.sort();
    values
}

/// Makes a handler of closures aggregate: what it does with a message or a window as a whole.
pub struct Whole<const MESSAGES: bool, const WINDOWS: bool> {
    pub tasks: Echo,
    pub message: Box<MessageHook>,
    pub window: Box<WindowHook>,
}

/// A world of a handler that overrides both hooks and says so only where a test asks for it.
pub fn whole<const MESSAGES: bool, const WINDOWS: bool>(
    handler: Whole<MESSAGES, WINDOWS>,
) -> WorldBuilder<Whole<MESSAGES, WINDOWS>> {
    World::of(handler).allow_unused_hooks()
}

pub type MessageHook = dyn Fn(&MessageGroup<Bytes>) -> HookResult<Collect> + Send + Sync;
pub type WindowHook = dyn Fn(&WindowGroup<Bytes>) -> HookResult<Collect> + Send + Sync;

impl<const MESSAGES: bool, const WINDOWS: bool> Whole<MESSAGES, WINDOWS> {
    pub fn new(tasks: Echo) -> Self {
        Self {
            tasks,
            message: Box::new(|_| Ok(Collect::new())),
            window: Box::new(|_| Ok(Collect::new())),
        }
    }

    pub fn message(
        mut self,
        hook: impl Fn(&MessageGroup<Bytes>) -> HookResult<Collect> + Send + Sync + 'static,
    ) -> Self {
        self.message = Box::new(hook);
        self
    }

    pub fn window(
        mut self,
        hook: impl Fn(&WindowGroup<Bytes>) -> HookResult<Collect> + Send + Sync + 'static,
    ) -> Self {
        self.window = Box::new(hook);
        self
    }
}

impl<const MESSAGES: bool, const WINDOWS: bool> Handler for Whole<MESSAGES, WINDOWS> {
    type Input = Bytes;
    const AGGREGATES_MESSAGES: bool = MESSAGES;
    const AGGREGATES_WINDOWS: bool = WINDOWS;

    async fn arrange(&self, window: &[Message<Bytes>], pending: &Pending) -> HookResult<Vec<Task>> {
        Handler::arrange(&self.tasks, window, pending).await
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        self.tasks.on_task_complete(done).await
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        self.tasks.on_error(failed).await
    }

    async fn on_message_complete(&self, group: &MessageGroup<Bytes>) -> HookResult<Collect> {
        (self.message)(group)
    }

    async fn on_window_complete(&self, window: &WindowGroup<Bytes>) -> HookResult<Collect> {
        (self.window)(window)
    }
}

/// Stage and class of each dead letter, with the offset it is about.
pub fn reasons(world: &World) -> Vec<(i64, Stage, String)> {
    let mut reasons: Vec<_> = world
        .dead_letters
        .all()
        .into_iter()
        .map(|letter| (letter.message.offset.0, letter.cause.stage, letter.cause.class))
        .collect();
    reasons.sort_by_key(|(offset, ..)| *offset);
    reasons
}
