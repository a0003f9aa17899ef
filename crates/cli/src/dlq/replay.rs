//! Letters back to the topics they came from.

use std::{
    io::{self, Write as _},
    iter,
};

use anyhow::bail;

use super::{
    Ended, Usage,
    args::{Pace, Replay},
    connect::Kafka,
    fate::Rules,
    parked::Parked,
    pass::{Destination, Orders, Pass, Tally},
    progress::{Begin, Progress},
    read::Reader,
    stop::Stop,
    to_sink,
    to_topic::Topics,
};
use crate::say::say;

pub(super) fn replay(args: &Replay) -> anyhow::Result<Ended> {
    if args.to_sink {
        return to_sink::replay(args);
    }
    let kafka = Kafka::of(&args.place)?;
    if args.to.as_ref() == Some(&kafka.topic) {
        bail!(Usage("--to is the topic that is replayed: that would never end".to_owned()));
    }
    let name = args.name.as_deref().unwrap_or(&kafka.topic);
    let begun = Begun::new(args, &kafka, name)?;
    let park_to = begun.park_to.clone();
    let rules = Rules {
        to: args.to.as_deref(),
        max_replays: args.max_replays,
        park_to: &park_to,
        is_now: args.now,
    };
    let topics = Topics::new(&kafka, |letter| rules.fate(letter))?;
    begun.run(args, false, "sent", topics, |tally| summary(&args.pace, tally, &park_to))
}

/// A replay that is about to read letters, from where the last one stopped.
pub(super) struct Begun {
    stop: Stop,
    progress: Progress,
    begin: Begin,
    reader: Reader,
    parked: Parked,
    park_to: String,
}

impl Begun {
    /// Looks up how far the replay called `name` came.
    pub(super) fn new(args: &Replay, kafka: &Kafka, name: &str) -> anyhow::Result<Self> {
        let park_to = parking_topic(args.park_to.as_deref(), &kafka.topic)?;
        let stop = Stop::listen()?;
        let progress = Progress::new(&kafka.topic, &about(args))?;
        let group = format!("drakkar-replay.{name}");
        let reader = Reader::new(kafka.consumer(&group)?, &kafka.topic);
        let begin = progress.begin(&reader, args)?;
        let parked = Parked::read(kafka, &park_to, || stop.is_set())?;
        Ok(Self { stop, progress, begin, reader, parked, park_to })
    }

    /// Sends the letters to `to`, and says what became of them.
    pub(super) fn run<D: Destination>(
        self,
        args: &Replay,
        stops_at_first: bool,
        verb: &'static str,
        to: D,
        summary: impl Fn(Tally) -> Vec<String>,
    ) -> anyhow::Result<Ended> {
        let Self { stop, progress, begin, mut reader, parked, .. } = self;
        let Begin { ranges, before, kept } = begin;
        let (pace, mut choice) = (&args.pace, args.choice.clone());
        if args.to_sink {
            choice.sink.clear(); // It is payloads that are chosen by their sink: a letter may have several.
        }
        if !pace.dry_run {
            progress.keep(&reader.client, &kept)?;
        }
        let orders = Orders { pace, choice: &choice, parked, stop: &stop, stops_at_first, verb };
        let mut pass = Pass::new(orders, Some(progress), to);
        reader.read(before);
        pass.recall(&mut reader)?;
        reader.read(ranges);
        let (ended, tally) = pass.go(&mut reader);
        let mut lines = summary(tally);
        lines.extend(rest(args, &reader, &ended));
        tell(&lines);
        ended
    }
}

/// That letters are left, where some are.
fn rest(args: &Replay, reader: &Reader, ended: &anyhow::Result<Ended>) -> Option<String> {
    let is_at_end = reader.left() == 0 && matches!(ended, Ok(Ended::Done | Ended::Partly));
    (!args.pace.dry_run && !is_at_end).then(|| {
        let how = if args.restart { " without --restart" } else { "" };
        format!("This was not all: the same command{how} goes on from here.")
    })
}

/// What decides which letters a replay passes over, as text.
fn about(args: &Replay) -> String {
    let to = args.to.as_ref().map(|to| format!(" --to {to:?}"));
    let to_sink = if args.to_sink { " --to-sink" } else { "" };
    args.choice.text() + &to.unwrap_or_default() + to_sink
}

/// Where letters of `topic` are parked.
pub(super) fn parking_topic(named: Option<&str>, topic: &str) -> anyhow::Result<String> {
    let park_to = named.map_or_else(|| format!("{topic}_parked"), str::to_owned);
    if park_to == topic {
        bail!(Usage(format!("--park-to: {topic} is where the letters are")));
    }
    Ok(park_to)
}

/// What became of the rest of a partition.
pub(super) const TOO_YOUNG: &str =
    "partitions with letters that are younger than --until: a later run goes on there";

/// What became of the letters.
pub(super) fn summary(pace: &Pace, tally: Tally, park_to: &str) -> Vec<String> {
    let Tally { replayed, parked, unmatched, too_young, parked_before, elsewhere, refused, .. } =
        tally;
    let would = pace.would();
    rows(
        (replayed, format!("{would}replayed")),
        [
            (parked, format!("{would}parked in {park_to}")),
            (unmatched, "left out by the filters".to_owned()),
            (too_young, TOO_YOUNG.to_owned()),
            (parked_before, "left out because they were parked before".to_owned()),
            (elsewhere, "left out because their message is that of another letter".to_owned()),
            (refused, "not sent, as said above".to_owned()),
        ],
    )
}

/// A line for `first`, and for each of `others` that there is any of.
pub(super) fn rows<const N: usize>(
    first: (u64, String),
    others: [(u64, String); N],
) -> Vec<String> {
    let others = others.into_iter().filter(|(count, _)| 0 < *count);
    let rows = iter::once(first).chain(others);
    rows.map(|(count, what)| format!("{count:>9} {what}")).collect()
}

/// Prints the summary. What was done counts for more than that nobody listens.
pub(super) fn tell(lines: &[String]) {
    let text = lines.join("\n") + "\n";
    if let Err(error) = io::stdout().write_all(text.as_bytes()) {
        say(&format!("drakkar: cannot print the summary: {error}\n{text}"));
    }
}
