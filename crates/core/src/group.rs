//! What has become of a message or a window as a whole, for the hooks that aggregate.

use std::{sync::Arc, time::Duration};

use crate::{Message, TaskFailure, TaskResult};

/// What became of the tasks of one message; see
/// [`Handler::on_message_complete`](crate::Handler::on_message_complete).
///
/// A task that stands for several messages is in the group of each. A task that was replaced is
/// neither among the results nor among the errors, but its replacements are. What a task was given on
/// standard input is not kept for the group, nor is the result of a precomputed one beside its output.
#[derive(Debug)]
pub struct MessageGroup<I> {
    /// The message.
    pub message: Arc<Message<I>>,
    /// Tasks that ended with exit code 0, in the order in which they were done with.
    pub results: Vec<Arc<TaskResult>>,
    /// Tasks that failed for good: skipped or dead-lettered.
    pub errors: Vec<Arc<TaskFailure>>,
    /// How many tasks were replaced by others.
    pub replaced: usize,
    /// Since the message was arranged.
    pub took: Duration,
}

/// What became of the tasks of one window; see
/// [`Handler::on_window_complete`](crate::Handler::on_window_complete).
#[derive(Debug)]
pub struct WindowGroup<I> {
    /// The messages that were arranged, by offset. Those that did not decode or whose `arrange`
    /// failed are missing.
    pub messages: Vec<Arc<Message<I>>>,
    /// Tasks that ended with exit code 0, in the order in which they were done with.
    pub results: Vec<Arc<TaskResult>>,
    /// Tasks that failed for good: skipped or dead-lettered.
    pub errors: Vec<Arc<TaskFailure>>,
    /// How many tasks were replaced by others.
    pub replaced: usize,
    /// Since the window was arranged.
    pub took: Duration,
}

macro_rules! summary {
    ($group:ident, $of:literal) => {
        impl<I> $group<I> {
            #[doc = concat!("Tasks of the ", $of, ", replaced ones not counted.")]
            #[must_use]
            pub fn total(&self) -> usize {
                self.results.len() + self.errors.len()
            }

            /// Whether no task ended.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.total() == 0
            }

            /// Whether no task failed for good.
            #[must_use]
            pub fn all_succeeded(&self) -> bool {
                self.errors.is_empty()
            }

            /// Whether output is missing because it exceeded a limit: that of one run
            /// (`executor.max_stdout_bytes`), or that of the results a partition keeps
            /// (`executor.max_result_bytes`).
            #[must_use]
            pub fn is_truncated(&self) -> bool {
                self.results.iter().any(|done| done.output.is_truncated())
                    || self.errors.iter().any(|failed| failed.output.is_truncated())
            }
        }
    };
}

summary!(MessageGroup, "message");
summary!(WindowGroup, "window");
