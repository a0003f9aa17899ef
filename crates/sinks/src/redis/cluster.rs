//! The nodes of a Redis Cluster.
//!
//! Finding the node of a key, and following the cluster when it changes, is the client's business.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{
    ConnectionInfo, Pipeline, RedisError, Value, aio::ConnectionLike,
    cluster::ClusterClientBuilder, cluster_async::ClusterConnection,
};
/// A cluster, and the connections to its nodes.
pub(super) struct Cluster {
    entry: ConnectionInfo,
    /// What the last answer came by.
    connection: Mutex<Option<ClusterConnection>>,
}

/// What a node may take before the client looks for another one.
const PATIENCE: Duration = Duration::from_secs(5);

impl Cluster {
    pub(super) fn new(entry: ConnectionInfo) -> Self {
        Self { entry, connection: Mutex::default() }
    }

    /// The connection, for whoever wants to use it as well.
    pub(super) fn connection(&self) -> Option<ClusterConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, connection: Option<ClusterConnection>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Sends `pipeline`, whose keys are all of one node.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut connection = match self.connection() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let answer = connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
        // A client that gets no answer may go on by what it knew of a cluster that has changed: the next
        // write asks anew.
        self.keep(answer.is_ok().then_some(connection));
        answer
    }

    async fn open(&self) -> Result<ClusterConnection, RedisError> {
        let client = ClusterClientBuilder::new([self.entry.clone()])
            .connection_timeout(PATIENCE)
            .response_timeout(PATIENCE)
            .retries(2)
            .build()?;
        client.get_async_connection().await
    }
}
