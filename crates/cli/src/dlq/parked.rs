//! Which letters are in the parking topic: each copy there says what it is a copy of.

use std::collections::HashSet;

use drakkar::SourceMessage;

use super::{
    connect::{Kafka, READER},
    letter::{Letter, PARKED_FROM},
    read::Reader,
};

/// Letters of one dead-letter topic that were parked: 12 bytes each, while a command runs.
#[derive(Debug, Default)]
pub(super) struct Parked {
    from: HashSet<(i32, i64)>,
}

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
            parked.from.extend(source(&copy.record, &kafka.topic));
        }
        Ok(parked)
    }

    pub(super) fn holds(&self, letter: &Letter) -> bool {
        let record = &letter.record;
        self.from.contains(&(record.partition.partition, record.offset.0))
    }
}

/// Partition and offset of the letter in `topic` that this is a copy of.
fn source(copy: &SourceMessage, topic: &str) -> Option<(i32, i64)> {
    // The last: a parked letter may be parked again.
    let header = copy.headers.iter().rfind(|header| &*header.name == PARKED_FROM)?;
    let text = std::str::from_utf8(header.value.as_ref()?).ok()?;
    let mut parts = text.strip_prefix(topic)?.strip_prefix(':')?.split(':');
    let at = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(at)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fate::parked, letter::tests::letter},
        *,
    };

    #[test]
    fn a_parked_letter_is_known_by_where_it_was() {
        let letter = letter(&[]);
        let mut copy = letter.record.clone();
        copy.headers = parked(&letter, "orders_dlq_parked").headers;
        assert_eq!(source(&copy, "orders_dlq"), Some((1, 7)));
        assert_eq!(source(&copy, "orders"), None, "that is the beginning of another topic");
        assert_eq!(source(&letter.record, "orders_dlq"), None, "that was never parked");
    }
}
