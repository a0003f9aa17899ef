//! The handler in a real pipeline, with the real `grep`; only Kafka is played.

use std::time::Duration;

use drakkar_testing::World;
use serde_json::{Value, json};

use super::*;

fn world() -> World {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    World::of(Search::new(corpus))
        .executor(|executor| {
            executor.binary_path = Some("grep".into());
            executor.task_timeout_seconds = Duration::from_secs(20);
        })
        .start()
}

/// Runs one request to its end and returns the world it ended in.
async fn after(request: Value) -> World {
    let mut world = world();
    world.produce(0, request.to_string());
    world.committed(0, 1).await;
    world
}

fn only_report(world: &World) -> Value {
    let reports = world.results.all();
    assert_eq!(reports.len(), 1, "{reports:?}");
    serde_json::from_slice(reports[0].value.as_deref().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_answered_with_its_hits_under_its_own_key() {
    let world =
        after(json!({"request_id": "r-1", "pattern": "whale", "files": ["moby-dick.txt"]})).await;
    let report = only_report(&world);
    assert_eq!(report["request_id"], "r-1");
    assert_eq!(report["matches"], 1);
    assert_eq!(report["hits"][0]["file"], "moby-dick.txt");
    assert_eq!(world.results.all()[0].key.as_deref(), Some(&b"r-1"[..]));
    assert!(world.files.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_found_is_an_answer_and_no_dead_letter() {
    let world = after(json!({"request_id": "r-1", "pattern": "drakkar"})).await;
    assert_eq!(only_report(&world)["matches"], 0);
    assert!(world.dead_letters.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_lines_of_a_search_with_many_hits_go_to_the_file_sink() {
    let world = after(json!({"request_id": "r-1", "pattern": "the"})).await;
    let report = only_report(&world);
    let lines = world.files.all();
    let all: Value = serde_json::from_slice(lines[0].content.bytes()).unwrap();
    assert_eq!(report["hits"].as_array().unwrap().len(), SHOWN);
    assert_eq!(all["hits"].as_array().unwrap().len() as u64, report["matches"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grep_refuses_is_dead_lettered_with_its_words() {
    let world = after(json!({"request_id": "r-1", "pattern": "a", "files": ["absent.txt"]})).await;
    let letters = world.dead_letters.all();
    assert!(letters[0].cause.message.contains("absent.txt"), "{letters:?}");
    assert_eq!(letters[0].cause.attempt, 1, "it is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_file_outside_of_the_corpus_never_reaches_grep() {
    for outside in ["/etc/passwd", "../Cargo.toml", "a/../../b", "", "."] {
        let world = after(json!({"request_id": "r", "pattern": "a", "files": [outside]})).await;
        let letters = world.dead_letters.all();
        assert!(letters[0].cause.message.contains("not a file of the corpus"), "{letters:?}");
        assert!(world.results.all().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_is_never_read_as_an_option() {
    let world = after(json!({"request_id": "r-1", "pattern": "--help"})).await;
    assert_eq!(only_report(&world)["matches"], 0);
}
