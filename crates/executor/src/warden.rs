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
    io,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use rustix::process::getpid;
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tracing::warn;

use crate::orphans::MARK;

const SCRIPT: &str = include_str!("warden.sh");

/// What the script answers where its tools are missing.
const NO_TOOLS: i32 = 127;

/// Where the tools usually are, behind what the worker knows.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Starts a warden, and keeps one until dropped. `id` is where it is to be found.
pub(crate) fn keep(
    token: String,
    groups: Arc<File>,
    id: Arc<AtomicI32>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let is_needed = !getpid().is_init();
    let mut warden = if is_needed { start(&token, &groups)? } else { None };
    Ok(async move {
        while let Some(mut process) = warden.take() {
            let number = process.id().and_then(|id| i32::try_from(id).ok());
            id.store(number.unwrap_or_default(), Ordering::Relaxed);
            // Waiting would close it, and that is its signal.
            let _worker_lives = process.stdin.take();
            match process.wait().await {
                Ok(status) if status.code() == Some(NO_TOOLS) => return unguarded("no grep"),
                Ok(status) => warn!(category = "executor", %status, "the warden died; another one"),
                Err(error) => {
                    warn!(category = "executor", %error, "the warden is lost; another one");
                }
            }
            sleep(RESTART_AFTER).await;
            warden = start(&token, &groups).unwrap_or_else(|error| {
                unguarded(&error.to_string());
                None
            });
        }
    })
}

fn start(token: &str, groups: &File) -> io::Result<Option<Child>> {
    let mut path = env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(PATH);
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT, "drakkar-warden", token])
        .env_clear()
        .env("PATH", path)
        // A worker that is itself a task of a worker: its warden is part of that task.
        .envs(env::var_os(MARK).map(|mark| (OsString::from(MARK), mark)))
        .current_dir("/") // It keeps no file system busy.
        .process_group(0) // What is typed at a terminal is meant for the worker.
        .stdin(Stdio::piped())
        .stdout(groups.try_clone()?)
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

fn unguarded(reason: &str) {
    warn!(
        category = "executor",
        reason, "without a warden, programs live on when the worker is killed by SIGKILL"
    );
}
