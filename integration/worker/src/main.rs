//! The example worker: searches a corpus with `grep`, one message per search.
//!
//! `drakkar-example-worker CONFIG` reads requests such as
//! `{"request_id": "r-1", "pattern": "whale", "files": ["moby-dick.txt"]}` and answers each on the
//! Kafka sink; the lines of a search with many hits go to the file sink. `CORPUS_DIR` names the
//! directory that is searched. The handler is in `search`; nothing else is needed to make a worker.

mod hits; // what grep prints -> what we deliver
mod search; // the handler

use std::process::ExitCode;

use drakkar::Worker;

use crate::search::Search;

fn main() -> ExitCode {
    Worker::new(Search::new(search::corpus_dir())).main()
}
