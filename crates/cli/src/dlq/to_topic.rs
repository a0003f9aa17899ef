//! Letters to topics: messages back to where they came from, letters to where they are parked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use anyhow::bail;
use drakkar::sections::Cluster;
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
    cluster: Cluster,
    sender: Sender,
    /// Each record is sent by itself.
    is_single: bool,
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

    /// Waits for what it was sent of `batch`; what was not written, and why. After the first record that may
    /// have been refused for a neighbour each goes by itself: what is sent again comes behind the sets that
    /// followed, and once that has happened in a run, it would again.
    fn settle(
        &mut self,
        batch: &[Parcel],
        failed: &mut BTreeMap<usize, Code>,
    ) -> anyhow::Result<()> {
        let mut again = BTreeSet::new();
        for (index, code) in self.sender.settle()? {
            if !self.is_single && send::is_shared(code) {
                again.insert(index);
            } else {
                failed.insert(index, code);
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        self.is_single = true;
        self.sender = Sender::new(&self.cluster, self.client.timeout, true)?;
        for index in again {
            self.sender.send(index, batch[index].record());
        }
        failed.extend(self.sender.settle()?);
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
        let target = |cluster: &Cluster, client| {
            let sender = Sender::new(cluster, kafka.timeout, false)?;
            let (cluster, topics) = (cluster.clone(), HashMap::new());
            anyhow::Ok(Target { cluster, sender, is_single: false, client, topics })
        };
        Ok(Self {
            source: target(&kafka.source, kafka.source_consumer()?)?,
            parking: target(&kafka.letters, kafka.consumer(READER)?)?,
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
        for target in [&mut self.source, &mut self.parking] {
            target.settle(&batch, &mut failed)?;
        }
        let answer = |(index, parcel): (usize, &Parcel)| match failed.get(&index) {
            None => Answer::Confirmed,
            Some(code) => send::answer(parcel, *code),
        };
        Ok(batch.iter().enumerate().map(answer).collect())
    }

    fn close(self) {} // Every record was answered for.
}
