//! Documents that say which test proves what: the tests exist, where they are said to be.

use std::{collections::BTreeSet, path::Path};

use crate::workspace::{files, read};

/// Documents that name tests, each in backticks; the file of a source before it in the same line says
/// where it is.
const DOCUMENTS: [&str; 2] = ["docs/sinks/proof.md", "docs/defects-of-the-original.md"];

/// The tests in the source `text`, by name.
fn tests_in(text: &str) -> BTreeSet<String> {
    let name = |piece: &str| piece.split("fn ").nth(1)?.split('(').next().map(str::to_owned);
    text.split("#[t").skip(1).filter_map(name).collect() // `test]`, `tokio::test`
}

#[test]
fn every_test_that_is_said_to_prove_something_exists() {
    let sources = ["crates", "integration"].into_iter().flat_map(|top| files(top, "rs"));
    let tests: BTreeSet<String> =
        sources.flat_map(|source| tests_in(&read(source.to_str().unwrap()))).collect();
    for document in DOCUMENTS {
        let mut named = 0;
        for line in read(document).lines() {
            let mut there = None;
            for word in line.split('`').skip(1).step_by(2) {
                if Path::new(word).extension().is_some_and(|found| found == "rs") {
                    there = Some(tests_in(&read(word)));
                } else if 2 < word.matches('_').count() {
                    named += 1;
                    let tests = there.as_ref().unwrap_or(&tests);
                    assert!(tests.contains(word), "{document}: there is no test {word}: {line}");
                }
            }
        }
        assert!(0 < named, "{document} names no test");
    }
}
