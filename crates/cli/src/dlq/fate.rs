//! Whether a letter goes back, is parked, or cannot be sent; and as what.

use drakkar::{Bytes, Header};

use super::{
    letter::{Letter, PARKED_FROM, REPLAYS},
    pass::Fate,
};

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub topic: String,
    /// Where the message was, if it goes back to where it was.
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

impl Outgoing {
    /// Bytes it occupies.
    pub(super) fn size(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|h| h.name.len() + of(&h.value)).sum();
        of(&self.key) + of(&self.value) + headers
    }
}

/// Where a record goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parcel {
    /// The message, to its topic again.
    Replay(Outgoing),
    /// The letter, to the parking topic.
    Park(Outgoing),
}

impl Parcel {
    pub(super) fn record(&self) -> &Outgoing {
        let (Self::Replay(record) | Self::Park(record)) = self;
        record
    }
}

/// What a replay is told.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    /// The topic for all messages; without it, the one each came from.
    pub to: Option<&'a str>,
    /// So often a message is replayed.
    pub max_replays: u32,
    /// What is replayed too often goes here.
    pub park_to: &'a str,
    /// Messages get the time at which they are sent, instead of their own.
    pub is_now: bool,
}

impl Rules<'_> {
    /// What becomes of `letter`, which is meant.
    pub(super) fn fate(&self, letter: &Letter) -> Fate<Parcel> {
        if self.max_replays <= letter.replays() {
            return park(letter, self.park_to);
        }
        if letter.ours("value-omitted").is_some() {
            return refused("its value was left out: read the message where it was");
        }
        if letter.original_headers().iter().any(|header| header.name.contains('\u{fffd}')) {
            return refused(
                "the name of one of its headers was not UTF-8 and is not known any more: read the \
                 message where it was",
            );
        }
        let timestamp = letter.original_timestamp().filter(|_| !self.is_now);
        if let Some(millis @ ..=0) = timestamp {
            // To the client 0 is "now"; brokers take none before it.
            return refused(&format!(
                "its timestamp is {millis}, which cannot be written again: --now sends it as one of now"
            ));
        }
        let original = letter.original_topic();
        let Some(topic) =
            self.to.map(str::to_owned).or_else(|| original.as_deref().map(str::to_owned))
        else {
            return refused("it does not say which topic it came from: give --to");
        };
        let partition = letter.original_partition().filter(|_| original.as_deref() == Some(&topic));
        Fate::Goes(Parcel::Replay(Outgoing {
            topic,
            partition,
            timestamp,
            key: letter.record.key.clone(),
            value: letter.record.value.clone(),
            headers: restored(letter),
        }))
    }
}

fn refused(why: &str) -> Fate<Parcel> {
    Fate::Refused(why.to_owned())
}

/// Whether `letter` can be parked in `topic`.
pub(super) fn park(letter: &Letter, topic: &str) -> Fate<Parcel> {
    if !letter.is_exact {
        return refused("the name of one of its headers is not UTF-8, and would be changed");
    }
    Fate::Goes(Parcel::Park(parked(letter, topic)))
}

/// The headers of the message, and how often it was replayed.
fn restored(letter: &Letter) -> Vec<Header> {
    let headers = letter.original_headers().iter().filter(|header| &*header.name != REPLAYS);
    let count = Header::new(REPLAYS, (letter.replays() + 1).to_string());
    headers.cloned().chain([count]).collect()
}

/// The letter as it is, and where it was.
pub(super) fn parked(letter: &Letter, topic: &str) -> Outgoing {
    let record = &letter.record;
    let from = Header::new(PARKED_FROM, record.coordinates());
    Outgoing {
        topic: topic.to_owned(),
        partition: None,
        timestamp: letter.time(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().cloned().chain([from]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::letter::tests::letter, *};

    const RULES: Rules<'_> =
        Rules { to: None, max_replays: 3, park_to: "orders_dlq_parked", is_now: false };

    fn replayed(fate: Fate<Parcel>) -> Outgoing {
        match fate {
            Fate::Goes(Parcel::Replay(record)) => record,
            other => panic!("{other:?}"),
        }
    }

    fn names(record: &Outgoing) -> Vec<&str> {
        record.headers.iter().map(|header| &*header.name).collect()
    }

    #[test]
    fn a_message_goes_back_as_it_was_with_a_counter() {
        let letter = letter(&[("a", "1"), ("drakkar-stage", "own"), ("a", "2")]);
        let record = replayed(RULES.fate(&letter));
        assert_eq!((record.topic.as_str(), record.partition), ("orders", Some(3)));
        assert_eq!(record.timestamp, Some(1_700));
        assert_eq!((&record.key, &record.value), (&letter.record.key, &letter.record.value));
        assert_eq!(record.headers[..3], letter.record.headers[..3]);
        assert_eq!(record.headers[3..], [Header::new(REPLAYS, "1")]);
    }

    #[test]
    fn a_timestamp_that_cannot_be_written_again_is_not_taken_for_now_unless_that_is_wanted() {
        for millis in ["0", "-5"] {
            let mut letter = letter(&[]);
            letter.record.headers[7] = Header::new("drakkar-original-timestamp", millis);
            let fate = RULES.fate(&letter);
            assert!(matches!(&fate, Fate::Refused(why) if why.contains(millis)), "{fate:?}");
            let now = Rules { is_now: true, ..RULES };
            assert_eq!(replayed(now.fate(&letter)).timestamp, None);
        }
    }

    #[test]
    fn a_null_value_and_null_headers_stay_null() {
        let mut letter = letter(&[("a", "1")]);
        letter.record.key = None;
        letter.record.value = None;
        letter.record.headers[0].value = None;
        let record = replayed(RULES.fate(&letter));
        assert_eq!((record.key, record.value), (None, None));
        assert_eq!(record.headers[0], Header { name: "a".into(), value: None });
    }

    #[test]
    fn the_counter_is_carried_on_and_never_doubled() {
        let record = replayed(RULES.fate(&letter(&[("drakkar-replays", "1"), ("a", "1")])));
        assert_eq!(names(&record), ["a", REPLAYS]);
        assert_eq!(record.headers[1], Header::new(REPLAYS, "2"));
    }

    #[test]
    fn after_so_many_rounds_the_letter_is_parked_whole() {
        let letter = letter(&[("a", "1"), (REPLAYS, "3")]);
        let Fate::Goes(Parcel::Park(record)) = RULES.fate(&letter) else { panic!("not parked") };
        assert_eq!((record.topic.as_str(), record.partition), ("orders_dlq_parked", None));
        let (from, before) = record.headers.split_last().unwrap();
        assert_eq!(before, letter.record.headers);
        assert_eq!(*from, Header::new(PARKED_FROM, "orders_dlq:1:7"));
        assert_eq!(record.timestamp, letter.time());
    }

    #[test]
    fn another_topic_chooses_its_own_partition() {
        let rules = Rules { to: Some("elsewhere"), ..RULES };
        let record = replayed(rules.fate(&letter(&[])));
        assert_eq!((record.topic.as_str(), record.partition), ("elsewhere", None));
    }

    #[test]
    fn a_letter_without_the_value_of_its_message_does_not_go_back() {
        let mut record = letter(&[("a", "1")]).record;
        record.headers.push(Header::new("drakkar-value-omitted", "12"));
        let fate = RULES.fate(&Letter::new(record));
        assert!(matches!(fate, Fate::Refused(_)), "it would be another message: {fate:?}");
    }

    #[test]
    fn a_header_whose_name_is_not_known_any_more_is_not_sent_under_another() {
        // The worker wrote it so: the letter can be parked as it is, the message is another one.
        let changed = letter(&[("a\u{fffd}", "1")]);
        assert!(matches!(RULES.fate(&changed), Fate::Refused(_)));
        assert!(matches!(park(&changed, "orders_dlq_parked"), Fate::Goes(Parcel::Park(_))));
        // What is in the topic is not UTF-8: nothing that is read of it can be written again.
        let foreign = Letter { is_exact: false, ..letter(&[("a\u{fffd}", "1")]) };
        for fate in [RULES.fate(&foreign), park(&foreign, "orders_dlq_parked")] {
            assert!(matches!(&fate, Fate::Refused(why) if why.contains("UTF-8")), "{fate:?}");
        }
        let again = Letter { is_exact: false, ..letter(&[(REPLAYS, "3")]) };
        assert!(matches!(RULES.fate(&again), Fate::Refused(_)), "it is too old to be replayed");
    }

    #[test]
    fn a_record_that_names_no_topic_needs_one_to_be_given() {
        let mut record = letter(&[]).record;
        record.headers.clear();
        let foreign = Letter::new(record);
        assert!(matches!(RULES.fate(&foreign), Fate::Refused(_)));
        let rules = Rules { to: Some("elsewhere"), ..RULES };
        assert_eq!(replayed(rules.fate(&foreign)).topic, "elsewhere");
    }
}
