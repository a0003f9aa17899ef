//! Task → process, on threads of our own.
//!
//! Spawning blocks its thread until the program is loaded, so it happens neither on the runtime's
//! workers, whose other tasks would wait, nor on its blocking pool, whose threads end when idle. A slot
//! spawns on its own thread; for who lives on the runtime, as persistent programs do, there are threads
//! that enter the runtime, so that what they spawn is registered there.
//!
//! Everything is started by `posix_spawn`: a `fork` would cost tens of milliseconds per gigabyte that
//! the worker holds. That is why there is no `pre_exec` here, and why a bare program name is looked up
//! by us. The standard library starts only what has a directory of its own: it builds the environment
//! anew for every process, which costs more than the rest of what we do here.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

use drakkar_core::Task;
use nix::{
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::signal::{SigSet, Signal},
};
use rustix::{
    fs::Access,
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::Pid,
};
use tokio::{runtime::Handle, sync::oneshot, time::Instant};

use crate::{
    ExecutorConfig, LimitRefused, Limits, cpus,
    env::{Block, Environment},
    guard::Guard,
    process::{Ends, Process},
    programs::Presets,
};

/// More threads than this contend for the same locks of the kernel.
const MAX_THREADS: usize = 8;

/// What every process of a pool has in common.
pub(crate) struct Common {
    pub(crate) binary_path: Option<PathBuf>,
    pub(crate) environment: Environment,
    pub(crate) guard: Arc<Guard>,
    pub(crate) limits: Limits,
    pub(crate) presets: Presets,
    /// What a program reads that has no input; opened for the first one.
    pub(crate) nothing: OnceLock<File>,
}

impl Common {
    fn nothing(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(nothing) = self.nothing.get() {
            return Ok(nothing.as_fd());
        }
        let nothing = File::open("/dev/null")?;
        Ok(self.nothing.get_or_init(|| nothing).as_fd())
    }
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

    /// The start of the pool was granted it: whatever has changed since may change again.
    fn without_limit(program: &Path, refused: &LimitRefused) -> Self {
        let (program, reason) = (program.display(), format!("{refused}: {}", refused.source));
        Self { program: program.to_string(), reason, kind: Kind::Other }
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
    let input = Input::of(task)?;
    let ward = common.guard.enrol();
    let (mark, value) = ward.mark();
    let beside = preset.into_iter().flat_map(|preset| preset.env_beside(task));
    let own = task.env_vars().iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let own = own.chain(beside.map(|(name, value)| (OsStr::new(name), OsStr::new(value))));
    let own = own.chain([(OsStr::new(mark), OsStr::new(&value))]);
    let arguments = preset.map_or(&[][..], |preset| &preset.args).iter().map(OsStr::new);
    let arguments = arguments.chain(task.args().iter().map(OsString::as_os_str));
    let (stdin, to_stdin) = input.open(common).map_err(failed)?;
    let (stdout, of_stdout) = output().map_err(failed)?;
    let (stderr, of_stderr) = output().map_err(failed)?;
    let its_ends = [stdin.as_fd(), of_stdout.as_fd(), of_stderr.as_fd()];
    let started = Instant::now();
    let leader = match task.dir() {
        None => {
            let arguments = [named.as_os_str()].into_iter().chain(arguments);
            let environment =
                common.environment.block(own).map_err(|error| failed(error.into()))?;
            start(&path, arguments, &environment, its_ends)
        }
        Some(dir) => {
            let mut command = Command::new(&path);
            command.arg0(named).args(arguments);
            command.env_clear().envs(common.environment.inherited()).envs(own);
            start_in(dir, command, its_ends)
        }
    };
    let leader = leader.map_err(|error| match task.dir() {
        Some(dir) if !dir.is_dir() => failed(error).in_missing_dir(dir),
        _ => failed(error),
    })?;
    let ends = Ends { stdin: to_stdin, stdout, stderr };
    let process = Process::new(leader, ends, ward, started).map_err(failed)?;
    // A program without the limits it should have must not run: dropping it ends its group.
    let limited = common.limits.set(process.leader());
    limited.map_err(|refused| SpawnError::without_limit(named, &refused))?;
    Ok(process)
}

/// Starts a program at the worker's directory, as the leader of a group of its own.
fn start<'a>(
    path: &Path,
    arguments: impl Iterator<Item = &'a OsStr>,
    environment: &Block<'_>,
    ends: [BorrowedFd<'_>; 3],
) -> io::Result<Pid> {
    let arguments: Vec<CString> =
        arguments.map(|one| CString::new(one.as_bytes())).collect::<Result<_, _>>()?;
    let mut files = PosixSpawnFileActions::init()?;
    for (number, file) in (0..).zip(ends) {
        files.add_dup2(file.as_raw_fd(), number)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
    // The worker ignores it; a program in a pipeline counts on it.
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    attributes.set_sigmask(&SigSet::empty())?;
    let id = posix_spawn(path, &files, &attributes, &arguments, environment)?;
    Pid::from_raw(id.as_raw()).ok_or_else(|| io::Error::other("a process without an id"))
}

/// Starts a program in a directory.
fn start_in(dir: &Path, mut command: Command, ends: [BorrowedFd<'_>; 3]) -> io::Result<Pid> {
    let [stdin, stdout, stderr] = ends.map(|one| one.try_clone_to_owned());
    command.current_dir(dir).process_group(0).stdin(stdin?).stdout(stdout?).stderr(stderr?);
    let child = command.spawn()?;
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    id.ok_or_else(|| io::Error::other("a process without an id"))
}

/// A pipe for what a program prints: our end, its end.
fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// What a program reads.
enum Input {
    Nothing,
    File(File),
    /// What we write.
    Pipe,
}

impl Input {
    fn of(task: &Task) -> Result<Self, SpawnError> {
        match task.stdin_path() {
            Some(path) => {
                regular(path).map(Self::File).map_err(|error| SpawnError::new(path, &error))
            }
            None if task.stdin_bytes().is_some() => Ok(Self::Pipe),
            None => Ok(Self::Nothing),
        }
    }

    /// Its end, and ours.
    fn open(self, common: &Common) -> io::Result<(Stdin<'_>, Option<OwnedFd>)> {
        match self {
            Self::Nothing => Ok((Stdin::Shared(common.nothing()?), None)),
            Self::File(file) => Ok((Stdin::Own(file.into()), None)),
            Self::Pipe => {
                let (its, ours) = pipe_with(PipeFlags::CLOEXEC)?;
                Ok((Stdin::Own(its), Some(ours)))
            }
        }
    }
}

/// The end of a program.
enum Stdin<'a> {
    Shared(BorrowedFd<'a>),
    Own(OwnedFd),
}

impl AsFd for Stdin<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Shared(shared) => *shared,
            Self::Own(own) => own.as_fd(),
        }
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
    if program.is_absolute() {
        return Ok(program.to_owned());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_refused_while_tasks_run_does_not_give_them_up() {
        let refused = LimitRefused { key: "nice", source: Errno::ACCESS.into() };
        let error = SpawnError::without_limit(Path::new("upper"), &refused);
        assert!(!error.is_permanent());
        assert!(error.reason.starts_with("executor.limits.nice: "), "{error}");
    }
}
