//! The pipeline, running.

use std::{pin::Pin, sync::Arc, time::Duration};

use drakkar_core::{Handler, Ready};
use drakkar_pipeline::{Pipeline, PipelineError, Stop};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    patience::{PATIENCE, within},
    state::State,
};

/// Until it ends.
pub(crate) struct Running {
    task: JoinHandle<Ended>,
}

/// A pipeline that has ended.
pub(crate) struct Ended {
    pub(crate) outcome: Result<(), PipelineError>,
    /// Tells the handler which partitions are gone; to be awaited after the last commit.
    pub(crate) closing: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Running {
    pub(crate) fn start<H: Handler>(
        mut pipeline: Pipeline<H>,
        ready: Ready,
        stop: Stop,
        drain: Duration,
        fault: watch::Sender<Option<String>>,
    ) -> Self {
        let task = tokio::spawn(async move {
            let end = End(fault);
            if let Err(failure) = pipeline.ready(ready).await {
                let why = format!("on_ready failed, and the worker would not start: {failure}");
                end.tell(&why);
                panic!("{why}");
            }
            let outcome = pipeline.run(stop, drain).await;
            end.tell(&match &outcome {
                Ok(()) => "the worker has stopped".to_owned(),
                Err(error) => format!("the worker has stopped: {error}"),
            });
            Ended { outcome, closing: Box::pin(pipeline.close(PATIENCE)) }
        });
        Self { task }
    }

    /// Ends it where it stands.
    pub(crate) async fn abort(self) {
        self.task.abort();
        // Cancelled, or ended just before: it is gone either way.
        drop(self.task.await);
    }

    pub(crate) async fn join(self, state: &Arc<State>) -> Ended {
        match within(PATIENCE, self.task).await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => panic!("the worker died: {error}\n{state}"),
            None => panic!("the worker does not stop\n{state}"),
        }
    }
}

/// Says that the pipeline has ended, also when it panicked.
struct End(watch::Sender<Option<String>>);

impl End {
    fn tell(&self, how: &str) {
        self.0.send_if_modified(|fault| {
            let is_first = fault.is_none();
            if is_first {
                *fault = Some(how.to_owned());
            }
            is_first
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.tell("the worker died");
    }
}
