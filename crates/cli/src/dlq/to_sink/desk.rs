//! The sinks of a configuration, connected, and how payloads are given to them.
//!
//! A sink that does not accept a payload is tried again for as long as the command may wait, and then
//! counts as one that refused.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use drakkar::Config;
use drakkar_core::{Payload, hold::HoldBoard};
use drakkar_sinks::{ConnectError, CustomSinks, Identity, Settled, Sinks};
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use crate::dlq::{Usage, connect::READER};

/// Connected sinks, and what they run on.
pub(super) struct Desk {
    runtime: Runtime,
    sinks: Sinks,
    timeout: Duration,
}

impl Desk {
    /// Connects every sink of `config`, each for `timeout` at the longest.
    pub(super) fn open(mut config: Config, timeout: Duration) -> anyhow::Result<Self> {
        // Their payloads are in no letter, and they live in the worker.
        config.sinks.custom.clear();
        config.sinks.give_up_after = Some(timeout);
        // The last word of a sink that is down is to be its own.
        config.sinks.circuit_breaker.failure_threshold = 0;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let identity =
            Identity { group: config.kafka.consumer_group.clone(), worker: READER.to_owned() };
        let connected = runtime.block_on(Sinks::connect(
            &config.sinks,
            CustomSinks::default(),
            &config.dlq,
            &config.kafka.cluster(),
            &identity,
            timeout,
            Arc::new(()),
        ));
        match connected {
            Ok(connected) => Ok(Self { runtime, sinks: connected.sinks, timeout }),
            Err(error) => Err(said(error)),
        }
    }

    /// Delivers the payloads of letters; for each letter why it was refused, if one of its payloads was.
    pub(super) fn deliver(&self, letters: Vec<Vec<Payload>>) -> Vec<Option<String>> {
        let hold = Arc::new(HoldBoard::default()).task();
        let one = async |payload| match self.sinks.deliver(payload, &hold).await {
            Settled::Confirmed => None,
            Settled::Refused(refused) => Some(format!("{}: {}", refused.sink, refused.error)),
        };
        let letter = async |payloads: Vec<Payload>| {
            let refused = join_all(payloads.into_iter().map(one)).await;
            refused.into_iter().flatten().next()
        };
        self.runtime.block_on(join_all(letters.into_iter().map(letter)))
    }

    /// Releases the connections.
    pub(super) fn close(self) {
        self.runtime.block_on(self.sinks.close(self.timeout));
    }
}

/// What is wrong with the configuration was asked for wrongly; the rest failed.
fn said(error: ConnectError) -> anyhow::Error {
    match error {
        ConnectError::Invalid(_) | ConnectError::NotCompiledIn(_) => {
            anyhow!(Usage(error.to_string()))
        }
        failed => failed.into(),
    }
}

#[cfg(test)]
mod tests {
    use drakkar_sinks::RedisSinkConfig;

    use super::*;

    #[test]
    fn a_kind_that_is_not_compiled_in_is_asked_for_wrongly_and_names_the_feature_that_brings_it() {
        let mut config = Config::default();
        config.sinks.redis.insert("cache".to_owned(), RedisSinkConfig::default());
        let Some(missing) = config.sinks.missing().pop() else {
            return; // Built together with a crate that asks for all kinds.
        };
        let text = said(missing.into());
        assert!(text.is::<Usage>() && text.to_string().contains("feature `redis`"), "{text}");
    }
}
