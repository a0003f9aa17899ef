//! Letters out of the way: copied to the parking topic, and left out by replay from then on.

use super::{
    Ended,
    args::Park,
    connect::{Kafka, READER},
    fate::{self, Fate},
    parked::Parked,
    read::Reader,
    replay::{parking_topic, summary, tell},
    run::Run,
    stop::Stop,
};

pub(super) fn park(args: &Park) -> anyhow::Result<Ended> {
    let kafka = Kafka::of(&args.place)?;
    let park_to = parking_topic(args.park_to.as_deref(), &kafka.topic)?;
    let stop = Stop::listen()?;
    let mut reader = Reader::new(kafka.consumer(READER)?, &kafka.topic);
    let ranges = reader.ranges_of_topic(&args.choice.partition)?;
    // What is there already needs no progress: a run that was interrupted goes on with the rest.
    let parked = Parked::read(&kafka, &park_to, || stop.is_set())?;
    reader.read(ranges);
    let run = Run::new(&kafka, &args.pace, &stop, None)?;
    let (ended, tally) = run.go(&mut reader, |letter| {
        if !args.choice.matches(letter) {
            Fate::Unmatched
        } else if parked.holds(letter) {
            Fate::ParkedBefore
        } else {
            Fate::Park(fate::parked(letter, &park_to))
        }
    });
    tell(&summary(&args.pace, tally, &park_to));
    ended
}
