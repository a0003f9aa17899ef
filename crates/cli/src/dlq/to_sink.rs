//! Refused payloads to the sinks that refused them, without running a task again.
//!
//! Progress never passes a letter of which a payload was not confirmed, unless it was named and the
//! command was told to go on. Nothing is written but what the sinks take.

use std::{collections::BTreeMap, io::Write as _, mem::take, time::Duration};

use anyhow::anyhow;
use drakkar_core::Payload;
use tokio::time::Instant;

use super::{
    Ended,
    args::Replay,
    bar::{Bar, clear},
    connect::{Kafka, configuration},
    letter::Letter,
    pace::Pacer,
    parked::Parked,
    progress::Progress,
    read::Reader,
    replay::{Begun, rest, rows, tell},
    stop::Stop,
};
use desk::Desk;

mod desk; // the sinks of a configuration

/// Letters of a batch, at most.
const BATCH: usize = 500;

/// Bytes of a batch; a larger letter is a batch by itself.
const BATCH_BYTES: usize = 8 << 20;

/// A batch is delivered at the latest after this.
const BATCH_TIME: Duration = Duration::from_millis(200);

/// What becomes of a letter.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The filters leave it out, or it is not about a delivery.
    Unmatched,
    /// It is in the parking topic.
    ParkedBefore,
    /// The letter of another message carries its payloads.
    Elsewhere,
    /// These are delivered.
    Deliver(Vec<Payload>),
    /// It carries none; why.
    Without(String),
    /// It carries what this command does not understand, a newer one may; why.
    Unreadable(String),
}

/// What becomes of a letter that is meant.
fn fate(letter: &Letter) -> Fate {
    if letter.ours("stage").as_deref() != Some("deliver") {
        return Fate::Unmatched;
    }
    if letter.ours("payload-with").is_some() {
        return Fate::Elsewhere;
    }
    if let Some(bytes) = letter.ours("payload-omitted") {
        return Fate::Without(format!("the payloads ({bytes} bytes) were left out of it"));
    }
    let payloads: Result<Vec<Payload>, _> =
        letter.payloads().into_iter().map(serde_json::from_slice).collect();
    match payloads {
        Ok(none) if none.is_empty() => Fate::Without("it carries no payload".to_owned()),
        Ok(payloads) => Fate::Deliver(payloads),
        Err(error) => Fate::Unreadable(format!("its payload cannot be read: {error}")),
    }
}

pub(super) fn replay(args: &Replay) -> anyhow::Result<Ended> {
    let config = configuration(&args.place)?;
    let kafka = Kafka::read(&args.place, &config)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}.to-sink", kafka.topic));
    let Begun { stop, progress, mut reader, parked, .. } = Begun::new(args, &kafka, &name)?;
    let desk = if args.pace.dry_run { None } else { Some(Desk::open(config, kafka.timeout)?) };
    let mut run = Run {
        args,
        stop: &stop,
        progress: &progress,
        desk: desk.as_ref(),
        batch: Batch::default(),
        at_once: 1,
        pacer: Pacer::new(&args.pace),
        tally: Tally::default(),
    };
    let ended = run.go(&mut reader, &parked);
    let mut lines = run.tally.summary(args.pace.dry_run);
    lines.extend(rest(args, &reader, &ended));
    if let Some(desk) = desk {
        desk.close();
    }
    tell(&lines);
    ended
}

/// How many letters met which fate.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    delivered: u64,
    refused: u64,
    unreadable: u64,
    without: u64,
    elsewhere: u64,
    unmatched: u64,
    parked_before: u64,
}

impl Tally {
    fn summary(self, dry_run: bool) -> Vec<String> {
        let would = if dry_run { "would be " } else { "" };
        rows(
            (self.delivered, format!("{would}delivered")),
            [
                (self.refused, "refused again, as said above".to_owned()),
                (self.unreadable, "whose payload cannot be read, as said above".to_owned()),
                (self.without, "not delivered for want of a payload, as said above".to_owned()),
                (self.elsewhere, "whose payloads are in the letter of another message".to_owned()),
                (self.unmatched, "left out by the filters, or not about a delivery".to_owned()),
                (self.parked_before, "left out because they were parked before".to_owned()),
            ],
        )
    }
}

/// A letter on its way.
struct Sent {
    at: (i32, i64),
    coordinates: String,
    payloads: Vec<Payload>,
}

/// Letters that are delivered together.
#[derive(Default)]
struct Batch {
    letters: Vec<Sent>,
    bytes: usize,
    begun: Option<Instant>,
    /// Up to where every partition was seen to, once they are confirmed.
    passed: BTreeMap<i32, i64>,
}

/// One pass over letters.
struct Run<'a> {
    args: &'a Replay,
    stop: &'a Stop,
    progress: &'a Progress,
    /// Not there in a dry run.
    desk: Option<&'a Desk>,
    batch: Batch,
    /// Letters of the next batch: one to begin with, so that little is delivered behind one that is
    /// refused, and will be delivered again.
    at_once: usize,
    pacer: Pacer,
    tally: Tally,
}

impl Run<'_> {
    /// # Errors
    ///
    /// After what was confirmed before is committed.
    fn go(&mut self, reader: &mut Reader, parked: &Parked) -> anyhow::Result<Ended> {
        let outcome = self.pass(reader, parked);
        // What a failed batch left is not there any more.
        let settled = self.settle(reader);
        clear();
        outcome.and(settled)?;
        Ok(match self.tally.refused + self.tally.unreadable + self.tally.without {
            _ if self.stop.is_set() => Ended::Interrupted,
            0 => Ended::Done,
            _ => Ended::Partly,
        })
    }

    fn pass(&mut self, reader: &mut Reader, parked: &Parked) -> anyhow::Result<()> {
        let mut bar = Bar::new(reader.left());
        let mut taken = 0;
        while self.args.pace.limit.is_none_or(|limit| taken < limit) {
            let Tally { delivered, refused, .. } = self.tally;
            bar.show(reader.left(), || format!("{delivered} delivered, {refused} refused"));
            let Some(record) = reader.next(|| self.stop.is_set())? else { break };
            let letter = Letter::new(record);
            match self.fate(&letter, parked) {
                Fate::Unmatched => self.tally.unmatched += 1,
                Fate::ParkedBefore => self.tally.parked_before += 1,
                Fate::Elsewhere => self.tally.elsewhere += 1,
                Fate::Without(why) => {
                    self.tally.without += 1;
                    name(&letter.record.coordinates(), &why);
                }
                Fate::Unreadable(why) => self.stumble(reader, &letter, &why)?,
                Fate::Deliver(payloads) => {
                    if BATCH_TIME < self.pacer.wait() {
                        self.settle(reader)?;
                    }
                    if !self.pacer.pass(self.stop) {
                        break;
                    }
                    self.take(&letter, payloads)?;
                    taken += 1;
                }
            }
            let at = &letter.record;
            self.batch.passed.insert(at.partition.partition, at.offset.next().0);
            if self.is_full() {
                self.settle(reader)?;
            }
        }
        Ok(())
    }

    fn fate(&self, letter: &Letter, parked: &Parked) -> Fate {
        if !self.args.choice.matches(letter) {
            Fate::Unmatched
        } else if parked.holds(letter) {
            Fate::ParkedBefore
        } else {
            fate(letter)
        }
    }

    /// A letter whose payload cannot be read stops as one that is refused again does.
    fn stumble(&mut self, reader: &Reader, letter: &Letter, why: &str) -> anyhow::Result<()> {
        let stops = !self.args.keep_going && !self.args.pace.dry_run;
        if stops {
            // What is before it may stop first.
            self.settle(reader)?;
        }
        let coordinates = letter.record.coordinates();
        self.tally.unreadable += 1;
        name(&coordinates, why);
        if stops {
            return Err(stopped_at(&coordinates));
        }
        Ok(())
    }

    fn take(&mut self, letter: &Letter, payloads: Vec<Payload>) -> anyhow::Result<()> {
        let coordinates = letter.record.coordinates();
        if self.args.pace.dry_run {
            let message = letter.original().unwrap_or_else(|| "-".to_owned());
            let sinks: Vec<String> = payloads.iter().map(sink_of).collect();
            clear();
            let line =
                format!("{coordinates} ({message}) would be delivered to {}", sinks.join(", "));
            writeln!(std::io::stdout(), "{line}")?;
            self.tally.delivered += 1;
            return Ok(());
        }
        let at = (letter.record.partition.partition, letter.record.offset.0);
        self.batch.bytes += payloads.iter().map(Payload::size).sum::<usize>();
        self.batch.letters.push(Sent { at, coordinates, payloads });
        Ok(())
    }

    fn is_full(&mut self) -> bool {
        let begun = *self.batch.begun.get_or_insert_with(Instant::now);
        self.at_once <= self.batch.letters.len()
            || BATCH_BYTES <= self.batch.bytes
            || BATCH_TIME <= begun.elapsed()
    }

    /// Delivers the batch and commits behind it.
    fn settle(&mut self, reader: &Reader) -> anyhow::Result<()> {
        let Batch { letters, mut passed, .. } = take(&mut self.batch);
        let Some(desk) = self.desk else { return Ok(()) };
        let (sent, payloads): (Vec<_>, Vec<_>) =
            letters.into_iter().map(|sent| ((sent.at, sent.coordinates), sent.payloads)).unzip();
        let mut first = None;
        for ((at, coordinates), refusal) in sent.into_iter().zip(desk.deliver(payloads)) {
            let Some(refusal) = refusal else {
                self.tally.delivered += 1;
                continue;
            };
            self.tally.refused += 1;
            name(&coordinates, &refusal);
            if !self.args.keep_going {
                // What is behind it is read again; what is before it is not.
                let (partition, offset) = at;
                let passed = passed.entry(partition).or_insert(offset);
                *passed = offset.min(*passed);
                first.get_or_insert(coordinates);
            }
        }
        self.at_once = (self.at_once * 2).min(BATCH);
        self.progress.commit(&reader.client, &passed)?;
        first.map_or(Ok(()), |letter| Err(stopped_at(&letter)))
    }
}

fn stopped_at(letter: &str) -> anyhow::Error {
    anyhow!(
        "stopped at {letter}: the next run begins with it; --keep-going passes over what is refused or \
         cannot be read"
    )
}

/// Says why a letter is not delivered.
fn name(coordinates: &str, why: &str) {
    clear();
    eprintln!("{coordinates} is not delivered: {why}");
}

/// The sink that is to take `payload`, for people.
fn sink_of(payload: &Payload) -> String {
    let kind = payload.kind().as_str();
    payload.sink().map_or_else(|| format!("the only {kind} sink"), |name| format!("{kind}/{name}"))
}

#[cfg(test)]
mod tests {
    use drakkar::{Header, KafkaPayload};

    use super::{super::letter::tests::letter, *};

    /// A letter that a worker wrote with these headers behind the others, given up at `stage`.
    fn given_up_at(stage: &str, more: &[(&str, &str)]) -> Letter {
        let mut record = letter(&[]).record;
        record.headers[0] = Header::new("drakkar-stage", stage.to_owned());
        let more = more.iter().map(|(name, value)| Header::new(*name, (*value).to_owned()));
        record.headers.extend(more);
        Letter::new(record)
    }

    #[test]
    fn a_letter_has_the_payloads_that_it_carries_in_their_order() {
        let json = |value: &str| {
            format!(r#"{{"kafka": {{"key": null, "value": "{value}", "headers": []}}}}"#)
        };
        let payloads = [("drakkar-payload", &*json("a")), ("drakkar-payload", &*json("b"))];
        let expected = [KafkaPayload::raw("a").into(), KafkaPayload::raw("b").into()];
        assert_eq!(fate(&given_up_at("deliver", &payloads)), Fate::Deliver(expected.to_vec()));
        assert_eq!(fate(&given_up_at("execute", &payloads)), Fate::Unmatched);
    }

    #[test]
    fn a_letter_without_payloads_that_can_be_read_says_why() {
        for (more, expected) in [
            (vec![], "it carries no payload"),
            (vec![("drakkar-payload-omitted", "7")], "(7 bytes) were left out"),
        ] {
            let fate = fate(&given_up_at("deliver", &more));
            assert!(matches!(&fate, Fate::Without(why) if why.contains(expected)), "{fate:?}");
        }
        for payload in ["{}", r#"{"sink of the future": {}}"#] {
            let fate = fate(&given_up_at("deliver", &[("drakkar-payload", payload)]));
            assert!(matches!(&fate, Fate::Unreadable(why) if why.contains("cannot be read")));
        }
        let with = given_up_at("deliver", &[("drakkar-payload-with", "orders:3:41")]);
        assert_eq!(fate(&with), Fate::Elsewhere);
    }
}
