//! How a source file begins, and how long it is.

use std::os::unix::fs::PermissionsExt;

use crate::workspace::{files, read, root};

/// A file this long is read twice before it grows.
const LONG: usize = 450;

/// A file longer than this does more than one thing.
const TOO_LONG: usize = 500;

fn sources() -> Vec<String> {
    let found = ["crates", "integration"].into_iter().flat_map(|top| files(top, "rs"));
    found.map(|path| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_source_file_says_first_what_it_is_for() {
    let silent: Vec<String> =
        sources().into_iter().filter(|path| !read(path).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "without a header: {silent:#?}");
}

#[test]
fn no_source_file_does_more_than_one_thing() {
    for path in sources() {
        let lines = read(&path).lines().count();
        if LONG < lines {
            println!("{path} has {lines} lines: can it be two?");
        }
        assert!(lines <= TOO_LONG, "{path} has {lines} lines");
    }
}

#[test]
fn nothing_is_left_for_later_and_no_test_is_switched_off() {
    // Put together here, so that this file does not find itself.
    let forbidden = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let ignored = format!("#[{}", "ignore");
    for path in sources() {
        let text = read(&path);
        for word in forbidden.iter().chain([&ignored]) {
            assert!(!text.contains(word.as_str()), "{path} holds {word}");
        }
    }
}

#[test]
fn what_is_run_by_name_can_be_run() {
    for path in ["integration/test", "integration/services", "integration/kafka/broker", ".ci/run"]
    {
        let mode = root().join(path).metadata().unwrap().permissions().mode();
        assert!(mode & 0o111 == 0o111, "{path} is not executable");
    }
}

#[test]
fn a_test_program_has_a_name_of_its_own() {
    // `integration/test` names those that need a broker, in a call for the whole workspace.
    let mut names = Vec::new();
    for path in files("crates", "rs").into_iter().chain(files("integration", "rs")) {
        let program = match path.file_name().unwrap().to_str().unwrap() {
            "main.rs" => path.parent().unwrap().to_owned(),
            _ => path.with_extension(""),
        };
        if program.parent().is_some_and(|parent| parent.ends_with("tests")) {
            names.push(program.file_name().unwrap().to_owned());
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two test programs share a name: {names:?}");
}
