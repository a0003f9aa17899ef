//! Programs of a test: which runs there were, and what is played instead of a process.

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    sync::{Arc, Mutex, Weak},
};

use drakkar_core::{Failure, Task};
use drakkar_executor::{Run, Scripted, StandIn};
use tokio::{sync::watch, time::Instant};

use crate::{
    lock,
    patience::{PATIENCE, wait},
    state::State,
};

/// What the closure of [`WorldBuilder::processes`](crate::WorldBuilder::processes) is asked: what would run.
/// Dereferences to the [`Task`].
#[derive(Debug, Clone)]
pub struct Call {
    task: Arc<Task>,
    /// Which attempt it is, from 1.
    pub attempt: u32,
}

impl Deref for Call {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.task
    }
}

impl Call {
    /// What the program would read, as text; empty where it reads nothing.
    #[must_use]
    pub fn stdin_text(&self) -> String {
        let stdin = self.task.stdin_bytes().map(|bytes| &**bytes).unwrap_or_default();
        String::from_utf8_lossy(stdin).into_owned()
    }

    /// The arguments as text, with a space between two.
    #[must_use]
    pub fn args_text(&self) -> String {
        args_text(&self.task)
    }
}

fn args_text(task: &Task) -> String {
    let args: Vec<_> = task.args().iter().map(|arg| arg.to_string_lossy()).collect();
    args.join(" ")
}

/// One run of one program, real or scripted. (A precomputed task has none.)
#[derive(Debug, Clone)]
pub struct TaskRun {
    /// What ran.
    pub task: Arc<Task>,
    /// Which attempt it was, from 1; a message that is read again begins anew.
    pub attempt: u32,
    /// When it got its slot.
    pub started: Instant,
    /// When the slot was free again; `None` while it runs.
    pub ended: Option<Instant>,
    /// How it ended; `None` while it runs, or when it was killed.
    pub run: Option<Run>,
}

impl TaskRun {
    /// Whether it ended with exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.run, Some(Run::Finished(_)))
    }

    /// Why it failed, where it did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.run {
            Some(Run::Failed { failure, .. }) => Some(failure),
            _ => None,
        }
    }

    /// Whether it was ended from outside: its partition was taken away, or the worker stopped.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.ended.is_some() && self.run.is_none()
    }

    /// Whether both ran at the same time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let begins_before_end = |a: &Self, b: &Self| b.ended.is_none_or(|ended| a.started < ended);
        begins_before_end(self, other) && begins_before_end(other, self)
    }
}

impl fmt::Display for TaskRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: Vec<i64> = self.task.source_offsets().iter().map(|offset| offset.0).collect();
        write!(f, "attempt {} for offset {offsets:?}", self.attempt)?;
        if let Some(program) = self.task.program_path() {
            write!(f, " of {}", program.display())?;
        }
        write!(f, " {:?}: ", args_text(&self.task))?;
        match (&self.run, self.ended) {
            (_, None) => write!(f, "running for {:?}", self.started.elapsed()),
            (None, Some(_)) => f.write_str("killed"),
            (Some(Run::Finished(_)), _) => f.write_str("succeeded"),
            (Some(Run::Failed { failure, .. }), _) => failure.fmt(f),
        }
    }
}

/// Every run so far, in the order of their starts. Cheap to clone; outlives its world.
#[derive(Debug, Clone)]
pub struct Runs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runs: Mutex<Vec<TaskRun>>,
    /// Where the last run of a task is; tasks are told apart by their place in memory.
    last: Mutex<HashMap<usize, usize>>,
    changed: watch::Sender<()>,
    world: Mutex<Weak<State>>,
}

impl Runs {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            runs: Mutex::default(),
            last: Mutex::default(),
            changed: watch::Sender::new(()),
            world: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn belongs_to(&self, world: Weak<State>) {
        *lock(&self.shared.world) = world;
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<TaskRun> {
        lock(&self.shared.runs).clone()
    }

    /// How many were started.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.shared.runs).len()
    }

    /// Whether none was started.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that stand for the message at `offset`, whatever its partition.
    #[must_use]
    pub fn of(&self, offset: i64) -> Vec<TaskRun> {
        let mut all = self.all();
        all.retain(|run| run.task.source_offsets().iter().any(|source| source.0 == offset));
        all
    }

    /// Those that have not ended.
    #[must_use]
    pub fn running(&self) -> Vec<TaskRun> {
        let mut all = self.all();
        all.retain(|run| run.ended.is_none());
        all
    }

    /// How many ran at the same time, at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        let all = self.all();
        // The most run at the start of one of them.
        let at = |start: &TaskRun| all.iter().filter(|run| run.spans(start.started)).count();
        all.iter().map(at).max().unwrap_or(0)
    }

    /// Waits until `count` were started.
    ///
    /// # Panics
    ///
    /// When that does not happen in time; the text shows the world.
    #[track_caller]
    pub fn started(&self, count: usize) -> impl Future<Output = ()> + Send + use<> {
        self.wait(format!("{count} runs to start"), move |runs| count <= runs.len())
    }

    /// Waits until `count` have ended.
    ///
    /// # Panics
    ///
    /// When that does not happen in time; the text shows the world.
    #[track_caller]
    pub fn ended(&self, count: usize) -> impl Future<Output = ()> + Send + use<> {
        self.wait(format!("{count} runs to end"), move |runs| {
            count <= runs.iter().filter(|run| run.ended.is_some()).count()
        })
    }

    /// Checks that no task ran again after it had succeeded, and none twice at a time. A message that is
    /// read again, after a crash say, has new tasks: [`Runs::of`] has them all.
    ///
    /// # Panics
    ///
    /// When one did; the text names both runs.
    #[track_caller]
    pub fn assert_nothing_ran_twice(&self) {
        let all = self.all();
        for (number, run) in all.iter().enumerate() {
            let again = all[number + 1..].iter().find(|later| {
                Arc::ptr_eq(&later.task, &run.task) && (run.is_success() || run.overlaps(later))
            });
            if let Some(again) = again {
                panic!("task {} ran twice:\n  {run}\n  {again}", run.task.id());
            }
        }
    }

    #[track_caller]
    fn wait<F: Fn(&[TaskRun]) -> bool + Send + Sync>(
        &self,
        what: String,
        wanted: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        let at = Location::caller();
        let shared = Arc::clone(&self.shared);
        let mut changed = shared.changed.subscribe();
        async move {
            let world = lock(&shared.world).clone();
            let happened = async {
                while !wanted(&lock(&shared.runs)) {
                    // The sender is ours: it cannot be gone.
                    if changed.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            wait(what, &world, PATIENCE, at, happened).await;
        }
    }

    fn begin(&self, task: &Arc<Task>) -> u32 {
        let mut runs = lock(&self.shared.runs);
        let number = runs.len();
        // A retry is the same task again; what is recorded keeps it, so its place is not reused.
        let earlier = lock(&self.shared.last).insert(place(task), number);
        let attempt = earlier.map_or(0, |earlier| runs[earlier].attempt) + 1;
        let (task, started) = (Arc::clone(task), Instant::now());
        runs.push(TaskRun { task, attempt, started, ended: None, run: None });
        drop(runs);
        self.shared.changed.send_replace(());
        attempt
    }

    fn end(&self, task: &Arc<Task>, run: Option<&Run>) {
        let last = lock(&self.shared.last).get(&place(task)).copied();
        let mut runs = lock(&self.shared.runs);
        if let Some(begun) = last.and_then(|last| runs.get_mut(last)) {
            begun.ended = Some(Instant::now());
            begun.run = run.cloned().map(without_file);
        }
        drop(runs);
        self.shared.changed.send_replace(());
    }

    /// The world is gone, and with it every process.
    pub(crate) fn end_all(&self) {
        for run in &mut *lock(&self.shared.runs) {
            run.ended.get_or_insert_with(Instant::now);
        }
        self.shared.changed.send_replace(());
    }
}

/// What is recorded must not keep a file that a worker would remove.
fn without_file(mut run: Run) -> Run {
    let (Run::Finished(output) | Run::Failed { output, .. }) = &mut run;
    output.spooled = None;
    run
}

fn place(task: &Arc<Task>) -> usize {
    Arc::as_ptr(task).addr()
}

impl TaskRun {
    fn spans(&self, instant: Instant) -> bool {
        self.started <= instant && self.ended.is_none_or(|ended| instant < ended)
    }
}

/// What the closure of a test answers.
pub(crate) type Play = dyn Fn(&Call) -> Scripted + Send + Sync;

/// What is wrong with a test that does both, and what to do.
pub(crate) const REAL_IN_PAUSED_TIME: &str = "time is paused and a real process was to be started, which takes real time: script it with \
     World::of(..).processes(..), or do not pause the time";

/// Records every run; plays it where the test says how.
pub(crate) struct Stage {
    pub(crate) runs: Runs,
    pub(crate) play: Option<Arc<Play>>,
    pub(crate) is_paused: bool,
    pub(crate) fault: watch::Sender<Option<String>>,
}

impl StandIn for Stage {
    fn plays(&self) -> bool {
        self.play.is_some()
    }

    fn begins(&self, task: &Arc<Task>) -> Option<Scripted> {
        let attempt = self.runs.begin(task);
        let Some(play) = &self.play else {
            if self.is_paused {
                self.fault.send_replace(Some(REAL_IN_PAUSED_TIME.to_owned()));
            }
            return None;
        };
        let call = Call { task: Arc::clone(task), attempt };
        let scripted = catch_unwind(AssertUnwindSafe(|| play(&call)));
        Some(scripted.unwrap_or_else(|_| {
            let fault = format!("the closure that plays processes panicked at {call:?}");
            self.fault.send_replace(Some(fault));
            Scripted::hangs()
        }))
    }

    fn ended(&self, task: &Arc<Task>, run: Option<&Run>) {
        self.runs.end(task, run);
    }
}
