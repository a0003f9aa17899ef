//! Letters to topics: messages back to where they came from, letters to where they are parked.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::bail;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::{
    connect::{Client, Kafka, READER},
    fate::{Outgoing, Parcel},
    letter::Letter,
    once::Once,
    pass::{Answer, BATCH, Destination, Fate, Way},
    send::{self, Sender},
};

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

/// The topics of a worker.
pub(super) struct Topics<F> {
    source: Target,
    parking: Target,
    decide: F,
    once: Once,
}

impl<F: Fn(&Letter) -> Fate<Parcel>> Topics<F> {
    /// Letters have the fate that `decide` says.
    pub(super) fn new(kafka: &Kafka, decide: F) -> anyhow::Result<Self> {
        let target = |sender, client| Target { sender, client, topics: HashMap::new() };
        let source = Sender::new(&kafka.source, kafka.timeout)?;
        let parking = Sender::new(&kafka.letters, kafka.timeout)?;
        Ok(Self {
            source: target(source, kafka.source_consumer()?),
            parking: target(parking, kafka.consumer(READER)?),
            decide,
            once: Once::default(),
        })
    }

    fn target(&self, parcel: &Parcel) -> &Target {
        match parcel {
            Parcel::Replay(_) => &self.source,
            Parcel::Park(_) => &self.parking,
        }
    }

    /// Sends a record by itself where the answer may have been about a neighbour.
    fn alone(&self, code: Code, parcel: &Parcel) -> anyhow::Result<Option<Code>> {
        if !send::is_shared(code) {
            return Ok(Some(code));
        }
        let sender = &self.target(parcel).sender;
        sender.send(0, parcel.record());
        Ok(sender.settle()?.first().map(|(_, code)| *code))
    }
}

impl<F: Fn(&Letter) -> Fate<Parcel>> Destination for Topics<F> {
    type Parcel = Parcel;

    const BATCH_TIME: Duration = Duration::from_secs(1);

    fn fate(&mut self, letter: &Letter) -> Fate<Parcel> {
        match (self.decide)(letter) {
            Fate::Goes(Parcel::Replay(_)) if !self.once.admits(letter) => Fate::Elsewhere,
            fate => fate,
        }
    }

    fn way(parcel: &Parcel) -> Way {
        match parcel {
            Parcel::Replay(_) => Way::Replayed,
            Parcel::Park(_) => Way::Parked,
        }
    }

    fn would(parcel: &Parcel) -> String {
        match parcel {
            Parcel::Replay(record) => format!("sent to {}", record.topic),
            Parcel::Park(record) => format!("parked in {}", record.topic),
        }
    }

    fn size(parcel: &Parcel) -> usize {
        parcel.record().size()
    }

    fn check(&mut self, parcel: &mut Parcel) -> anyhow::Result<()> {
        match parcel {
            Parcel::Replay(record) => self.source.check(record),
            Parcel::Park(record) => self.parking.check(record),
        }
    }

    fn begin(&self, index: usize, parcel: &Parcel) {
        self.target(parcel).sender.send(index, parcel.record());
    }

    fn at_once(&self) -> usize {
        BATCH
    }

    fn settle(&mut self, batch: Vec<Parcel>) -> anyhow::Result<Vec<Answer>> {
        let mut failed: BTreeMap<usize, Code> = BTreeMap::new();
        for target in [&self.source, &self.parking] {
            failed.extend(target.sender.settle()?);
        }
        let answer = |(index, parcel): (usize, &Parcel)| {
            let left = failed.get(&index).map(|code| self.alone(*code, parcel)).transpose()?;
            let topic = &parcel.record().topic;
            Ok(match left.flatten() {
                None => Answer::Confirmed,
                Some(code) if send::is_permanent(code) => {
                    Answer::Refused(format!("{topic} does not take it: {code}"))
                }
                Some(code) => Answer::Unsettled(format!("{topic} did not confirm it: {code}")),
            })
        };
        batch.iter().enumerate().map(answer).collect()
    }

    fn close(self) {} // Every record was answered for.
}
