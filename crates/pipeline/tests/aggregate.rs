//! What a handler sees of a message or a window as a whole, and that its output is covered by the commit.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use common::{Echo, Whole, echo, ending, record, values, whole};
use drakkar_core::{
    Carried, Collect, Delivery, Failure, Handler, HookResult, KafkaPayload, Message, MessageGroup,
    OnError, Pending, Precomputed, SinkError, Stage, Task, TaskResult,
};
use drakkar_testing::{Script, Scripted, World};
use tokio::{sync::Semaphore, time::Instant};

type Seen = Arc<Mutex<Vec<String>>>;

/// Two tasks per message, in one window of all that is there.
fn twice() -> Echo {
    Echo::default().arrange(|window| {
        Ok(window.iter().flat_map(|message| [echo(message), echo(message)]).collect())
    })
}

/// What is sent before the first `await` is one window.
fn produce(world: &mut World, values: impl IntoIterator<Item = &'static str>) {
    for value in values {
        world.produce(0, value);
    }
}

fn summary(text: impl Into<String>) -> Collect {
    Collect::new().kafka(KafkaPayload::raw(text.into()))
}

fn note(seen: &Seen, text: String) {
    seen.lock().unwrap().push(text);
}

fn stages(world: &World) -> Vec<(i64, Stage)> {
    let letters = world.dead_letters.all();
    let mut stages: Vec<_> =
        letters.iter().map(|letter| (letter.message.offset.0, letter.cause.stage)).collect();
    stages.sort_by_key(|(offset, _)| *offset);
    stages
}

#[tokio::test]
async fn a_message_completes_once_after_its_last_task_was_delivered() {
    let handler = Whole::<true, false>::new(twice()).message(|group| {
        let value = String::from_utf8_lossy(&group.message.input).into_owned();
        Ok(summary(format!("{value} of {} tasks, {} failed", group.total(), group.errors.len())))
    });
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    let delivered = values(&world.results.all());
    assert_eq!(delivered, ["a", "a", "a of 2 tasks, 0 failed", "b", "b", "b of 2 tasks, 0 failed"]);
    let order: Vec<KafkaPayload> = world.results.all();
    let at = |text: &str| order.iter().rposition(|p| p.value.as_deref() == Some(text.as_bytes()));
    assert!(at("a") < at("a of 2 tasks, 0 failed"), "its tasks come first");
}

#[tokio::test]
async fn a_message_without_tasks_completes_with_an_empty_group() {
    let handler = Whole::<true, false>::new(Echo::default().arrange(|_| Ok(Vec::new())))
        .message(|group| Ok(summary(format!("empty: {}", group.is_empty()))));
    let mut world = whole(handler).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(values(&world.results.all()), ["empty: true"]);
}

#[tokio::test]
async fn a_replaced_task_is_neither_a_result_nor_an_error_but_its_replacements_are() {
    let tasks = Echo::default()
        .arrange(|window| Ok(window.iter().map(|message| ending(message, 7)).collect()))
        .failed(|failed| {
            let replacement = |code| {
                Task::new().precomputed(Precomputed { exit_code: code, ..Precomputed::default() })
            };
            Ok(match failed.failure {
                Failure::Exit(7) => OnError::Replace(vec![replacement(0), replacement(1)]),
                _ => OnError::Skip,
            })
        })
        .complete(|_| Ok(Collect::new()));
    let handler = Whole::<true, false>::new(tasks).message(|group| {
        let (ok, failed, replaced) = (group.results.len(), group.errors.len(), group.replaced);
        Ok(summary(format!("{ok} {failed} {replaced}")))
    });
    let mut world = whole(handler).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(values(&world.results.all()), ["1 1 1"]);
}

#[tokio::test]
async fn a_task_for_several_messages_is_in_the_group_of_each() {
    let tasks = Echo::default()
        .arrange(|window| Ok(vec![echo(&window[0]).with_source_offsets(Vec::new())]))
        .complete(|_| Ok(Collect::new()));
    let handler = Whole::<true, false>::new(tasks)
        .message(|group| Ok(summary(format!("{} {}", group.message.offset, group.results.len()))));
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "b", "c"]);
    world.committed(0, 3).await;
    assert_eq!(values(&world.results.all()), ["0 1", "1 1", "2 1"]);
}

#[tokio::test]
async fn a_failed_task_is_an_error_of_its_group_and_its_message_is_dead_lettered_all_the_same() {
    let seen = Seen::default();
    let tasks = Echo::default()
        .arrange(|window| Ok(vec![ending(&window[0], 0), ending(&window[0], 3)]))
        .failed(|_| Ok(OnError::DeadLetter));
    let shown = Arc::clone(&seen);
    let handler = Whole::<true, false>::new(tasks).message(move |group| {
        let failure = &group.errors[0].failure;
        note(&shown, format!("{} {failure}", group.results.len()));
        Ok(Collect::new())
    });
    let mut world = whole(handler).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(*seen.lock().unwrap(), ["1 exit code 3"]);
    assert_eq!(stages(&world), [(0, Stage::Execute)]);
}

#[tokio::test]
async fn a_result_whose_hook_failed_is_an_error_of_its_group() {
    let seen = Seen::default();
    let shown = Arc::clone(&seen);
    let handler = Whole::<true, false>::new(Echo::default().complete(|_| Err("no".into())))
        .message(move |group| {
            note(&shown, group.errors[0].failure.to_string());
            Ok(Collect::new())
        });
    let mut world = whole(handler).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(*seen.lock().unwrap(), ["on_task_complete failed: no"]);
}

#[tokio::test]
async fn no_message_of_a_window_settles_before_the_output_of_the_window_is_confirmed() {
    let results = Script::answering(|payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"window of 3") => Delivery::Transient(SinkError::new("Down", "the sink is down")),
        _ => Delivery::Confirmed,
    });
    let handler = Whole::<false, true>::new(Echo::default())
        .window(|window| Ok(summary(format!("window of {}", window.messages.len()))));
    let mut world = whole(handler).results(&results).start();
    produce(&mut world, ["a", "b", "c"]);
    world.results.until(3).await;
    world.revoke(0, Duration::from_secs(5)).await;
    let position = world
        .book(|book| {
            book.position(&drakkar_core::TopicPartition::new(drakkar_testing::TOPIC, 0)).cloned()
        })
        .unwrap();
    assert_eq!((position.next.0, position.metadata.as_str()), (0, ""), "nothing has settled");
}

#[tokio::test]
async fn a_window_completes_once_with_all_its_messages_after_each_of_them() {
    let handler = Whole::<true, true>::new(twice())
        .message(|group| Ok(summary(format!("message {}", group.message.offset))))
        .window(|window| {
            let offsets: Vec<i64> = window.messages.iter().map(|m| m.offset.0).collect();
            Ok(summary(format!("window {offsets:?} {}", window.results.len())))
        });
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    let all = world.results.all();
    assert_eq!(values(&all), ["a", "a", "b", "b", "message 0", "message 1", "window [0, 1] 4"]);
    assert_eq!(values(&all[6..]), ["window [0, 1] 4"], "the window comes last");
}

#[tokio::test]
async fn a_message_that_was_not_arranged_is_missing_from_its_window() {
    let tasks = Echo::default().arrange(|window| {
        if window.iter().any(|message| &*message.input == b"poison") {
            return Err("poison".into());
        }
        Ok(window.iter().map(echo).collect())
    });
    let handler = Whole::<true, true>::new(tasks)
        .message(|group| Ok(summary(format!("message {}", group.message.offset))))
        .window(|window| Ok(summary(format!("window of {}", window.messages.len()))));
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "poison", "c"]);
    world.committed(0, 3).await;
    let delivered = values(&world.results.all());
    assert_eq!(delivered, ["a", "c", "message 0", "message 2", "window of 2"]);
    assert_eq!(stages(&world), [(1, Stage::Arrange)]);
}

#[tokio::test]
async fn where_the_hook_for_a_message_fails_that_message_is_dead_lettered() {
    let handler = Whole::<true, false>::new(Echo::default()).message(|group| {
        assert!(group.message.offset.0 != 0, "boom");
        Ok(Collect::new())
    });
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert_eq!(stages(&world), [(0, Stage::OnMessageComplete)]);
}

#[tokio::test]
async fn where_the_hook_for_a_window_fails_all_its_messages_are_dead_lettered() {
    let handler = Whole::<false, true>::new(Echo::default()).window(|_| Err("no".into()));
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert_eq!(stages(&world), [(0, Stage::OnWindowComplete), (1, Stage::OnWindowComplete)]);
}

#[tokio::test]
async fn a_payload_of_a_group_that_is_refused_dead_letters_its_messages() {
    let results = Script::answering(|payload: &KafkaPayload| match payload.value.as_deref() {
        Some(b"window") => Delivery::Permanent(SinkError::new("TooLarge", "no")),
        _ => Delivery::Confirmed,
    });
    let handler = Whole::<false, true>::new(Echo::default()).window(|_| Ok(summary("window")));
    let mut world = whole(handler).results(&results).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert_eq!(stages(&world), [(0, Stage::Deliver), (1, Stage::Deliver)]);
    // Delivered again, it must come once.
    let carried = |offset| world.dead_letters.at(0, offset).unwrap().cause.carried;
    assert!(matches!(carried(0), Carried::Payloads(all) if all.len() == 1), "{:?}", carried(0));
    assert_eq!(carried(1), Carried::Elsewhere("orders:0:0".to_owned()));
}

#[tokio::test]
async fn a_hand_over_finishes_a_window_that_has_begun_and_drops_one_that_has_not() {
    let handler = Whole::<false, true>::new(Echo::default().arrange(|window| {
        Ok(window
            .iter()
            .map(|message| {
                common::shell(message, "read -r line; echo $line").stdin(message.input.clone())
            })
            .collect())
    }))
    .window(|window| Ok(summary(format!("window of {}", window.messages.len()))));
    let mut world = whole(handler)
        .executor(|executor| executor.max_executors = std::num::NonZeroUsize::new(1))
        .settings(|settings| settings.window_size = 2)
        .start();
    produce(&mut world, ["a\n", "b\n", "c\n", "d\n"]);
    world.results.until(1).await;
    let handed = world.revoke(0, Duration::from_secs(20)).await;
    assert_eq!(values(&world.results.all()), ["a\n", "b\n", "window of 2"]);
    assert_eq!(handed.position.unwrap().next.0, 2);
}

/// Its messages have no tasks and complete when the test lets them.
struct Gate(Arc<[Semaphore; 2]>);

impl Handler for Gate {
    type Input = Bytes;
    const AGGREGATES_MESSAGES: bool = true;

    async fn arrange(&self, _: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }

    async fn on_message_complete(&self, _: &MessageGroup<Bytes>) -> HookResult<Collect> {
        self.0[0].add_permits(1);
        self.0[1].acquire().await?.forget();
        Ok(summary("complete"))
    }
}

#[tokio::test]
async fn a_hand_over_finishes_a_message_without_tasks_that_is_being_completed() {
    let gates = Arc::new([Semaphore::new(0), Semaphore::new(0)]);
    let mut world = World::of(Gate(Arc::clone(&gates))).start();
    world.produce(0, "a");
    gates[0].acquire().await.unwrap().forget();
    world.begin_revoke(0, Duration::from_secs(20));
    world.draining(0).await;
    gates[1].add_permits(1);
    let handed = world.handed_over(0).await;
    assert_eq!(values(&world.results.all()), ["complete"]);
    assert_eq!(handed.position.unwrap().next.0, 1);
}

#[tokio::test]
async fn results_that_exceed_the_budget_run_one_at_a_time_and_complete() {
    let tasks = Echo::default()
        .arrange(|window| {
            let shells = (0..8).map(|_| common::shell(&window[0], "printf %100s x"));
            Ok(shells.collect())
        })
        .complete(|_| Ok(Collect::new()));
    let handler = Whole::<true, false>::new(tasks).message(|group| {
        let bytes: usize = group.results.iter().map(|done| done.output.stdout.len()).sum();
        Ok(summary(format!("{} results, {bytes} bytes, {}", group.total(), group.is_truncated())))
    });
    let mut world = whole(handler).settings(|s| s.max_result_bytes = 250).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    // Twice 250 bytes are kept; what comes later is counted, and the group says so.
    assert_eq!(values(&world.results.all()), ["8 results, 500 bytes, true"]);
    assert_eq!(world.metrics.results_output_dropped.get(), 3);
}

#[tokio::test]
async fn what_was_kept_for_a_group_is_let_go_with_it() {
    let handler = Whole::<true, true>::new(Echo::default().complete(|_| Ok(Collect::new())))
        .window(|window| Ok(summary(window.is_truncated().to_string())));
    // Room for one window: were anything kept after it, the second would be cut.
    let mut world = whole(handler)
        .settings(|settings| (settings.window_size, settings.max_result_bytes) = (2, 100))
        .start();
    for _ in 0..20 {
        world.produce(0, vec![b'x'; 90]);
    }
    world.committed(0, 20).await;
    assert_eq!(values(&world.results.all()), ["false"; 10]);
}

/// Input of a task; whether anybody still has it can be counted.
struct Input(Arc<[u8]>);

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_task_was_given_is_not_kept_for_its_group() {
    let input: Arc<[u8]> = Arc::from(&b"input"[..]);
    let given = Arc::clone(&input);
    let tasks = Echo::default()
        .arrange(move |window| {
            let given = || Bytes::from_owner(Input(Arc::clone(&given)));
            let known = Precomputed { stdout: given(), ..Precomputed::default() };
            let ends = Task::for_message(&window[0]).precomputed(known).stdin(given());
            Ok(vec![ends, Task::for_message(&window[0]).program("hangs")])
        })
        .complete(|_| Ok(Collect::new()));
    let handler = Whole::<true, false>::new(tasks);
    let mut world = whole(handler).in_memory().processes(|_| Scripted::hangs()).start();
    world.produce(0, "a");
    world.not_committed(0, 0, Duration::from_secs(10)).await;
    // We have one, the handler has one, and what the task is said to have printed is kept.
    assert_eq!(Arc::strong_count(&input), 3);
}

#[tokio::test]
async fn a_file_with_output_lives_until_the_last_hook_that_sees_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Seen::default();
    let (of_task, of_window) = (Arc::clone(&seen), Arc::clone(&seen));
    let look = |seen: &Seen, done: &TaskResult| {
        let path = done.output.stdout_file().unwrap();
        note(seen, format!("{}={}", path.display(), std::fs::read_to_string(path).unwrap()));
    };
    let tasks = Echo::default()
        .arrange(|window| {
            let spooling = |message| common::shell(message, "printf out").spool_stdout();
            Ok(window.iter().map(spooling).collect())
        })
        .complete(move |done| {
            look(&of_task, done);
            Ok(Collect::new())
        });
    let handler = Whole::<false, true>::new(tasks).window(move |window| {
        window.results.iter().for_each(|done| look(&of_window, done));
        Ok(Collect::new())
    });
    let spool = dir.path().to_owned();
    let mut world = whole(handler).executor(|executor| executor.spool.dir = Some(spool)).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 4, "{seen:?}");
    for one in &seen {
        let (path, text) = one.split_once('=').unwrap();
        assert_eq!(text, "out");
        // A thread removes it: at once, but not before the commit.
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::path::Path::new(path).exists() {
            assert!(Instant::now() < deadline, "committed, and still there");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_handler_that_does_not_say_that_it_aggregates_is_not_asked() {
    let handler = Whole::<false, false>::new(Echo::default().complete(|done| Ok(record(done))))
        .message(|_| Err("asked".into()))
        .window(|_| Err("asked".into()));
    let mut world = whole(handler).start();
    produce(&mut world, ["a", "b"]);
    world.committed(0, 2).await;
    assert!(world.dead_letters.is_empty());
}
