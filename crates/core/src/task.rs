//! What a handler asks for: one run of one program, or a result it already knows.

mod given; // what was said of it, as it is read
mod id; // what it is called

use std::{ffi::OsStr, fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use smallvec::SmallVec;

use self::given::Said;
pub use self::id::TaskId;
use crate::{Message, Offset};

/// A result that needs no process: the task takes no slot and ends at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precomputed {
    /// What [`TaskResult::stdout`](crate::TaskResult) shall hold.
    pub stdout: Bytes,
    /// What the error output shall hold.
    pub stderr: Bytes,
    /// Anything but 0 goes through [`Handler::on_error`](crate::Handler::on_error) like a real failure.
    pub exit_code: i32,
}

/// One run of one program.
///
/// ```
/// use std::time::Duration;
/// use drakkar_core::Task;
///
/// let task = Task::new()
///     .program("/usr/bin/sort")
///     .arg("-u")
///     .stdin("b\na\nb\n")
///     .env("LC_ALL", "C")
///     .timeout(Duration::from_secs(5));
/// assert_eq!(task.args(), ["-u"]);
/// ```
#[derive(Clone, PartialEq)]
pub struct Task {
    id: TaskId,
    priority: i64,
    source_offsets: SmallVec<[Offset; 2]>,
    ordinal: SmallVec<[u32; 4]>,
    precomputed: Option<Precomputed>,
    pub(crate) said: Said,
}

impl Default for Task {
    fn default() -> Self {
        Self::new()
    }
}

impl Task {
    /// A task that stands for the whole window it is arranged in.
    #[must_use]
    pub fn new() -> Self {
        Self {
            id: TaskId::generate("task"),
            priority: 0,
            source_offsets: SmallVec::new(),
            ordinal: SmallVec::new(),
            precomputed: None,
            said: Said::default(),
        }
    }

    /// A task that stands for one message.
    #[must_use]
    pub fn for_message<T>(message: &Message<T>) -> Self {
        let mut task = Self::new();
        task.source_offsets.push(message.offset);
        task
    }

    /// A task that stands for several messages of its window (fan-in).
    #[must_use]
    pub fn for_messages<'a, T: 'a>(messages: impl IntoIterator<Item = &'a Message<T>>) -> Self {
        let mut task = Self::new();
        task.source_offsets.extend(messages.into_iter().map(|message| message.offset));
        task
    }

    /// Sets the id; the default is [`TaskId::generate`].
    #[must_use]
    pub fn with_id(mut self, id: impl Into<TaskId>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the program; the default is `executor.binary_path`.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.said.program = Some(program.into());
        self
    }

    /// Adds one argument. No shell is involved: it arrives as it is.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.said.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn with_args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.said.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets what the program reads; without it, standard input is `/dev/null`.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.said.stdin = Some(stdin.into());
        self.said.control.stdin_file = None;
        self
    }

    /// Sets a variable, over `executor.env` and what is inherited.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.said.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets the working directory; the default is the worker's.
    #[must_use]
    pub fn working_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.said.working_dir = Some(dir.into());
        self
    }

    /// Sets the wall-clock limit; the default is `executor.task_timeout_seconds`.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.said.timeout = Some(limit);
        self
    }

    /// Makes this a task whose result is known: nothing is run and no slot is taken.
    #[must_use]
    pub fn precomputed(mut self, result: Precomputed) -> Self {
        self.precomputed = Some(result);
        self
    }

    /// Attaches any JSON for the later hooks to find; the framework does not read it.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<serde_json::Value>) -> Self {
        self.said.metadata = metadata.into();
        self
    }

    /// Attaches a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.said.labels.insert(name.into(), value.into());
        self
    }

    /// Sets its place among the tasks that wait for a slot: the lowest number goes first, the default
    /// is 0. [`Handler::priority`](crate::Handler::priority) has the last word.
    #[must_use]
    pub fn with_priority(mut self, priority: i64) -> Self {
        self.set_priority(priority);
        self
    }

    /// What the framework does when [`Handler::priority`](crate::Handler::priority) has answered.
    pub fn set_priority(&mut self, priority: i64) {
        self.priority = priority;
    }

    /// What the framework does when this task replaces `parent`: it stands for the same messages.
    #[must_use]
    pub fn replacing(mut self, parent: &Task) -> Self {
        self.source_offsets.clone_from(&parent.source_offsets);
        self.said.parent.get_or_insert_with(|| parent.id.clone());
        self.ordinal.clone_from(&parent.ordinal);
        self
    }

    /// What the framework does when this task has ended and is kept to be shown: what it was given to
    /// read, and the result that was known, are let go.
    pub fn let_go_of_content(&mut self) {
        self.precomputed = None;
        if self.said.stdin.is_some() {
            self.said.stdin = None;
        }
    }

    /// What the framework does when this task is the `nth` of its message, or of those that replace
    /// another.
    #[must_use]
    pub fn as_nth(mut self, nth: u32) -> Self {
        self.number(nth);
        self
    }

    /// The same in place.
    pub fn number(&mut self, nth: u32) {
        self.ordinal.push(nth);
    }

    /// Makes the task stand for the messages at `offsets` of its window.
    #[must_use]
    pub fn with_source_offsets(mut self, offsets: impl Into<Vec<Offset>>) -> Self {
        self.source_offsets = SmallVec::from_vec(offsets.into());
        self
    }
}

/// Shows neither the values of variables nor what the program reads: both may be secrets.
impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("program", &self.said.program)
            .field("args", &self.said.args)
            .field("env", &self.said.env.keys())
            .field("stdin_bytes", &self.said.stdin.as_ref().map(Bytes::len))
            .field("working_dir", &self.said.working_dir)
            .field("timeout", &self.said.timeout)
            .field("control", &self.said.control)
            .field("priority", &self.priority)
            .field("source_offsets", &self.source_offsets)
            .field("parent", &self.said.parent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret_of_a_task() {
        let task = Task::new().env("API_TOKEN", "hunter2").stdin("hunter2");
        let shown = format!("{task:?}");
        assert!(shown.contains("API_TOKEN") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_replacement_stands_for_the_messages_of_its_parent() {
        let parent = Task::new().with_source_offsets([Offset(3), Offset(4)]);
        let child = Task::new().replacing(&parent);
        assert_eq!(child.source_offsets(), parent.source_offsets());
        assert_eq!(child.parent_task_id(), Some(parent.id()));
    }
}
