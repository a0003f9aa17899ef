//! The sinks of a configuration, connected, and how payloads are given to them.
//!
//! A sink that does not accept a payload is tried again for as long as the command may wait. Then nobody
//! knows whether it will; only what it says it never takes is refused.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use drakkar::Config;
use drakkar_core::{Payload, hold::HoldBoard};
use drakkar_sinks::{ConnectError, CustomSinks, Identity, Refused, Settled, Sinks};
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use crate::dlq::{Usage, connect::READER, pass::Answer};

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

    /// Delivers the payloads of letters; an answer for each letter.
    pub(super) fn deliver(&self, letters: Vec<Vec<Payload>>) -> Vec<Answer> {
        let hold = Arc::new(HoldBoard::default()).task();
        let within = humantime::format_duration(self.timeout);
        let one = async |payload| match self.sinks.deliver(payload, &hold).await {
            Settled::Confirmed => Answer::Confirmed,
            Settled::Refused(refused) => {
                let Refused { sink, error, is_given_up, .. } = *refused;
                if is_given_up {
                    Answer::Unsettled(format!("{sink} did not take it within {within}: {error}"))
                } else {
                    Answer::Refused(format!("{sink}: {error}"))
                }
            }
        };
        let letter =
            async |payloads: Vec<Payload>| together(&join_all(payloads.into_iter().map(one)).await);
        self.runtime.block_on(join_all(letters.into_iter().map(letter)))
    }

    /// Releases the connections.
    pub(super) fn close(self) {
        self.runtime.block_on(self.sinks.close(self.timeout));
    }
}

/// The answer to a letter, of those to its payloads: while it is unknown whether one of them will be
/// taken, the letter is not done with.
fn together(answers: &[Answer]) -> Answer {
    let is_unsettled = |answer: &&Answer| matches!(answer, Answer::Unsettled(_));
    let is_refused = |answer: &&Answer| matches!(answer, Answer::Refused(_));
    let found = answers.iter().find(is_unsettled).or_else(|| answers.iter().find(is_refused));
    found.cloned().unwrap_or(Answer::Confirmed)
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
    fn a_letter_is_done_with_when_each_of_its_payloads_was_confirmed_or_refused() {
        let refused = Answer::Refused("no".to_owned());
        let unsettled = Answer::Unsettled("down".to_owned());
        for (payloads, expected) in [
            (vec![Answer::Confirmed, Answer::Confirmed], Answer::Confirmed),
            (vec![Answer::Confirmed, refused.clone()], refused.clone()),
            (vec![refused, Answer::Confirmed, unsettled.clone()], unsettled),
        ] {
            assert_eq!(together(&payloads), expected);
        }
    }

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
