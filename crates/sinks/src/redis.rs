//! Commands → a Redis server, or a cluster of them.
//!
//! A batch is one transaction: the server applies all of it in its order, or nothing. A command that
//! is wrong in itself concerns its own payload only. In a cluster there is a transaction for each
//! hash slot.

use std::time::Duration;

#[cfg(feature = "redis-cluster")]
use {futures_util::future::join_all, redis::cluster_routing::Slot, std::collections::HashMap};

use drakkar_core::{Delivery, Ready, RedisPayload, Sink, SinkError, SinkName};
use redis::{
    Client, IntoConnectionInfo, Pipeline, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

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
mod server; // connections to one server
#[cfg(feature = "redis-cluster")]
mod cluster; // connections to the nodes of a cluster

/// Commands → a Redis server.
pub struct RedisSink {
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
    Cluster(cluster::Cluster),
}

impl Link {
    fn new(config: &RedisSinkConfig) -> Result<(String, Self), RedisError> {
        let entry = config.url.expose().into_connection_info()?;
        let address = entry.addr().to_string();
        #[cfg(feature = "redis-cluster")]
        if config.cluster {
            return Ok((address, Self::Cluster(cluster::Cluster::new(entry))));
        }
        let client = Client::open(entry)?;
        let config = ConnectionManagerConfig::new().set_max_delay(Duration::from_secs(2));
        let handle = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok((address, Self::Server { server: Server::new(client), handle }))
    }

    async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::Server { server, .. } => server.send(pipeline).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.send(pipeline).await,
        }
    }

    /// What is taken as one argument.
    fn max_bulk(&self) -> usize {
        match self {
            Self::Server { server, .. } => server.max_bulk(),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => server::MAX_BULK,
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
            hint: "check its url and its scripts, and that the server runs",
        };
        let (address, link) = Link::new(config)
            .map_err(|error| refused("the address", format!("cannot be used: {error}")))?;
        patiently(within, |reason| refused(&address, reason), async || check(&link, config).await)
            .await?;
        let encoder = Encoder::new(config);
        Ok(Self { address: address.clone(), encoder, link })
    }

    fn offer(&self, sink: SinkName, ready: &mut Ready) {
        match &self.link {
            Link::Server { handle, .. } => ready.offer(sink, handle.clone()),
            #[cfg(feature = "redis-cluster")]
            Link::Cluster(cluster) => match cluster.connection() {
                Some(connection) => ready.offer(sink, connection),
                None => ready.connected(sink),
            },
        }
    }
}

/// Asks the server whether it lets us in, and whether the scripts are any.
async fn check(link: &Link, config: &RedisSinkConfig) -> Result<(), Attempt> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("PING");
    ask(link, &pipeline).await.map_err(|error| attempt(&error))?;
    for (name, text) in &config.scripts {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(text);
        ask(link, &pipeline).await.map_err(|error| match attempt(&error) {
            Attempt::Permanent(reason) => Attempt::Permanent(format!("script {name}: {reason}")),
            transient @ Attempt::Transient(_) => transient,
        })?;
    }
    Ok(())
}

/// Sends one command.
async fn ask(link: &Link, pipeline: &Pipeline) -> Result<(), RedisError> {
    for reply in link.send(pipeline).await? {
        reply.extract_error()?;
    }
    Ok(())
}

fn attempt(error: &RedisError) -> Attempt {
    if verdict::is_final(error) {
        Attempt::Permanent(error.to_string())
    } else {
        Attempt::Transient(error.to_string())
    }
}

impl RedisSink {
    /// Adds what carries out the payload at `index`, or says what became of it already.
    fn add(
        &self,
        transaction: &mut Transaction,
        index: usize,
        payload: &RedisPayload,
    ) -> Option<Delivery> {
        match self.encoder.encode(payload, &mut transaction.known, self.link.max_bulk()) {
            Ok(commands) if commands.is_empty() => Some(Delivery::Confirmed),
            Ok(commands) => {
                transaction.push(index, commands);
                None
            }
            Err(error) => Some(Delivery::Permanent(error)),
        }
    }

    async fn apply(&self, transaction: Transaction) -> Vec<(usize, Delivery)> {
        if transaction.is_empty() {
            return Vec::new();
        }
        let (pipeline, answers) = transaction.into_pipeline();
        match self.link.send(&pipeline).await {
            Ok(replies) => answers.read(&replies),
            Err(error) => answers.none(&verdict::unanswered(&self.address, &error)),
        }
    }

    async fn apply_all(&self, batch: &[RedisPayload], outcomes: &mut [Option<Delivery>]) {
        let mut transaction = Transaction::default();
        for (index, (payload, outcome)) in batch.iter().zip(&mut *outcomes).enumerate() {
            *outcome = self.add(&mut transaction, index, payload);
        }
        for (index, outcome) in self.apply(transaction).await {
            outcomes[index] = Some(outcome);
        }
    }

    #[cfg(feature = "redis-cluster")]
    async fn apply_by_slot(&self, batch: &[RedisPayload], outcomes: &mut [Option<Delivery>]) {
        let mut transactions: HashMap<Slot, Transaction> = HashMap::new();
        for (index, (payload, outcome)) in batch.iter().zip(&mut *outcomes).enumerate() {
            let slot = Slot::for_key(self.encoder.routed_by(payload));
            *outcome = self.add(transactions.entry(slot).or_default(), index, payload);
        }
        let applied = transactions.into_values().map(|transaction| self.apply(transaction));
        for (index, outcome) in join_all(applied).await.into_iter().flatten() {
            outcomes[index] = Some(outcome);
        }
    }
}

impl Sink for RedisSink {
    type Payload = RedisPayload;

    async fn deliver(&self, batch: &[RedisPayload]) -> Vec<Delivery> {
        let mut outcomes = vec![None; batch.len()];
        match &self.link {
            Link::Server { .. } => self.apply_all(batch, &mut outcomes).await,
            #[cfg(feature = "redis-cluster")]
            Link::Cluster(_) => self.apply_by_slot(batch, &mut outcomes).await,
        }
        let missing = || SinkError::new("wrong_answer", "the server did not answer");
        let outcome = |of: Option<Delivery>| of.unwrap_or_else(|| Delivery::Transient(missing()));
        outcomes.into_iter().map(outcome).collect()
    }

    async fn probe(&self) -> Result<(), SinkError> {
        let mut ping = redis::pipe();
        ping.cmd("PING");
        let asked = ask(&self.link, &ping).await;
        asked.map_err(|error| verdict::unanswered(&self.address, &error))
    }
}
