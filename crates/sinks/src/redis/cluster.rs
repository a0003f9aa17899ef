//! The nodes of a Redis Cluster.
//!
//! Finding the node of a key, and following the cluster when it changes, is the client's business.

use std::time::Duration;

use redis::{
    ConnectionInfo, Pipeline, RedisError, Value, aio::ConnectionLike,
    cluster::ClusterClientBuilder, cluster_async::ClusterConnection,
};
use tokio::sync::OnceCell;

/// A cluster, and the connections to its nodes.
pub(super) struct Cluster {
    entry: ConnectionInfo,
    connection: OnceCell<ClusterConnection>,
}

/// What a node may take before the client looks for another one.
const PATIENCE: Duration = Duration::from_secs(5);

impl Cluster {
    pub(super) fn new(entry: ConnectionInfo) -> Self {
        Self { entry, connection: OnceCell::new() }
    }

    /// The connection, for whoever wants to use it as well.
    pub(super) fn connection(&self) -> Option<ClusterConnection> {
        self.connection.get().cloned()
    }

    /// Sends `pipeline`, whose keys are all of one node.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let connection = self.connection.get_or_try_init(|| self.open()).await?;
        connection.clone().req_packed_commands(pipeline, 0, pipeline.len()).await
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
