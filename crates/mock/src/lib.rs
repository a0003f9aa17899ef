//! A broker inside of this process: librdkafka's own, which can be made to fail.
//!
//! [`cluster`] starts one, for whoever needs no more. A [`Broker`] is for tests: it stays with the thread
//! that made it, everybody else sends that thread work, and what goes wrong panics. What neither can play:
//! transactions, and a fetch that wakes for new data.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test harness: what goes wrong here must stop the test where it happens"
)]

use std::{
    io,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, SigmaskHow};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::OwnedMessage,
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use tokio::time::Instant;

/// Longest wait for anything that must happen.
pub const SOON: Duration = Duration::from_secs(40);

/// What librdkafka plays.
pub type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Starts a cluster of `brokers`, which ends when it is dropped.
///
/// Its thread takes no signals: it ends by the first one that interrupts it, and the brokers with it. Whoever
/// uses `tokio::process` gets one per child, on any thread that takes them.
///
/// # Errors
///
/// Where librdkafka cannot start one.
pub fn cluster(brokers: i32) -> io::Result<Cluster> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let cluster = MockCluster::new(brokers);
    before.thread_set_mask()?;
    cluster.map_err(io::Error::other)
}

type Work = Box<dyn FnOnce(&Cluster) + Send>;

/// A cluster of one broker, for as long as this lives.
pub struct Broker {
    /// Its bootstrap servers.
    pub address: String,
    work: Mutex<mpsc::Sender<Work>>,
}

impl Broker {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let (work, todo) = mpsc::channel::<Work>();
        let (ready, address) = mpsc::channel();
        thread::spawn(move || {
            let cluster = cluster(1).unwrap();
            ready.send(cluster.bootstrap_servers()).unwrap();
            for work in todo {
                work(&cluster);
            }
        });
        Self { address: address.recv().unwrap(), work: Mutex::new(work) }
    }

    /// Does `work` with the cluster, and returns when it is done.
    pub fn with(&self, work: impl FnOnce(&Cluster) + Send + 'static) {
        let (finished, finish) = mpsc::channel();
        let work = move |cluster: &Cluster| {
            work(cluster);
            finished.send(()).unwrap();
        };
        let todo = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        todo.send(Box::new(work)).unwrap();
        drop(todo);
        finish.recv().unwrap();
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let name = name.to_owned();
        self.with(move |cluster| cluster.create_topic(&name, partitions, 1).unwrap());
    }

    /// What a client of it needs.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address).set("group.id", "reader");
        // A waiting fetch does not wake for new data.
        client.set("fetch.wait.max.ms", "10");
        client
    }

    /// How many records a partition holds.
    #[must_use]
    pub fn count(&self, topic: &str, partition: i32) -> usize {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, partition, SOON).unwrap();
        usize::try_from(high - low).unwrap()
    }

    /// Reads a partition until it holds `count` records.
    #[must_use]
    pub fn read(&self, topic: &str, partition: i32, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let until = Instant::now() + SOON;
        let mut read = Vec::new();
        while read.len() < count {
            assert!(Instant::now() < until, "{topic} holds {} of {count}: {read:?}", read.len());
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                read.push(message.unwrap().detach());
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_thread_of_a_cluster_takes_no_signals_and_whoever_starts_one_still_does() {
        let cluster = cluster(1).unwrap();
        // Done by its thread, which has its name by then.
        cluster.create_topic("any", 1, 1).unwrap();
        let field = |status: &str| {
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            u64::from_str_radix(blocked.trim(), 16).unwrap()
        };
        let child_ended = 1 << (nix::sys::signal::Signal::SIGCHLD as i32 - 1);
        let mut seen = 0;
        for task in fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap().path();
            if fs::read_to_string(task.join("comm")).unwrap().trim() == "rdk:mock" {
                seen += 1;
                let status = fs::read_to_string(task.join("status")).unwrap();
                assert_ne!(field(&status) & child_ended, 0, "{status}");
            }
        }
        assert_eq!(seen, 1);
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_eq!(field(&own) & child_ended, 0);
    }
}
