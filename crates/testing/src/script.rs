//! Sinks that record, refuse, fail and dawdle on demand.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use drakkar_core::{
    DeadLetter, Delivery, FilePayload, HttpPayload, KafkaPayload, MongoPayload, PostgresPayload,
    RedisPayload, Sink, SinkError,
};

use crate::{Recorded, lock};

type Rule<P> = dyn Fn(&P) -> Delivery + Send + Sync;

/// A sink that answers by a rule, which the test may replace while it runs. Cheap to clone; all clones
/// are the same sink.
///
/// Like a real one it is asked again and again while it is down, and it records what it confirms.
pub struct Script<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    rule: Mutex<Arc<Rule<P>>>,
    recorded: Recorded<P>,
    is_down: AtomicBool,
    failing: AtomicUsize,
    takes: Mutex<Duration>,
    writes: AtomicUsize,
}

impl<P> Clone for Script<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Clone + Send + Sync + 'static> Script<P> {
    /// A sink that confirms everything.
    #[must_use]
    pub fn confirming() -> Self {
        Self::answering(|_| Delivery::Confirmed)
    }

    /// A sink that answers each payload as `rule` says; what it confirms is recorded.
    pub fn answering(rule: impl Fn(&P) -> Delivery + Send + Sync + 'static) -> Self {
        let shared = Shared {
            rule: Mutex::new(Arc::new(rule)),
            recorded: Recorded::new(),
            is_down: AtomicBool::new(false),
            failing: AtomicUsize::new(0),
            takes: Mutex::default(),
            writes: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on it answers as `rule` says.
    pub fn answer(&self, rule: impl Fn(&P) -> Delivery + Send + Sync + 'static) {
        *lock(&self.shared.rule) = Arc::new(rule);
    }

    /// From now on it refuses for good what `is_refused` says, and confirms the rest.
    pub fn refuse_if(&self, is_refused: impl Fn(&P) -> bool + Send + Sync + 'static) {
        self.answer(move |payload| {
            if is_refused(payload) {
                Delivery::Permanent(SinkError::new("Refused", "the test refuses this payload"))
            } else {
                Delivery::Confirmed
            }
        });
    }

    /// It is down: what is meant for it waits until [`Script::end_outage`].
    pub fn begin_outage(&self) {
        self.shared.is_down.store(true, Ordering::SeqCst);
    }

    /// It is up again.
    pub fn end_outage(&self) {
        self.shared.is_down.store(false, Ordering::SeqCst);
    }

    /// The next `writes` writes fail; the payloads are tried again.
    pub fn fail_next(&self, writes: usize) {
        self.shared.failing.store(writes, Ordering::SeqCst);
    }

    /// From now on every write takes this long, in tokio's time.
    pub fn take(&self, time: Duration) {
        *lock(&self.shared.takes) = time;
    }

    /// How many writes were tried so far, whatever became of them. One write may carry many payloads.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.shared.writes.load(Ordering::SeqCst)
    }

    /// What it accepted.
    #[must_use]
    pub fn recorded(&self) -> Recorded<P> {
        self.shared.recorded.clone()
    }
}

macro_rules! named {
    ($($name:ident: $payload:ty, $what:literal;)*) => {$(
        impl Script<$payload> {
            #[doc = concat!($what, " that confirms everything.")]
            #[must_use]
            pub fn $name() -> Self {
                Self::confirming()
            }
        }
    )*};
}

named! {
    kafka: KafkaPayload, "A Kafka sink";
    files: FilePayload, "A file sink";
    postgres: PostgresPayload, "A PostgreSQL sink";
    mongo: MongoPayload, "A MongoDB sink";
    redis: RedisPayload, "A Redis sink";
    http: HttpPayload, "An HTTP sink";
    dead_letters: DeadLetter, "A dead-letter topic";
}

impl<P> Shared<P> {
    /// Whether this write fails as a whole.
    fn fails(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.is_down.load(Ordering::SeqCst)
            || self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

impl<P: Clone + Send + Sync + 'static> Sink for Script<P> {
    type Payload = P;

    /// Whether it is down is all that it says.
    async fn probe(&self) -> Result<(), SinkError> {
        if self.shared.is_down.load(Ordering::SeqCst) { Err(down()) } else { Ok(()) }
    }

    async fn deliver(&self, batch: &[P]) -> Vec<Delivery> {
        self.shared.writes.fetch_add(1, Ordering::SeqCst);
        let takes = *lock(&self.shared.takes);
        if takes > Duration::ZERO {
            tokio::time::sleep(takes).await;
        }
        if self.shared.fails() {
            return vec![Delivery::Transient(down()); batch.len()];
        }
        let rule = Arc::clone(&lock(&self.shared.rule));
        let answers: Vec<Delivery> = batch.iter().map(|payload| rule(payload)).collect();
        let confirmed = batch.iter().zip(&answers).filter(|(_, a)| **a == Delivery::Confirmed);
        self.shared.recorded.extend(confirmed.map(|(payload, _)| payload.clone()));
        answers
    }
}

fn down() -> SinkError {
    SinkError::new("Down", "the test says that this sink is down")
}
