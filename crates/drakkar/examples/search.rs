//! Searches `/etc/services` for what each message asks for.

use std::process::ExitCode;

use drakkar::{
    Collect, Handler, HookResult, Json, KafkaPayload, Message, Pending, Task, TaskResult, Worker,
};

#[derive(serde::Deserialize)]
struct SearchRequest {
    pattern: String,
}

#[derive(serde::Serialize)]
struct Hits<'a> {
    lines: Vec<&'a str>,
}

struct Search;

impl Handler for Search {
    type Input = Json<SearchRequest>; // how a message value is decoded

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        let grep = |m: &Message<Self::Input>| Task::for_message(m).arg("-e").arg(&m.input.pattern);
        Ok(window.iter().map(|m| grep(m).arg("/etc/services")).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let text = done.stdout_text();
        let hits = Hits { lines: text.lines().collect() };
        Ok(Collect::new().kafka(KafkaPayload::json(&hits)?.key(done.task.id())))
    }
}

fn main() -> ExitCode {
    Worker::new(Search).main() // its argument names the configuration file
}
