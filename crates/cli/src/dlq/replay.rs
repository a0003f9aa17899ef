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
    fate::{Fate, Rules},
    parked::Parked,
    progress::Progress,
    read::Reader,
    run::{Run, Tally},
    stop::Stop,
    to_sink,
};

pub(super) fn replay(args: &Replay) -> anyhow::Result<Ended> {
    if args.to_sink {
        return to_sink::replay(args);
    }
    let kafka = Kafka::of(&args.place)?;
    if args.to.as_ref() == Some(&kafka.topic) {
        bail!(Usage("--to is the topic that is replayed: that would never end".to_owned()));
    }
    let name = args.name.as_deref().unwrap_or(&kafka.topic);
    let Begun { stop, progress, mut reader, parked, park_to } = Begun::new(args, &kafka, name)?;
    let rules = Rules { to: args.to.as_deref(), max_replays: args.max_replays, park_to: &park_to };
    let run = Run::new(&kafka, &args.pace, &stop, Some(progress))?;
    let (ended, tally) = run.go(&mut reader, |letter| {
        if !args.choice.matches(letter) {
            Fate::Unmatched
        } else if parked.holds(letter) {
            Fate::ParkedBefore
        } else {
            rules.fate(letter)
        }
    });
    let mut lines = summary(&args.pace, tally, &park_to);
    lines.extend(rest(args, &reader, &ended));
    tell(&lines);
    ended
}

/// A replay that is about to read letters, from where the last one stopped.
pub(super) struct Begun {
    pub stop: Stop,
    pub progress: Progress,
    pub reader: Reader,
    pub parked: Parked,
    pub park_to: String,
}

impl Begun {
    /// Looks up how far the replay called `name` came.
    pub(super) fn new(args: &Replay, kafka: &Kafka, name: &str) -> anyhow::Result<Self> {
        let park_to = parking_topic(args.park_to.as_deref(), &kafka.topic)?;
        let stop = Stop::listen()?;
        let progress = Progress::new(&kafka.topic, &about(args))?;
        let group = format!("drakkar-replay.{name}");
        let mut reader = Reader::new(kafka.consumer(&group)?, &kafka.topic);
        let mut ranges = reader.ranges_of_topic(&args.choice.partition)?;
        if !args.restart {
            progress.resume(&reader.client, &mut ranges)?;
        }
        let parked = Parked::read(kafka, &park_to, || stop.is_set())?;
        reader.read(ranges);
        Ok(Self { stop, progress, reader, parked, park_to })
    }
}

/// That letters are left, where some are.
pub(super) fn rest(
    args: &Replay,
    reader: &Reader,
    ended: &anyhow::Result<Ended>,
) -> Option<String> {
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

/// What became of the letters.
pub(super) fn summary(pace: &Pace, tally: Tally, park_to: &str) -> Vec<String> {
    let Tally { replayed, parked, unmatched, parked_before, refused } = tally;
    let would = if pace.dry_run { "would be " } else { "" };
    rows(
        (replayed, format!("{would}replayed")),
        [
            (parked, format!("{would}parked in {park_to}")),
            (unmatched, "left out by the filters".to_owned()),
            (parked_before, "left out because they were parked before".to_owned()),
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
        eprintln!("drakkar: cannot print the summary: {error}\n{text}");
    }
}
