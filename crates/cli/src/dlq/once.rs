//! Which messages a replay has sent: each goes once, however many of its tasks failed and wrote a letter.
//!
//! A message is known by its place and by all it holds: a topic that was made anew has others at the same
//! places. The letters of one message are written close together, so the last messages are enough; of one
//! that is forgotten, a later letter goes as well.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{letter::Letter, parked::content};

/// Messages that are remembered: some 30 MB.
const MOST: usize = 400_000;

/// Partition and offset of a message, and a hash of its topic and of all it holds.
type Trace = (i32, i64, u64);

/// The messages that were sent last.
#[derive(Debug)]
pub(super) struct Once {
    known: HashSet<Trace>,
    /// The same, the oldest first.
    order: VecDeque<Trace>,
    most: usize,
}

impl Default for Once {
    fn default() -> Self {
        Self { known: HashSet::new(), order: VecDeque::new(), most: MOST }
    }
}

impl Once {
    /// Whether the message of `letter` is to be sent: from now on it was. What no worker wrote is a message
    /// of its own.
    pub(super) fn admits(&mut self, letter: &Letter) -> bool {
        let Some(trace) = trace(letter) else { return true };
        if !self.known.insert(trace) {
            return false;
        }
        self.order.push_back(trace);
        if self.most < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn trace(letter: &Letter) -> Option<Trace> {
    let place = (letter.original_partition()?, letter.original_offset()?);
    let mut hasher = DefaultHasher::new();
    letter.original_topic()?.hash(&mut hasher);
    letter.original_timestamp().hash(&mut hasher);
    content(&letter.record, letter.original_headers()).hash(&mut hasher);
    Some((place.0, place.1, hasher.finish()))
}

#[cfg(test)]
mod tests {
    use drakkar::Header;

    use super::{super::letter::tests::letter, *};

    /// A letter of the message at this offset.
    fn at(offset: i64) -> Letter {
        let mut letter = letter(&[]);
        letter.record.headers[6].value = Some(offset.to_string().into());
        letter
    }

    #[test]
    fn letters_of_one_message_differ_in_why_and_messages_in_what_they_are() {
        let mut once = Once::default();
        assert!(once.admits(&at(1)));
        let mut why = at(1);
        why.record.headers[1] = Header::new("drakkar-error-class", "timeout");
        why.record.offset = drakkar::Offset(99);
        assert!(!once.admits(&why));
        let changed: [fn(&mut Letter); 6] = [
            |letter| letter.record.key = None,
            |letter| letter.record.value = None,
            |letter| letter.record.headers[4] = Header::new("drakkar-original-topic", "other"),
            |letter| letter.record.headers[5] = Header::new("drakkar-original-partition", "4"),
            |letter| letter.record.headers[7] = Header::new("drakkar-original-timestamp", "1701"),
            |letter| {
                letter.record.headers.insert(0, Header::new("a", "1"));
                letter.message += 1;
            },
        ];
        for change in changed {
            let mut other = at(1);
            change(&mut other);
            assert!(once.admits(&other), "{other:?}");
            assert!(!once.admits(&other));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten() {
        let mut once = Once { most: 2, ..Once::default() };
        for offset in [1, 2, 3] {
            assert!(once.admits(&at(offset)));
        }
        assert!(!once.admits(&at(2)) && !once.admits(&at(3)));
        assert!(once.admits(&at(1)));
        assert_eq!((once.known.len(), once.order.len()), (2, 2));
    }
}
