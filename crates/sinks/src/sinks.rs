//! All sinks of a worker: which payload goes where, and how its caller waits.
//!
//! Routing is decided here; batching, holding and retrying are the lane's. A payload that no sink
//! can take is refused at once, with the names of those that exist. The table at [`kinds`] is all
//! that a new kind of sink needs here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drakkar_core::{
    CustomPayload, DeadLetter, Delivery, FilePayload, HttpPayload, KafkaPayload, MongoPayload,
    Payload, PostgresPayload, RedisPayload, Sink, SinkError, SinkKind, SinkName, hold::Hold,
    observe::SinkObserver, retry::Backoff,
};
use futures_util::future::join_all;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    config::{BatchConfig, SinksConfig},
    custom::Custom,
    lane::{Lane, OnOpen, Patience, Return, Settings, Shape},
    outcome::{Receipt, Refused, Settled},
};

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

type Instances<P> = BTreeMap<Arc<str>, Lane<P>>;
type Starters<P> = BTreeMap<Arc<str>, Starter<P>>;

/// The kinds of sink there are: where their lanes are kept, what they take, and how they are usually
/// written to.
macro_rules! kinds {
    ($($field:ident: $kind:ident, $variant:ident($payload:ty), $shape:ident, $patience:expr;)*) => {
        struct Lanes {
            $($field: Instances<$payload>,)*
            dead_letter: Lane<DeadLetter>,
        }

        /// Puts [`Sinks`] together one by one.
        pub struct SinksBuilder {
            observer: Arc<dyn SinkObserver>,
            patience: Patience,
            batch: BatchConfig,
            $($field: Starters<$payload>,)*
            dead_letter: Starter<DeadLetter>,
        }

        impl SinksBuilder {
            fn new(observer: Arc<dyn SinkObserver>) -> Self {
                Self {
                    observer,
                    patience: SinksConfig::default().patience(),
                    batch: BatchConfig::default(),
                    $($field: BTreeMap::new(),)*
                    dead_letter: dead_letters(NoDeadLetters),
                }
            }

            $(
                /// Adds a sink of this kind, called `name`.
                #[must_use]
                pub fn $field(mut self, name: &str, sink: impl Sink<Payload = $payload>) -> Self {
                    let patience: fn(Patience) -> Patience = $patience;
                    let of = Usual { kind: SinkKind::$kind, shape: Shape::$shape, patience };
                    self.$field.extend([starter(name, sink, of, &self.batch)]);
                    self
                }
            )*

            /// Starts every lane.
            #[must_use]
            pub fn build(self) -> Sinks {
                let (observer, patience) = (self.observer, self.patience);
                let lanes = Lanes {
                    $($field: started(self.$field, patience, &observer),)*
                    dead_letter: (self.dead_letter)(patience, &observer),
                };
                Sinks { lanes: Arc::new(lanes) }
            }
        }

        impl Sinks {
            /// Which sink takes `payload`: the one it names, or the only one of its kind.
            ///
            /// # Errors
            ///
            /// When there is no such sink, or several and none is named.
            pub fn route(&self, payload: &Payload) -> Result<SinkName, RouteError> {
                let (kind, named) = (payload.kind(), payload.sink());
                match payload {
                    $(Payload::$variant(_) => find(&self.lanes.$field, kind, named).map(Lane::name),)*
                    _ => Err(RouteError::NoneOfKind { kind }),
                }
                .cloned()
            }

            /// Delivers `payload`: waits for room, then for the outcome, for as long as it lasts.
            ///
            /// While the sink is down, `hold` says so. Dropping the future gives the payload up.
            pub async fn deliver(&self, payload: Payload, hold: &Arc<Hold>) -> Settled {
                let (kind, size) = (payload.kind(), payload.size());
                let (payload, error) = match payload {
                    $(Payload::$variant(of) => {
                        match find(&self.lanes.$field, kind, of.sink.as_deref()) {
                            Ok(lane) => {
                                return lane.deliver(of, size, hold).await.map(Payload::$variant);
                            }
                            Err(error) => (Payload::$variant(of), error),
                        }
                    })*
                    other => (other, RouteError::NoneOfKind { kind }),
                };
                let sink = SinkName::new(kind, payload.sink().unwrap_or_default());
                let error = SinkError::new(SinkError::UNKNOWN_SINK, error.to_string());
                let (attempts, is_given_up) = (0, false);
                Settled::Refused(Box::new(Refused { payload, sink, error, attempts, is_given_up }))
            }

            /// Hands `payload` over if its sink has room at once; the [`Receipt`] under `number` goes to
            /// `mailbox`. Dropping the mailbox gives all up that was posted to it.
            ///
            /// # Errors
            ///
            /// The payload, where it would have to wait or has no sink: [`deliver`](Self::deliver) it.
            #[expect(clippy::result_large_err, reason = "it is the payload, moved as it came")]
            pub fn post(
                &self,
                payload: Payload,
                hold: &Arc<Hold>,
                mailbox: &mpsc::UnboundedSender<Receipt>,
                number: u64,
            ) -> Result<(), Payload> {
                let (kind, size) = (payload.kind(), payload.size());
                match payload {
                    $(Payload::$variant(of) => {
                        match find(&self.lanes.$field, kind, of.sink.as_deref()) {
                            Ok(lane) => {
                                let back = || Return::new(mailbox, number, Payload::$variant);
                                lane.post(of, size, hold, back).map_err(Payload::$variant)
                            }
                            Err(_) => Err(Payload::$variant(of)),
                        }
                    })*
                    other => Err(other),
                }
            }

            /// Sinks that hold something, each with how long it has accepted nothing; and those that did
            /// not answer when they were asked, since then.
            #[must_use]
            pub fn held(&self) -> Vec<(SinkName, Duration)> {
                let mut held = Vec::new();
                $(held.extend(self.lanes.$field.values().filter_map(Lane::held));)*
                held.extend(self.lanes.dead_letter.held());
                held
            }

            /// The sinks there are, without the dead-letter topic.
            #[must_use]
            pub fn names(&self) -> Vec<SinkName> {
                let mut names = Vec::new();
                $(names.extend(self.lanes.$field.values().map(Lane::name).cloned());)*
                names
            }

            /// Somebody waits for what is delivered, at the longest until `until`: meanwhile no payload
            /// waits for others (`batch.linger`).
            pub fn hurry(&self, until: Instant) {
                $(self.lanes.$field.values().for_each(|lane| lane.hurry(until));)*
            }

            /// Finishes what is under way and releases the connections, within `within`.
            ///
            /// Meant for when nobody delivers any more: what is held by then is given up unconfirmed.
            pub async fn close(&self, within: Duration) {
                let until = Instant::now() + within;
                let lanes = &self.lanes;
                tokio::join!(
                    $(join_all(lanes.$field.values().map(|lane| lane.close(until))),)*
                    lanes.dead_letter.close(until),
                );
            }
        }
    };
}

kinds! {
    kafka: Kafka, Kafka(KafkaPayload), KAFKA, |usual| Patience { timeout: None, ..usual };
    filesystem: Filesystem, File(FilePayload), FILE, |usual| Patience { timeout: None, ..usual };
    postgres: Postgres, Postgres(PostgresPayload), POSTGRES, |usual| usual;
    mongo: Mongo, Mongo(MongoPayload), MONGO, |usual| usual;
    redis: Redis, Redis(RedisPayload), REDIS, |usual| usual;
    http: Http, Http(HttpPayload), HTTP, |usual| Patience { timeout: None, ..usual };
    any: Custom, Custom(CustomPayload), CUSTOM, |usual| usual;
}

impl Sinks {
    /// A dead letter that its topic refuses for good (it is too large, say), and for how long: it is held
    /// until the topic accepts it, and its partition commits nothing behind it.
    #[must_use]
    pub fn refused_dead_letter(&self) -> Option<(SinkError, Duration)> {
        self.lanes.dead_letter.hopeless()
    }

    /// Puts sinks together one by one; must be built inside a tokio runtime.
    #[must_use]
    pub fn builder(observer: Arc<dyn SinkObserver>) -> SinksBuilder {
        SinksBuilder::new(observer)
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

/// Starts the lane of a sink whose type is known no more.
type Starter<P> = Box<dyn FnOnce(Patience, &Arc<dyn SinkObserver>) -> Lane<P> + Send>;

/// How sinks of a kind are usually written to.
#[derive(Clone, Copy)]
struct Usual {
    kind: SinkKind,
    shape: Shape,
    patience: fn(Patience) -> Patience,
}

fn starter<S: Sink>(
    name: &str,
    sink: S,
    usual: Usual,
    batch: &BatchConfig,
) -> (Arc<str>, Starter<S::Payload>) {
    let name = SinkName::new(usual.kind, name);
    let (shape, linger) = (batch.shape(usual.shape), batch.linger);
    let instance = Arc::clone(&name.instance);
    let start = move |patience, observer: &Arc<dyn SinkObserver>| {
        let patience = Patience { linger, ..(usual.patience)(patience) };
        Lane::start(sink, Settings { name, shape, patience, observer: Arc::clone(observer) })
    };
    (instance, Box::new(start))
}

fn dead_letters(sink: impl Sink<Payload = DeadLetter>) -> Starter<DeadLetter> {
    // Nothing is ever given up here: there is nowhere else for it to go.
    let patience =
        |usual| Patience { timeout: None, give_up_after: None, on_open: OnOpen::Hold, ..usual };
    let usual = Usual { kind: SinkKind::DeadLetter, shape: Shape::DEAD_LETTER, patience };
    starter("dlq", sink, usual, &BatchConfig::default()).1
}

impl SinksBuilder {
    /// How sinks are borne with: backoff, time-outs, circuit breaker.
    #[must_use]
    pub fn config(mut self, config: &SinksConfig) -> Self {
        self.patience = config.patience();
        self
    }

    /// How long to wait before a payload is tried again.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.patience.backoff = backoff;
        self
    }

    /// How payloads are joined for the sinks that are added from here on.
    #[must_use]
    pub fn batch(mut self, batch: &BatchConfig) -> Self {
        self.batch = batch.clone();
        self
    }

    /// Adds a sink of your own, called `name`.
    #[must_use]
    pub fn custom<S: Sink<Payload: Clone>>(self, name: &str, sink: S) -> Self {
        self.any(name, Custom::new(sink))
    }

    /// Sets where dead letters go. Without it they are held for ever.
    #[must_use]
    pub fn dead_letter(mut self, sink: impl Sink<Payload = DeadLetter>) -> Self {
        self.dead_letter = dead_letters(sink);
        self
    }
}

fn started<P>(
    starters: Starters<P>,
    patience: Patience,
    observer: &Arc<dyn SinkObserver>,
) -> Instances<P> {
    starters.into_iter().map(|(name, start)| (name, start(patience, observer))).collect()
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
