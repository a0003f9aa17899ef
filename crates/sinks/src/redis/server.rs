//! The connections to one server.
//!
//! A connection serves one write at a time and is given up when its write was not answered to the
//! end, also when nobody waits for the answer any more. What it had sent by then may still lie
//! unread before a server that is slow or stands still. Were it applied later, it could undo what a
//! newer connection wrote. So nothing more is sent, on whatever connection, before a new one has told
//! the server to end the former one. A server that answered that it takes no writes is looked up by its name anew.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use redis::{
    AsyncConnectionConfig, Client, Pipeline, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    from_redis_value,
};
use tracing::warn;

use super::verdict;

/// What a server takes as one argument, unless it says otherwise.
pub(super) const MAX_BULK: usize = 512 << 20;

/// One server, and the connections to it.
pub(super) struct Server {
    client: Client,
    /// Connections that wait for a write.
    idle: Mutex<Vec<Connection>>,
    /// Connections that were given up, as the server knows them.
    former: Mutex<Vec<Peer>>,
    max_bulk: AtomicUsize,
    /// Whether it was said that nothing can be done about late writes.
    warned: AtomicBool,
}

struct Connection {
    link: MultiplexedConnection,
    /// `None` where the server does not say.
    peer: Option<Peer>,
}

/// A connection as the server knows it: both, since numbers begin anew when it is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Peer {
    id: String,
    address: String,
}

impl Server {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            idle: Mutex::default(),
            former: Mutex::default(),
            max_bulk: AtomicUsize::new(MAX_BULK),
            warned: AtomicBool::new(false),
        }
    }

    /// What it takes as one argument, as it said last.
    pub(super) fn max_bulk(&self) -> usize {
        self.max_bulk.load(Ordering::Relaxed)
    }

    /// Sends one command, which must be obeyed.
    pub(super) async fn ask(&self, pipeline: &Pipeline) -> Result<(), RedisError> {
        for reply in self.send(pipeline).await? {
            reply.extract_error()?;
        }
        Ok(())
    }

    /// Asks whether it takes writes, by one of `key` that changes nothing and makes none.
    pub(super) async fn probe(&self, key: &[u8]) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").cmd("SETRANGE").arg(key).arg(0).arg("");
        for (nth, reply) in self.send(&pipeline).await?.into_iter().enumerate() {
            // Whoever may not write this key may write others.
            if nth == 0 || verdict::takes_no_writes(&reply) {
                reply.extract_error()?;
            }
        }
        Ok(())
    }

    /// Sends `pipeline`, on a new connection where none is to be had, and answers with a reply for each
    /// command of it. Whoever drops the future gives the connection up.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let mut lease = Lease { server: self, connection: Some(connection) };
        let Some(connection) = &mut lease.connection else { return Ok(Vec::new()) };
        let replies = connection.link.req_packed_commands(pipeline, 0, pipeline.len()).await?;
        let answered = lease.connection.take();
        if replies.iter().any(verdict::takes_no_writes) {
            // Nothing that was sent is unread, so they may just end.
            lock(&self.idle).clear();
        } else {
            lock(&self.idle).extend(answered);
        }
        Ok(replies)
    }

    /// A connection that waits for a write; none while a former one may still be served: only a new
    /// connection ends it.
    fn take_idle(&self) -> Option<Connection> {
        let is_clear = lock(&self.former).is_empty();
        let mut idle = lock(&self.idle);
        if !is_clear {
            idle.clear(); // Or there were more with each that is opened in their place.
        }
        idle.pop()
    }

    /// A connection that was let in, after which no former one is served any more.
    async fn open(&self) -> Result<Connection, RedisError> {
        // No limits: who waits for it has one.
        let patient =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut link = self.client.get_multiplexed_async_connection_with_config(&patient).await?;
        let former = lock(&self.former).clone();
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").cmd("CLIENT").arg("INFO");
        pipeline.cmd("CONFIG").arg("GET").arg("proto-max-bulk-len");
        for Peer { id, address } in &former {
            pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
        }
        let mut replies = link.req_packed_commands(&pipeline, 0, pipeline.len()).await?.into_iter();
        let mut next = || replies.next().unwrap_or_default().extract_error();
        next()?; // PING: without credentials it is the first to be refused.
        let peer = self.heard_peer(next());
        if let Ok(limit) = next() {
            self.heard_limit(limit);
        }
        if let Some(error) = former.iter().find_map(|_| next().err()) {
            warn!(
                %error,
                "the server does not end former connections; what they sent late may be applied \
                 after newer writes"
            );
        }
        lock(&self.former).retain(|peer| !former.contains(peer));
        Ok(Connection { link, peer })
    }

    /// Who we are, where the server says it.
    fn heard_peer(&self, said: Result<Value, RedisError>) -> Option<Peer> {
        let (peer, error) = match said {
            Ok(said) => (peer(&said), None),
            Err(error) => (None, Some(error)),
        };
        if peer.is_none() && !self.warned.swap(true, Ordering::Relaxed) {
            let error = error.map(tracing::field::display);
            warn!(
                error,
                "the server does not answer CLIENT INFO, so former connections cannot be ended; what \
                 they sent late may be applied after newer writes"
            );
        }
        peer
    }

    fn heard_limit(&self, said: Value) {
        let said = from_redis_value::<HashMap<String, usize>>(said).unwrap_or_default();
        let limit = said.values().next().copied().unwrap_or(MAX_BULK);
        self.max_bulk.store(limit, Ordering::Relaxed);
    }
}

/// A connection while it is written to.
struct Lease<'a> {
    server: &'a Server,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let given_up = self.connection.take().and_then(|connection| connection.peer);
        lock(&self.server.former).extend(given_up);
    }
}

/// `id=7 addr=127.0.0.1:50004 …`
fn peer(said: &Value) -> Option<Peer> {
    let said: String = from_redis_value(said.clone()).ok()?;
    let field = |name: &str| {
        let mut fields = said.split_ascii_whitespace().filter_map(|field| field.split_once('='));
        fields.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    };
    Some(Peer { id: field("id")?, address: field("addr")? })
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_its_number_and_its_address() {
        let said =
            Value::BulkString(b"id=7 addr=127.0.0.1:50004 laddr=127.0.0.1:6379 fd=8\n".into());
        let known = Peer { id: "7".to_owned(), address: "127.0.0.1:50004".to_owned() };
        assert_eq!(peer(&said), Some(known));
        assert_eq!(peer(&Value::Nil), None);
    }
}
