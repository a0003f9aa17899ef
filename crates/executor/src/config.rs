//! The `executor:` section: the pool's own settings and those the pipeline reads.
//!
//! Names are those of the Python original where it has the key. Durations are seconds as a number or
//! text with a unit (`500ms`, `2m`); sizes are bytes.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    ops::{Deref, DerefMut},
    path::PathBuf,
    time::Duration,
};

use drakkar_core::{lenient, order::Ordering};
use serde::{Deserialize, Serialize};

use crate::{JobLogConfig, Limits, MemoryGuardConfig, Mode, ProgramConfig, SpoolConfig, cpus, env};

/// How much longer than its graces the kernel may take to make a killed process disappear.
const DISAPPEARING: Duration = Duration::from_secs(5);

const fn non_zero(value: usize) -> NonZeroUsize {
    match NonZeroUsize::new(value) {
        Some(value) => value,
        None => NonZeroUsize::MIN,
    }
}

/// Environment variables. `Debug` shows their names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(
    /// Name and value.
    #[serde(deserialize_with = "lenient::map")]
    pub BTreeMap<String, String>,
);

impl Deref for Variables {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Variables {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Variables {
    /// What cannot be a variable, each text with its key below the section.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        let is_wrong = |name: &str, value: &str| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        self.iter().filter(move |(name, value)| is_wrong(name, value)).map(|(name, _)| {
            format!("env.{name}: names are not empty and hold no `=`, and nothing holds a NUL")
        })
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How tasks are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Program of the tasks that name none; a bare name is looked up in `PATH`, a relative path
    /// starts at the worker's directory. Default: none.
    pub binary_path: Option<PathBuf>,
    /// Variables of every program, over what is inherited. Default: none.
    pub env: Variables,
    /// Whether programs inherit the worker's environment. Default: `true`.
    pub env_inherit_parent: bool,
    /// Names that are not inherited: patterns with `*`, `?` and `[…]`; upper and lower case are the
    /// same. Default: `DK_*`, `DRAKKAR_*`, `*PASSWORD*`, `*PASSWD*`, `*SECRET*`, `*TOKEN*`,
    /// `*_KEY`, `*_DSN`, `*CREDENTIAL*`.
    #[serde(deserialize_with = "lenient::list")]
    pub env_inherit_deny: Vec<String>,
    /// Programs that run at once. Default: as many as CPUs that the worker may use (affinity and
    /// cgroup quota).
    pub max_executors: Option<NonZeroUsize>,
    /// Wall-clock limit of one run, where the task sets none. Default: `2m`.
    #[serde(with = "lenient::duration")]
    pub task_timeout_seconds: Duration,
    /// Messages per `arrange`, at most. Default: `100`.
    pub window_size: NonZeroUsize,
    /// Which messages of a partition are processed one after the other: `unordered` (none), `key`
    /// (those of the same key) or `partition` (all). See `docs/delivery.md#ordering`. Default:
    /// `unordered`.
    pub ordering: Ordering,
    /// A task that has waited that long since it was arranged gets the next slot whatever its
    /// priority; 0 is by age alone. Default: `1m`.
    #[serde(with = "lenient::duration")]
    pub priority_ageing: Duration,
    /// Runs of a task after its first failed one. Default: `3`.
    pub max_retries: u32,
    /// Upper bound of the wait before the first retry; doubled for each further one. Default:
    /// `200ms`.
    #[serde(with = "lenient::duration")]
    pub retry_backoff_initial: Duration,
    /// Upper bound of every wait before a retry. Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub retry_backoff_max: Duration,
    /// How long a stop of the worker waits for what was started. Whoever kills the worker has to
    /// wait for longer (`docs/delivery.md#when-the-worker-stops`). Default: `30s`.
    #[serde(with = "lenient::duration")]
    pub drain_timeout_seconds: Duration,
    /// Tasks of each program that one partition may have in the pool
    /// (`docs/executor.md#sharing-the-slots`), as a multiple of what runs at once: slots, and
    /// requests to persistent programs. With as many of all programs together it arranges no
    /// further window. Default: `32`.
    pub backpressure_high_multiplier: NonZeroUsize,
    /// Bytes of standard output kept per run; the rest is read, discarded and counted. Default:
    /// `1048576` (1 MiB).
    pub max_stdout_bytes: usize,
    /// Bytes of standard error kept per run; the rest is read, discarded and counted. Default:
    /// `262144` (256 KiB).
    pub max_stderr_bytes: usize,
    /// Time between SIGTERM and SIGKILL. Default: `2s`.
    #[serde(with = "lenient::duration")]
    pub kill_grace: Duration,
    /// How long output is awaited when the program has ended and something it started holds the
    /// pipes open. Default: `500ms`.
    #[serde(with = "lenient::duration")]
    pub pipe_grace: Duration,
    /// What a program may use at most. Default: what the worker may.
    pub limits: Limits,
    /// What to do when memory gets short. Default: nothing.
    pub memory_guard: MemoryGuardConfig,
    /// Where standard output goes that is too large for memory. Default: nowhere.
    pub spool: SpoolConfig,
    /// A line for each run of a task. Default: none.
    pub job_log: JobLogConfig,
    /// How long one call of a hook may take. Default: `1m`.
    #[serde(with = "lenient::duration")]
    pub hook_timeout_seconds: Duration,
    /// Tasks of one partition whose results may be in hooks or on their way to sinks. Default:
    /// `256`.
    pub max_hooks: NonZeroUsize,
    /// Windows of one partition in flight. Default: `4`.
    pub max_windows: NonZeroUsize,
    /// Bytes of output that the tasks counted by `max_hooks` may hold. Default: `67108864` (64
    /// MiB).
    pub max_result_bytes: usize,
    /// Bytes of output that those of all partitions may hold together: none may hold more than an
    /// equal share of it. Default: `67108864` (64 MiB).
    pub max_result_bytes_total: usize,
    /// Length of a chain of tasks of which each replaces the one before. Default: `10`.
    pub max_replacements: u32,
    /// Programs that tasks call by a name, and how each is run. Default: none.
    pub programs: BTreeMap<String, ProgramConfig>,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            binary_path: None,
            env: Variables::default(),
            env_inherit_parent: true,
            env_inherit_deny: env::DENIED.iter().map(|&pattern| pattern.to_owned()).collect(),
            max_executors: None,
            task_timeout_seconds: Duration::from_mins(2),
            window_size: non_zero(100),
            ordering: Ordering::Unordered,
            priority_ageing: Duration::from_mins(1),
            max_retries: 3,
            retry_backoff_initial: Duration::from_millis(200),
            retry_backoff_max: Duration::from_secs(30),
            drain_timeout_seconds: Duration::from_secs(30),
            backpressure_high_multiplier: non_zero(32),
            max_stdout_bytes: 1024 * 1024,
            max_stderr_bytes: 256 * 1024,
            kill_grace: Duration::from_secs(2),
            pipe_grace: Duration::from_millis(500),
            limits: Limits::default(),
            memory_guard: MemoryGuardConfig::default(),
            spool: SpoolConfig::default(),
            job_log: JobLogConfig::default(),
            hook_timeout_seconds: Duration::from_mins(1),
            max_hooks: non_zero(256),
            max_windows: non_zero(4),
            max_result_bytes: 64 * 1024 * 1024,
            max_result_bytes_total: 64 * 1024 * 1024,
            max_replacements: 10,
            programs: BTreeMap::new(),
        }
    }
}

impl ExecutorConfig {
    /// Processes alive at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.max_executors.unwrap_or_else(cpus::count).get()
    }

    /// Tasks that can be under way at once: one per slot, and what persistent programs are asked.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let persistent = self.programs.values().filter(|program| program.mode == Mode::Persistent);
        let requests = persistent.map(|program| {
            let instances = program.instances.map_or_else(|| self.slots(), NonZeroUsize::get);
            instances.saturating_mul(program.depth.get())
        });
        requests.fold(self.slots(), usize::saturating_add)
    }

    /// How long programs may take to end that are asked to, until the kernel has cleared them away. Tasks
    /// that ask for [steps of their own](drakkar_core::Task::stop_with) may take longer.
    #[must_use]
    pub fn ending(&self) -> Duration {
        let persistent = self.programs.values().filter(|program| program.mode == Mode::Persistent);
        let longest = persistent.map(|program| program.stop_grace).max();
        DISAPPEARING
            .saturating_add(self.kill_grace)
            .saturating_add(self.pipe_grace.saturating_mul(2))
            .saturating_add(longest.unwrap_or_default())
    }

    /// What cannot be, each text with its full key; empty when all is well.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, text: &str| {
            if !right {
                wrong.push(format!("executor.{text}"));
            }
        };
        check(
            self.binary_path.as_ref().is_none_or(|path| !path.as_os_str().is_empty()),
            "binary_path: must not be empty; leave it out if every task names its program",
        );
        for (text, time) in [
            ("task_timeout_seconds: must not be zero", self.task_timeout_seconds),
            ("hook_timeout_seconds: must not be zero", self.hook_timeout_seconds),
            ("retry_backoff_initial: must not be zero", self.retry_backoff_initial),
        ] {
            check(!time.is_zero(), text);
        }
        check(
            self.retry_backoff_max >= self.retry_backoff_initial,
            "retry_backoff_max: must not be shorter than executor.retry_backoff_initial",
        );
        // In the Python original 0 means "keep everything"; here everything is bounded.
        check(
            self.max_stdout_bytes > 0,
            "max_stdout_bytes: must be at least 1; there is no unlimited",
        );
        check(
            self.max_stderr_bytes > 0,
            "max_stderr_bytes: must be at least 1; there is no unlimited",
        );
        check(self.max_result_bytes > 0, "max_result_bytes: must be at least 1");
        check(self.max_result_bytes_total > 0, "max_result_bytes_total: must be at least 1");
        for text in self.env.complaints() {
            check(false, &text);
        }
        for (name, program) in &self.programs {
            check(!name.is_empty(), "programs: a name must not be empty");
            for text in program.validate(name) {
                check(false, &text);
            }
        }
        let sections = [
            self.limits.validate(),
            self.memory_guard.validate(),
            self.spool.validate(),
            self.job_log.validate(),
        ];
        for text in sections.iter().flatten() {
            check(false, text);
        }
        for text in &self.env_inherit_deny {
            if let Err(error) = env::pattern(text) {
                check(false, &format!("env_inherit_deny: {text:?} is not a pattern: {error}"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_round_trip() {
        let config = ExecutorConfig::default();
        assert_eq!(config.validate(), Vec::<String>::new());
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ExecutorConfig>(&text).unwrap(), config);
    }

    #[test]
    fn numbers_are_taken_for_seconds_and_for_texts() {
        let config: ExecutorConfig = serde_json::from_str(
            r#"{"task_timeout_seconds": 1.5, "kill_grace": "300ms", "env": {"N": 4}}"#,
        )
        .unwrap();
        assert_eq!(config.task_timeout_seconds, Duration::from_millis(1_500));
        assert_eq!(config.kill_grace, Duration::from_millis(300));
        assert_eq!(config.env["N"], "4");
    }

    #[test]
    fn the_capacity_counts_slots_and_requests_to_persistent_programs() {
        let config: ExecutorConfig = serde_json::from_str(
            r#"{"max_executors": 3, "programs": {
                "a": {"mode": "persistent", "instances": 2, "depth": 8},
                "b": {"mode": "persistent"},
                "c": {"instances": 100}}}"#,
        )
        .unwrap();
        assert_eq!(config.capacity(), 3 + 2 * 8 + 3);
    }

    #[test]
    fn every_complaint_names_its_key() {
        let mut config = ExecutorConfig {
            binary_path: Some(PathBuf::new()),
            task_timeout_seconds: Duration::ZERO,
            retry_backoff_max: Duration::from_millis(1),
            max_stdout_bytes: 0,
            env_inherit_deny: vec!["[".to_owned()],
            spool: SpoolConfig { max_bytes: 1, ..SpoolConfig::default() },
            job_log: JobLogConfig { path: Some(PathBuf::new()), max_bytes: 0 },
            ..ExecutorConfig::default()
        };
        config.env.insert("A=B".to_owned(), "1".to_owned());
        let wrong = config.validate();
        for key in [
            "binary_path",
            "task_timeout_seconds",
            "retry_backoff_max",
            "max_stdout_bytes",
            "env.A=B",
            "env_inherit_deny",
            "spool.max_bytes",
            "job_log.path",
            "job_log.max_bytes",
        ] {
            let prefix = format!("executor.{key}: ");
            assert!(wrong.iter().any(|text| text.starts_with(&prefix)), "{key} in {wrong:?}");
        }
        assert_eq!(wrong.len(), 9);
    }

    #[test]
    fn debug_output_shows_no_value_of_a_variable() {
        let mut config = ExecutorConfig::default();
        config.env.insert("API".to_owned(), "hunter2".to_owned());
        let shown = format!("{config:?}");
        assert!(shown.contains("API") && !shown.contains("hunter2"), "{shown}");
    }
}
