//! From the configuration to sinks that answered: every sink is asked once, all at the same time and
//! in bounded time, so that what cannot work is said at the start and with its key.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use drakkar_core::{
    Ready, Sink, SinkKind, SinkName, kafka_client::Cluster, observe::SinkObserver, retry::Backoff,
};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    BatchConfig, CustomSinkConfig, DlqConfig, MissingSink, Sinks, SinksBuilder, SinksConfig,
};

/// Who delivers, as dead letters and brokers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The consumer group.
    pub group: String,
    /// The worker.
    pub worker: String,
}

/// Why a sink cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The section says something that cannot work.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// The brokers did not answer.
    #[error(
        "{key}: the brokers {brokers} did not answer within {within:?}{last}; check {key}.brokers \
         and {key}.security (those of kafka: where they are not set) and that the brokers run"
    )]
    Unreachable {
        /// The section.
        key: String,
        /// Who was asked.
        brokers: String,
        /// For how long.
        within: Duration,
        /// What the client said last.
        last: String,
    },
    /// The client refuses its settings.
    #[error("{key}: the Kafka client refuses its settings: {reason}; check {key}.client_config")]
    Client {
        /// The section.
        key: String,
        /// What the client says.
        reason: String,
    },
    /// The directory cannot be written to.
    #[error(
        "{key}.base_path: {} cannot be written to: {reason}; make it a directory that this user may \
         write to, on a disk that is mounted for writing",
        path.display()
    )]
    Directory {
        /// The section.
        key: String,
        /// The directory.
        path: PathBuf,
        /// What the system says, or for how long it said nothing.
        reason: String,
    },
    /// A sink of the worker's own is configured that it did not register.
    #[error(
        "sinks.custom.{name}: no sink is registered by this name; registered: {registered}; call \
         Worker::sink"
    )]
    Unregistered {
        /// The name.
        name: String,
        /// Those that are.
        registered: String,
    },
    /// A server did not let us in, or did not answer.
    #[error("{key}: {server}: {reason}; {hint}")]
    Server {
        /// The section.
        key: String,
        /// Who was asked, without secrets.
        server: String,
        /// What it says, or for how long it said nothing.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// This build lacks a kind of sink.
    #[error(transparent)]
    NotCompiledIn(#[from] MissingSink),
}

/// Sinks that answered.
pub struct Connected {
    /// Where payloads go.
    pub sinks: Sinks,
    /// What the handler is given of them: the connections of those that have one to give.
    pub ready: Ready,
}

/// A sink that is connected from a section of its own: `sinks.<kind>.<name>`.
#[allow(dead_code, reason = "a build may have no kind that needs it")]
pub(crate) trait Connect: Sink + Sized {
    /// The section.
    type Config;

    /// Asks the server of the section `at` until it answers, for at most `within`; see [`patiently`].
    async fn connect(
        at: String,
        config: &Self::Config,
        within: Duration,
    ) -> Result<Self, ConnectError>;

    /// How payloads are joined for a sink of this section, whose `batch` is given.
    fn batch(_: &Self::Config, batch: &BatchConfig) -> BatchConfig {
        batch.clone()
    }

    /// Hears after what time its lane drops a write that is under way.
    fn dropped_after(&mut self, _: Duration) {}

    /// Gives the handler the connection, where it may use it as well.
    fn offer(&self, sink: SinkName, ready: &mut Ready) {
        ready.connected(sink);
    }
}

/// Why a server cannot be used.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Another attempt may succeed: it did not answer, or says that it is not ready.
    Transient(String),
    /// It will not: credentials, a database that does not exist, settings the driver refuses.
    Permanent(String),
}

/// Tries `connect` until it succeeds or fails for good, for at most `within`, an attempt that hangs
/// included. `error` is what is said then, with the reason.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, Attempt>>>(
    within: Duration,
    error: impl FnOnce(String) -> ConnectError,
    connect: impl Fn() -> F, // `AsyncFn` would make the future of a worker one that is not Send.
) -> Result<T, ConnectError> {
    let deadline = Instant::now() + within;
    let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(2) };
    let mut last = String::new();
    for attempt in 1.. {
        match timeout_at(deadline, connect()).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(Attempt::Permanent(reason))) => return Err(error(reason)),
            Ok(Err(Attempt::Transient(reason))) => last = format!(": {reason}"),
            Err(_) => break,
        }
        let wait = backoff.delay(attempt, fastrand::f64());
        if deadline <= Instant::now() + wait {
            break;
        }
        sleep(wait).await;
    }
    Err(error(format!("no answer within {within:?}{last}")))
}

/// Sinks that the worker's own code brings, by name.
#[derive(Default)]
pub struct CustomSinks {
    add: BTreeMap<String, Add>,
}

type Add = Box<dyn FnOnce(SinksBuilder, &str) -> SinksBuilder + Send>;

impl CustomSinks {
    /// Adds `sink`, which payloads call `name`; an earlier one of that name is replaced.
    pub fn register<S: Sink<Payload: Clone>>(&mut self, name: &str, sink: S) {
        let add = |builder: SinksBuilder, name: &str| builder.custom(name, sink);
        self.add.insert(name.to_owned(), Box::new(add));
    }

    fn build(
        self,
        mut builder: SinksBuilder,
        configs: &BTreeMap<String, CustomSinkConfig>,
        ready: &mut Ready,
    ) -> Result<SinksBuilder, ConnectError> {
        if let Some(name) = configs.keys().find(|name| !self.add.contains_key(*name)) {
            let registered: Vec<&str> = self.add.keys().map(String::as_str).collect();
            let registered =
                if registered.is_empty() { "none".to_owned() } else { registered.join(", ") };
            return Err(ConnectError::Unregistered { name: name.clone(), registered });
        }
        for (name, add) in self.add {
            ready.connected(SinkName::new(SinkKind::Custom, name.as_str()));
            let config = configs.get(&name).cloned().unwrap_or_default();
            builder = add(builder.batch(&config.batch), &name);
        }
        Ok(builder)
    }
}

impl Sinks {
    /// Connects every sink and the dead-letter topic, all at the same time; a server may take `within`
    /// to answer.
    ///
    /// `source` is the cluster that is consumed; Kafka sinks without brokers of their own write there.
    ///
    /// # Errors
    ///
    /// When a section cannot work, a server does not answer or refuses us, a directory cannot be
    /// written to, or a kind of sink is not compiled in. A topic or a table that does not exist is no
    /// error here.
    pub async fn connect(
        sinks: &SinksConfig,
        custom: CustomSinks,
        dlq: &DlqConfig,
        source: &Cluster,
        identity: &Identity,
        within: Duration,
        observer: Arc<dyn SinkObserver>,
    ) -> Result<Connected, ConnectError> {
        let mut wrong = sinks.validate();
        wrong.extend(dlq.validate());
        if !wrong.is_empty() {
            return Err(ConnectError::Invalid(wrong));
        }
        if let Some(missing) = sinks.missing().into_iter().next() {
            return Err(missing.into());
        }
        let mut ready = Ready::default();
        let builder = Self::builder(observer).config(sinks);
        let mut builder = custom.build(builder, &sinks.custom, &mut ready)?;
        let files = sinks.filesystem.iter().map(async |(name, config)| {
            let at = format!("sinks.filesystem.{name}");
            let sink = crate::file::start::connect(at, config, &identity.worker, within).await?;
            Ok((name, config, sink))
        });
        macro_rules! connect {
            ($(#[cfg(feature = $feature:literal)] $kind:ident: $sink:ident as $name:ident;)*) => {
                let (files, kafka, $($kind,)*) = tokio::try_join!(
                    try_join_all(files),
                    kafka::connect(sinks, dlq, source, identity, within),
                    $(async {
                        #[cfg(feature = $feature)]
                        {
                            each::<crate::$kind::$sink>(stringify!($kind), &sinks.$kind, within).await
                        }
                        #[cfg(not(feature = $feature))]
                        {
                            Ok(())
                        }
                    },)*
                )?;
                for (name, config, sink) in files {
                    ready.connected(SinkName::new(SinkKind::Filesystem, name.as_str()));
                    builder = builder.batch(&config.batch).filesystem(name, sink);
                }
                builder = kafka.add(builder, &mut ready);
                $(
                    #[cfg(feature = $feature)]
                    for (name, mut sink) in $kind {
                        sink.dropped_after(sinks.delivery_timeout_seconds);
                        sink.offer(SinkName::new(SinkKind::$name, name.as_str()), &mut ready);
                        let config = &sinks.$kind[&name];
                        let batch = <crate::$kind::$sink as Connect>::batch(config, &config.batch);
                        builder = builder.batch(&batch).$kind(&name, sink);
                    }
                    #[cfg(not(feature = $feature))]
                    let () = $kind;
                )*
            };
        }
        connect! {
            #[cfg(feature = "postgres")] postgres: PostgresSink as Postgres;
            #[cfg(feature = "mongo")] mongo: MongoSink as Mongo;
            #[cfg(feature = "redis")] redis: RedisSink as Redis;
            #[cfg(feature = "http")] http: HttpSink as Http;
        }
        Ok(Connected { sinks: builder.build(), ready })
    }
}

/// Connects every sink of one kind.
#[allow(dead_code, reason = "a build may have no kind that needs it")]
async fn each<S: Connect>(
    kind: &str,
    configs: &BTreeMap<String, S::Config>,
    within: Duration,
) -> Result<Vec<(String, S)>, ConnectError> {
    let asked = configs.iter().map(async |(name, config)| {
        let sink = S::connect(format!("sinks.{kind}.{name}"), config, within).await?;
        Ok((name.clone(), sink))
    });
    try_join_all(asked).await
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::time::Duration;

    use drakkar_core::{Ready, SinkKind, SinkName};
    use futures_util::future::try_join_all;

    use super::{Cluster, ConnectError, DlqConfig, Identity, SinksConfig};
    use crate::{
        BatchConfig, DeadLetterSink, KafkaSink, SinksBuilder, config::client::ProducerSettings,
        kafka::producer::Producer,
    };

    /// Producers whose brokers answered.
    pub(super) struct Producers {
        sinks: Vec<(String, KafkaSink, BatchConfig)>,
        dead_letters: DeadLetterSink,
    }

    impl Producers {
        pub(super) fn add(self, mut builder: SinksBuilder, ready: &mut Ready) -> SinksBuilder {
            for (name, sink, batch) in self.sinks {
                ready.connected(SinkName::new(SinkKind::Kafka, name.as_str()));
                builder = builder.batch(&batch).kafka(&name, sink);
            }
            builder.dead_letter(self.dead_letters)
        }
    }

    pub(super) async fn connect(
        sinks: &SinksConfig,
        dlq: &DlqConfig,
        source: &Cluster,
        identity: &Identity,
        within: Duration,
    ) -> Result<Producers, ConnectError> {
        let worker = &identity.worker;
        let asked = sinks.kafka.iter().map(async |(name, config)| {
            let settings = ProducerSettings::of_sink(config, source, worker);
            let producer =
                Producer::connect(format!("sinks.kafka.{name}"), settings, within).await?;
            Ok::<_, ConnectError>((name.clone(), KafkaSink::new(producer), config.batch.clone()))
        });
        let dead_letters = async {
            let settings = ProducerSettings::of_dead_letters(dlq, source, worker);
            let producer = Producer::connect("dlq".to_owned(), settings, within).await?;
            Ok::<_, ConnectError>(DeadLetterSink::new(producer, identity.clone(), dlq.on_too_large))
        };
        let (sinks, dead_letters) = tokio::try_join!(try_join_all(asked), dead_letters)?;
        Ok(Producers { sinks, dead_letters })
    }
}

#[cfg(not(feature = "kafka"))]
mod kafka {
    use std::{convert::Infallible, time::Duration};

    use drakkar_core::Ready;

    use super::{Cluster, ConnectError, DlqConfig, Identity, SinksConfig};
    use crate::{MissingSink, SinksBuilder};

    pub(super) struct Producers(Infallible);

    impl Producers {
        pub(super) fn add(self, _: SinksBuilder, _: &mut Ready) -> SinksBuilder {
            match self.0 {}
        }
    }

    /// Dead letters need Kafka: a worker cannot do without.
    #[allow(clippy::unused_async)] // The other build waits here.
    pub(super) async fn connect(
        _: &SinksConfig,
        _: &DlqConfig,
        _: &Cluster,
        _: &Identity,
        _: Duration,
    ) -> Result<Producers, ConnectError> {
        Err(MissingSink { key: "dlq".to_owned(), feature: "kafka" }.into())
    }
}
