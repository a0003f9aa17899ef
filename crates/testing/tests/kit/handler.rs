//! A handler like one that users write, against the face.

use drakkar::{
    Collect, Failure, Handler, HookResult, Json, KafkaPayload, Message, MessageGroup, OnError,
    Pending, Task, TaskFailure, TaskResult,
};
use serde::{Deserialize, Serialize};

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) words: Vec<String>,
}

/// What is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) word: String,
    pub(crate) count: usize,
}

/// An order of these words.
pub(crate) fn order<const N: usize>(words: [&str; N]) -> drakkar_testing::Record {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    drakkar_testing::Record::json(&Order { words })
}

fn tasks(window: &[Message<Json<Order>>]) -> Vec<Task> {
    let task = |message: &Message<Json<Order>>, word: &String| {
        Task::for_message(message).program("count").arg(word).label("word", word)
    };
    window.iter().flat_map(|m| m.input.words.iter().map(move |word| task(m, word))).collect()
}

/// A task per word, a record per task.
pub(crate) struct PerWord;

impl Handler for PerWord {
    type Input = Json<Order>;

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(tasks(window))
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let word = done.task.labels()["word"].clone();
        let count = done.stdout_text().trim().parse()?;
        let payload = KafkaPayload::json(&Counted { word: word.clone(), count })?;
        Ok(Collect::new().kafka(payload.key(word)))
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        Ok(match failed.failure {
            Failure::Exit(1) => OnError::Skip,
            Failure::Exit(2) => {
                let word = failed.task.labels()["word"].clone();
                OnError::Replace(vec![Task::new().program("slow-count").label("word", word)])
            }
            _ if failed.retries_left > 0 => OnError::Retry,
            _ => OnError::DeadLetter,
        })
    }
}

/// A task per word, a record per message.
pub(crate) struct PerMessage;

impl Handler for PerMessage {
    type Input = Json<Order>;
    const AGGREGATES_MESSAGES: bool = true;

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(tasks(window))
    }

    async fn on_message_complete(&self, group: &MessageGroup<Self::Input>) -> HookResult<Collect> {
        let summary = format!("{} of {}", group.results.len(), group.total());
        Ok(Collect::new().kafka(KafkaPayload::json(&summary)?))
    }
}

/// The same without the line that says so.
pub(crate) struct Forgetful;

impl Handler for Forgetful {
    type Input = Json<Order>;

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(tasks(window))
    }

    async fn on_message_complete(&self, _: &MessageGroup<Self::Input>) -> HookResult<Collect> {
        Ok(Collect::new())
    }
}
