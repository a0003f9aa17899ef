//! The books of one test: which message went where, read back from the broker.
//!
//! A message is known by its coordinates. Results name theirs in the header `source`, dead letters in
//! those that the framework adds. What no worker ever answered is *lost*; everything beyond
//! one answer is a *duplicate*.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use crate::kafka::{Kafka, Record};

/// Who got what.
pub struct Books {
    /// Messages of the source topic by their coordinates, with their ids.
    produced: BTreeMap<String, String>,
    /// What is in the topic of the results.
    pub results: Vec<Record>,
    /// What is in the dead-letter topic.
    pub dead: Vec<Record>,
    absent: BTreeSet<String>,
}

impl Books {
    pub(crate) fn read(kafka: &Kafka, source: &str, results: &str, dead: Option<&str>) -> Self {
        let of = |record: Record| {
            let id = record.id();
            (format!("{source}:{}:{}", record.partition, record.offset), id)
        };
        Self {
            produced: kafka.read(source).into_iter().map(of).collect(),
            results: kafka.read(results),
            dead: dead.map(|dead| kafka.read(dead)).unwrap_or_default(),
            absent: BTreeSet::new(),
        }
    }

    /// Says that these messages are answered by nothing, on purpose.
    #[must_use]
    pub fn without<const N: usize>(mut self, ids: [&str; N]) -> Self {
        self.absent.extend(ids.map(str::to_owned));
        self
    }

    /// The only result of the message `id`.
    #[track_caller]
    #[must_use]
    pub fn result(&self, id: &str) -> &Record {
        only(&self.results, id, "results")
    }

    /// The only dead letter of the message `id`.
    #[track_caller]
    #[must_use]
    pub fn letter(&self, id: &str) -> &Record {
        only(&self.dead, id, "dead letters")
    }

    /// Asserts where and why the message `id` was given up.
    #[track_caller]
    pub fn given_up(&self, id: &str, stage: &str, class: &str) {
        let letter = self.letter(id);
        let why = [letter.header("drakkar-stage"), letter.header("drakkar-error-class")];
        assert_eq!(why, [Some(stage.to_owned()), Some(class.to_owned())], "of {id}");
    }

    /// How many messages at or above what is `committed` of their partition `worker` has answered.
    #[must_use]
    pub fn open_of(&self, worker: &str, committed: &BTreeMap<i32, i64>) -> usize {
        let is_open = |source: &String| {
            let mut parts = source.rsplit(':').map(|part| part.parse::<i64>().unwrap());
            let (offset, partition) = (parts.next().unwrap(), parts.next().unwrap());
            committed[&i32::try_from(partition).unwrap()] <= offset
        };
        let by = |record: &&Record, header: &str| record.header(header).as_deref() == Some(worker);
        let results = self.results.iter().filter(|record| by(record, "worker"));
        let dead = self.dead.iter().filter(|record| by(record, "drakkar-worker"));
        let sources =
            results.filter_map(|one| one.header("source")).chain(dead.filter_map(original));
        sources.filter(is_open).collect::<BTreeSet<String>>().len()
    }

    /// Asserts that nothing is lost and nothing came out twice.
    #[track_caller]
    pub fn balance(&self) {
        self.balance_with(0, "none may be");
    }

    /// Asserts that nothing is lost and that there are at most so many duplicates, for this reason;
    /// says how many there are.
    #[track_caller]
    pub fn balance_with(&self, most: usize, why: &str) {
        let delivered = by_source(&self.results, |record| record.header("source"));
        let dead = by_source(&self.dead, original);
        let answers =
            |source: &String| delivered.get(source).unwrap_or(&0) + dead.get(source).unwrap_or(&0);
        let mut lost = Vec::new();
        let mut duplicates = 0;
        for (source, id) in &self.produced {
            match answers(source) {
                0 if !self.absent.contains(id) => lost.push(format!("{id} ({source})")),
                0 => {}
                _ if self.absent.contains(id) => panic!("{id} ({source}) came out after all"),
                count => duplicates += count - 1,
            }
        }
        say(&format!(
            "{} produced, {} delivered, {} dead-lettered, {duplicates} duplicates ({why})",
            self.produced.len(),
            delivered.len(),
            dead.len(),
        ));
        let unknown: Vec<&String> = delivered
            .keys()
            .chain(dead.keys())
            .filter(|at| !self.produced.contains_key(*at))
            .collect();
        assert!(unknown.is_empty(), "answers to messages that nobody sent: {unknown:?}");
        lost.truncate(20);
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(duplicates <= most, "{duplicates} duplicates, at most {most} expected ({why})");
    }
}

/// Prints a line also when the test passes: the test runner captures `eprintln!` only.
#[allow(clippy::explicit_write, reason = "the macro would be captured")]
fn say(line: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(std::io::stderr(), "books: {line} [{test}]").unwrap();
}

#[track_caller]
fn only<'a>(records: &'a [Record], id: &str, kind: &str) -> &'a Record {
    let found: Vec<&Record> = records.iter().filter(|record| record.id() == id).collect();
    match found.as_slice() {
        [only] => only,
        several => panic!("{} {kind} of {id}", several.len()),
    }
}

fn by_source(
    records: &[Record],
    source: impl Fn(&Record) -> Option<String>,
) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for record in records {
        let source = source(record).unwrap_or_else(|| panic!("{record:?} names no message"));
        *counted.entry(source).or_default() += 1;
    }
    counted
}

fn original(letter: &Record) -> Option<String> {
    let part = |name: &str| letter.header(&format!("drakkar-original-{name}"));
    Some(format!("{}:{}:{}", part("topic")?, part("partition")?, part("offset")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(source: &str) -> Record {
        let headers = vec![("source".to_owned(), Some(source.as_bytes().to_vec()))];
        let (partition, offset) = (0, 0);
        Record { partition, offset, timestamp: None, key: None, value: None, headers }
    }

    /// Two messages, and what came out.
    fn books(answers: &[&str]) -> Books {
        let produced = [("t:0:0", "a"), ("t:0:1", "b")];
        Books {
            produced: produced.map(|(at, id)| (at.to_owned(), id.to_owned())).into(),
            results: answers.iter().map(|source| answer(source)).collect(),
            dead: Vec::new(),
            absent: BTreeSet::new(),
        }
    }

    #[test]
    fn one_answer_each_balances() {
        books(&["t:0:0", "t:0:1"]).balance();
    }

    #[test]
    #[should_panic(expected = "lost: [\"b (t:0:1)\"]")]
    fn a_message_without_an_answer_is_lost() {
        books(&["t:0:0"]).balance();
    }

    #[test]
    #[should_panic(expected = "1 duplicates, at most 0 expected")]
    fn a_second_answer_is_a_duplicate() {
        books(&["t:0:0", "t:0:1", "t:0:1"]).balance();
    }

    #[test]
    #[should_panic(expected = "answers to messages that nobody sent")]
    fn an_answer_to_nothing_is_found() {
        books(&["t:0:0", "t:0:1", "t:0:2"]).balance();
    }

    #[test]
    #[should_panic(expected = "came out after all")]
    fn an_answer_that_must_not_be_is_found() {
        books(&["t:0:0", "t:0:1"]).without(["b"]).balance();
    }
}
