//! One pass over letters: each has its fate, what goes is confirmed in batches, and progress is
//! committed behind it. Where to is the [`Destination`]'s to know.
//!
//! Progress never passes a letter that is meant, unless it was confirmed or named. A batch is small, so
//! that little is sent twice after a crash.

use std::{collections::BTreeMap, io::Write as _, mem::take, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::time::Instant;

use super::{
    Ended,
    args::{Choice, Pace},
    bar::{Bar, clear},
    filter::Meant,
    letter::Letter,
    pace::Pacer,
    parked::Parked,
    progress::Progress,
    read::Reader,
    stop::Stop,
};
use crate::say::say;

/// Letters of a batch, at most.
pub(super) const BATCH: usize = 500;

/// Bytes of a batch; a larger letter is a batch by itself.
const BATCH_BYTES: usize = 8 << 20;

/// What becomes of a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate<P> {
    /// This goes.
    Goes(P),
    /// It is none of those that are meant.
    Unmatched,
    /// It will be meant when it is older.
    TooYoung,
    /// It is in the parking topic already.
    ParkedBefore,
    /// Another letter carries what would go.
    Elsewhere,
    /// There is nothing that could go; why.
    Without(String),
    /// It must not go; why.
    Refused(String),
    /// It carries what this command does not understand, a newer one may; why.
    Unreadable(String),
}

/// What became of a letter that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Confirmed,
    /// Not taken for what it is; why.
    Refused(String),
    /// Nobody knows; why. The next run begins with it.
    Unsettled(String),
}

/// Where letters go.
pub(super) trait Destination {
    /// What of a letter goes there.
    type Parcel;

    /// A batch is confirmed at the latest after this.
    const BATCH_TIME: Duration;

    /// What becomes of `letter`, which was read behind those that were asked about before.
    fn fate(&mut self, letter: &Letter) -> Fate<Self::Parcel>;

    /// Which way `parcel` goes.
    fn way(parcel: &Self::Parcel) -> Way;

    /// What would be done with `parcel`.
    fn would(parcel: &Self::Parcel) -> String;

    /// Bytes it occupies.
    fn size(parcel: &Self::Parcel) -> usize;

    /// Sees that `parcel` can go, before anything is done with it.
    fn check(&mut self, parcel: &mut Self::Parcel) -> anyhow::Result<()>;

    /// `parcel` is number `index` of the batch: it may set out.
    fn begin(&self, index: usize, parcel: &Self::Parcel);

    /// Letters of the next batch, at most.
    fn at_once(&self) -> usize;

    /// An answer for each of the batch.
    fn settle(&mut self, batch: Vec<Self::Parcel>) -> anyhow::Result<Vec<Answer>>;

    /// Nothing goes there any more.
    fn close(self);
}

/// What a letter is counted as when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Delivered,
    Replayed,
    Parked,
}

/// How many letters met which fate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub delivered: u64,
    pub replayed: u64,
    pub parked: u64,
    pub unmatched: u64,
    /// Partitions of which the rest is for a later run.
    pub too_young: u64,
    pub parked_before: u64,
    pub elsewhere: u64,
    pub without: u64,
    pub refused: u64,
    pub unreadable: u64,
}

impl Tally {
    fn arrived(&mut self, way: Way) {
        *(match way {
            Way::Delivered => &mut self.delivered,
            Way::Replayed => &mut self.replayed,
            Way::Parked => &mut self.parked,
        }) += 1;
    }
}

/// Which letters are seen to, how fast, and what ends it.
pub(super) struct Orders<'a> {
    pub pace: &'a Pace,
    pub choice: &'a Choice,
    /// These are left out.
    pub parked: Parked,
    pub stop: &'a Stop,
    /// The first letter that is refused or cannot be read ends the pass.
    pub stops_at_first: bool,
    /// What those that do not go are said not to be.
    pub verb: &'static str,
}

/// A letter on its way.
struct Sent {
    at: (i32, i64),
    coordinates: String,
    way: Way,
}

/// The pass.
pub(super) struct Pass<'a, D: Destination> {
    orders: Orders<'a>,
    progress: Option<Progress>,
    /// Whether a later run goes on where this one ends, or would if this one were no dry run.
    goes_on: bool,
    to: D,
    sent: Vec<Sent>,
    /// What of them goes, in the same order.
    batch: Vec<D::Parcel>,
    batch_bytes: usize,
    batch_begun: Instant,
    /// Up to where every partition was seen to, once the batch is confirmed.
    passed: BTreeMap<i32, i64>,
    pacer: Pacer,
    tally: Tally,
}

impl<'a, D: Destination> Pass<'a, D> {
    /// A pass that keeps its progress, if it has one to keep.
    pub(super) fn new(orders: Orders<'a>, progress: Option<Progress>, to: D) -> Self {
        Self {
            goes_on: progress.is_some(),
            progress: progress.filter(|_| !orders.pace.dry_run),
            pacer: Pacer::new(orders.pace),
            orders,
            to,
            sent: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_begun: Instant::now(),
            passed: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Gives every letter that `reader` reads its fate.
    ///
    /// # Errors
    ///
    /// After what was confirmed before is committed.
    pub(super) fn go(mut self, reader: &mut Reader) -> (anyhow::Result<Ended>, Tally) {
        let outcome = self.read(reader);
        // What a failed batch left is not there any more.
        let settled = self.settle(reader);
        self.to.close();
        clear();
        let Tally { refused, unreadable, without, .. } = self.tally;
        let ended = outcome.and(settled).map(|()| match refused + unreadable + without {
            _ if self.orders.stop.is_set() => Ended::Interrupted,
            0 => Ended::Done,
            _ => Ended::Partly,
        });
        (ended, self.tally)
    }

    /// Lets the destination see what earlier runs sent.
    pub(super) fn recall(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        while let Some(letter) = reader.next(|| self.orders.stop.is_set())? {
            self.fate(&letter);
        }
        Ok(())
    }

    fn read(&mut self, reader: &mut Reader) -> anyhow::Result<()> {
        let mut bar = Bar::new(reader.left());
        let mut taken = 0;
        while self.orders.pace.limit.is_none_or(|limit| taken < limit) {
            let Tally { delivered, replayed, parked, refused, .. } = self.tally;
            bar.show(reader.left(), || {
                format!(
                    "{} {}, {parked} parked, {refused} refused",
                    delivered + replayed,
                    self.orders.verb
                )
            });
            let Some(letter) = reader.next(|| self.orders.stop.is_set())? else { break };
            match self.fate(&letter) {
                Fate::TooYoung if self.goes_on => {
                    // The next run must find it, so what is behind it waits as well.
                    self.tally.too_young += 1;
                    reader.leave_partition();
                    continue;
                }
                Fate::Unmatched | Fate::TooYoung => self.tally.unmatched += 1,
                Fate::ParkedBefore => self.tally.parked_before += 1,
                Fate::Elsewhere => self.tally.elsewhere += 1,
                Fate::Without(why) => {
                    self.tally.without += 1;
                    self.name(&letter.record.coordinates(), &why);
                }
                Fate::Refused(why) => {
                    self.tally.refused += 1;
                    self.name(&letter.record.coordinates(), &why);
                }
                Fate::Unreadable(why) => self.stumble(reader, &letter, &why)?,
                Fate::Goes(parcel) => {
                    if D::BATCH_TIME < self.pacer.wait() {
                        self.settle(reader)?; // Nothing waits for its confirmation while we wait.
                    }
                    if !self.pacer.pass(self.orders.stop) {
                        break;
                    }
                    self.take(&letter, parcel)?;
                    taken += 1;
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

    fn fate(&mut self, letter: &Letter) -> Fate<D::Parcel> {
        match self.orders.choice.meant(letter) {
            Meant::No => Fate::Unmatched,
            Meant::Yes | Meant::Later if self.orders.parked.holds(letter) => Fate::ParkedBefore,
            Meant::Later => Fate::TooYoung,
            Meant::Yes => self.to.fate(letter),
        }
    }

    /// A letter that cannot be read stops as one that is refused does.
    fn stumble(&mut self, reader: &Reader, letter: &Letter, why: &str) -> anyhow::Result<()> {
        let stops = self.orders.stops_at_first && !self.orders.pace.dry_run;
        if stops {
            // What is before it may stop first.
            self.settle(reader)?;
        }
        let coordinates = letter.record.coordinates();
        self.tally.unreadable += 1;
        self.name(&coordinates, why);
        if stops { Err(stopped_at(&coordinates)) } else { Ok(()) }
    }

    fn take(&mut self, letter: &Letter, mut parcel: D::Parcel) -> anyhow::Result<()> {
        let coordinates = letter.record.coordinates();
        self.to.check(&mut parcel).with_context(|| format!("cannot send {coordinates}"))?;
        if self.orders.pace.dry_run {
            clear();
            let message =
                letter.original().unwrap_or_else(|| "a record of somebody else".to_owned());
            let would = D::would(&parcel);
            writeln!(std::io::stdout(), "{coordinates} ({message}) would be {would}")?;
            self.tally.arrived(D::way(&parcel));
            return Ok(());
        }
        self.to.begin(self.batch.len(), &parcel);
        self.batch_bytes += D::size(&parcel);
        let at = (letter.record.partition.partition, letter.record.offset.0);
        self.sent.push(Sent { at, coordinates, way: D::way(&parcel) });
        self.batch.push(parcel);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.to.at_once() <= self.batch.len()
            || BATCH_BYTES <= self.batch_bytes
            || D::BATCH_TIME <= self.batch_begun.elapsed()
    }

    /// Waits for the answers to the batch and commits behind it.
    fn settle(&mut self, reader: &Reader) -> anyhow::Result<()> {
        let (batch, mut passed) = (take(&mut self.batch), take(&mut self.passed));
        self.batch_bytes = 0;
        self.batch_begun = Instant::now();
        let sent = take(&mut self.sent);
        let answers = if batch.is_empty() { Vec::new() } else { self.to.settle(batch)? };
        let mut stop = None;
        for (Sent { at, coordinates, way }, answer) in sent.into_iter().zip(answers) {
            let why = match answer {
                Answer::Confirmed => {
                    self.tally.arrived(way);
                    continue;
                }
                Answer::Refused(why) => {
                    self.tally.refused += 1;
                    self.name(&coordinates, &why);
                    if !self.orders.stops_at_first {
                        continue;
                    }
                    stopped_at(&coordinates)
                }
                Answer::Unsettled(why) => {
                    anyhow!("stopped at {coordinates}: {why}; the next run begins with it")
                }
            };
            // What is behind it is read again; what is before it is not.
            let (partition, offset) = at;
            let passed = passed.entry(partition).or_insert(offset);
            *passed = offset.min(*passed);
            stop.get_or_insert(why);
        }
        if let Some(progress) = &self.progress {
            progress.commit(&reader.client, &passed)?;
        }
        stop.map_or(Ok(()), Err)
    }

    /// Says why a letter does not go.
    fn name(&self, coordinates: &str, why: &str) {
        clear();
        say(&format!("{coordinates} is not {}: {why}", self.orders.verb));
    }
}

fn stopped_at(letter: &str) -> anyhow::Error {
    anyhow!(
        "stopped at {letter}: the next run begins with it; --keep-going passes over what is refused or \
         cannot be read"
    )
}
