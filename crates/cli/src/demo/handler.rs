//! The handler of the demo: real programs that every Linux machine has.
//!
//! `wc -w` counts words; trouble is a line of `/bin/sh`. Each answer goes to a Kafka topic and to a
//! file.

use std::{path::PathBuf, time::Duration};

use drakkar::{
    Collect, Failure, FilePayload, Handler, HookResult, Json, KafkaPayload, Message, OnError,
    Pending, Precomputed, Task, TaskFailure, TaskResult,
};
use serde::{Deserialize, Serialize};

use super::input::{Action, FLOOD_BYTES, Request};

/// File of the file sink.
pub(crate) const RESULTS_FILE: &str = "results.jsonl";

/// How long a task that hangs may do so.
const PATIENCE: Duration = Duration::from_millis(500);

/// Label with the number of the message.
const ID: &str = "id";

/// Fails unless the file named by its first argument exists, and makes it.
const FAIL_ONCE: &str = r#"[ -e "$1" ] || { : > "$1"; echo "not yet" >&2; exit 75; }; exec wc -w"#;

/// What is delivered for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_field_names)] // It reads best where it is used.
pub(crate) struct Answer {
    /// Number of the message.
    pub(crate) id: u64,
    /// Words counted or bytes printed.
    pub(crate) answer: u64,
    /// Which attempt gave it, from 1.
    pub(crate) attempt: u32,
    /// Bytes of output beyond the capture limit.
    pub(crate) dropped: u64,
}

/// Counts words.
pub(crate) struct WordCount {
    /// Where tasks that fail once leave a mark.
    pub(crate) marks: PathBuf,
}

impl Handler for WordCount {
    type Input = Option<Json<Request>>; // `None` is a tombstone

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        let tasks = window.iter().map(|message| {
            let task = Task::for_message(message);
            match &message.input {
                Some(request) => self.run(task, request),
                None => delete(task, message.key.as_deref().unwrap_or_default()),
            }
        });
        Ok(tasks.collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let id = done.task.labels().get(ID).ok_or("the task has no id")?;
        if done.task.known_result().is_some() {
            return Ok(Collect::new().kafka(KafkaPayload::tombstone(id.clone())));
        }
        let output = &done.output;
        let answer = match done.stdout_text().trim().parse() {
            Ok(count) => count,
            Err(_) => output.stdout.len() as u64 + output.stdout_dropped, // It was not for counting.
        };
        let (attempt, dropped) = (done.attempt, output.stdout_dropped);
        let answer = Answer { id: id.parse()?, answer, attempt, dropped };
        Ok(Collect::new()
            .kafka(KafkaPayload::json(&answer)?.key(id.clone()))
            .file(FilePayload::json(RESULTS_FILE, &answer)?))
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        // What hung once will hang again: do not spend more time on it.
        let hung = matches!(failed.failure, Failure::TimedOut(_));
        Ok(if hung { OnError::DeadLetter } else { OnError::Retry })
    }
}

impl WordCount {
    fn run(&self, task: Task, request: &Request) -> Task {
        let Request { id, action, words } = request;
        let task = task.label(ID, id.to_string()).stdin(words.clone());
        match action {
            Action::Count => task.arg("-w"),
            Action::Fail => sh(task, "echo 'on purpose' >&2; exit 3"),
            Action::FailOnce => sh(task, FAIL_ONCE).arg("sh").arg(self.marks.join(id.to_string())),
            Action::Hang => sh(task, "exec sleep 3600").timeout(PATIENCE),
            Action::IgnoreTerm => {
                sh(task, "trap '' TERM; while :; do sleep 1; done").timeout(PATIENCE)
            }
            Action::Flood => sh(task, &format!("exec head -c {FLOOD_BYTES} /dev/zero")),
        }
    }
}

fn sh(task: Task, script: &str) -> Task {
    task.program("/bin/sh").arg("-c").arg(script)
}

/// Nothing needs to be run to know that there is nothing to count.
fn delete(task: Task, key: &[u8]) -> Task {
    task.label(ID, String::from_utf8_lossy(key)).precomputed(Precomputed::default())
}
