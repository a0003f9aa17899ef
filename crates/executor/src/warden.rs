//! The warden: a process that notices the end of the worker, however it comes, and ends what the worker
//! has started.
//!
//! It is a shell that reads from a pipe whose other end only the worker holds. At end-of-file it
//! asks the noted groups and whoever carries the worker's mark to end (TERM), and kills them a second
//! later. If it dies before the worker, another one is started.
//!
//! Not covered: worker and warden killed at the same moment; who has left its group and has no mark;
//! a system without `/bin/sh` and `grep`. As process 1 the worker needs none of this: the kernel ends
//! its whole namespace with it.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, getpid},
};
use tracing::warn;

use crate::orphans::MARK;

const SCRIPT: &str = include_str!("warden.sh");

/// What the script answers where its tools are missing.
const NO_TOOLS: i32 = 127;

/// Where the tools usually are, behind what the worker knows.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

const RESTART_AFTER: Duration = Duration::from_secs(1);

/// A warden, or one after the other, until it is dropped.
///
/// A thread waits for it and reaps it. The runtime would do so after the end of a pool by a handler of
/// signals that stays for ever, and each process that ends would wake every runtime of this process.
pub(crate) struct Warden {
    /// Its end is the warden's signal.
    _worker_lives: PipeWriter,
    id: Arc<AtomicI32>,
}

/// What it takes to start one.
struct Orders {
    token: String,
    groups: Arc<File>,
    worker_lives: PipeReader,
}

impl Warden {
    /// Starts one for the processes marked with `token`, of which `groups` says where they are.
    pub(crate) fn start(token: String, groups: Arc<File>) -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let warden = Self { _worker_lives: write, id: Arc::default() };
        if getpid().is_init() {
            return Ok(warden);
        }
        let orders = Orders { token, groups, worker_lives: read };
        if let Some(first) = orders.start()? {
            let id = Arc::clone(&warden.id);
            note(&id, &first);
            let keep = move || orders.keep(first, &id);
            thread::Builder::new().name("drakkar-warden".to_owned()).spawn(keep)?;
        }
        Ok(warden)
    }

    /// Where it is to be found.
    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.id.load(Ordering::Relaxed))
    }
}

fn note(id: &AtomicI32, warden: &Child) {
    id.store(i32::try_from(warden.id()).unwrap_or_default(), Ordering::Relaxed);
}

impl Orders {
    fn keep(&self, first: Child, id: &AtomicI32) {
        let mut warden = Some(first);
        while let Some(mut process) = warden.take() {
            note(id, &process);
            let ended = process.wait();
            id.store(0, Ordering::Relaxed);
            match ended {
                Ok(status) if status.code() == Some(NO_TOOLS) => return unguarded("no grep"),
                _ if self.worker_ends_within(Duration::ZERO) => return,
                Ok(status) => warn!(category = "executor", %status, "the warden died; another one"),
                Err(error) => {
                    warn!(category = "executor", %error, "the warden is lost; another one");
                }
            }
            if self.worker_ends_within(RESTART_AFTER) {
                return;
            }
            warden = self.start().unwrap_or_else(|error| {
                unguarded(&error.to_string());
                None
            });
        }
    }

    fn worker_ends_within(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).ok();
        let mut ends = [PollFd::new(&self.worker_lives, PollFlags::IN)];
        // To be interrupted is rare, and looks like an end of the time.
        matches!(poll(&mut ends, time.as_ref()), Ok(1..))
    }

    fn start(&self) -> io::Result<Option<Child>> {
        let mut path = env::var_os("PATH").unwrap_or_default();
        if !path.is_empty() {
            path.push(":");
        }
        path.push(PATH);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "drakkar-warden", &self.token])
            .env_clear()
            .env("PATH", path)
            // A worker that is itself a task of a worker: its warden is part of that task.
            .envs(env::var_os(MARK).map(|mark| (OsString::from(MARK), mark)))
            .current_dir("/") // It keeps no file system busy.
            .process_group(0) // What is typed at a terminal is meant for the worker.
            .stdin(self.worker_lives.try_clone()?)
            .stdout(self.groups.try_clone()?)
            .stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => Ok(Some(child)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                unguarded("no /bin/sh");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn unguarded(reason: &str) {
    warn!(
        category = "executor",
        reason, "without a warden, programs live on when the worker is killed by SIGKILL"
    );
}
