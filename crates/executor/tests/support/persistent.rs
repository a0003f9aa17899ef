//! A pool with one persistent program, `stay`, whose processes are marked and leave notes.

use std::{num::NonZeroUsize, time::Duration};

use drakkar_core::Task;
use drakkar_executor::{ExecutorConfig, Mode, Pool, ProgramConfig, Protocol, Run};

use super::{Marker, PATIENCE, config, finished};

/// What a test needs around the program.
pub struct Stage {
    pub config: ExecutorConfig,
    pub marker: Marker,
    notes: tempfile::TempDir,
}

impl Stage {
    /// One process of `program.py`, one request at a time.
    pub fn new(protocol: Protocol) -> Self {
        Self::with(protocol, &[])
    }

    /// The same, with words that say how it shall misbehave.
    pub fn with(protocol: Protocol, words: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/program.py");
        let mut args = vec![script.to_owned(), protocol.to_string()];
        args.extend(words.iter().map(|&word| word.to_owned()));
        let program = ProgramConfig {
            binary: Some("python3".into()),
            args,
            protocol,
            ..ProgramConfig::default()
        };
        Self::of(program)
    }

    /// One process of a filter.
    pub fn filter(binary: &str) -> Self {
        Self::of(ProgramConfig {
            binary: Some(binary.into()),
            protocol: Protocol::Lines,
            ..ProgramConfig::default()
        })
    }

    fn of(mut program: ProgramConfig) -> Self {
        let (marker, notes) = (Marker::new(), tempfile::tempdir().unwrap());
        program.mode = Mode::Persistent;
        program.instances = NonZeroUsize::new(1);
        program.backoff_initial = Duration::from_millis(10);
        program.backoff_max = Duration::from_millis(100);
        program.stop_grace = PATIENCE; // What comes late on a slow machine is not killed for it.
        let (name, value) = marker.variable();
        program.env.insert(name, value);
        program.env.insert("NOTES".to_owned(), notes.path().to_str().unwrap().to_owned());
        let mut config = config(1);
        (config.kill_grace, config.pipe_grace) = (PATIENCE, PATIENCE);
        config.programs.insert("stay".to_owned(), program);
        Self { config, marker, notes }
    }

    /// Changes the program.
    pub fn set(mut self, change: impl FnOnce(&mut ProgramConfig)) -> Self {
        change(self.config.programs.get_mut("stay").unwrap());
        self
    }

    /// Changes what is around it.
    pub fn configure(mut self, change: impl FnOnce(&mut ExecutorConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn pool(&self) -> Pool {
        assert_eq!(self.config.validate(), Vec::<String>::new());
        Pool::start(&self.config).unwrap()
    }

    /// Leaves a note for the program, which may wait for it.
    pub fn tell(&self, name: &str) {
        std::fs::write(self.notes.path().join(name), "").unwrap();
    }

    /// The ids of the processes that have left a note of this name, in order.
    pub fn noted(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.notes.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A task that tells the program what to do.
pub fn task(what: &str) -> Task {
    Task::new().program("stay").arg(what)
}

#[track_caller]
pub fn stdout(run: Run) -> String {
    String::from_utf8(finished(run).stdout.into()).unwrap()
}
