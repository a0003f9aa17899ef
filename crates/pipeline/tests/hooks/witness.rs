//! A handler that writes down which hook it is asked, and misbehaves as it is told.
#![allow(dead_code)] // Each test binary uses its part.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{
    Collect, Delivery, DeliveryFailure, Handler, HookResult, Input, KafkaPayload, Message,
    OnDeliveryError, Pending, Precomputed, Ready, SinkError, SourceMessage, Task, TaskResult,
    TopicPartition,
};
use drakkar_telemetry::Hook;
use drakkar_testing::{Script, World};
use tokio::sync::Notify;

/// Only the handler knows how to decode it.
pub(crate) struct Text(String);

impl Input for Text {
    fn decode(_: &SourceMessage) -> HookResult<Self> {
        Err("the handler was to be asked".into())
    }
}

/// What was called, in order.
pub(crate) type Diary = Arc<Mutex<Vec<String>>>;

pub(crate) type OnPartition = Box<dyn Fn(&TopicPartition) -> Then + Send + Sync>;
pub(crate) type OnRefusal =
    Box<dyn Fn(&DeliveryFailure) -> Result<OnDeliveryError, Then> + Send + Sync>;

/// What a hook does once it has written itself down.
pub(crate) enum Then {
    Return,
    Fail,
    Panic,
    Hang,
    Wait(Arc<Notify>),
    /// Until the sender is gone.
    Block(std::sync::mpsc::Receiver<()>),
}

impl Then {
    async fn act(self) -> HookResult<()> {
        match self {
            Self::Return => Ok(()),
            Self::Fail => Err("as told".into()),
            Self::Panic => panic!("as told"),
            Self::Hang => pending().await,
            Self::Wait(gate) => {
                gate.notified().await;
                Ok(())
            }
            Self::Block(gate) => {
                assert!(gate.recv().is_err(), "nothing is ever sent");
                Ok(())
            }
        }
    }
}

/// Writes down every hook it is asked. Messages are echoed to the sink `results`.
pub(crate) struct Witness {
    pub(crate) diary: Diary,
    pub(crate) assign: OnPartition,
    pub(crate) revoke: OnPartition,
    pub(crate) arrange: Box<dyn Fn() -> Then + Send + Sync>,
    pub(crate) ready: Box<dyn Fn(&Ready) + Send + Sync>,
    pub(crate) label: fn(&SourceMessage) -> Option<String>,
    pub(crate) refused: OnRefusal,
    pub(crate) payloads: usize,
}

impl Witness {
    pub(crate) fn new() -> (Self, Diary) {
        let diary = Diary::default();
        let witness = Self {
            diary: Arc::clone(&diary),
            assign: Box::new(|_| Then::Return),
            revoke: Box::new(|_| Then::Return),
            arrange: Box::new(|| Then::Return),
            ready: Box::new(|_| {}),
            label: |_| None,
            refused: Box::new(|_| Ok(OnDeliveryError::Dlq)),
            payloads: 1,
        };
        (witness, diary)
    }

    pub(crate) fn refusing(
        verdict: impl Fn(&DeliveryFailure) -> Result<OnDeliveryError, Then> + Send + Sync + 'static,
    ) -> Self {
        Self { refused: Box::new(verdict), ..Self::new().0 }
    }

    fn note(&self, what: impl Into<String>) {
        self.diary.lock().unwrap().push(what.into());
    }
}

impl Handler for Witness {
    type Input = Text;

    fn decode(&self, message: &SourceMessage) -> HookResult<Text> {
        match message.value.as_deref() {
            Some(b"panic") => panic!("as told"),
            Some(b"invalid") => Err("as told".into()),
            value => Ok(Text(String::from_utf8_lossy(value.unwrap_or_default()).to_uppercase())),
        }
    }

    async fn on_ready(&self, ready: &Ready) -> HookResult<()> {
        self.note("ready");
        (self.ready)(ready);
        Ok(())
    }

    async fn on_assign(&self, partition: &TopicPartition) -> HookResult<()> {
        self.note(format!("assign {partition}"));
        let outcome = (self.assign)(partition).act().await;
        self.note(format!("assigned {partition}"));
        outcome
    }

    async fn on_revoke(&self, partition: &TopicPartition) -> HookResult<()> {
        self.note(format!("revoke {partition}"));
        let outcome = (self.revoke)(partition).act().await;
        self.note(format!("revoked {partition}"));
        outcome
    }

    async fn arrange(&self, window: &[Message<Text>], _: &Pending) -> HookResult<Vec<Task>> {
        self.note(format!("arrange {}", window[0].partition));
        (self.arrange)().act().await?;
        let echo = |message: &Message<Text>| {
            Task::for_message(message).precomputed(Precomputed {
                stdout: message.input.0.clone().into(),
                ..Precomputed::default()
            })
        };
        Ok(window.iter().map(echo).collect())
    }

    fn message_label(&self, message: &SourceMessage) -> Option<String> {
        (self.label)(message)
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let payload = || KafkaPayload::raw(done.output.stdout.clone());
        Ok((0..self.payloads).fold(Collect::new(), |collect, _| collect.kafka(payload())))
    }

    async fn on_delivery_error(&self, failed: &DeliveryFailure) -> HookResult<OnDeliveryError> {
        self.note(format!("refused {} left {}", failed.attempt, failed.retries_left));
        match (self.refused)(failed) {
            Ok(verdict) => Ok(verdict),
            Err(then) => then.act().await.map(|()| OnDeliveryError::Skip),
        }
    }
}

pub(crate) fn entries(diary: &Diary) -> Vec<String> {
    diary.lock().unwrap().clone()
}

/// Waits until the diary has `entry`.
pub(crate) async fn written(diary: &Diary, entry: &str) {
    let found = async {
        while !entries(diary).iter().any(|written| written == entry) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_mins(1), found).await;
    assert!(in_time.is_ok(), "no {entry:?} in {:?}", entries(diary));
}

pub(crate) fn refusing() -> Script<KafkaPayload> {
    Script::answering(|_| Delivery::Permanent(SinkError::new("TooLarge", "it is too large")))
}

pub(crate) fn errors(world: &World, hook: Hook) -> u64 {
    world.metrics.hook(hook).errors.get()
}
