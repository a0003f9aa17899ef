//! Documents that say which test proves what: the tests exist.

use std::collections::BTreeSet;

use crate::workspace::{files, read};

/// What such a document may be.
const DOCUMENTS: [&str; 1] = ["docs/sinks/proof.md"];

#[test]
fn every_test_that_is_said_to_prove_something_exists() {
    let sources = ["crates", "integration"].into_iter().flat_map(|top| files(top, "rs"));
    let tests: BTreeSet<String> = sources
        .flat_map(|source| {
            let text = read(source.to_str().unwrap());
            let pieces: Vec<&str> = text.split("#[t").skip(1).collect(); // `test]`, `tokio::test`
            let name =
                |piece: &&str| piece.split("fn ").nth(1)?.split('(').next().map(str::to_owned);
            pieces.iter().filter_map(name).collect::<Vec<_>>()
        })
        .collect();
    for document in DOCUMENTS {
        let text = read(document);
        let named: Vec<&str> = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|named| 2 < named.matches('_').count())
            .collect();
        assert!(!named.is_empty(), "{document} names no test");
        for test in named {
            assert!(tests.contains(test), "{document}: there is no test {test}");
        }
    }
}
