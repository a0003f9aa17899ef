//! Sends the messages, never more than the broker can keep.
//!
//! The next message is sent when fewer than [`AHEAD`] are on their way to a sink, and not before
//! `--rate` allows. Runs on a thread of its own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, anyhow};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use tokio::time::Instant;

use super::{
    books::Books,
    broker::{ANSWER_WITHIN, PARTITIONS, REQUESTS},
    input::Plan,
};

/// Messages that were sent and are in no sink yet, at most.
pub(crate) const AHEAD: u64 = 4_000;

/// How long to serve the client before looking again.
const PAUSE: Duration = Duration::from_millis(2);

/// Tells the books what the broker confirmed.
struct Receipts(Arc<Mutex<Books>>);

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize; // the id

    fn delivery(&self, result: &DeliveryResult<'_>, id: usize) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(sent) => books.sent(id as u64, sent.partition(), sent.offset()),
            Err((error, _)) => books.refused(id as u64, &error.to_string()),
        }
    }
}

/// The sending thread.
pub(crate) struct Feed {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Feed {
    /// Begins to send; `rate` is messages per second.
    pub(crate) fn start(
        address: &str,
        plan: Plan,
        rate: Option<f64>,
        books: &Arc<Mutex<Books>>,
    ) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("linger.ms", "5")
            .create_with_context(Receipts(Arc::clone(books)))
            .context("cannot create a producer")?;
        let stop = Arc::new(AtomicBool::new(false));
        let sender =
            Sender { producer, plan, rate, books: Arc::clone(books), stop: Arc::clone(&stop) };
        let thread = thread::Builder::new().name("demo-feed".to_owned()).spawn(|| sender.run())?;
        Ok(Self { stop, thread })
    }

    /// Sends no more, and waits until what was sent is confirmed.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the feed panicked"))?
    }
}

struct Sender {
    producer: BaseProducer<Receipts>,
    plan: Plan,
    rate: Option<f64>,
    books: Arc<Mutex<Books>>,
    stop: Arc<AtomicBool>,
}

impl Sender {
    fn run(self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut next = 0;
        while next < self.plan.messages() && !self.stop.load(Ordering::Relaxed) {
            let until = self.allowed(start.elapsed());
            while next < until && self.send(next)? {
                next += 1;
            }
            self.producer.poll(PAUSE);
        }
        self.producer.flush(ANSWER_WITHIN).context("the broker does not confirm what was sent")
    }

    /// Messages with smaller ids may be sent now.
    fn allowed(&self, elapsed: Duration) -> u64 {
        let done = self.books.lock().unwrap_or_else(PoisonError::into_inner).standing().done;
        let by_rate = self.rate.map_or(u64::MAX, |rate| whole(elapsed.as_secs_f64() * rate) + 1);
        (done + AHEAD).min(by_rate).min(self.plan.messages())
    }

    /// Whether message `id` was taken; `false`: the client's queue is full.
    fn send(&self, id: u64) -> anyhow::Result<bool> {
        let (key, value) = (id.to_string(), self.plan.value(id));
        let partition = i32::try_from(id % u64::from(PARTITIONS.unsigned_abs()))?;
        let mut record = BaseRecord::with_opaque_to(REQUESTS, usize::try_from(id)?)
            .key(&key)
            .partition(partition);
        if let Some(value) = &value {
            record = record.payload(value);
        }
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(error).context("cannot send"),
        }
    }
}

/// `number` without its fraction.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates, as is wanted.
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::input::MIN_MESSAGES;

    #[test]
    fn what_is_on_its_way_fits_into_one_partition_of_the_broker() {
        // Beyond this the broker drops the oldest batches.
        const KEPT_BYTES: u64 = 5 << 20;
        // Even if all of it were in one partition, each in a batch of its own.
        const BATCH_OVERHEAD: u64 = 200;
        let plan = Plan::new(MIN_MESSAGES).unwrap();
        let longest = (0..MIN_MESSAGES).filter_map(|id| plan.value(id)).map(|v| v.len()).max();
        assert!(AHEAD * (longest.unwrap() as u64 + BATCH_OVERHEAD) < KEPT_BYTES);
    }
}
