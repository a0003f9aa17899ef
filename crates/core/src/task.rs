//! What a handler asks for: one run of one program, or a result it already knows.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, hash_map::RandomState},
    ffi::{OsStr, OsString},
    fmt,
    hash::BuildHasher,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::{Message, Offset, control::Control};

/// Name of a task in logs, metrics and dead letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// A new id that sorts by the time it was made: `{prefix}-{nanoseconds}-{unique}`.
    #[must_use]
    pub fn generate(prefix: &str) -> Self {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u8));
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let unique = PROCESS.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        Self(format!("{prefix}-{nanos:016x}-{unique:016x}").into())
    }

    /// The same id for the same parts, in every process and release: `{prefix}-{hash of the parts}`.
    ///
    /// With [`Pending::contains`](crate::Pending::contains) a handler sees that the same work is
    /// under way. Parts are told apart: `["ab", "c"]` and `["a", "bc"]` differ.
    #[must_use]
    pub fn stable<P: AsRef<[u8]>>(prefix: &str, parts: impl IntoIterator<Item = P>) -> Self {
        let mut hash = Fnv::default();
        for part in parts {
            let part = part.as_ref();
            hash.write(&(part.len() as u64).to_le_bytes());
            hash.write(part);
        }
        Self(format!("{prefix}-{:032x}", hash.0).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// FNV-1a with 128 bits: stable across releases, which the hasher of std does not promise.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013B);
        }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<[u8]> for TaskId {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl From<&TaskId> for Bytes {
    fn from(id: &TaskId) -> Self {
        Self::copy_from_slice(id.0.as_bytes())
    }
}

impl From<&str> for TaskId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for TaskId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

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
    program: Option<PathBuf>,
    args: Vec<OsString>,
    pub(crate) stdin: Option<Bytes>,
    env: BTreeMap<OsString, OsString>,
    working_dir: Option<PathBuf>,
    timeout: Option<Duration>,
    pub(crate) control: Control,
    precomputed: Option<Precomputed>,
    metadata: serde_json::Value,
    labels: BTreeMap<String, String>,
    priority: i64,
    source_offsets: Vec<Offset>,
    parent: Option<TaskId>,
    ordinal: Vec<u32>,
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
            program: None,
            args: Vec::new(),
            stdin: None,
            env: BTreeMap::new(),
            working_dir: None,
            timeout: None,
            control: Control::default(),
            precomputed: None,
            metadata: serde_json::Value::Null,
            labels: BTreeMap::new(),
            priority: 0,
            source_offsets: Vec::new(),
            parent: None,
            ordinal: Vec::new(),
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
        self.program = Some(program.into());
        self
    }

    /// Adds one argument. No shell is involved: it arrives as it is.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn with_args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets what the program reads; without it, standard input is `/dev/null`.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.stdin = Some(stdin.into());
        self.control.stdin_file = None;
        self
    }

    /// Sets a variable, over `executor.env` and what is inherited.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets the working directory; the default is the worker's.
    #[must_use]
    pub fn working_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.working_dir = Some(dir.into());
        self
    }

    /// Sets the wall-clock limit; the default is `executor.task_timeout_seconds`.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
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
        self.metadata = metadata.into();
        self
    }

    /// Attaches a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets its place among the tasks that wait for a slot: the lowest number goes first, the default
    /// is 0. [`Handler::priority`](crate::Handler::priority) has the last word.
    #[must_use]
    pub fn with_priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// What the framework does when this task replaces `parent`: it stands for the same messages.
    #[must_use]
    pub fn replacing(mut self, parent: &Task) -> Self {
        self.source_offsets.clone_from(&parent.source_offsets);
        self.parent.get_or_insert_with(|| parent.id.clone());
        self.ordinal.clone_from(&parent.ordinal);
        self
    }

    /// What the framework does when this task has ended and is kept to be shown: what it was given to
    /// read, and the result that was known, are let go.
    pub fn let_go_of_content(&mut self) {
        (self.stdin, self.precomputed) = (None, None);
    }

    /// What the framework does when this task is the `nth` of its message, or of those that replace
    /// another.
    #[must_use]
    pub fn as_nth(mut self, nth: u32) -> Self {
        self.ordinal.push(nth);
        self
    }

    /// Makes the task stand for the messages at `offsets` of its window.
    #[must_use]
    pub fn with_source_offsets(mut self, offsets: impl Into<Vec<Offset>>) -> Self {
        self.source_offsets = offsets.into();
        self
    }
}

/// What was set.
impl Task {
    /// The id of this task.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The program, where the task names one.
    #[must_use]
    pub fn program_path(&self) -> Option<&PathBuf> {
        self.program.as_ref()
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.args
    }

    /// What the program reads.
    #[must_use]
    pub fn stdin_bytes(&self) -> Option<&Bytes> {
        self.stdin.as_ref()
    }

    /// The variables of this task alone.
    #[must_use]
    pub fn env_vars(&self) -> &BTreeMap<OsString, OsString> {
        &self.env
    }

    /// The working directory, where the task names one.
    #[must_use]
    pub fn dir(&self) -> Option<&PathBuf> {
        self.working_dir.as_ref()
    }

    /// The wall-clock limit, where the task sets one.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        self.timeout
    }

    /// The result, where it is known beforehand.
    #[must_use]
    pub fn known_result(&self) -> Option<&Precomputed> {
        self.precomputed.as_ref()
    }

    /// What the handler attached.
    #[must_use]
    pub fn meta(&self) -> &serde_json::Value {
        &self.metadata
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Its place among the tasks that wait for a slot, as the task says.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// Offsets of the messages the task stands for; once arranged, never empty.
    #[must_use]
    pub fn source_offsets(&self) -> &[Offset] {
        &self.source_offsets
    }

    /// Which of the tasks of its message it is: `2`, or `2.0` for the first that replaces that one. It
    /// is the same when the message is processed again, if `arrange` answers the same.
    #[must_use]
    pub fn ordinal(&self) -> String {
        self.ordinal.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
    }

    /// The task this one replaces.
    #[must_use]
    pub fn parent_task_id(&self) -> Option<&TaskId> {
        self.parent.as_ref()
    }
}

/// Shows neither the values of variables nor what the program reads: both may be secrets.
impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &self.env.keys())
            .field("stdin_bytes", &self.stdin.as_ref().map(Bytes::len))
            .field("working_dir", &self.working_dir)
            .field("timeout", &self.timeout)
            .field("control", &self.control)
            .field("priority", &self.priority)
            .field("source_offsets", &self.source_offsets)
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}

impl Borrow<str> for TaskId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_unique_and_sort_by_time() {
        let ids: Vec<TaskId> = (0..1_000).map(|_| TaskId::generate("t")).collect();
        let times: Vec<&str> = ids.iter().map(|id| &id.as_str()[..18]).collect();
        assert!(times.is_sorted(), "{times:?}");
        let unique: std::collections::HashSet<&TaskId> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn stable_ids_repeat_and_tell_parts_apart() {
        assert_eq!(TaskId::stable("t", ["a", "b"]), TaskId::stable("t", ["a", "b"]));
        assert_ne!(TaskId::stable("t", ["ab", "c"]), TaskId::stable("t", ["a", "bc"]));
        assert_eq!(
            TaskId::stable("t", ["a"]).as_str(),
            "t-426d56754e03ad9adb79f299c730f21f",
            "the id is part of what users store: it must not change between releases"
        );
    }

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
