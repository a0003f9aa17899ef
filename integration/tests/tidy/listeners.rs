//! Who may hear the log in a test: who listens for the whole process, before anything is logged in it.
//!
//! A place that logs asks when a thread first comes to it whether anybody listens, and remembers the answer
//! for all threads. Where the one listener is that of another thread, the answer is no. So a listener of one
//! thread misses lines as soon as another test comes to their places first.

use std::path::Path;

use crate::workspace::{files, read};

/// Listens on one thread, and to lines that no other thread comes to: they are written in its tests.
const OF_A_THREAD: &str = "crates/telemetry/src/format.rs";

/// How a test begins that listens for the whole process.
const OPENINGS: [&str; 2] = ["Log::listen()", "World::new()"];

fn sources() -> Vec<(String, String)> {
    let found = ["crates", "integration"].into_iter().flat_map(|top| files(top, "rs"));
    let paths = found.map(|path| path.to_str().unwrap().to_owned());
    paths.map(|path| (path.clone(), read(&path))).collect()
}

fn calls(text: &str, functions: &[&str]) -> bool {
    functions.iter().any(|function| text.contains(&format!("{function}(")))
}

#[test]
fn no_test_listens_on_its_thread_alone() {
    let alone = |(path, text): &(String, String)| {
        path != OF_A_THREAD && calls(text, &["set_default", "with_default", "with_subscriber"])
    };
    let found: Vec<String> = sources().into_iter().filter(alone).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "another test can silence what these wait for: {found:?}");
}

/// The tests in `text`: their names and first statements.
fn tests_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_test = |piece: &&str| piece.starts_with("est]") || piece.starts_with("okio::test");
    text.split("#[t").filter(is_test).map(|piece| {
        let (name, body) = piece.split_once("fn ").unwrap().1.split_once("()").unwrap();
        (name, body.split(';').next().unwrap())
    })
}

#[test]
fn where_a_test_hears_the_log_all_tests_of_its_program_begin_with_listening() {
    let sources = sources();
    let mut heard = 0;
    for (listener, text) in sources.iter().filter(|(path, _)| path.contains("/tests/")) {
        if !calls(text, &["set_global_default", "tracing_subscriber::fmt"]) {
            continue;
        }
        // A module of several programs, or the only file of one.
        let directory = Path::new(listener).parent().unwrap();
        let module = format!("mod {};", directory.file_name().unwrap().to_str().unwrap());
        let beside = directory.parent().unwrap().to_str().unwrap();
        let is_part = |path: &str, text: &str| {
            path == listener || path.starts_with(beside) && text.contains(&module)
        };
        for (program, text) in sources.iter().filter(|(path, text)| is_part(path, text)) {
            for (name, opening) in tests_in(text) {
                heard += 1;
                let listens = OPENINGS.iter().any(|call| opening.contains(call));
                assert!(listens, "{program}: {name} begins with none of {OPENINGS:?}: {opening}");
            }
        }
    }
    assert!(10 < heard, "{heard} tests were found");
}
