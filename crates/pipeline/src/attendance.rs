//! `on_assign` and `on_revoke`: each once per assignment, and for one partition never two at a time.
//!
//! They run beside everything else, as links of a chain per partition: `on_assign`, whatever the
//! partition does, `on_revoke`, and only then the `on_assign` of the next assignment. What an assignment
//! left running is waited for, so `on_revoke` is the last that a handler hears of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use drakkar_core::{Handler, TopicPartition};
use drakkar_telemetry::Hook;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::partition::Shared;

/// The assignments whose end was not told yet, and the hooks that run.
pub(crate) struct Attendance<H: Handler> {
    shared: Arc<Shared<H>>,
    /// What is under way for each assignment.
    present: HashMap<TopicPartition, TaskTracker>,
    /// Cancelled when the last hook that was called for a partition has returned.
    last: HashMap<TopicPartition, CancellationToken>,
    hooks: TaskTracker,
}

/// What a partition must know of its own assignment.
pub(crate) struct Admission {
    /// Everything that runs for it is tracked here.
    pub present: TaskTracker,
    /// Cancelled when `on_assign` has returned, one way or the other.
    pub prepared: CancellationToken,
}

impl<H: Handler> Attendance<H> {
    pub(crate) fn new(shared: Arc<Shared<H>>) -> Self {
        Self { shared, present: HashMap::new(), last: HashMap::new(), hooks: TaskTracker::new() }
    }

    /// Has `on_assign` called, after all that was before.
    pub(crate) fn assigned(&mut self, partition: &TopicPartition) -> Admission {
        // The source releases a partition before it assigns it again; be safe all the same.
        self.released(partition);
        let present = TaskTracker::new();
        present.close(); // Means that waiting for it ends as soon as nothing is in it.
        self.present.insert(partition.clone(), present.clone());
        let shared = Arc::clone(&self.shared);
        let id = partition.clone();
        let prepared = self.call(partition, async move {
            let hook = async { shared.handler.on_assign(&id).await };
            // Logged and counted; the partition is worked on all the same.
            drop(shared.ask(Hook::OnAssign, Some(&id), hook).await);
        });
        Admission { present, prepared }
    }

    /// Has `on_revoke` called, once nothing of the assignment is under way any more.
    pub(crate) fn released(&mut self, partition: &TopicPartition) {
        let Some(present) = self.present.remove(partition) else {
            return; // Never worked on.
        };
        let shared = Arc::clone(&self.shared);
        let id = partition.clone();
        self.call(partition, async move {
            present.wait().await;
            let hook = async { shared.handler.on_revoke(&id).await };
            // Logged and counted; there is nothing left to decide.
            drop(shared.ask(Hook::OnRevoke, Some(&id), hook).await);
        });
    }

    /// Every assignment is over: calls what is missing and waits for at most `within`.
    pub(crate) async fn close(mut self, within: Duration) {
        let rest: Vec<TopicPartition> = self.present.keys().cloned().collect();
        for partition in &rest {
            self.released(partition);
        }
        self.hooks.close();
        if timeout(within, self.hooks.wait()).await.is_err() {
            let hooks = self.hooks.len();
            warn!(category = "handler", hooks, "on_revoke did not return in time; left behind");
        }
    }

    /// Runs `hook` as the next link of the chain of `partition`. Cancelled when it has ended.
    fn call(
        &mut self,
        partition: &TopicPartition,
        hook: impl Future<Output = ()> + Send + 'static,
    ) -> CancellationToken {
        let done = CancellationToken::new();
        let before = self.last.insert(partition.clone(), done.clone());
        let guard = done.clone().drop_guard();
        self.hooks.spawn(async move {
            let _guard = guard;
            if let Some(before) = before {
                before.cancelled().await;
            }
            hook.await;
        });
        done
    }
}
