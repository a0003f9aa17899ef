//! Letters out of the way: copied to the parking topic, and left out by replay from then on.

use super::{
    Ended,
    args::Park,
    connect::{Kafka, READER},
    fate,
    parked::Parked,
    pass::{Orders, Pass},
    read::Reader,
    replay::{parking_topic, summary, tell},
    stop::Stop,
    to_topic::Topics,
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
    let topics = Topics::new(&kafka, |letter| fate::park(letter, &park_to))?;
    let (pace, choice) = (&args.pace, &args.choice);
    let orders = Orders { pace, choice, parked, stop: &stop, stops_at_first: false, verb: "sent" };
    let (ended, tally) = Pass::new(orders, None, topics).go(&mut reader);
    tell(&summary(&args.pace, tally, &park_to));
    ended
}
