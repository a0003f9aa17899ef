//! Starting the poll thread, and waiting for its end.
//!
//! The thread belongs to whoever holds the [`SourceControl`]: it ends after `Close`, or when the last
//! control is gone. What kills it, a panic included, is said as `SourceEvent::Failed` first.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc as commands},
    thread,
    time::Duration,
};

use drakkar_core::{
    observe::SourceObserver,
    source::{SourceCommand, SourceControl, SourceEvent, SourceFailure},
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{error, warn};

use crate::{
    KafkaConfig,
    context::{Context, give_back},
    poll::{Outlet, Poller},
    start,
};

/// How many events, at most, a consumer may still have to tell when it is closed.
const QUEUED: usize = 20;

/// A consumer that runs.
#[derive(Debug)]
pub struct Source {
    /// What it tells. Unbounded, because the poll thread must never wait; there are only as many as
    /// there are rebalances.
    pub events: mpsc::UnboundedReceiver<SourceEvent>,
    /// What it is asked.
    pub control: SourceControl,
    /// The thread itself.
    pub thread: PollThread,
}

/// The thread that owns the consumer.
#[derive(Debug)]
pub struct PollThread {
    handle: thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// Why consuming could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceStartError {
    /// The configuration is refused; the text begins with a key.
    #[error("{0}")]
    Config(String),
    /// Nobody answers.
    #[error(
        "no broker of kafka.brokers ({brokers}) answered within {waited:?}: {reason}; check the \
         address, that the brokers run, and kafka.security.protocol"
    )]
    Unreachable {
        /// The bootstrap servers that were tried.
        brokers: String,
        /// For how long.
        waited: Duration,
        /// What the client says.
        reason: String,
    },
    /// The brokers answer, but not with this topic.
    #[error(
        "kafka.source_topic: topic {topic} cannot be read after {waited:?}: {reason}; create it, or \
         correct kafka.source_topic, kafka.source_topics or kafka.topic_prefix"
    )]
    Topic {
        /// Name of the topic, with its prefix.
        topic: String,
        /// How long we waited for it.
        waited: Duration,
        /// What the brokers say.
        reason: String,
    },
    /// The brokers do not let us in.
    #[error("kafka.security: the brokers ({brokers}) refuse us: {reason}")]
    Denied {
        /// The bootstrap servers.
        brokers: String,
        /// What the brokers say.
        reason: String,
    },
    /// No thread could be started.
    #[error("the poll thread could not be started")]
    Thread(#[source] io::Error),
    /// The thread died before it could say why.
    #[error("the poll thread died while starting")]
    Died,
}

impl Source {
    /// Starts the poll thread, once the brokers answer and the topics exist, which may take
    /// `kafka.start_timeout`. The group is joined after [`SourceCommand::Join`], when startup alignment
    /// says so.
    ///
    /// # Errors
    ///
    /// When the configuration is refused, or brokers or topics are not there in time.
    pub async fn start(
        config: &KafkaConfig,
        client_id: &str,
        observer: Arc<dyn SourceObserver>,
    ) -> Result<Self, SourceStartError> {
        let (tell, events) = mpsc::unbounded_channel();
        let (ask, asked) = commands::channel();
        let (started, answer) = oneshot::channel();
        let (ending, ended) = oneshot::channel::<()>();
        let (config, client_id) = (config.clone(), client_id.to_owned());
        let outlet = Outlet { events: tell, observer };
        let handle = thread::Builder::new()
            .name("drakkar-poll".to_owned())
            .spawn(move || {
                consume(&config, &client_id, outlet, &asked, started);
                drop(ending); // Dropped by a panic as well: whoever joins does not wait for nothing.
            })
            .map_err(SourceStartError::Thread)?;
        let thread = handle.thread().clone();
        // The thread parks when it is idle. An unpark that comes too early is not lost.
        let control = SourceControl::new(ask, Arc::new(move || thread.unpark()));
        answer.await.map_err(|_| SourceStartError::Died)??;
        Ok(Self { events, control, thread: PollThread { handle, ended } })
    }

    /// After [`SourceCommand::Close`]: waits until the consumer has left the group.
    pub async fn join(self, within: Duration) {
        self.thread.join(within).await;
    }
}

impl PollThread {
    /// After [`SourceCommand::Close`]: waits until the consumer has left the group. A client that
    /// does not come to an end is left behind after `within`.
    pub async fn join(self, within: Duration) {
        // An error is the good case: the sender went when the thread ended.
        if timeout(within, self.ended).await.is_err() {
            warn!(category = "kafka", ?within, "the consumer did not close in time; left behind");
            return;
        }
        if self.handle.join().is_err() {
            error!(category = "kafka", "the poll thread panicked while ending");
        }
    }
}

/// The life of the poll thread.
fn consume(
    config: &KafkaConfig,
    client_id: &str,
    outlet: Outlet,
    commands: &commands::Receiver<SourceCommand>,
    started: oneshot::Sender<Result<(), SourceStartError>>,
) {
    let consumer = match start::connect(config, client_id, &outlet, &started) {
        Ok(consumer) => consumer,
        Err(error) => {
            // Whoever no longer waits for the answer needs none.
            drop(started.send(Err(error)));
            return;
        }
    };
    if started.send(Ok(())).is_ok() {
        let events = outlet.events.clone();
        // The consumer stays outside: unwinding must not close it before its context knows.
        let run = || Poller::new(config, &consumer, outlet).run(commands);
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let message = format!(
                "the poll thread panicked: {}; this is a bug in drakkar, please report it",
                text_of(&*panic)
            );
            Err(SourceFailure { message })
        });
        if let Err(failure) = outcome {
            error!(category = "kafka", %failure, "the poll thread cannot go on");
            // Without a pipeline there is nobody left to tell.
            drop(events.send(SourceEvent::Failed(failure)));
            abandon(&consumer);
        }
    }
    close(consumer);
}

/// Leaves the group: dropping polls until the client is done, and the context gives up what it revokes
/// meanwhile.
fn close(consumer: BaseConsumer<Context>) {
    consumer.context().close();
    // A revoke that is queued already is answered first: of two answers to a client that closes, the
    // second may come after its end and would never return.
    for _ in 0..QUEUED {
        drop(consumer.poll(Duration::from_millis(1)));
    }
    drop(consumer);
}

/// Gives back what the loop left behind. A revoke that it still owed an answer to would keep the
/// consumer from ever closing.
fn abandon(consumer: &BaseConsumer<Context>) {
    match consumer.assignment() {
        Ok(all) => give_back(consumer, &all),
        Err(error) => warn!(category = "kafka", %error, "partitions were not given back"),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
