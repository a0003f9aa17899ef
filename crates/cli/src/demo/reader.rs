//! Reads the results topic and the dead-letter topic back while the worker runs, into the books.
//!
//! It assigns itself every partition from the beginning, so it is in no group and sees every record,
//! also one that was delivered twice. Runs on a thread of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use tokio::time::Instant;

use super::{
    books::{Books, Letter},
    broker::{ANSWER_WITHIN, DEAD_LETTERS, PARTITIONS, RESULTS, observer},
};

/// How long to wait for a record before looking whether to stop.
const WAIT: Duration = Duration::from_millis(20);

/// The reading thread.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Reader {
    /// Begins to read.
    pub(crate) fn start(address: &str, books: &Arc<Mutex<Books>>) -> anyhow::Result<Self> {
        let consumer = observer(address, "demo-reader")?;
        let mut partitions = TopicPartitionList::new();
        for topic in [RESULTS, DEAD_LETTERS] {
            for partition in 0..PARTITIONS {
                partitions.add_partition_offset(topic, partition, Offset::Offset(0))?;
            }
        }
        consumer.assign(&partitions).context("cannot read the sinks back")?;
        let stop = Arc::new(AtomicBool::new(false));
        let reading = Reading {
            consumer,
            books: Arc::clone(books),
            stop: Arc::clone(&stop),
            next: HashMap::new(),
        };
        let thread =
            thread::Builder::new().name("demo-reader".to_owned()).spawn(|| reading.run())?;
        Ok(Self { stop, thread })
    }

    /// Whether it gave up.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Reads up to where the topics end now.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the reader panicked"))?
    }
}

struct Reading {
    consumer: BaseConsumer,
    books: Arc<Mutex<Books>>,
    stop: Arc<AtomicBool>,
    next: HashMap<(String, i32), i64>,
}

impl Reading {
    fn run(mut self) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.step()?;
        }
        let mut missing = HashMap::new();
        for topic in [RESULTS, DEAD_LETTERS] {
            for partition in 0..PARTITIONS {
                let (_, end) = self.consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN)?;
                missing.insert((topic.to_owned(), partition), end);
            }
        }
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            missing.retain(|at, end| self.next.get(at).copied().unwrap_or(0) < *end);
            if missing.is_empty() {
                return Ok(());
            }
            if deadline < Instant::now() {
                bail!("the sinks could not be read to their end: {missing:?}");
            }
            self.step()?;
        }
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let message = match self.consumer.poll(WAIT) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                bail!("the embedded broker dropped records before they were read")
            }
            // The client tries again by itself; what stays unread is noticed at the end.
            None | Some(Err(_)) => return Ok(()),
        };
        let at = (message.topic().to_owned(), message.partition());
        self.next.insert(at, message.offset() + 1);
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, value) = (message.key().unwrap_or_default(), message.payload());
        if message.topic() == RESULTS {
            books.result(key, value);
        } else {
            let class = header(&message, "drakkar-error-class").unwrap_or("without a class");
            books.letter(&Letter { key, value, class });
        }
        Ok(())
    }
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}
