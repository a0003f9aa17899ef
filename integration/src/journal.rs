//! A handler that writes down, where the test can read it, when it is asked about a partition and what
//! the broker holds at that moment. Every message is answered without a program.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

use bytes::Bytes;
use drakkar::{
    Collect, Config, Handler, HookFuture, HookResult, KafkaPayload, Message, Pending, Precomputed,
    Task, TaskResult, TopicPartition,
};

use crate::kafka::{Kafka, Observer};

/// One line of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// `on_assign` was called.
    Assign {
        /// For which partition.
        partition: i32,
    },
    /// `arrange` was called.
    Arrange {
        /// For which partition.
        partition: i32,
        /// With this message, among others.
        offset: i64,
    },
    /// `on_revoke` was called.
    Revoke {
        /// For which partition.
        partition: i32,
        /// The group's position on the broker.
        committed: i64,
    },
}

impl Entry {
    /// Which partition it is about.
    #[must_use]
    pub fn partition(self) -> i32 {
        let (Self::Assign { partition }
        | Self::Arrange { partition, .. }
        | Self::Revoke { partition, .. }) = self;
        partition
    }

    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        let partition = i32::try_from(number(1)).unwrap();
        match words[0] {
            "assign" => Self::Assign { partition },
            "arrange" => Self::Arrange { partition, offset: number(2) },
            "revoke" => Self::Revoke { partition, committed: number(2) },
            other => panic!("{other}"),
        }
    }
}

/// What the journal at `path` holds; nothing where there is none yet.
#[must_use]
pub fn read(path: &PathBuf) -> Vec<Entry> {
    fs::read_to_string(path).unwrap_or_default().lines().map(Entry::parse).collect()
}

/// The handler.
pub struct Journal {
    path: PathBuf,
    worker: String,
    observer: Option<Observer>,
}

impl Journal {
    /// Writes to `path`, as `worker`.
    #[must_use]
    pub fn new(path: PathBuf, worker: String) -> Self {
        Self { path, worker, observer: None }
    }

    /// For `on_startup`: the configuration says which group to observe, and where.
    pub fn look<'a>(&'a mut self, config: &'a mut Config) -> HookFuture<'a> {
        let kafka = Kafka { servers: config.kafka.brokers.clone() };
        self.observer = Some(kafka.observer(&config.kafka.consumer_group));
        Box::pin(async { Ok(()) })
    }

    fn write(&self, entry: &str) -> HookResult<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        // One write: lines of several partitions do not mix.
        file.write_all(format!("{entry}\n").as_bytes())?;
        Ok(())
    }
}

impl Handler for Journal {
    type Input = Bytes;

    async fn on_assign(&self, of: &TopicPartition) -> HookResult<()> {
        self.write(&format!("assign {}", of.partition))
    }

    async fn on_revoke(&self, of: &TopicPartition) -> HookResult<()> {
        let observer = self.observer.as_ref().ok_or("on_startup was not asked")?;
        let committed = observer.committed(&of.topic)?[&of.partition];
        self.write(&format!("revoke {} {committed}", of.partition))
    }

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let mut tasks = Vec::with_capacity(window.len());
        for message in window {
            self.write(&format!("arrange {} {}", message.partition.partition, message.offset))?;
            let known = Precomputed { stdout: message.input.clone(), ..Precomputed::default() };
            tasks.push(Task::for_message(message).precomputed(known));
        }
        Ok(tasks)
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let payload = KafkaPayload::raw(done.output.stdout.clone());
        Ok(Collect::new().kafka(payload.header("worker", self.worker.clone())))
    }
}
