//! What the Redis sink logs. It listens to the log of the whole process, so it is alone.

#![allow(clippy::unwrap_used)] // In a test a panic is the report.

use std::{
    io,
    sync::{Arc, Mutex},
};

use drakkar::RedisPayload;
use drakkar_integration::{OwnServer, SOON, sinks, until};
use drakkar_sinks::Settled;
use redis::Connection;
use serde_json::json;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tell(server: &mut Connection, words: &[&str]) -> redis::Value {
    redis::cmd(words[0]).arg(&words[1..]).query(server).unwrap()
}

#[tokio::test]
async fn a_user_with_no_more_rights_than_to_write_can_write_and_is_told_once_what_is_lacking() {
    let log = Log::listen();
    let server = OwnServer::start("redis");
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", server.port);
    let connected = || redis::Client::open(url(":drakkar-test"))?.get_connection();
    let mut outside = until("a connection", SOON, connected);
    let config = json!({"redis": {"r": {"url": url("eve:hunter2")}}, "retry_backoff_max": "200ms"});
    let mut written = 0;
    for rights in [&["+ping", "+rpush"][..], &["+client|info", "+client|kill"]] {
        tell(&mut outside, &[&["ACL", "SETUSER", "eve", "on", ">hunter2", "~*"], rights].concat());
        let sinks = sinks::connect(config.clone()).await.unwrap().sinks;
        for _ in 0..2 {
            for settled in sinks::deliver_all(&sinks, [RedisPayload::rpush("list", ["x"])]).await {
                assert_eq!(settled, Settled::Confirmed);
            }
            tell(&mut outside, &["CLIENT", "KILL", "USER", "eve"]); // So that there is another connection.
            written += 1;
        }
        let log = log.text(); // Of the first round: the second lacks nothing.
        assert_eq!(log.matches("newer writes").count(), 1, "{rights:?}: {log}");
        assert!(log.contains("CLIENT INFO") && !log.contains("hunter2"), "{log}");
    }
    assert_eq!(tell(&mut outside, &["LLEN", "list"]), redis::Value::Int(written));
}
