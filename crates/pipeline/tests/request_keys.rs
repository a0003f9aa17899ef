//! Idempotency keys of requests: the same when the same message is processed again, and different for
//! everything that is different. An endpoint that keeps to them takes each request once.

mod common;

use std::collections::BTreeMap;

use common::{Echo, ending};
use drakkar_core::{Collect, HookResult, HttpBody, HttpPayload, OnError, Task, TaskResult};
use drakkar_testing::{Script, World};

/// Two requests per task: what it printed, and its length.
fn requests(done: &TaskResult) -> HookResult<Collect> {
    let text = format!("{} {}", done.stdout_text(), done.task.meta());
    Ok(Collect::new().http(HttpPayload::new(&text)?).http(HttpPayload::new(&text.len())?))
}

/// Two tasks per message; the second fails and is replaced by two others.
fn handler() -> Echo {
    Echo::default()
        .arrange(|window| {
            let tasks = window.iter().flat_map(|message| {
                [ending(message, 0).metadata("first"), ending(message, 7).metadata("fails")]
            });
            Ok(tasks.collect())
        })
        .failed(|failed| {
            let known = failed.task.known_result().cloned().unwrap_or_default();
            let instead = |name: &str| {
                let result = drakkar_core::Precomputed { exit_code: 0, ..known.clone() };
                Task::new().precomputed(result).metadata(name)
            };
            Ok(OnError::Replace(vec![instead("one"), instead("other")]))
        })
        .complete(requests)
}

/// What was sent under each key, by a worker whose windows are this large.
async fn sent(window_size: usize) -> BTreeMap<String, String> {
    let endpoint = Script::<HttpPayload>::confirming();
    let mut world = World::of(handler())
        .in_memory()
        .settings(move |settings| settings.window_size = window_size)
        .http_sink("hook", &endpoint)
        .start();
    for value in ["a", "b", "c", "d", "e"] {
        world.produce(0, value);
    }
    world.committed(0, 5).await;
    let all = endpoint.recorded().all();
    let keyed = all.iter().map(|payload| {
        let key = payload.idempotency_key.clone().unwrap_or_default();
        let HttpBody::Value(body) = &payload.body else { panic!("a value was sent") };
        (key, String::from_utf8_lossy(body).into_owned())
    });
    let sent: BTreeMap<String, String> = keyed.collect();
    assert_eq!(sent.len(), all.len(), "no two requests share a key");
    sent
}

#[tokio::test]
async fn a_message_that_is_processed_again_in_another_window_makes_the_same_requests_under_the_same_keys()
 {
    let before = sent(1).await;
    assert_eq!(before.len(), 5 * 3 * 2);
    assert_eq!(sent(5).await, before);
    let ends: Vec<&str> =
        before.keys().filter_map(|key| key.split_once(":0:3:").map(|(_, end)| end)).collect();
    assert_eq!(ends, ["0:0", "0:1", "1.0:0", "1.0:1", "1.1:0", "1.1:1"]);
}

#[tokio::test]
async fn a_key_of_the_payloads_own_is_left_as_it_is() {
    let endpoint = Script::<HttpPayload>::confirming();
    let handler = Echo::default()
        .complete(|_| Ok(Collect::new().http(HttpPayload::empty().idempotency_key("mine"))));
    let mut world = World::of(handler).in_memory().http_sink("hook", &endpoint).start();
    world.produce(0, "a");
    world.committed(0, 1).await;
    assert_eq!(endpoint.recorded().all()[0].idempotency_key.as_deref(), Some("mine"));
}
