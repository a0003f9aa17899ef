//! Messages that keep coming while something happens to the workers or the brokers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    kafka::{Given, Kafka, Observer},
    order::{Act, Order},
    wait::{SOON, until},
    world::World,
};

/// Messages that are let through at once.
const STEP: usize = 20;

/// Longest time without a worker, or without the brokers.
const STANDSTILL: Duration = SOON.saturating_mul(4);

/// Produces orders until it is told to end, never more than a few ahead of what is committed: the
/// workers are busy for as long as a test needs, and what is left in the end is done quickly.
pub struct Feed {
    ended: Arc<AtomicBool>,
    producing: Option<JoinHandle<()>>,
}

impl World {
    /// Keeps producing orders to do what `act` says of their number.
    #[must_use]
    pub fn feed(&self, prefix: &str, ahead: i64, act: fn(usize) -> Act) -> Feed {
        let prefix = prefix.to_owned();
        self.feed_with(ahead, move |number| {
            Order::new(format!("{prefix}-{number}"), act(number)).given()
        })
    }

    /// Keeps producing the record of each number.
    #[must_use]
    pub fn feed_with(&self, ahead: i64, record: impl Fn(usize) -> Given + Send + 'static) -> Feed {
        let ended = Arc::new(AtomicBool::new(false));
        let pace = Pace {
            ended: Arc::clone(&ended),
            observer: self.kafka.observer(&self.group),
            topic: self.source.clone(),
            ahead,
        };
        let kafka: Kafka = self.kafka.clone();
        let producing = thread::spawn(move || {
            let topic = pace.topic.clone();
            let numbers = (0..).take_while(|number| number % STEP != 0 || pace.goes_on());
            kafka.produce(&topic, numbers.map(record));
        });
        Feed { ended, producing: Some(producing) }
    }
}

impl Feed {
    /// Ends it; all it produced is confirmed.
    pub fn end(mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let producing = self.producing.take().map(JoinHandle::join);
        assert!(producing.is_none_or(|outcome| outcome.is_ok()), "not everything was produced");
    }
}

impl Drop for Feed {
    /// The test that had it failed.
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

struct Pace {
    ended: Arc<AtomicBool>,
    observer: Observer,
    topic: String,
    ahead: i64,
}

impl Pace {
    /// Waits until more may come; `false` when no more is wanted.
    fn goes_on(&self) -> bool {
        until("the workers to keep up with what is fed", STANDSTILL, || {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(false);
            }
            match self.observer.lag(&self.topic)? {
                lag if lag <= self.ahead => Ok(true),
                lag => Err(format!("{lag} messages are not committed")),
            }
        })
    }
}
