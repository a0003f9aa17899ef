//! Where messages come from and commits go: played by the test, or a broker.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use drakkar_core::{TopicPartition, source::Position};
use tokio::sync::watch;

#[cfg(feature = "kafka")]
use crate::broker::Broker;
use crate::{Book, lock, source::TestSource};

/// Names the broker of all worlds that are not [in memory](crate::WorldBuilder::in_memory).
pub(crate) const SWITCH: &str = "DRAKKAR_TEST_BROKER";

/// One of the two.
pub(crate) enum Origin {
    /// The test plays the poll thread.
    Played(TestSource),
    /// A real poll thread, a member of a real group.
    #[cfg(feature = "kafka")]
    Broker(Broker),
}

impl Origin {
    /// The last commits of a worker that has stopped.
    #[cfg_attr(not(feature = "kafka"), allow(clippy::unused_async))]
    pub(crate) async fn close(&mut self) {
        match self {
            Self::Played(_) => {}
            #[cfg(feature = "kafka")]
            Self::Broker(broker) => broker.close().await,
        }
    }

    /// The end of a worker that has crashed.
    #[cfg_attr(not(feature = "kafka"), allow(clippy::unused_async))]
    pub(crate) async fn gone(&mut self) {
        match self {
            Self::Played(_) => {}
            #[cfg(feature = "kafka")]
            Self::Broker(broker) => broker.gone().await,
        }
    }
}

/// What was committed, from where it can be read.
pub(crate) enum Commits {
    /// From what the pipeline reported.
    Book {
        book: Arc<Mutex<Book>>,
        /// Told whenever it reported something.
        changed: watch::Receiver<u64>,
    },
    /// From the broker.
    #[cfg(feature = "kafka")]
    Broker(crate::broker::Observer),
}

/// How often a broker is asked.
#[cfg(feature = "kafka")]
const ASK_EVERY: Duration = Duration::from_millis(25);

impl Commits {
    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<Position> {
        match self {
            Self::Book { book, .. } => lock(book).position(partition).cloned(),
            #[cfg(feature = "kafka")]
            Self::Broker(observer) => observer.position(partition),
        }
    }

    /// Waits until `wanted`, which looks at what is committed, says so.
    pub(crate) async fn until(&self, wanted: impl Fn() -> bool) {
        match self {
            Self::Book { changed, .. } => {
                let mut changed = changed.clone();
                while !wanted() {
                    if changed.changed().await.is_err() && !wanted() {
                        // Whoever could report is gone.
                        std::future::pending::<()>().await;
                    }
                }
            }
            #[cfg(feature = "kafka")]
            Self::Broker(_) => {
                while !wanted() {
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }
        }
    }
}

/// What the environment asks for.
pub(crate) fn asked_for() -> Option<String> {
    std::env::var(SWITCH).ok().filter(|asked| !asked.is_empty() && asked != "memory")
}

/// How long a partition that is taken away in a rebalance may work on.
pub(crate) const REBALANCE_GRACE: Duration = Duration::from_secs(5);
