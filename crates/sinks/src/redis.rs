//! Commands → a Redis server, or a cluster of them.
//!
//! A batch is one transaction: the server applies all of it in its order, or nothing. A command that
//! is wrong in itself concerns its own payload only. In a cluster there is a transaction for each
//! hash slot.

use std::time::Duration;

use drakkar_core::{Delivery, Ready, RedisPayload, Sink, SinkError, SinkName};
use redis::{
    Client, IntoConnectionInfo, Pipeline, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
#[cfg(feature = "redis-cluster")]
use tracing::info;

#[cfg(feature = "redis-cluster")]
use crate::TlsConfig;
use crate::{
    RedisSinkConfig,
    connect::{Attempt, Connect, ConnectError, patiently},
};
use encode::Encoder;
use server::Server;
use transaction::Transaction;

mod encode; // payload -> commands
mod transaction; // commands -> one request, its answers -> outcomes
mod verdict; // what an answer means
mod tls; // whom they trust
mod server; // connections to one server
#[cfg(feature = "redis-cluster")]
mod slots; // which node of a cluster serves what
#[cfg(feature = "redis-cluster")]
mod cluster; // the nodes of a cluster, each a server

/// A key that there is not; it stands behind the prefix of the sink.
const PROBED: &[u8] = b"drakkar:probe";

/// Commands → a Redis server.
pub struct RedisSink {
    /// As it is configured, without secrets.
    address: String,
    encoder: Encoder,
    link: Link,
}

/// Where commands are sent.
enum Link {
    Server {
        server: Server,
        /// The handler's own: what it does with it does not meet what the sink sends.
        handle: ConnectionManager,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster {
        cluster: Box<cluster::Cluster>,
        /// The handler's own; none where `tls` says whom to trust, for this client cannot be told.
        handle: Option<redis::cluster::ClusterClient>,
    },
}

/// Who did not answer, where it is not the one that is configured, and why.
type Unanswered = (Option<String>, RedisError);

impl Link {
    /// With its address, without secrets; otherwise who is meant and what is wrong.
    fn new(config: &RedisSinkConfig) -> Result<(String, Self), (String, String)> {
        let unusable =
            |error: RedisError| ("the address".to_owned(), format!("cannot be used: {error}"));
        let entry = config.url.expose().into_connection_info().map_err(unusable)?;
        let address = entry.addr().to_string();
        let entry = tls::secured(entry, &config.tls).map_err(|reason| (address.clone(), reason))?;
        #[cfg(feature = "redis-cluster")]
        if config.cluster {
            let is_own = config.tls == TlsConfig::default();
            let handle = is_own.then(|| redis::cluster::ClusterClient::new([entry.clone()]));
            let handle = handle.transpose().map_err(unusable)?;
            let cluster = Box::new(cluster::Cluster::new(entry).map_err(unusable)?);
            return Ok((address, Self::Cluster { cluster, handle }));
        }
        let client = Client::open(entry).map_err(unusable)?;
        let lazy = ConnectionManagerConfig::new().set_max_delay(Duration::from_secs(2));
        let handle =
            ConnectionManager::new_lazy_with_config(client.clone(), lazy).map_err(unusable)?;
        Ok((address, Self::Server { server: Server::new(client), handle }))
    }

    /// Sends one command to the server, or to each node that takes writes.
    async fn ask(&self, pipeline: &Pipeline) -> Result<(), Unanswered> {
        match self {
            Self::Server { server, .. } => {
                server.ask(pipeline).await.map_err(|error| (None, error))
            }
            #[cfg(feature = "redis-cluster")]
            Self::Cluster { cluster, .. } => {
                let asked = cluster.ask_all(pipeline).await;
                asked.map_err(|(node, error)| (Some(node.to_string()), error))
            }
        }
    }
}

impl Connect for RedisSink {
    type Config = RedisSinkConfig;

    async fn connect(
        at: String,
        config: &Self::Config,
        within: Duration,
    ) -> Result<Self, ConnectError> {
        let refused = |server: &str, reason| ConnectError::Server {
            key: at.clone(),
            server: server.to_owned(),
            reason,
            hint: "check its url, its tls and its scripts, and that the server runs",
        };
        let (address, link) =
            Link::new(config).map_err(|(server, reason)| refused(&server, reason))?;
        patiently(within, |reason| refused(&address, reason), async || check(&link, config).await)
            .await?;
        Ok(Self { address, encoder: Encoder::new(config), link })
    }

    #[cfg(feature = "redis-cluster")]
    fn dropped_after(&mut self, limit: Duration) {
        if let Link::Cluster { cluster, .. } = &mut self.link {
            cluster.answer_before(limit);
        }
    }

    fn offer(&self, sink: SinkName, ready: &mut Ready) {
        match &self.link {
            Link::Server { handle, .. } => ready.offer(sink, handle.clone()),
            #[cfg(feature = "redis-cluster")]
            Link::Cluster { handle: Some(handle), .. } => ready.offer(sink, handle.clone()),
            #[cfg(feature = "redis-cluster")]
            Link::Cluster { handle: None, .. } => {
                info!(%sink, "on_ready is offered no client of this cluster, for that knows no `tls`");
            }
        }
    }
}

/// Asks the server whether it lets us in, and whether the scripts are any.
async fn check(link: &Link, config: &RedisSinkConfig) -> Result<(), Attempt> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("PING");
    link.ask(&pipeline).await.map_err(|unanswered| attempt("", unanswered))?;
    for (name, text) in &config.scripts {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(text);
        let script = format!("script {name}: ");
        link.ask(&pipeline).await.map_err(|unanswered| attempt(&script, unanswered))?;
    }
    Ok(())
}

/// `about` says what is wrong when the server refuses it for good.
fn attempt(about: &str, (place, error): Unanswered) -> Attempt {
    let said = place.map_or_else(|| error.to_string(), |place| format!("{place}: {error}"));
    if verdict::is_final(&error) {
        Attempt::Permanent(format!("{about}{said}"))
    } else {
        Attempt::Transient(said)
    }
}

impl RedisSink {
    /// Applies a batch as one transaction.
    async fn apply(&self, server: &Server, batch: &[RedisPayload]) -> Vec<Option<Delivery>> {
        let mut transaction = Transaction::default();
        let add =
            |(index, payload)| transaction.add(&self.encoder, index, payload, server.max_bulk());
        let mut outcomes: Vec<Option<Delivery>> = batch.iter().enumerate().map(add).collect();
        if transaction.is_empty() {
            return outcomes;
        }
        let mut pipeline = redis::pipe();
        let answers = transaction.write(&mut pipeline);
        let said = match server.send(&pipeline).await {
            Ok(replies) => answers.read(&replies),
            Err(error) => answers.none(&verdict::unanswered(&self.address, &error)),
        };
        for (index, outcome) in said {
            outcomes[index] = Some(outcome);
        }
        outcomes
    }
}

impl Sink for RedisSink {
    type Payload = RedisPayload;

    async fn deliver(&self, batch: &[RedisPayload]) -> Vec<Delivery> {
        let outcomes = match &self.link {
            Link::Server { server, .. } => self.apply(server, batch).await,
            #[cfg(feature = "redis-cluster")]
            Link::Cluster { cluster, .. } => cluster.deliver(&self.encoder, batch).await,
        };
        let missing = || SinkError::new("wrong_answer", "the server did not answer");
        let outcome = |of: Option<Delivery>| of.unwrap_or_else(|| Delivery::Transient(missing()));
        outcomes.into_iter().map(outcome).collect()
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let asked: Result<(), Unanswered> = match &self.link {
            Link::Server { server, .. } => {
                let asked = server.probe(&self.encoder.key(PROBED)).await;
                asked.map_err(|error| (None, error))
            }
            // Its primaries are asked for each time, and they take writes.
            #[cfg(feature = "redis-cluster")]
            Link::Cluster { .. } => {
                let mut ping = redis::pipe();
                ping.cmd("PING");
                self.link.ask(&ping).await
            }
        };
        asked.map_err(|(place, error)| {
            verdict::unanswered(place.as_ref().unwrap_or(&self.address), &error)
        })
    }
}
