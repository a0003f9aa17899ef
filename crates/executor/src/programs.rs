//! The `executor.programs` section: programs that tasks call by a name.
//!
//! A task that names a program of this list runs it the way the list says, once per task or as one
//! of many requests to a process that stays. The task is the same in both cases.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fmt,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use drakkar_core::{Task, lenient};
use serde::{Deserialize, Serialize};

use crate::{
    Variables,
    fair::{LaneId, Share},
};

/// Requests on their way to one process, at most.
const MAX_DEPTH: usize = 1024;

/// What the limit of an answer may be: from a few empty fields to what a buffer shall hold.
const ANSWER: RangeInclusive<usize> = 1024..=1024 * 1024 * 1024;

/// How a program is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A process per task.
    #[default]
    OneShot,
    /// Processes that stay and answer one task after the other.
    Persistent,
}

/// What a persistent program reads and prints; `docs/executor.md` has the layouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A JSON object per line, with ids.
    #[default]
    JsonLines,
    /// Binary frames with their length before them, with ids.
    Frames,
    /// A line in, a line out, for filters that know nothing of us.
    Lines,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonLines => "json_lines",
            Self::Frames => "frames",
            Self::Lines => "lines",
        })
    }
}

/// One program that tasks call by a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramConfig {
    /// `one_shot` (a process per task) or `persistent` (processes that stay and answer many tasks).
    /// Default: `one_shot`.
    pub mode: Mode,
    /// What is started; a bare name is looked up in `PATH`. Default: the name.
    pub binary: Option<PathBuf>,
    /// Its first arguments; those of a task follow in a one-shot program, and are part of the
    /// request in a persistent one. Default: none.
    #[serde(deserialize_with = "lenient::list")]
    pub args: Vec<String>,
    /// Variables of its processes, over `executor.env`. Default: none.
    pub env: Variables,
    /// Slots that a one-shot program may have at once (`docs/executor.md#sharing-the-slots`).
    /// Default: all.
    pub max_concurrent: Option<NonZeroUsize>,
    /// Time in slots that a one-shot program gets beside others while tasks of the same priority
    /// wait for them. Default: `1`.
    pub weight: NonZeroU32,
    /// How a persistent program is talked to: `json_lines`, `frames` or `lines`. Default:
    /// `json_lines`.
    pub protocol: Protocol,
    /// Processes of a persistent program; they take no slots of `executor.max_executors`. Default:
    /// as many as there are slots.
    pub instances: Option<NonZeroUsize>,
    /// Requests on their way to one process, at most 1024; 1 with `lines`. Default: `1`.
    pub depth: NonZeroUsize,
    /// Whether it answers pings: at its start, before it is given a task, and when it is idle; not
    /// with `lines`. Default: `false`.
    pub ping: bool,
    /// How long the first ping may take. Default: `1m`.
    #[serde(with = "lenient::duration")]
    pub start_timeout: Duration,
    /// After how much idleness it is pinged. Default: `10s`.
    #[serde(with = "lenient::duration")]
    pub ping_interval: Duration,
    /// How long a later ping may take. Default: `10s`.
    #[serde(with = "lenient::duration")]
    pub ping_timeout: Duration,
    /// Tasks after which a process is replaced. Default: never.
    pub recycle_after_tasks: Option<NonZeroU64>,
    /// Age at which a process is replaced. Default: never.
    #[serde(with = "lenient::optional_duration")]
    pub recycle_after: Option<Duration>,
    /// Bytes of resident memory above which a process is replaced, looked at once a second.
    /// Default: never.
    pub recycle_rss_bytes: Option<NonZeroU64>,
    /// Upper bound of the wait before a process that failed is replaced; doubled for each further
    /// failure in a row. Default: `200ms`.
    #[serde(with = "lenient::duration")]
    pub backoff_initial: Duration,
    /// Upper bound of every such wait. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub backoff_max: Duration,
    /// How long a process may take to end when its input has ended; then SIGTERM,
    /// `executor.kill_grace`, SIGKILL. Default: `2s`.
    #[serde(with = "lenient::duration")]
    pub stop_grace: Duration,
    /// Bytes of one answer as it is printed; a longer one is a fault of the program. Default:
    /// `16777216` (16 MiB).
    pub max_answer_bytes: usize,
}

impl Default for ProgramConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            binary: None,
            args: Vec::new(),
            env: Variables::default(),
            max_concurrent: None,
            weight: NonZeroU32::MIN,
            protocol: Protocol::default(),
            instances: None,
            depth: NonZeroUsize::MIN,
            ping: false,
            start_timeout: Duration::from_mins(1),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            recycle_after_tasks: None,
            recycle_after: None,
            recycle_rss_bytes: None,
            backoff_initial: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            stop_grace: Duration::from_secs(2),
            max_answer_bytes: 16 * 1024 * 1024,
        }
    }
}

impl ProgramConfig {
    /// What is started for the program `name`.
    #[must_use]
    pub fn path<'a>(&'a self, name: &'a str) -> &'a Path {
        self.binary.as_deref().unwrap_or(Path::new(name))
    }

    /// What cannot be, each text with its key below `executor`.
    pub(crate) fn validate(&self, name: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, text: &str| {
            if !right {
                wrong.push(format!("programs.{name}.{text}"));
            }
        };
        check(!self.path(name).as_os_str().is_empty(), "binary: must not be empty");
        for variable in self.env.complaints() {
            check(false, &variable);
        }
        let takes_slots = self.mode == Mode::OneShot;
        check(
            takes_slots || self.max_concurrent.is_none(),
            "max_concurrent: a persistent program takes no slots; it has instances and depth",
        );
        check(
            takes_slots || self.weight == NonZeroU32::MIN,
            "weight: a persistent program takes no slots",
        );
        let depth = self.depth.get();
        check(depth <= MAX_DEPTH, &format!("depth: must not exceed {MAX_DEPTH}"));
        let is_lines = self.protocol == Protocol::Lines;
        check(
            !is_lines || depth == 1,
            "depth: must be 1 with protocol lines, which has no ids to tell answers apart",
        );
        check(!is_lines || !self.ping, "ping: protocol lines has none");
        for (text, time) in [
            ("start_timeout: must not be zero", self.start_timeout),
            ("ping_interval: must not be zero", self.ping_interval),
            ("ping_timeout: must not be zero", self.ping_timeout),
            ("backoff_initial: must not be zero", self.backoff_initial),
            (
                "recycle_after: must not be zero; leave it out for never",
                self.recycle_after.unwrap_or(Duration::MAX),
            ),
        ] {
            check(!time.is_zero(), text);
        }
        check(
            self.backoff_max >= self.backoff_initial,
            "backoff_max: must not be shorter than backoff_initial",
        );
        check(
            ANSWER.contains(&self.max_answer_bytes),
            &format!("max_answer_bytes: must be between {} and {}", ANSWER.start(), ANSWER.end()),
        );
        wrong
    }
}

/// What the name of a one-shot program stands for.
#[derive(Clone)]
pub(crate) struct Preset {
    pub(crate) binary: PathBuf,
    pub(crate) args: Vec<String>,
    env: Variables,
}

impl Preset {
    /// Its variables that `task` does not set itself.
    pub(crate) fn env_beside(&self, task: &Task) -> impl Iterator<Item = (&String, &String)> {
        self.env.iter().filter(|(name, _)| !task.env_vars().contains_key(OsStr::new(name.as_str())))
    }
}

/// The one-shot programs, by name.
pub(crate) type Presets = HashMap<PathBuf, Preset>;

/// What the names of the one-shot programs stand for.
pub(crate) fn presets(programs: &BTreeMap<String, ProgramConfig>) -> Presets {
    let one_shot = programs.iter().filter(|(_, program)| program.mode == Mode::OneShot);
    one_shot
        .map(|(name, program)| {
            let ProgramConfig { args, env, .. } = program.clone();
            let binary = program.path(name).to_owned();
            (PathBuf::from(name), Preset { binary, args, env })
        })
        .collect()
}

/// The lanes of the programs; everything else shares the first one. That of a persistent program, whose
/// processes take no slots, stays empty unless they are played.
pub(crate) struct Lanes(HashMap<PathBuf, LaneId>);

impl Lanes {
    /// Where tasks of `program` wait.
    pub(crate) fn of(&self, program: Option<&Path>) -> LaneId {
        program.and_then(|program| self.0.get(program)).copied().unwrap_or_default()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len() + 1
    }
}

/// A lane for each program, and the shares of all lanes.
pub(crate) fn lanes(programs: &BTreeMap<String, ProgramConfig>) -> (Lanes, Vec<Share>) {
    let (mut lanes, mut shares) = (HashMap::new(), vec![Share::default()]);
    for (name, program) in programs {
        lanes.insert(PathBuf::from(name), shares.len());
        shares.push(Share { limit: program.max_concurrent, weight: program.weight });
    }
    (Lanes(lanes), shares)
}

/// What starts a process of a persistent program: a task like any other, with an input that stays
/// open.
pub(crate) fn start_task(name: &str, program: &ProgramConfig) -> Task {
    let task = Task::new().program(program.path(name)).with_args(&program.args).stdin("");
    program.env.iter().fold(task, |task, (name, value)| task.env(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_round_trip() {
        let config = ProgramConfig::default();
        assert_eq!(config.validate("convert"), Vec::<String>::new());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ProgramConfig>(&text).unwrap(), config);
    }

    #[test]
    fn every_complaint_names_its_key() {
        let config = ProgramConfig {
            binary: Some(PathBuf::new()),
            protocol: Protocol::Lines,
            depth: NonZeroUsize::new(2).unwrap(),
            ping: true,
            start_timeout: Duration::ZERO,
            recycle_after: Some(Duration::ZERO),
            backoff_max: Duration::ZERO,
            max_answer_bytes: 1,
            ..ProgramConfig::default()
        };
        let wrong = config.validate("convert");
        for key in [
            "binary",
            "depth",
            "ping",
            "start_timeout",
            "recycle_after",
            "backoff_max",
            "max_answer_bytes",
        ] {
            let prefix = format!("programs.convert.{key}: ");
            assert!(wrong.iter().any(|text| text.starts_with(&prefix)), "{key} in {wrong:?}");
        }
        assert_eq!(wrong.len(), 7);
    }

    #[test]
    fn a_program_that_takes_no_slots_has_no_share_of_them() {
        let config: ProgramConfig =
            serde_json::from_str(r#"{"mode": "persistent", "max_concurrent": 1, "weight": 2}"#)
                .unwrap();
        let wrong = config.validate("convert").join("\n");
        assert!(wrong.contains("programs.convert.max_concurrent: "), "{wrong}");
        assert!(wrong.contains("programs.convert.weight: "), "{wrong}");
        let one_shot = ProgramConfig { mode: Mode::OneShot, ..config };
        assert_eq!(one_shot.validate("convert"), Vec::<String>::new());
    }

    #[test]
    fn a_name_and_a_protocol_are_enough() {
        let config: ProgramConfig =
            serde_json::from_str(r#"{"mode": "persistent", "protocol": "frames", "depth": 16}"#)
                .unwrap();
        assert_eq!(config.path("convert"), Path::new("convert"));
        assert_eq!((config.protocol, config.depth.get()), (Protocol::Frames, 16));
        assert_eq!(config.protocol.to_string(), "frames");
    }
}
