//! How many letters of which kind there are.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde_json::{Value, json};

use super::{
    Ended,
    args::{Output, Stats},
    connect::{Kafka, READER},
    letter::{Letter, escape, time_text},
    read::Reader,
};

/// Characters of `2026-11-18T11`.
const HOUR: usize = 13;

/// What is counted, in the order it is shown.
const KINDS: [&str; 5] = ["stage", "class", "sink", "topic", "hour"];

/// Counts by each kind.
#[derive(Debug, Default)]
struct Counts {
    letters: u64,
    by: [BTreeMap<String, u64>; KINDS.len()],
}

pub(super) fn stats(args: &Stats) -> anyhow::Result<Ended> {
    let kafka = Kafka::of(&args.place)?;
    let mut reader = Reader::new(kafka.consumer(READER)?, &kafka.topic);
    let ranges = reader.ranges_of_topic(&args.choice.partition)?;
    reader.read(ranges);
    let mut counts = Counts::default();
    while let Some(letter) = reader.next(|| false)? {
        if args.choice.matches(&letter) {
            counts.add(&letter);
        }
    }
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => out.write_all(counts.text().as_bytes())?,
        Output::Json => writeln!(out, "{}", counts.json())?,
    }
    Ok(Ended::Done)
}

impl Counts {
    fn add(&mut self, letter: &Letter) {
        let ours = |name| letter.ours(name).map(|value| escape(value.as_bytes()));
        let hour = letter.time().map(|time| time_text(time).chars().take(HOUR).collect());
        let found =
            [ours("stage"), ours("error-class"), ours("sink"), ours("original-topic"), hour];
        self.letters += 1;
        for (by, found) in self.by.iter_mut().zip(found) {
            if let Some(found) = found {
                *by.entry(found).or_default() += 1;
            }
        }
    }

    /// The most frequent first; hours in their order.
    fn rows(&self, kind: usize) -> Vec<(&str, u64)> {
        let mut rows: Vec<(&str, u64)> =
            self.by[kind].iter().map(|(name, count)| (name.as_str(), *count)).collect();
        if KINDS[kind] != "hour" {
            rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        rows
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{:>9} letters", self.letters)];
        for (kind, name) in KINDS.into_iter().enumerate() {
            let rows = self.rows(kind);
            if !rows.is_empty() {
                lines.push(format!("\nby {name}{}", if name == "hour" { " (UTC)" } else { "" }));
                lines.extend(rows.iter().map(|(name, count)| format!("{count:>9} {name}")));
            }
        }
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Value {
        let kinds = KINDS.into_iter().zip(&self.by).map(|(name, by)| (name.to_owned(), json!(by)));
        let mut all: serde_json::Map<String, Value> = kinds.collect();
        all.insert("letters".to_owned(), self.letters.into());
        all.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::letter::tests::letter, *};

    #[test]
    fn letters_are_counted_by_each_kind() {
        let mut counts = Counts::default();
        counts.add(&letter(&[]));
        counts.add(&letter(&[]));
        assert_eq!(counts.json()["class"], json!({"exit_code": 2}));
        assert_eq!(counts.json()["hour"], json!({"2026-11-18T11": 2}));
        assert!(counts.text().contains("by topic\n        2 orders\n"), "{}", counts.text());
        assert!(!counts.text().contains("by sink"), "none refused: {}", counts.text());
    }
}
