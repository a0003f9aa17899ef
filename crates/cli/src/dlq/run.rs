//! One pass over letters: each has its fate, what is sent is confirmed in batches, and progress is
//! committed behind it.
//!
//! Progress never passes a letter that was not confirmed, parked, named as refused, or left out by
//! the filters. A batch is small, so that little is sent twice after a crash.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use super::{
    Ended,
    args::Pace,
    bar::{Bar, clear},
    connect::{Client, Kafka},
    fate::{Fate, Outgoing},
    letter::Letter,
    pace::Pacer,
    progress::Progress,
    read::Reader,
    send::{self, Sender},
    stop::Stop,
};

/// Letters of a batch, at most.
const BATCH: usize = 500;

/// Bytes of a batch; a larger letter is a batch by itself.
const BATCH_BYTES: usize = 8 << 20;

/// A batch is confirmed at the latest after this.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// How many letters met which fate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub replayed: u64,
    pub parked: u64,
    pub unmatched: u64,
    pub parked_before: u64,
    pub refused: u64,
}

/// A letter that was given to a client.
struct Sent {
    at: (i32, i64),
    record: Outgoing,
    is_parked: bool,
}

/// Where records go: a cluster, and what is known of its topics.
struct Target {
    sender: Sender,
    client: Client,
    topics: HashMap<String, usize>,
}

impl Target {
    /// Sees that the topic of `record` exists, and its partition.
    fn check(&mut self, record: &mut Outgoing) -> anyhow::Result<()> {
        let count = if let Some(&count) = self.topics.get(&record.topic) {
            count
        } else {
            let Some(partitions) = self.client.partitions(&record.topic)? else {
                bail!("there is no topic {}: make it, and run this again", record.topic);
            };
            self.topics.insert(record.topic.clone(), partitions.len());
            partitions.len()
        };
        // The topic was made anew with fewer: the key decides.
        record.partition =
            record.partition.filter(|&one| usize::try_from(one).is_ok_and(|one| one < count));
        Ok(())
    }
}

/// The pass.
pub(super) struct Run<'a> {
    pace: &'a Pace,
    stop: &'a Stop,
    progress: Option<Progress>,
    source: Target,
    parking: Target,
    batch: Vec<Sent>,
    batch_bytes: usize,
    batch_begun: Instant,
    /// Up to where every partition was seen to, once the batch is confirmed.
    passed: BTreeMap<i32, i64>,
    pacer: Pacer,
    tally: Tally,
}

impl<'a> Run<'a> {
    /// A pass that keeps its progress, if it has one to keep.
    pub(super) fn new(
        kafka: &Kafka,
        pace: &'a Pace,
        stop: &'a Stop,
        progress: Option<Progress>,
    ) -> anyhow::Result<Self> {
        let target = |sender, client| Target { sender, client, topics: HashMap::new() };
        let source = Sender::new(&kafka.source, kafka.timeout)?;
        let parking = Sender::new(&kafka.letters, kafka.timeout)?;
        let now = Instant::now();
        Ok(Self {
            pace,
            stop,
            progress: progress.filter(|_| !pace.dry_run),
            source: target(source, kafka.source_consumer()?),
            parking: target(parking, kafka.consumer(super::connect::READER)?),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_begun: now,
            passed: BTreeMap::new(),
            pacer: Pacer::new(pace),
            tally: Tally::default(),
        })
    }

    /// Gives every letter that `reader` reads the fate that `decide` says.
    ///
    /// # Errors
    ///
    /// After what was confirmed before is committed.
    pub(super) fn go(
        mut self,
        reader: &mut Reader,
        decide: impl Fn(&Letter) -> Fate,
    ) -> (anyhow::Result<Ended>, Tally) {
        let outcome = self.pass(reader, decide);
        let settled = self.settle(reader);
        clear();
        let ended = outcome.and(settled).map(|()| match self.tally.refused {
            _ if self.stop.is_set() => Ended::Interrupted,
            0 => Ended::Done,
            _ => Ended::Partly,
        });
        (ended, self.tally)
    }

    fn pass(
        &mut self,
        reader: &mut Reader,
        decide: impl Fn(&Letter) -> Fate,
    ) -> anyhow::Result<()> {
        let mut bar = Bar::new(reader.left());
        let mut sent = 0;
        while self.pace.limit.is_none_or(|limit| sent < limit) {
            let Tally { replayed, parked, .. } = self.tally;
            bar.show(reader.left(), || format!("{replayed} replayed, {parked} parked"));
            let Some(record) = reader.next(|| self.stop.is_set())? else { break };
            let letter = Letter::new(record);
            match decide(&letter) {
                Fate::Unmatched => self.tally.unmatched += 1,
                Fate::ParkedBefore => self.tally.parked_before += 1,
                Fate::Refused(why) => self.refuse(&letter.record.coordinates(), why),
                Fate::Replay(record) => {
                    if !self.may_send(reader)? {
                        break;
                    }
                    self.send(&letter, record, false)?;
                    sent += 1;
                }
                Fate::Park(record) => {
                    if !self.may_send(reader)? {
                        break;
                    }
                    self.send(&letter, record, true)?;
                    sent += 1;
                }
            }
            let at = &letter.record;
            self.passed.insert(at.partition.partition, at.offset.next().0);
            if self.is_full() {
                self.settle(reader)?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, coordinates: &str, why: &str) {
        self.tally.refused += 1;
        clear();
        eprintln!("{coordinates} is not sent: {why}");
    }

    /// Waits until the rate allows another letter; false when told to stop meanwhile.
    fn may_send(&mut self, reader: &Reader) -> anyhow::Result<bool> {
        if BATCH_TIME < self.pacer.wait() {
            self.settle(reader)?; // Nothing waits for its confirmation while we wait.
        }
        Ok(self.pacer.pass(self.stop))
    }

    fn send(
        &mut self,
        letter: &Letter,
        mut record: Outgoing,
        is_parked: bool,
    ) -> anyhow::Result<()> {
        let target = if is_parked { &mut self.parking } else { &mut self.source };
        let coordinates = letter.record.coordinates();
        target.check(&mut record).with_context(|| format!("cannot send {coordinates}"))?;
        if self.pace.dry_run {
            clear();
            let message =
                letter.original().unwrap_or_else(|| "a record of somebody else".to_owned());
            let verb = if is_parked { "parked in" } else { "sent to" };
            let line = format!("{coordinates} ({message}) would be {verb} {}", record.topic);
            writeln!(std::io::stdout(), "{line}")?;
            self.count(is_parked);
            return Ok(());
        }
        target.sender.send(self.batch.len(), &record);
        self.batch_bytes += record.size();
        let at = (letter.record.partition.partition, letter.record.offset.0);
        self.batch.push(Sent { at, record, is_parked });
        Ok(())
    }

    fn count(&mut self, is_parked: bool) {
        *(if is_parked { &mut self.tally.parked } else { &mut self.tally.replayed }) += 1;
    }

    fn is_full(&self) -> bool {
        BATCH <= self.batch.len()
            || BATCH_BYTES <= self.batch_bytes
            || BATCH_TIME <= self.batch_begun.elapsed()
    }

    /// Waits for the answers to the batch and commits behind it.
    fn settle(&mut self, reader: &Reader) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let mut passed = std::mem::take(&mut self.passed);
        self.batch_bytes = 0;
        self.batch_begun = Instant::now();
        let mut failed: BTreeMap<usize, Code> = BTreeMap::new();
        if !batch.is_empty() {
            for target in [&self.source, &self.parking] {
                failed.extend(target.sender.settle()?);
            }
        }
        let mut first = None;
        for (index, sent) in batch.iter().enumerate() {
            let Some(code) = failed.get(&index) else {
                self.count(sent.is_parked);
                continue;
            };
            match self.alone(*code, sent)? {
                None => self.count(sent.is_parked),
                Some(code) if send::is_permanent(code) => {
                    let letter = format!("{}:{}:{}", reader.topic(), sent.at.0, sent.at.1);
                    self.refuse(
                        &letter,
                        &format!("{} does not take it: {code}", sent.record.topic),
                    );
                }
                Some(code) => {
                    // What is behind it is read again; what is before it is not.
                    let (partition, offset) = sent.at;
                    let passed = passed.entry(partition).or_insert(offset);
                    *passed = offset.min(*passed);
                    first.get_or_insert((code, sent));
                }
            }
        }
        if let Some(progress) = &self.progress {
            progress.commit(&reader.client, &passed)?;
        }
        match first {
            None => Ok(()),
            Some((code, sent)) => bail!(
                "{} did not confirm partition {}, offset {}: {code}",
                sent.record.topic,
                sent.at.0,
                sent.at.1
            ),
        }
    }

    /// Sends a record by itself where the answer may have been about a neighbour.
    fn alone(&self, code: Code, sent: &Sent) -> anyhow::Result<Option<Code>> {
        if !send::is_shared(code) {
            return Ok(Some(code));
        }
        let target = if sent.is_parked { &self.parking } else { &self.source };
        target.sender.send(0, &sent.record);
        Ok(target.sender.settle()?.first().map(|(_, code)| *code))
    }
}
