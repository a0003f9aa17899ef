//! Which letters are in the parking topic: each copy there says what it is a copy of.
//!
//! Where it was alone does not say so: a topic that was made anew has other letters at the same places.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use drakkar::{Header, SourceMessage};

use super::{
    connect::{Kafka, READER},
    letter::{Letter, PARKED_FROM},
    read::Reader,
};

/// Letters of one dead-letter topic that were parked: 24 bytes each, while a command runs.
#[derive(Debug, Default)]
pub(super) struct Parked {
    letters: HashSet<Trace>,
}

/// Partition and offset of a letter, and a hash of all it holds.
type Trace = (i32, i64, u64);

impl Parked {
    /// What the topic `park_to` holds now. One that is not there holds nothing.
    pub(super) fn read(
        kafka: &Kafka,
        park_to: &str,
        is_stopped: impl Fn() -> bool,
    ) -> anyhow::Result<Self> {
        let mut reader = Reader::new(kafka.consumer(READER)?, park_to);
        let mut parked = Self::default();
        let Some(ranges) = reader.ranges(&[])? else { return Ok(parked) };
        reader.read(ranges);
        while let Some(copy) = reader.next(&is_stopped)? {
            parked.letters.extend(source(&copy.record, &kafka.topic));
        }
        Ok(parked)
    }

    pub(super) fn holds(&self, letter: &Letter) -> bool {
        let record = &letter.record;
        let hash = content(record, &record.headers);
        self.letters.contains(&(record.partition.partition, record.offset.0, hash))
    }
}

/// The letter in `topic` that this is a copy of.
fn source(copy: &SourceMessage, topic: &str) -> Option<Trace> {
    // The last: a parked letter may be parked again.
    let last = copy.headers.iter().rposition(|header| &*header.name == PARKED_FROM)?;
    let text = std::str::from_utf8(copy.headers[last].value.as_ref()?).ok()?;
    let mut parts = text.strip_prefix(topic)?.strip_prefix(':')?.split(':');
    let (partition, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let hash = content(copy, &copy.headers[..last]);
    parts.next().is_none().then_some((partition, offset, hash))
}

/// A hash of the key, the value and these headers.
pub(super) fn content(record: &SourceMessage, headers: &[Header]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&record.key, &record.value).hash(&mut hasher);
    for Header { name, value } in headers {
        (name, value).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fate::parked, letter::tests::letter},
        *,
    };

    #[test]
    fn a_parked_letter_is_known_by_where_it_was_and_by_what_it_is() {
        let letter = letter(&[]);
        let mut copy = letter.record.clone();
        copy.headers = parked(&letter, "orders_dlq_parked").headers;
        let trace = source(&copy, "orders_dlq").unwrap();
        assert_eq!((trace.0, trace.1), (1, 7));
        assert_eq!(source(&copy, "orders"), None, "that is the beginning of another topic");
        assert_eq!(source(&letter.record, "orders_dlq"), None, "that was never parked");
        let known = Parked { letters: [trace].into() };
        assert!(known.holds(&letter));
        let mut other = letter.clone();
        other.record.offset = drakkar::Offset(8);
        assert!(!known.holds(&other), "it was somewhere else");
        let mut anew = letter.clone();
        anew.record.value = Some("of a topic that was made anew".into());
        assert!(!known.holds(&anew), "it is another message");
        let mut anew = letter;
        anew.record.headers[6].value = Some("43".into());
        assert!(!known.holds(&anew), "it is of another message");
    }
}
