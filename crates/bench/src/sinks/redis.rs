//! Values by their key, beside a loop that sends a thousand commands per pipeline.

use anyhow::Context;
use drakkar::{Config, Payload, PayloadError, RedisPayload, sections::RedisSinkConfig};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use super::{Far, Feed, Row, TOGETHER};

/// A server with keys per lap.
pub(super) struct Keys {
    url: String,
    connection: MultiplexedConnection,
}

impl Keys {
    pub(super) fn at_hand(runtime: &Runtime) -> anyhow::Result<Self> {
        let url = super::server("DRAKKAR_TEST_REDIS")?;
        let client = redis::Client::open(url.as_str())?;
        let connection = runtime.block_on(client.get_multiplexed_async_connection())?;
        Ok(Self { url, connection })
    }

    /// How many keys of the lap there are; `and` is done with each.
    fn scan(&self, runtime: &Runtime, lap: &str, and: &str) -> anyhow::Result<usize> {
        runtime.block_on(async {
            let mut connection = self.connection.clone();
            let (mut cursor, mut found) = (0_u64, 0);
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(format!("{}*", prefix(lap)));
                scan.arg("COUNT").arg(TOGETHER);
                let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
                found += keys.len();
                if !keys.is_empty() {
                    redis::cmd(and).arg(keys).query_async::<()>(&mut connection).await?;
                }
                if next == 0 {
                    return Ok(found);
                }
                cursor = next;
            }
        })
    }
}

fn prefix(lap: &str) -> String {
    format!("bench:{lap}:")
}

fn key(lap: &str, row: Row<'_>) -> String {
    format!("{}{}", prefix(lap), row.id)
}

impl Far for Keys {
    const NAME: &'static str = "Redis";
    const GOAL: f64 = 0.5;

    fn prepare(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<()> {
        self.scan(runtime, lap, "DEL").map(|_| ())
    }

    fn configure(&self, _: &str, config: &mut Config) -> anyhow::Result<()> {
        let sink = RedisSinkConfig { url: self.url.as_str().into(), ..RedisSinkConfig::default() };
        config.sinks.redis.insert("rows".to_owned(), sink);
        Ok(())
    }

    fn payload(lap: &str, row: Row<'_>) -> Result<Payload, PayloadError> {
        Ok(RedisPayload::set_json(key(lap, row), &row)?.into())
    }

    fn by_hand(&self, runtime: &Runtime, lap: &str, rows: &mut Feed<'_>) -> anyhow::Result<()> {
        runtime.block_on(async {
            let mut connection = self.connection.clone();
            loop {
                let some = rows.next()?;
                if some.is_empty() {
                    return Ok(());
                }
                let mut pipeline = redis::pipe();
                for &row in &*some {
                    pipeline.set(key(lap, row), serde_json::to_vec(&row)?).ignore();
                }
                pipeline.query_async::<()>(&mut connection).await.context("a pipeline")?;
            }
        })
    }

    /// What was counted is gone then: the next lap finds as much room.
    fn count(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<usize> {
        self.scan(runtime, lap, "UNLINK")
    }
}
