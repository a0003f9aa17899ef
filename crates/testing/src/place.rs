//! Where a world lives: in memory, or at a broker. It outlives a crash.

use std::sync::{Arc, Mutex};

use drakkar_core::{
    observe::SourceObserver,
    source::{SourceControl, SourceEvent},
};
use tokio::sync::mpsc;

#[cfg(feature = "kafka")]
use crate::broker::Topic;
use crate::{
    Book, TOPIC,
    origin::{Commits, Origin},
    source::TestSource,
};

/// One of the two.
#[derive(Clone)]
pub(crate) enum Place {
    /// What was committed is in this book.
    Memory(Arc<Mutex<Book>>),
    /// What was committed, the broker knows.
    #[cfg(feature = "kafka")]
    Broker(Topic),
}

/// The ends of a pipeline at some place.
pub(crate) struct Opened {
    pub(crate) origin: Origin,
    pub(crate) commits: Commits,
    pub(crate) events: mpsc::UnboundedReceiver<SourceEvent>,
    pub(crate) control: SourceControl,
}

impl Place {
    /// In memory where nothing was asked for, else at the broker that was.
    #[track_caller]
    pub(crate) fn find(asked: Option<&str>, partitions: i32) -> Self {
        match asked {
            None => Self::Memory(Arc::default()),
            #[cfg(feature = "kafka")]
            Some(broker) => Self::Broker(Topic::make(broker, partitions)),
            #[cfg(not(feature = "kafka"))]
            Some(broker) => panic!(
                "DRAKKAR_TEST_BROKER={broker}, but drakkar-testing was built without its feature `kafka` (which \
                 {partitions} partitions at a broker need)"
            ),
        }
    }

    pub(crate) fn topic(&self) -> Arc<str> {
        match self {
            Self::Memory(_) => TOPIC.into(),
            #[cfg(feature = "kafka")]
            Self::Broker(topic) => Arc::clone(&topic.name),
        }
    }

    pub(crate) fn open(&self, observer: Arc<dyn SourceObserver>) -> Opened {
        match self {
            Self::Memory(book) => {
                drop(observer); // There is nothing to observe.
                let (source, events, control) = TestSource::new(Arc::clone(book));
                let changed = source.changed.clone();
                let commits = Commits::Book { book: Arc::clone(book), changed };
                Opened { origin: Origin::Played(source), commits, events, control }
            }
            #[cfg(feature = "kafka")]
            Self::Broker(topic) => {
                let (broker, events, control) = topic.open(observer);
                let commits = Commits::Broker(topic.observer());
                Opened { origin: Origin::Broker(broker), commits, events, control }
            }
        }
    }
}
