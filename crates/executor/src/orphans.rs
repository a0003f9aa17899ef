//! Processes that have lost their parent and became children of the worker.
//!
//! The worker is a *child subreaper*: whatever a task leaves behind, however often it forked and
//! whatever session it is in, becomes a child of the worker when its parent ends. The kernel puts such
//! a process on the list of the worker's first thread, while our own processes are on the lists of the
//! threads that spawned them: the first list is nearly always empty, and to look at it is one read.
//!
//! Refuses: `waitpid(-1)`, which would steal the status of a process that somebody else waits for.

use std::{fs, fs::File, io, os::unix::fs::FileExt};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
    },
};
use tracing::warn;

/// Names the runs that a process descends from, the innermost last: `token.run/token.run`.
pub(crate) const MARK: &str = "DRAKKAR_TASK_OF";

/// Names one process: its id, and when it began.
pub(crate) type OrphanId = (Pid, u64);

/// A child of the worker that it has not started, or has started on its first thread.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) pid: Pid,
    pub(crate) group: i32,
    started: u64,
    pub(crate) is_zombie: bool,
    /// The value of its mark; empty when it has none, or has ended.
    mark: String,
}

impl Orphan {
    /// What can be known of `pid`; `None` when it is no child of `worker`.
    fn look(pid: Pid, worker: Pid) -> Option<Self> {
        let id = pid.as_raw_pid();
        // It may end while we look.
        let stat = text(&format!("/proc/{id}/stat")).ok()?;
        // The name before it may hold anything, spaces and brackets included.
        let fields: Vec<&str> =
            stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        if number(1)? != u64::from(worker.as_raw_pid().unsigned_abs()) {
            return None;
        }
        let is_zombie = matches!(fields.first(), Some(&("Z" | "X")));
        // Whose environment we may not read is not ours to end either, or is out of our reach.
        let environ = if is_zombie { Vec::new() } else { environ(id).unwrap_or_default() };
        Some(Self {
            pid,
            group: i32::try_from(number(2)?).ok()?,
            started: number(19)?,
            is_zombie,
            mark: mark(&environ).unwrap_or_default(),
        })
    }

    pub(crate) fn id(&self) -> OrphanId {
        (self.pid, self.started)
    }

    /// The runs of the pool called `token` that it descends from.
    pub(crate) fn runs<'a>(&'a self, token: &'a str) -> impl Iterator<Item = u64> + 'a {
        self.mark
            .split('/')
            .filter_map(move |one| one.strip_prefix(token)?.strip_prefix('.')?.parse().ok())
    }

    /// Kills it; `false` when that is not possible.
    pub(crate) fn kill(&self) -> bool {
        match kill_process(self.pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => true,
            Err(error) => {
                let pid = self.pid.as_raw_pid();
                warn!(category = "executor", pid, %error, "cannot end what a task left running");
                false
            }
        }
    }

    /// Takes the status that nobody else will ask for.
    pub(crate) fn reap(&self) {
        match waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            // Somebody was faster.
            Ok(_) | Err(Errno::CHILD) => {}
            Err(error) => {
                let pid = self.pid.as_raw_pid();
                warn!(category = "executor", pid, %error, "cannot reap what a task left behind");
            }
        }
    }
}

/// What the kernel tells. The name of a program may hold any bytes, and is cut wherever the kernel has no
/// more room for it; nothing else is affected by what is no text.
pub(crate) fn text(path: &str) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

fn environ(id: i32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{id}/environ"))
}

fn mark(environ: &[u8]) -> Option<String> {
    environ.split(|&byte| byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Where orphans are looked for.
#[derive(Debug)]
pub(crate) struct Orphans {
    worker: Pid,
    /// The list of the first thread; without it, all of `/proc` has to be looked at.
    list: Option<File>,
}

impl Orphans {
    /// Makes this process the parent of what its descendants leave behind.
    pub(crate) fn adopt() -> io::Result<Self> {
        let worker = getpid();
        set_child_subreaper(Some(worker))?;
        let id = worker.as_raw_pid();
        let list = match File::open(format!("/proc/self/task/{id}/children")) {
            Ok(list) => Some(list),
            Err(error) => {
                warn!(
                    category = "executor",
                    %error,
                    "this kernel does not list children: every task end searches all of /proc"
                );
                None
            }
        };
        Ok(Self { worker, list })
    }

    /// Who is there now, but for `except`.
    pub(crate) fn look(&self, except: Option<Pid>) -> Vec<Orphan> {
        let ids = self.ids().unwrap_or_else(|error| {
            warn!(category = "executor", %error, "cannot look for what tasks leave behind");
            Vec::new()
        });
        ids.into_iter()
            .filter(|&pid| Some(pid) != except)
            .filter_map(|pid| Orphan::look(pid, self.worker))
            .collect()
    }

    fn ids(&self) -> io::Result<Vec<Pid>> {
        let pid = |text: &str| text.parse().ok().and_then(Pid::from_raw);
        let Some(list) = &self.list else {
            let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
            return Ok(entries.filter_map(|entry| pid(entry.file_name().to_str()?)).collect());
        };
        let (mut text, mut chunk) = (Vec::new(), [0; 1024]);
        loop {
            let read = list.read_at(&mut chunk, text.len() as u64)?;
            text.extend_from_slice(&chunk[..read]);
            // The kernel fills what it is given, as far as whole numbers fit.
            if read < chunk.len() / 2 {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&text).split_ascii_whitespace().filter_map(pid).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_every_run_of_ours_that_a_process_descends_from() {
        let environ = format!("A=1\0{MARK}=1-f.3/22-a.9/1-f.12/1-f0.4/1-f.x\0B=2\0");
        let orphan = Orphan {
            pid: getpid(),
            group: 1,
            started: 1,
            is_zombie: false,
            mark: mark(environ.as_bytes()).unwrap(),
        };
        assert_eq!(orphan.runs("1-f").collect::<Vec<_>>(), [3, 12]);
        assert_eq!(orphan.runs("22-a").collect::<Vec<_>>(), [9]);
        assert_eq!(mark(b"XDRAKKAR_TASK_OF=1-f.3\0"), None);
    }
}
