//! The handler: a request becomes one run of `grep`, its output becomes a report.
//!
//! It decides what a failed `grep` means, because Drakkar cannot know: exit code 1 is an answer
//! ("nothing found"), 2 is a request that cannot succeed (a pattern that is no regular expression, a
//! file that is not there), everything else is worth another attempt.

use std::path::{Component, Path, PathBuf};

use drakkar::{
    Collect, Failure, FilePayload, Handler, HookResult, Json, KafkaPayload, Message, OnError,
    Pending, Precomputed, Task, TaskFailure, TaskResult,
};
use serde::{Deserialize, Serialize};

use crate::hits::{Hits, Report};

/// Hits that a report carries; the lines of a search with more go to the file sink.
pub(crate) const SHOWN: usize = 10;

/// Where the file sink keeps the lines of searches with many hits, below its `base_path`.
const MANY_HITS: &str = "many-hits.jsonl";

/// One message: what to look for, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Names the request in the answer, and is its key.
    #[serde(rename = "request_id")]
    pub id: String,
    /// An extended regular expression, as `grep -E` takes it.
    pub pattern: String,
    /// Files below the corpus; none is all of them.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// Searches the corpus.
pub(crate) struct Search {
    corpus: PathBuf,
}

/// `CORPUS_DIR`, or the corpus of this repository.
pub(crate) fn corpus_dir() -> PathBuf {
    std::env::var_os("CORPUS_DIR").map_or_else(|| "integration/worker/corpus".into(), PathBuf::from)
}

impl Search {
    /// Searches below `corpus`.
    pub(crate) fn new(corpus: PathBuf) -> Self {
        Self { corpus }
    }

    fn task(&self, message: &Message<Json<Request>>) -> HookResult<Task> {
        let request = &message.input;
        if let Some(outside) = request.files.iter().find(|file| !stays_inside(file)) {
            return Err(format!("{} is not a file of the corpus", outside.display()).into());
        }
        let task = Task::for_message(message)
            .working_dir(&self.corpus)
            .env("LC_ALL", "C.UTF-8")
            // A NUL after the file name: names may hold colons.
            .with_args([
                "--extended-regexp",
                "--line-number",
                "--with-filename",
                "--null",
                "--text",
            ])
            .arg(format!("--regexp={}", request.pattern))
            // What later hooks need of the request travels with the task.
            .metadata(serde_json::to_value(&request.0)?);
        Ok(match request.files.as_slice() {
            [] => task.arg("--recursive"),
            files => task.arg("--").with_args(files),
        })
    }
}

/// A request must not make us read other files than those of the corpus.
fn stays_inside(file: &Path) -> bool {
    let mut parts = file.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

impl Handler for Search {
    type Input = Json<Request>;

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        window.iter().map(|message| self.task(message)).collect()
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let request = Request::deserialize(done.task.meta())?;
        let hits = Hits::parse(&done.output.stdout)?;
        let report = Report::new(&request, &hits, done.output.is_truncated());
        let collect = Collect::new().kafka(KafkaPayload::json(&report)?.key(request.id.clone()));
        Ok(if hits.count() > SHOWN {
            collect.file(FilePayload::json(MANY_HITS, &report.with_all(&hits))?)
        } else {
            collect
        })
    }

    async fn on_error(&self, failed: &TaskFailure) -> HookResult<OnError> {
        Ok(match failed.failure {
            // Nothing found. That is a result: a task that already has it takes the place of this one.
            Failure::Exit(1) => OnError::Replace(vec![
                Task::new()
                    .precomputed(Precomputed::default())
                    .metadata(failed.task.meta().clone()),
            ]),
            Failure::Exit(2) => OnError::DeadLetter,
            _ if failed.failure.is_permanent() => OnError::DeadLetter,
            _ => OnError::Retry,
        })
    }
}

#[cfg(test)]
mod tests;
