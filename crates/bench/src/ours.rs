//! A worker as its user would run it: started, and stopped when what was measured is over.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use anyhow::anyhow;
use drakkar::{Config, Handler, RunError, Worker, sections::LogLevel};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle, time::timeout};

use crate::broker::Topic;

/// How long a worker may take for one lap.
const LAP_WITHIN: Duration = Duration::from_mins(2);

/// A worker that runs.
pub(crate) struct Ours {
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Ours {
    pub(crate) fn start<H: Handler>(
        runtime: &Runtime,
        handler: H,
        config: Config,
    ) -> anyhow::Result<Self> {
        let worker = Worker::new(handler).config(config)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let running = runtime.spawn(worker.run_until(async move {
            // Dropped or sent, it is time to stop.
            drop(stopped.await);
        }));
        Ok(Self { stop, running })
    }

    /// Waits for `event`, as long as the worker runs.
    pub(crate) fn until(
        &mut self,
        runtime: &Runtime,
        event: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        runtime.block_on(async {
            tokio::select! {
                waited = timeout(LAP_WITHIN, event) => Ok(waited?),
                ended = &mut self.running => Err(anyhow!("the worker has ended: {ended:?}")),
            }
        })
    }

    pub(crate) fn stop(self, runtime: &Runtime) -> anyhow::Result<()> {
        drop(self.stop);
        Ok(runtime.block_on(self.running)??)
    }
}

/// The defaults, as far as they concern what is measured.
pub(crate) fn config(topic: &Topic, group: &str, slots: usize) -> Config {
    let mut config = Config::default();
    config.kafka.brokers.clone_from(&topic.address);
    config.kafka.source_topic = topic.name.into();
    config.kafka.consumer_group = group.into();
    config.kafka.startup_align_enabled = false; // There is nobody to wait for.
    // The broker does not wake a waiting fetch.
    config.kafka.client_config =
        BTreeMap::from([("fetch.wait.max.ms".to_owned(), "10".to_owned())]);
    config.executor.max_executors = NonZeroUsize::new(slots);
    config.metrics.host = "127.0.0.1".into();
    config.metrics.port = 0;
    config.logging.level = LogLevel::Warning;
    config
}
