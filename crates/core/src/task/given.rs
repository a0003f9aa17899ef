//! What was said of a task, as hooks and the framework read it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::LazyLock,
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;

use super::{Precomputed, Task, TaskId};
use crate::{Offset, control::Control};

/// What many tasks do not say. It has memory of its own, and only once something is said: the rest of a
/// task stays small enough to be handed on.
#[derive(Clone, Default)]
pub(crate) struct Said(Option<Box<Details>>);

#[derive(Clone, Default, PartialEq)]
pub(crate) struct Details {
    pub(crate) program: Option<PathBuf>,
    pub(crate) args: Vec<OsString>,
    pub(crate) stdin: Option<Bytes>,
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) control: Control,
    pub(crate) metadata: Value,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) parent: Option<TaskId>,
}

static NOTHING: LazyLock<Details> = LazyLock::new(Details::default);

impl Deref for Said {
    type Target = Details;

    fn deref(&self) -> &Details {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Said {
    fn deref_mut(&mut self) -> &mut Details {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
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
        self.said.program.as_ref()
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.said.args
    }

    /// What the program reads.
    #[must_use]
    pub fn stdin_bytes(&self) -> Option<&Bytes> {
        self.said.stdin.as_ref()
    }

    /// The variables of this task alone.
    #[must_use]
    pub fn env_vars(&self) -> &BTreeMap<OsString, OsString> {
        &self.said.env
    }

    /// The working directory, where the task names one.
    #[must_use]
    pub fn dir(&self) -> Option<&PathBuf> {
        self.said.working_dir.as_ref()
    }

    /// The wall-clock limit, where the task sets one.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        self.said.timeout
    }

    /// The result, where it is known beforehand.
    #[must_use]
    pub fn known_result(&self) -> Option<&Precomputed> {
        self.precomputed.as_ref()
    }

    /// What the handler attached.
    #[must_use]
    pub fn meta(&self) -> &Value {
        &self.said.metadata
    }

    /// The labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.said.labels
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

    /// Bytes of what a handler said of it: what it reads, arguments, variables, metadata, labels, a result
    /// that is known. Also what it shares with its message counts.
    #[must_use]
    pub fn size(&self) -> usize {
        let Details { program, args, stdin, env, working_dir, metadata, labels, .. } = &*self.said;
        let path = |path: &Option<PathBuf>| path.as_ref().map_or(0, |path| path.as_os_str().len());
        let known = self.precomputed.as_ref();
        stdin.as_ref().map_or(0, Bytes::len)
            + known.map_or(0, |known| known.stdout.len() + known.stderr.len())
            + path(program)
            + path(working_dir)
            + args.iter().map(|arg| arg.len()).sum::<usize>()
            + env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            + size_of_json(metadata)
    }

    /// The task this one replaces.
    #[must_use]
    pub fn parent_task_id(&self) -> Option<&TaskId> {
        self.said.parent.as_ref()
    }
}

/// Bytes of the texts in `value`, and of the values themselves.
fn size_of_json(value: &Value) -> usize {
    let within = match value {
        Value::Null => return 0,
        Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size_of_json).sum(),
        Value::Object(values) => {
            values.iter().map(|(name, value)| name.len() + size_of_json(value)).sum()
        }
    };
    size_of::<Value>() + within
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_of_a_task_is_all_that_was_said_of_it() {
        assert_eq!(Task::new().size(), 0);
        let task = Task::new().program("1234").arg("12").stdin("123").env("1", "2");
        assert_eq!(task.size(), 4 + 2 + 3 + 2);
        let known = Precomputed { stdout: "123".into(), stderr: "12".into(), exit_code: 0 };
        assert_eq!(Task::new().precomputed(known).label("1", "23").size(), 3 + 2 + 3);
        let size = Task::new().metadata(json!({"123": ["1".repeat(1_000), 7]})).size();
        assert_eq!(size, 1_003 + 4 * size_of::<Value>());
    }
}
