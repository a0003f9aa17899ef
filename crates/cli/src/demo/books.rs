//! An account of every message, kept from outside the worker: what was sent where, and what the
//! sinks, read back, say about it. Pure.
//!
//! A message is *lost* when its offset was committed and an output it should be in lacks it. One
//! whose offset was not committed is not lost: it is still in its topic.

use std::collections::BTreeMap;

use super::{
    handler::Answer,
    input::{Destination, Plan},
};

/// Where the broker put a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    partition: i32,
    offset: i64,
}

/// What is known of one message.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    place: Option<Place>,
    results: u32,
    lines: u32,
    letters: u32,
}

impl Account {
    fn is_seen(&self) -> bool {
        self.results > 0 || self.letters > 0
    }
}

/// One partition of the source topic: what the group committed, and where the partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Number of the partition.
    pub(crate) partition: i32,
    /// Next offset to read, as committed; 0 when nothing was.
    pub(crate) committed: i64,
    /// Next offset to be written.
    pub(crate) end: i64,
}

/// How the tasks ended, as the sinks tell it; each message once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    /// Answered by the first run.
    pub(crate) at_once: u64,
    /// Answered by a later run.
    pub(crate) retried: u64,
    /// Answered, although the program printed more than is kept.
    pub(crate) cut: u64,
    /// Answered without a run.
    pub(crate) precomputed: u64,
}

/// Where the run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Messages the broker has confirmed.
    pub(crate) sent: u64,
    /// Messages whose outcome was read from a sink.
    pub(crate) done: u64,
    /// Dead letters read.
    pub(crate) letters: u64,
}

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Message concerned; `None` for what belongs to no message.
    pub(crate) id: Option<u64>,
    /// What is wrong.
    pub(crate) what: String,
}

/// A dead letter as it was read.
pub(crate) struct Letter<'a> {
    /// Key of the record.
    pub(crate) key: &'a [u8],
    /// Value of the record.
    pub(crate) value: Option<&'a [u8]>,
    /// Header `drakkar-error-class`.
    pub(crate) class: &'a str,
}

/// The accounts.
pub(crate) struct Books {
    plan: Plan,
    accounts: Vec<Account>,
    sent: u64,
    done: u64,
    records: u64,
    lines: u64,
    letters: BTreeMap<String, u64>,
    tasks: Tasks,
    faults: Vec<Fault>,
}

impl Books {
    pub(crate) fn new(plan: Plan) -> Self {
        let count = usize::try_from(plan.messages()).unwrap_or(0);
        Self {
            plan,
            accounts: vec![Account::default(); count],
            sent: 0,
            done: 0,
            records: 0,
            lines: 0,
            letters: BTreeMap::new(),
            tasks: Tasks::default(),
            faults: Vec::new(),
        }
    }

    /// How many messages there will be.
    pub(crate) fn planned(&self) -> u64 {
        self.plan.messages()
    }

    /// Where the run stands.
    pub(crate) fn standing(&self) -> Standing {
        Standing { sent: self.sent, done: self.done, letters: self.letters.values().sum() }
    }

    /// The broker confirmed message `id`.
    pub(crate) fn sent(&mut self, id: u64, partition: i32, offset: i64) {
        if let Some(account) = self.account(id) {
            account.place = Some(Place { partition, offset });
            self.sent += 1;
        }
    }

    /// The broker did not take message `id`.
    pub(crate) fn refused(&mut self, id: u64, why: &str) {
        self.fault(Some(id), format!("could not be sent: {why}"));
    }

    /// A record of the results topic.
    pub(crate) fn result(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.records += 1;
        let Some(id) = self.identify(key, "a record of the results topic") else { return };
        let answer = match value.map(serde_json::from_slice::<Answer>) {
            None => None,
            Some(Ok(answer)) if answer.id == id => Some(answer),
            Some(_) => return self.fault(Some(id), "its result is not an answer to it".to_owned()),
        };
        self.check_answer(id, answer);
        if self.count(id, |account| &mut account.results) == 1 {
            match answer {
                None => self.tasks.precomputed += 1,
                Some(Answer { dropped, .. }) if dropped > 0 => self.tasks.cut += 1,
                Some(Answer { attempt: 1, .. }) => self.tasks.at_once += 1,
                Some(_) => self.tasks.retried += 1,
            }
        }
    }

    /// A line of the file.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        match serde_json::from_slice::<Answer>(line) {
            Ok(answer) if self.account(answer.id).is_some() => {
                self.check_answer(answer.id, Some(answer));
                self.count(answer.id, |account| &mut account.lines);
            }
            _ => {
                let text = String::from_utf8_lossy(line).into_owned();
                self.fault(None, format!("a line of the file answers to no message: {text}"));
            }
        }
    }

    /// A record of the dead-letter topic.
    pub(crate) fn letter(&mut self, letter: &Letter<'_>) {
        *self.letters.entry(letter.class.to_owned()).or_default() += 1;
        let Some(id) = self.identify(letter.key, "a dead letter") else { return };
        if self.plan.value(id).as_deref() != letter.value {
            self.fault(Some(id), "its dead letter is not what was sent".to_owned());
        }
        let expected = match self.plan.destination(id) {
            Destination::DeadLetters { class } => Some(class),
            Destination::Results { .. } | Destination::Deleted => None,
        };
        if expected != Some(letter.class) {
            self.fault(Some(id), format!("was dead-lettered because of {}", letter.class));
        }
        self.count(id, |account| &mut account.letters);
    }

    /// Closes the books. `is_complete`: everything was to be sent, processed and committed.
    pub(crate) fn balance(&self, positions: &[Position], is_complete: bool) -> Balance {
        let mut balance = Balance {
            planned: self.plan.messages(),
            sent: self.sent,
            records: self.records,
            lines: self.lines,
            letters: self.letters.clone(),
            tasks: self.tasks.clone(),
            positions: positions.to_vec(),
            duplicates: 0,
            unfinished: 0,
            lost: Vec::new(),
            faults: self.faults.clone(),
        };
        for (id, account) in (0_u64..).zip(&self.accounts) {
            balance.close(id, account, self.plan.destination(id));
        }
        if is_complete {
            balance.demand_everything();
        }
        balance
    }

    fn account(&mut self, id: u64) -> Option<&mut Account> {
        self.accounts.get_mut(usize::try_from(id).ok()?)
    }

    /// The message that a record belongs to, by its key.
    fn identify(&mut self, key: &[u8], record: &str) -> Option<u64> {
        let id = std::str::from_utf8(key).ok().and_then(|text| text.parse().ok());
        let known = id.filter(|id| self.account(*id).is_some());
        if known.is_none() {
            let key = String::from_utf8_lossy(key).into_owned();
            self.fault(None, format!("{record} belongs to no message; its key is {key:?}"));
        }
        known
    }

    /// Counts an output of `id`; how often that output was seen now.
    fn count(&mut self, id: u64, output: impl Fn(&mut Account) -> &mut u32) -> u32 {
        let Some(account) = self.account(id) else { return 0 };
        let was_seen = account.is_seen();
        *output(account) += 1;
        let (is_seen, times) = (account.is_seen(), *output(account));
        self.done += u64::from(is_seen && !was_seen);
        times
    }

    fn check_answer(&mut self, id: u64, answer: Option<Answer>) {
        let given = match answer {
            Some(Answer { answer, .. }) => Destination::Results { answer },
            None => Destination::Deleted,
        };
        let expected = self.plan.destination(id);
        if expected != given {
            self.fault(Some(id), format!("was delivered as {given:?} and not as {expected:?}"));
        }
    }

    fn fault(&mut self, id: Option<u64>, what: String) {
        self.faults.push(Fault { id, what });
    }
}

/// The closed books.
#[derive(Debug, Clone)]
pub(crate) struct Balance {
    /// Messages that were to be sent.
    pub(crate) planned: u64,
    /// Messages that the broker confirmed.
    pub(crate) sent: u64,
    /// Records in the results topic.
    pub(crate) records: u64,
    /// Lines in the file.
    pub(crate) lines: u64,
    /// Records in the dead-letter topic, by error class.
    pub(crate) letters: BTreeMap<String, u64>,
    /// How the tasks ended.
    pub(crate) tasks: Tasks,
    /// What was committed.
    pub(crate) positions: Vec<Position>,
    /// Outputs beyond the first of each message and sink.
    pub(crate) duplicates: u64,
    /// Messages that are not finished and not committed: the next worker would process them.
    pub(crate) unfinished: u64,
    /// Messages that were committed and are not where they should be.
    pub(crate) lost: Vec<u64>,
    /// What else should not be.
    pub(crate) faults: Vec<Fault>,
}

impl Balance {
    pub(crate) fn is_balanced(&self) -> bool {
        self.lost.is_empty() && self.faults.is_empty()
    }

    /// Messages that the group has behind it.
    pub(crate) fn consumed(&self) -> u64 {
        self.positions.iter().map(|at| u64::try_from(at.committed).unwrap_or(0)).sum()
    }

    fn close(&mut self, id: u64, account: &Account, destination: Destination) {
        let Account { place, results, lines, letters } = *account;
        self.duplicates +=
            [results, lines, letters].map(|n| u64::from(n.saturating_sub(1))).iter().sum::<u64>();
        let has_arrived = match destination {
            Destination::Results { .. } => results > 0 && lines > 0,
            Destination::Deleted => results > 0,
            Destination::DeadLetters { .. } => letters > 0,
        };
        let Some(place) = place else { return };
        let is_behind =
            |at: &&Position| at.partition == place.partition && place.offset < at.committed;
        match (has_arrived, self.positions.iter().find(is_behind)) {
            (false, Some(_)) => self.lost.push(id),
            (false, None) => self.unfinished += 1,
            (true, _) => {}
        }
    }

    fn demand_everything(&mut self) {
        let mut demand = |holds: bool, what: String| {
            if !holds {
                self.faults.push(Fault { id: None, what });
            }
        };
        demand(self.sent == self.planned, format!("sent {} of {}", self.sent, self.planned));
        demand(self.unfinished == 0, format!("{} messages are not finished", self.unfinished));
        for Position { partition, committed, end } in &self.positions {
            demand(
                committed == end,
                format!("partition {partition} ends at {end} and is committed up to {committed}"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
