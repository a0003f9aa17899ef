//! A worker whose handler does what each message tells it to: the subject of the tests.
//!
//! `drakkar-test-worker CONFIG`. Everything but the handler is the framework as users run it. With
//! `TEST_HANDLER=raw` messages are any bytes and `cat` answers each, with `TEST_HANDLER=journal` hooks are
//! written down (`drakkar_integration::journal`); otherwise they are orders
//! (`drakkar_integration::order`). Results carry the coordinates of their message and the worker's id in
//! headers, so that whoever reads them back can tell which message they answer, and who did.

use std::{os::unix::process::parent_id, path::PathBuf, process::ExitCode, thread};

use bytes::Bytes;
use drakkar::{
    Collect, Handler, HookResult, Json, KafkaPayload, Message, Offset, Payload, Pending,
    Precomputed, Task, TaskResult, Worker,
};
use drakkar_integration::{Act, Order, journal::Journal};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Leaves two processes that hold the output, each in a session of its own, the second one deaf to TERM.
const ESCAPE: &str = "setsid sleep 3600 & \
                      setsid sh -c 'trap \"\" TERM; (nohup sleep 3600 &); sleep 3600' &";

/// What a task must not exceed that does not end by itself.
const SHORT: Duration = Duration::from_millis(400);

/// Ends this process when the test that started it is killed, which nobody else would notice.
fn end_with(test: u32) {
    while parent_id() == test {
        thread::sleep(Duration::from_millis(500));
    }
    std::process::exit(1);
}

fn main() -> ExitCode {
    let test = parent_id();
    thread::spawn(move || end_with(test));
    let worker = std::env::var("WORKER_ID").unwrap_or_default();
    match std::env::var("TEST_HANDLER").as_deref() {
        Ok("raw") => Worker::new(Raw { worker }).main(),
        Ok("journal") => {
            let directory = std::env::var_os("TEST_DIR").unwrap_or_default();
            let path = PathBuf::from(directory).join(format!("{worker}.journal"));
            Worker::new(Journal::new(path, worker)).on_startup(Journal::look).main()
        }
        _ => Worker::new(Scripted { worker }).main(),
    }
}

/// What the hooks after the run need to know of the message; travels with the task.
#[derive(Serialize, Deserialize)]
struct Origin {
    id: String,
    source: String,
    act: Act,
    beside: Vec<Payload>,
}

impl Origin {
    fn answer(&self, done: &TaskResult, worker: &str, value: impl Into<Bytes>) -> KafkaPayload {
        KafkaPayload::raw(value)
            .sink("results")
            .key(self.id.clone())
            .header("source", self.source.clone())
            .header("worker", worker.to_owned())
            .header("attempt", done.attempt.to_string())
    }
}

/// Any bytes in, the same bytes out.
struct Raw {
    worker: String,
}

impl Handler for Raw {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        window
            .iter()
            .map(|message| {
                let key = message.key.clone().unwrap_or_default();
                let origin = Origin {
                    id: String::from_utf8_lossy(&key).into_owned(),
                    source: message.coordinates(),
                    act: Act::Echo,
                    beside: Vec::new(),
                };
                Ok(Task::for_message(message)
                    .program("/bin/cat")
                    .stdin(message.input.clone())
                    .metadata(serde_json::to_value(origin)?))
            })
            .collect()
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let origin = Origin::deserialize(done.task.meta())?;
        Ok(Collect::new().kafka(origin.answer(done, &self.worker, done.output.stdout.clone())))
    }
}

/// Does what the message says.
struct Scripted {
    worker: String,
}

impl Handler for Scripted {
    type Input = Option<Json<Order>>;

    async fn arrange(&self, window: &[Message<Self::Input>], _: &Pending) -> HookResult<Vec<Task>> {
        let is_together = |message: &&Message<Self::Input>| {
            message.input.as_ref().is_some_and(|Json(order)| order.act == Act::Together)
        };
        let (together, alone): (Vec<_>, Vec<_>) = window.iter().partition(is_together);
        let mut tasks = Vec::new();
        for message in alone {
            tasks.extend(arrange_one(message)?);
        }
        if let [first, ..] = together[..] {
            let offsets: Vec<Offset> = together.iter().map(|message| message.offset).collect();
            tasks.extend(arrange_one(first)?.map(|task| task.with_source_offsets(offsets)));
        }
        Ok(tasks)
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let origin = Origin::deserialize(done.task.meta())?;
        let value = match origin.act {
            Act::HookError => return Err("this hook fails as told".into()),
            Act::HookPanic => panic!("this hook panics as told"),
            Act::PrintGibibyte => {
                let (kept, dropped) = (done.output.stdout.len(), done.output.stdout_dropped);
                Bytes::from(format!("kept {kept} dropped {dropped}"))
            }
            _ => done.output.stdout.clone(),
        };
        let mut payload = origin.answer(done, &self.worker, value);
        if origin.act == Act::UnknownSink {
            payload = payload.sink("nowhere");
        }
        let mut collect = Collect::new().kafka(payload);
        origin.beside.into_iter().for_each(|payload| collect.push(payload));
        Ok(collect)
    }
}

fn arrange_one(message: &Message<Option<Json<Order>>>) -> HookResult<Option<Task>> {
    let Some(Json(order)) = &message.input else {
        let known = Precomputed { stdout: "tombstone".into(), ..Precomputed::default() };
        let key = message.key.clone().unwrap_or_default();
        let id = String::from_utf8_lossy(&key).into_owned();
        let task = Task::for_message(message).precomputed(known);
        return with_origin(task, message, Order::new(id, Act::Precomputed)).map(Some);
    };
    let value = message.value.clone().unwrap_or_default();
    let task = Task::for_message(message);
    let sh = |script: &str| Task::for_message(message).program("/bin/sh").arg("-c").arg(script);
    let task = match order.act {
        Act::Echo | Act::UnknownSink | Act::HookError | Act::HookPanic => {
            task.program("/bin/cat").stdin(value)
        }
        Act::SleepMs(wait) => {
            let seconds = Duration::from_millis(wait).as_secs_f64();
            sh("sleep \"$1\"; exec cat").arg("sh").arg(seconds.to_string()).stdin(value)
        }
        Act::AwaitLicence => {
            sh("until [ -e \"$TEST_DIR/licence\" ]; do sleep 0.05; done; exec cat").stdin(value)
        }
        Act::Precomputed | Act::Together => {
            task.precomputed(Precomputed { stdout: value, ..Precomputed::default() })
        }
        Act::Fail => sh("echo 'out of luck' >&2; exit 3"),
        Act::Licensed => {
            sh("[ -e \"$TEST_DIR/licence\" ] || { echo 'no licence' >&2; exit 9; }; exec cat")
                .stdin(value)
        }
        Act::FailOnce => sh("[ -e \"$TEST_DIR/$1\" ] && exec cat; : >\"$TEST_DIR/$1\"; exit 7")
            .arg("sh")
            .arg(&order.id)
            .stdin(value),
        Act::Hang => sh("exec sleep 3600").timeout(SHORT),
        Act::IgnoreTerm => sh("trap '' TERM; while :; do sleep 1; done").timeout(SHORT),
        Act::Fork => sh("sleep 3600 & sleep 3600 & echo forked"),
        Act::Escape => sh(&format!("{ESCAPE} echo escaped")),
        Act::EscapeAndHang => sh(&format!("{ESCAPE} sleep 3600")),
        Act::PrintGibibyte => sh("exec head -c 1073741824 /dev/zero"),
        Act::CloseStdin => sh("exec 0<&-; echo closed").stdin(vec![b'x'; 8_000_000]),
        Act::Missing => task.program("/nonexistent/program"),
        Act::NotExecutable => task.program("/etc/passwd"),
        Act::ArrangeError => return Err("arrange fails as told".into()),
        Act::ArrangePanic => panic!("arrange panics as told"),
        Act::Nothing => return Ok(None),
        Act::Foreign => task.with_source_offsets([Offset(message.offset.0 + 1_000_000)]),
    };
    with_origin(task, message, order.clone()).map(Some)
}

fn with_origin<T>(task: Task, message: &Message<T>, order: Order) -> HookResult<Task> {
    let Order { id, act, beside } = order;
    let origin = Origin { id, source: message.coordinates(), act, beside };
    Ok(task.metadata(serde_json::to_value(origin)?))
}
