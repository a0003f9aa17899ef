//! All sinks of a worker: which payload goes where, and how its caller waits.
//!
//! Routing is decided here; batching, holding and retrying are the lane's. A payload that no sink
//! can take is refused at once, with the names of those that exist.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drakkar_core::{
    DeadLetter, Delivery, FilePayload, KafkaPayload, Payload, Sink, SinkError, SinkKind, SinkName,
    hold::Hold, observe::SinkObserver, retry::Backoff,
};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::lane::{Lane, Settings, Shape};

/// What became of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Settled<P = Payload> {
    /// The far side has it.
    Confirmed,
    /// It will never be accepted.
    Refused(Box<Refused<P>>),
}

/// A payload that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<P = Payload> {
    /// The payload itself.
    pub payload: P,
    /// Who refused it.
    pub sink: SinkName,
    /// Why; class `unknown_sink` where there is no such sink.
    pub error: SinkError,
    /// How many attempts were made.
    pub attempts: u32,
}

impl<P> Settled<P> {
    fn map<Q>(self, payload: impl FnOnce(P) -> Q) -> Settled<Q> {
        match self {
            Self::Confirmed => Settled::Confirmed,
            Self::Refused(refused) => {
                let Refused { payload: back, sink, error, attempts } = *refused;
                Settled::Refused(Box::new(Refused {
                    payload: payload(back),
                    sink,
                    error,
                    attempts,
                }))
            }
        }
    }
}

/// Why a payload has no sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The sink it names is not configured.
    #[error("there is no sink sinks.{}.{name}; configured: {exist}", kind.as_str())]
    Unknown {
        /// The kind of the payload.
        kind: SinkKind,
        /// The name it gives.
        name: String,
        /// Those that are configured.
        exist: String,
    },
    /// It names no sink, and there is none of its kind.
    #[error("no sinks.{} is configured", kind.as_str())]
    NoneOfKind {
        /// The kind of the payload.
        kind: SinkKind,
    },
    /// It names no sink, and there are several of its kind.
    #[error("the payload must name one of several sinks.{}: {exist}", kind.as_str())]
    Ambiguous {
        /// The kind of the payload.
        kind: SinkKind,
        /// Those that are configured.
        exist: String,
    },
}

/// All sinks of a worker. Cheap to clone.
#[derive(Clone)]
pub struct Sinks {
    lanes: Arc<Lanes>,
}

struct Lanes {
    kafka: Instances<KafkaPayload>,
    filesystem: Instances<FilePayload>,
    dead_letter: Lane<DeadLetter>,
}

type Instances<P> = BTreeMap<Arc<str>, Lane<P>>;

impl Sinks {
    /// Puts sinks together one by one; must be built inside a tokio runtime.
    #[must_use]
    pub fn builder(observer: Arc<dyn SinkObserver>) -> SinksBuilder {
        SinksBuilder {
            observer,
            backoff: crate::SinksConfig::default().backoff(),
            kafka: BTreeMap::new(),
            filesystem: BTreeMap::new(),
            dead_letter: starter(SinkKind::DeadLetter, "dlq", Shape::DEAD_LETTER, NoDeadLetters).1,
        }
    }

    /// Which sink takes `payload`: the one it names, or the only one of its kind.
    ///
    /// # Errors
    ///
    /// When there is no such sink, or several and none is named.
    pub fn route(&self, payload: &Payload) -> Result<SinkName, RouteError> {
        let lanes = &self.lanes;
        match payload {
            Payload::Kafka(of) => {
                find(&lanes.kafka, SinkKind::Kafka, of.sink.as_deref()).map(Lane::name)
            }
            Payload::File(of) => {
                find(&lanes.filesystem, SinkKind::Filesystem, of.sink.as_deref()).map(Lane::name)
            }
            other => Err(RouteError::NoneOfKind { kind: other.kind() }),
        }
        .cloned()
    }

    /// Delivers `payload`: waits for room, then for the outcome, for as long as it lasts.
    ///
    /// While the sink is down, `hold` says so. Dropping the future gives the payload up.
    pub async fn deliver(&self, payload: Payload, hold: &Arc<Hold>) -> Settled {
        let kind = payload.kind();
        let size = payload.size();
        let lanes = &self.lanes;
        let (payload, error) = match payload {
            Payload::Kafka(of) => match find(&lanes.kafka, kind, of.sink.as_deref()) {
                Ok(lane) => return lane.deliver(of, size, hold).await.map(Payload::Kafka),
                Err(error) => (Payload::Kafka(of), error),
            },
            Payload::File(of) => match find(&lanes.filesystem, kind, of.sink.as_deref()) {
                Ok(lane) => return lane.deliver(of, size, hold).await.map(Payload::File),
                Err(error) => (Payload::File(of), error),
            },
            other => (other, RouteError::NoneOfKind { kind }),
        };
        let sink = SinkName::new(kind, payload.sink().unwrap_or_default());
        let error = SinkError::new("unknown_sink", error.to_string());
        Settled::Refused(Box::new(Refused { payload, sink, error, attempts: 0 }))
    }

    /// Delivers `letter` to the dead-letter topic; returns only when it is confirmed there.
    pub async fn dead_letter(&self, letter: DeadLetter, hold: &Arc<Hold>) {
        let size = letter.size();
        match self.lanes.dead_letter.deliver(letter, size, hold).await {
            Settled::Confirmed => {}
            Settled::Refused(refused) => {
                let error = refused.error;
                // The lane of dead letters refuses nothing. Were it to, the message behind the
                // letter must not count as settled.
                tracing::error!(%error, "a dead letter was refused; its message stays unsettled");
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sinks that hold something, each with how long it has accepted nothing.
    #[must_use]
    pub fn held(&self) -> Vec<(SinkName, Duration)> {
        let lanes = &self.lanes;
        let kafka = lanes.kafka.values().filter_map(Lane::held);
        let filesystem = lanes.filesystem.values().filter_map(Lane::held);
        kafka.chain(filesystem).chain(lanes.dead_letter.held()).collect()
    }

    /// The sinks there are, without the dead-letter topic.
    #[must_use]
    pub fn names(&self) -> Vec<SinkName> {
        let lanes = &self.lanes;
        let kafka = lanes.kafka.values().map(Lane::name);
        kafka.chain(lanes.filesystem.values().map(Lane::name)).cloned().collect()
    }

    /// Finishes what is under way and releases the connections, within `within`.
    ///
    /// Meant for when nobody delivers any more: what is held by then is given up unconfirmed.
    pub async fn close(&self, within: Duration) {
        let until = Instant::now() + within;
        let lanes = &self.lanes;
        tokio::join!(
            join_all(lanes.kafka.values().map(|lane| lane.close(until))),
            join_all(lanes.filesystem.values().map(|lane| lane.close(until))),
            lanes.dead_letter.close(until),
        );
    }
}

fn find<'a, P: Send + Sync + 'static>(
    instances: &'a Instances<P>,
    kind: SinkKind,
    named: Option<&str>,
) -> Result<&'a Lane<P>, RouteError> {
    let exist = || {
        let all: Vec<&str> = instances.keys().map(|name| &**name).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    match named {
        Some(name) => instances.get(name).ok_or_else(|| RouteError::Unknown {
            kind,
            name: name.to_owned(),
            exist: exist(),
        }),
        None if instances.len() > 1 => Err(RouteError::Ambiguous { kind, exist: exist() }),
        None => instances.values().next().ok_or(RouteError::NoneOfKind { kind }),
    }
}

/// Puts [`Sinks`] together one by one.
pub struct SinksBuilder {
    observer: Arc<dyn SinkObserver>,
    backoff: Backoff,
    kafka: BTreeMap<Arc<str>, Starter<KafkaPayload>>,
    filesystem: BTreeMap<Arc<str>, Starter<FilePayload>>,
    dead_letter: Starter<DeadLetter>,
}

/// Starts the lane of a sink whose type is known no more.
type Starter<P> = Box<dyn FnOnce(Backoff, &Arc<dyn SinkObserver>) -> Lane<P> + Send>;

fn starter<S: Sink>(
    kind: SinkKind,
    name: &str,
    shape: Shape,
    sink: S,
) -> (Arc<str>, Starter<S::Payload>) {
    let name = SinkName::new(kind, name);
    let instance = Arc::clone(&name.instance);
    let start = move |backoff, observer: &Arc<dyn SinkObserver>| {
        let settings = Settings { name, shape, backoff, observer: Arc::clone(observer) };
        Lane::start(sink, settings)
    };
    (instance, Box::new(start))
}

impl SinksBuilder {
    /// How long to wait before a payload is tried again.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Adds `sinks.kafka.<name>`.
    #[must_use]
    pub fn kafka(mut self, name: &str, sink: impl Sink<Payload = KafkaPayload>) -> Self {
        self.kafka.extend([starter(SinkKind::Kafka, name, Shape::KAFKA, sink)]);
        self
    }

    /// Adds `sinks.filesystem.<name>`.
    #[must_use]
    pub fn filesystem(mut self, name: &str, sink: impl Sink<Payload = FilePayload>) -> Self {
        self.filesystem.extend([starter(SinkKind::Filesystem, name, Shape::FILE, sink)]);
        self
    }

    /// Sets where dead letters go. Without it they are held for ever.
    #[must_use]
    pub fn dead_letter(mut self, sink: impl Sink<Payload = DeadLetter>) -> Self {
        self.dead_letter = starter(SinkKind::DeadLetter, "dlq", Shape::DEAD_LETTER, sink).1;
        self
    }

    /// Starts every lane.
    #[must_use]
    pub fn build(self) -> Sinks {
        let Self { observer, backoff, kafka, filesystem, dead_letter } = self;
        let lanes = Lanes {
            kafka: started(kafka, backoff, &observer),
            filesystem: started(filesystem, backoff, &observer),
            dead_letter: dead_letter(backoff, &observer),
        };
        Sinks { lanes: Arc::new(lanes) }
    }
}

fn started<P>(
    starters: BTreeMap<Arc<str>, Starter<P>>,
    backoff: Backoff,
    observer: &Arc<dyn SinkObserver>,
) -> Instances<P> {
    starters.into_iter().map(|(name, start)| (name, start(backoff, observer))).collect()
}

/// Where there is no dead-letter topic: nothing may be given up.
struct NoDeadLetters;

impl Sink for NoDeadLetters {
    type Payload = DeadLetter;

    async fn deliver(&self, batch: &[DeadLetter]) -> Vec<Delivery> {
        let error = SinkError::new("no_dead_letter_topic", "no dead-letter topic is configured");
        vec![Delivery::Transient(error); batch.len()]
    }
}
