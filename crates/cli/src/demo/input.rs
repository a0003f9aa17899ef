//! What the demo sends, and what must become of each message. Pure: an id says everything.
//!
//! Most messages are words to count with `wc -w`. A few, spread over the run, are trouble made on
//! purpose.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes that a task of [`Kind::Floods`] prints: many times what is captured.
pub(crate) const FLOOD_BYTES: u64 = 4 << 20;

/// Fewest messages: room for all the trouble.
pub(crate) const MIN_MESSAGES: u64 = 100;

/// Most messages: the account of each of them is kept in memory.
pub(crate) const MAX_MESSAGES: u64 = 1_000_000;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Its words are counted.
    Plain,
    /// Its first run fails, the second one counts its words.
    FailsOnce,
    /// Every run ends with exit code 3.
    Fails,
    /// Its program never ends.
    Hangs,
    /// Its program never ends and ignores TERM.
    IgnoresTerm,
    /// Its program prints [`FLOOD_BYTES`].
    Floods,
    /// Its value is not JSON.
    Invalid,
    /// It has no value.
    Tombstone,
}

/// How often each kind of trouble is made.
const TROUBLE: [(Kind, usize); 7] = [
    (Kind::Fails, 5),
    (Kind::FailsOnce, 5),
    (Kind::Floods, 3),
    (Kind::Hangs, 3),
    (Kind::Invalid, 3),
    (Kind::IgnoresTerm, 1),
    (Kind::Tombstone, 1),
];

/// Where a message must arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// In the results topic and in the file, with this answer.
    Results {
        /// Words counted or bytes printed.
        answer: u64,
    },
    /// In the results topic, as a tombstone.
    Deleted,
    /// In the dead-letter topic, with this error class.
    DeadLetters {
        /// Header `drakkar-error-class`.
        class: &'static str,
    },
}

/// What the handler is asked to do; the value of a message as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Number of the message, from 0.
    pub(crate) id: u64,
    /// What to do with the words.
    pub(crate) action: Action,
    /// The words.
    pub(crate) words: String,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Count the words.
    Count,
    /// Fail, then count the words.
    FailOnce,
    /// Fail.
    Fail,
    /// Never end.
    Hang,
    /// Never end, and ignore TERM.
    IgnoreTerm,
    /// Print too much.
    Flood,
}

/// All messages of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    messages: u64,
    trouble: BTreeMap<u64, Kind>,
}

impl Plan {
    /// Plans `messages` messages.
    ///
    /// # Errors
    ///
    /// When there are too few for all the trouble, or too many to account for.
    pub(crate) fn new(messages: u64) -> Result<Self, String> {
        if messages < MIN_MESSAGES {
            return Err(format!(
                "--messages {messages} is too few: some fail on purpose, and at least {MIN_MESSAGES} \
                 are needed to show that the others do not mind"
            ));
        }
        if MAX_MESSAGES < messages {
            return Err(format!(
                "--messages {messages} is too many: the demo keeps an account of every message in \
                 memory, beside a broker that holds 5 MiB per partition; at most {MAX_MESSAGES}"
            ));
        }
        // Round robin over the kinds, so that equal troubles do not stand side by side.
        let most = TROUBLE.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let kinds: Vec<Kind> = (0..most)
            .flat_map(|round| TROUBLE.iter().filter(move |(_, count)| round < *count))
            .map(|(kind, _)| *kind)
            .collect();
        let spread = (0..).map(|index| (2 * index + 1) * messages / (2 * kinds.len() as u64));
        let trouble = spread.zip(kinds.iter().copied()).collect();
        Ok(Self { messages, trouble })
    }

    /// How many messages there are; ids are below it.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// What message `id` is for.
    pub(crate) fn kind(&self, id: u64) -> Kind {
        self.trouble.get(&id).copied().unwrap_or(Kind::Plain)
    }

    /// The value of message `id`.
    pub(crate) fn value(&self, id: u64) -> Option<Vec<u8>> {
        let action = match self.kind(id) {
            Kind::Tombstone => return None,
            Kind::Invalid => return Some(format!("{{\"id\":{id},\"action\":").into_bytes()),
            Kind::Plain => Action::Count,
            Kind::FailsOnce => Action::FailOnce,
            Kind::Fails => Action::Fail,
            Kind::Hangs => Action::Hang,
            Kind::IgnoresTerm => Action::IgnoreTerm,
            Kind::Floods => Action::Flood,
        };
        // Numbers and plain words always serialise.
        serde_json::to_vec(&Request { id, action, words: words(id) }).ok()
    }

    /// Where message `id` must arrive.
    pub(crate) fn destination(&self, id: u64) -> Destination {
        match self.kind(id) {
            Kind::Plain | Kind::FailsOnce => Destination::Results { answer: word_count(id) },
            Kind::Floods => Destination::Results { answer: FLOOD_BYTES },
            Kind::Tombstone => Destination::Deleted,
            Kind::Fails => Destination::DeadLetters { class: "exit_code" },
            Kind::Hangs | Kind::IgnoresTerm => Destination::DeadLetters { class: "timeout" },
            Kind::Invalid => Destination::DeadLetters { class: "invalid_value" },
        }
    }
}

fn word_count(id: u64) -> u64 {
    3 + id % 13
}

fn words(id: u64) -> String {
    const LEXICON: [&str; 7] = ["oar", "sail", "keel", "mast", "rudder", "prow", "anchor"];
    let word = |at: u64| LEXICON[usize::try_from(at % 7).unwrap_or(0)];
    let words: Vec<&str> = (0..word_count(id)).map(|index| word(id / 3 + index)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_holds_all_the_trouble() {
        for messages in [MIN_MESSAGES, 300, 20_000, MAX_MESSAGES] {
            let plan = Plan::new(messages).unwrap();
            for (kind, count) in TROUBLE {
                let ids = plan
                    .trouble
                    .iter()
                    .filter(|(id, planned)| **planned == kind && **id < messages);
                assert_eq!(ids.count(), count, "{kind:?} of {messages}");
            }
        }
    }

    #[test]
    fn sizes_that_cannot_be_shown_are_refused() {
        assert!(Plan::new(MIN_MESSAGES - 1).is_err());
        assert!(Plan::new(MAX_MESSAGES + 1).is_err());
    }

    #[test]
    fn a_value_holds_as_many_words_as_its_answer_says() {
        let plan = Plan::new(200).unwrap();
        for id in (0..200).filter(|id| plan.kind(*id) == Kind::Plain) {
            let request: Request = serde_json::from_slice(&plan.value(id).unwrap()).unwrap();
            let answer = request.words.split(' ').count() as u64;
            assert_eq!(plan.destination(id), Destination::Results { answer });
        }
    }

    #[test]
    fn invalid_values_are_no_requests_and_a_tombstone_has_none() {
        let plan = Plan::new(200).unwrap();
        let of = |kind| (0..200).find(|id| plan.kind(*id) == kind).unwrap();
        let invalid = plan.value(of(Kind::Invalid)).unwrap();
        assert!(serde_json::from_slice::<Request>(&invalid).is_err());
        assert_eq!(plan.value(of(Kind::Tombstone)), None);
    }
}
