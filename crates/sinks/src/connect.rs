//! From the configuration to sinks that answered: every sink is asked once, all at the same time and
//! in bounded time, so that what cannot work is said at the start and with its key.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use drakkar_core::{Sink, kafka_client::Cluster, observe::SinkObserver};

use crate::{
    CustomSinkConfig, DlqConfig, FileSink, FileSinkConfig, Sinks, SinksBuilder, SinksConfig,
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
        "{key}.base_path: {} cannot be written to; make it a directory of this user", path.display()
    )]
    Directory {
        /// The section.
        key: String,
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
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
    /// This build lacks Kafka.
    #[error("{key}: Kafka is not compiled in; build with the cargo feature `kafka`")]
    NotCompiledIn {
        /// The section.
        key: String,
    },
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
    ) -> Result<SinksBuilder, ConnectError> {
        if let Some(name) = configs.keys().find(|name| !self.add.contains_key(*name)) {
            let registered: Vec<&str> = self.add.keys().map(String::as_str).collect();
            let registered =
                if registered.is_empty() { "none".to_owned() } else { registered.join(", ") };
            return Err(ConnectError::Unregistered { name: name.clone(), registered });
        }
        for (name, add) in self.add {
            let config = configs.get(&name).cloned().unwrap_or_default();
            builder = add(builder.batch(&config.batch), &name);
        }
        Ok(builder)
    }
}

impl Sinks {
    /// Connects every sink and the dead-letter topic; a cluster may take `within` to answer.
    ///
    /// `source` is the cluster that is consumed; sinks without brokers of their own write there.
    ///
    /// # Errors
    ///
    /// When a section cannot work, brokers do not answer, or a directory cannot be written to. A
    /// topic that does not exist is no error: what is for it is held until it does.
    pub async fn connect(
        sinks: &SinksConfig,
        custom: CustomSinks,
        dlq: &DlqConfig,
        source: &Cluster,
        identity: &Identity,
        within: Duration,
        observer: Arc<dyn SinkObserver>,
    ) -> Result<Self, ConnectError> {
        let mut wrong = sinks.validate();
        wrong.extend(dlq.validate());
        if !wrong.is_empty() {
            return Err(ConnectError::Invalid(wrong));
        }
        let builder = Self::builder(observer).config(sinks);
        let mut builder = custom.build(builder, &sinks.custom)?;
        for (name, config) in &sinks.filesystem {
            builder = builder.batch(&config.batch).filesystem(name, file(name, config)?);
        }
        let builder = kafka::connect(builder, sinks, dlq, source, identity, within).await?;
        Ok(builder.build())
    }
}

fn file(name: &str, config: &FileSinkConfig) -> Result<FileSink, ConnectError> {
    FileSink::open(config).map_err(|source| ConnectError::Directory {
        key: format!("sinks.filesystem.{name}"),
        path: config.base_path.clone(),
        source,
    })
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::time::Duration;

    use futures_util::future::try_join_all;

    use super::{Cluster, ConnectError, DlqConfig, Identity, SinksConfig};
    use crate::{
        DeadLetterSink, KafkaSink, SinksBuilder, config::client::ProducerSettings,
        kafka::producer::Producer,
    };

    pub(super) async fn connect(
        mut builder: SinksBuilder,
        sinks: &SinksConfig,
        dlq: &DlqConfig,
        source: &Cluster,
        identity: &Identity,
        within: Duration,
    ) -> Result<SinksBuilder, ConnectError> {
        let worker = &identity.worker;
        let asked = sinks.kafka.iter().map(async |(name, config)| {
            let settings = ProducerSettings::of_sink(config, source, worker);
            let producer =
                Producer::connect(format!("sinks.kafka.{name}"), settings, within).await?;
            Ok((name, KafkaSink::new(producer), &config.batch))
        });
        let dead_letters = async {
            let settings = ProducerSettings::of_dead_letters(dlq, source, worker);
            let producer = Producer::connect("dlq".to_owned(), settings, within).await?;
            Ok(DeadLetterSink::new(producer, identity.clone()))
        };
        let (connected, dead_letters) = tokio::try_join!(try_join_all(asked), dead_letters)?;
        for (name, sink, batch) in connected {
            builder = builder.batch(batch).kafka(name, sink);
        }
        Ok(builder.dead_letter(dead_letters))
    }
}

#[cfg(not(feature = "kafka"))]
mod kafka {
    use std::time::Duration;

    use super::{Cluster, ConnectError, DlqConfig, Identity, SinksConfig};
    use crate::SinksBuilder;

    /// Dead letters need Kafka: a worker cannot do without.
    #[allow(clippy::unused_async)] // The other build waits here.
    pub(super) async fn connect(
        _: SinksBuilder,
        _: &SinksConfig,
        _: &DlqConfig,
        _: &Cluster,
        _: &Identity,
        _: Duration,
    ) -> Result<SinksBuilder, ConnectError> {
        let key = "dlq".to_owned();
        Err(ConnectError::NotCompiledIn { key })
    }
}
