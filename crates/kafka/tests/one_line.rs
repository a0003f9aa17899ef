//! What the log says of trouble that the client reports. It listens to the whole process, so it is alone.

#![allow(clippy::unwrap_used)] // It is test code without being a test.

mod world;

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::Level;
use world::{Broker, Heard, Member};

/// What is logged anywhere in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
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

/// The line is the observer's, which counts as well: all others are for those who look for them.
#[tokio::test]
async fn trouble_of_the_client_is_told_to_the_observer_and_logged_by_nobody_else() {
    let log = Log::listen();
    let broker = Broker::start();
    let mut config = broker.topic("one-line", 1);
    config.client_config.insert("reconnect.backoff.max.ms".to_owned(), "100".to_owned());
    let mut member = Member::start(&config).await;
    member.assigned().await;

    broker.with(|cluster| cluster.broker_down(1).unwrap());
    let refused = |heard: &Heard| match heard {
        Heard::Trouble(reason) => reason.contains("Connection refused").then(|| reason.clone()),
        _ => None,
    };
    let reason = member.hears(refused).await;
    // Reported after the others: what was to be logged of them is logged.
    let all_down = |heard: &Heard| match heard {
        Heard::Trouble(reason) => reason.contains("brokers are down").then_some(()),
        _ => None,
    };
    member.hears(all_down).await;
    broker.with(|cluster| cluster.broker_up(1).unwrap());
    member.close().await;

    let told = log.lines(&reason);
    assert!(!told.is_empty(), "what librdkafka says of it is kept for those who look for it");
    assert!(told.iter().all(|line| line.contains("DEBUG")), "{told:#?}");
    let all_down = log.lines("brokers are down");
    assert!(all_down.iter().all(|line| line.contains("DEBUG")), "{all_down:#?}");
}
