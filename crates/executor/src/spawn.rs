//! Task → process, on threads of our own.
//!
//! Spawning blocks its thread until the program is loaded, so it happens neither on the runtime's
//! workers, whose other tasks would wait, nor on its blocking pool, whose threads end when idle. A slot
//! that has a thread to itself spawns there; for whoever shares one or lives on the runtime, as persistent
//! programs do, there are threads that enter the runtime, so that what they spawn is registered there.
//!
//! Everything stays on the `posix_spawn` path of the standard library: a `fork` would cost tens of
//! milliseconds per gigabyte that the worker holds. That is why there is no `pre_exec` here, and why a
//! bare program name is looked up by us: with an environment of its own the library would fork for it.
//!
//! Not covered: where the runtime refuses to watch a process it has just started (it is shutting
//! down, or the system is out of watches), its id is not known and only the failure is reported.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use drakkar_core::Task;
use rustix::{fs::Access, io::Errno};
use tokio::{process::Command, runtime::Handle, sync::oneshot, time::Instant};

use crate::{
    ExecutorConfig, Limits, cpus, env::Environment, guard::Guard, process::Process,
    programs::Presets,
};

/// More threads than this contend for the same locks of the kernel.
const MAX_THREADS: usize = 8;

/// What every process of a pool has in common.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) binary_path: Option<PathBuf>,
    pub(crate) environment: Environment,
    pub(crate) guard: Arc<Guard>,
    pub(crate) limits: Limits,
    pub(crate) presets: Presets,
}

pub(crate) struct Request {
    task: Arc<Task>,
    reply: oneshot::Sender<Result<Process, SpawnError>>,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct SpawnError {
    /// What was to be started.
    pub(crate) program: String,
    /// The operating system's words.
    pub(crate) reason: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The same again must fail the same way.
    Permanent,
    /// The system is short of something: a moment later it may work.
    Shortage,
    /// Nobody knows.
    Other,
}

impl SpawnError {
    fn new(program: &Path, error: &io::Error) -> Self {
        let kind = match Errno::from_io_error(error) {
            Some(
                Errno::NOENT
                | Errno::ACCESS
                | Errno::PERM
                | Errno::NOEXEC
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::TOOBIG
                | Errno::LIBBAD,
            ) => Kind::Permanent,
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
                Kind::Shortage
            }
            // A NUL in a name, an argument or a variable.
            None if error.kind() == io::ErrorKind::InvalidInput => Kind::Permanent,
            _ => Kind::Other,
        };
        Self { program: program.display().to_string(), reason: error.to_string(), kind }
    }

    fn no_program() -> Self {
        Self {
            program: "nothing".to_owned(),
            reason: "the task names no program and executor.binary_path is not set".to_owned(),
            kind: Kind::Permanent,
        }
    }

    fn in_missing_dir(mut self, dir: &Path) -> Self {
        self.reason = format!("working directory {}: {}", dir.display(), self.reason);
        self
    }

    fn without_limits(mut self) -> Self {
        self.reason = format!("executor.limits: {}", self.reason);
        self
    }

    pub(crate) fn is_permanent(&self) -> bool {
        self.kind == Kind::Permanent
    }

    /// Whether to try again at once, without telling anybody.
    pub(crate) fn is_shortage(&self) -> bool {
        self.kind == Kind::Shortage
    }
}

/// Where processes are started.
#[derive(Clone)]
pub(crate) enum Spawner {
    /// On the thread of whoever asks, which has nothing else to do.
    Here(Arc<Common>),
    /// On threads of our own; they end when the last way to them is dropped.
    Elsewhere(mpsc::Sender<Request>),
}

impl Spawner {
    /// Starts the threads, which register what they spawn with `runtime`.
    pub(crate) fn start(
        config: &ExecutorConfig,
        common: &Arc<Common>,
        runtime: &Handle,
    ) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let inbox = Arc::new(Mutex::new(inbox));
        let threads = config.slots().min(cpus::count().get().clamp(2, MAX_THREADS));
        for number in 0..threads {
            let (inbox, common, runtime) =
                (Arc::clone(&inbox), Arc::clone(common), runtime.clone());
            thread::Builder::new()
                .name(format!("drakkar-spawn-{number}"))
                .spawn(move || serve(&inbox, &common, &runtime))?;
        }
        Ok(Self::Elsewhere(requests))
    }

    /// Starts a process for `task`.
    pub(crate) async fn spawn(&self, task: &Arc<Task>) -> Result<Process, SpawnError> {
        let requests = match self {
            Self::Here(common) => return spawn(common, task),
            Self::Elsewhere(requests) => requests,
        };
        let (reply, answer) = oneshot::channel();
        let gone = || SpawnError {
            program: task.id().to_string(),
            reason: "the spawning threads are gone".to_owned(),
            kind: Kind::Other,
        };
        requests.send(Request { task: Arc::clone(task), reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn serve(inbox: &Mutex<mpsc::Receiver<Request>>, common: &Common, runtime: &Handle) {
    let _entered = runtime.enter();
    loop {
        // The guard is dropped with the statement: only the waiting is done under the lock.
        let request = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Request { task, reply }) = request else { return };
        // Where nobody waits any more, dropping the process ends its group.
        drop(reply.send(spawn(common, &task)));
    }
}

fn spawn(common: &Common, task: &Task) -> Result<Process, SpawnError> {
    let named = task.program_path().or(common.binary_path.as_ref());
    let named = named.ok_or_else(SpawnError::no_program)?;
    let preset = common.presets.get(named);
    let named = preset.map_or(named, |preset| &preset.binary);
    let failed = |error: io::Error| SpawnError::new(named, &error);
    let own_path = preset.and_then(|preset| {
        let mut beside = preset.env_beside(task);
        beside.find(|(name, _)| *name == "PATH").map(|(_, path)| OsStr::new(path))
    });
    let path = locate(named, common, task, own_path).map_err(failed)?;
    let ward = common.guard.enrol();
    let (mark, value) = ward.mark();
    let mut command = Command::new(path);
    command
        .arg0(named)
        .args(preset.map_or(&[][..], |preset| &preset.args))
        .args(task.args())
        .env_clear()
        .envs(common.environment.of(task))
        .envs(preset.into_iter().flat_map(|preset| preset.env_beside(task)))
        .env(mark, value)
        .process_group(0)
        .stdin(input(task)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true); // The last resort; `Process` ends the whole group.
    if let Some(dir) = task.dir() {
        command.current_dir(dir);
    }
    let started = Instant::now();
    let child = command.spawn().map_err(|error| match task.dir() {
        Some(dir) if !dir.is_dir() => failed(error).in_missing_dir(dir),
        _ => failed(error),
    })?;
    let process = Process::new(child, ward, started).map_err(failed)?;
    // A program without the limits it should have must not run: dropping it ends its group.
    common.limits.set(process.leader()).map_err(|error| failed(error).without_limits())?;
    Ok(process)
}

fn input(task: &Task) -> Result<Stdio, SpawnError> {
    match task.stdin_path() {
        Some(path) => match regular(path) {
            Ok(file) => Ok(file.into()),
            Err(error) => Err(SpawnError::new(path, &error)),
        },
        None if task.stdin_bytes().is_some() => Ok(Stdio::piped()),
        None => Ok(Stdio::null()),
    }
}

/// To open a pipe would wait for its other side, and this thread has others to start.
fn regular(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// The path to execute: a name without a slash is looked up in the `PATH` that the process will see
/// (`preset`: what its program sets; else in the worker's), anything else starts at the worker's directory,
/// not at the task's.
pub(crate) fn locate(
    program: &Path,
    common: &Common,
    task: &Task,
    preset: Option<&OsStr>,
) -> io::Result<PathBuf> {
    let is_bare = !program.as_os_str().as_encoded_bytes().contains(&b'/');
    if !is_bare {
        return std::path::absolute(program);
    }
    let own = std::env::var_os("PATH");
    let search = preset
        .or_else(|| common.environment.get(task, "PATH").map(OsString::as_os_str))
        .or(own.as_deref());
    let mut error = Errno::NOENT;
    for dir in search.into_iter().flat_map(std::env::split_paths) {
        let candidate = std::path::absolute(dir.join(program))?;
        match rustix::fs::access(&candidate, Access::EXEC_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            // There is one and it is not for us: worth more than "no such file".
            Err(Errno::ACCESS) => error = Errno::ACCESS,
            _ => {}
        }
    }
    Err(error.into())
}
