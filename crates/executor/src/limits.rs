//! What a program may use at most: `executor.limits`.
//!
//! Limits are set on the process right after it was started, which keeps the start itself on the
//! `posix_spawn` path: a launcher that sets them first would cost a second `exec` per task. Not covered:
//! what a program does, and forks, before its limits arrive, a millisecond or so after its start.
//!
//! Whether the system grants them shows only when they are set, so they are tried out at the start of a
//! pool: what it refuses it would refuse for every task.

use std::{
    fs, io,
    process::{Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Pid, Resource, Rlimit, getrlimit, prlimit, setpriority_process},
};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// What each program of a pool may use. Its children inherit all of it, each for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of address space of a program. Programs that reserve much more than they use need
    /// much. Default: that of the worker.
    pub address_space: Option<u64>,
    /// Seconds of processor time: then SIGXCPU, and SIGKILL five seconds of it later. Default: that
    /// of the worker.
    pub cpu_seconds: Option<u64>,
    /// Open descriptors. Default: that of the worker.
    pub open_files: Option<u64>,
    /// Bytes of one file that it writes. Default: that of the worker.
    pub file_size: Option<u64>,
    /// Bytes of a core dump; 0 forbids them. Default: that of the worker.
    pub core_size: Option<u64>,
    /// Niceness, from -20 to 19; below the worker's own only with privileges. Default: that of the
    /// worker.
    pub nice: Option<i32>,
    /// How readily the kernel kills it when memory runs out, from -1000 (never) to 1000 (first);
    /// below the worker's own only with privileges. Default: that of the worker.
    pub oom_score_adj: Option<i32>,
}

/// Between the request to end and the end, in seconds.
const CPU_GRACE: u64 = 5;

impl Limits {
    /// What cannot be, each text with its key.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
            wrong.push("limits.nice: must be from -20 to 19".to_owned());
        }
        if self.oom_score_adj.is_some_and(|score| !(-1_000..=1_000).contains(&score)) {
            wrong.push("limits.oom_score_adj: must be from -1000 to 1000".to_owned());
        }
        if self.open_files.is_some_and(|files| files < 3) {
            wrong.push("limits.open_files: a program needs three at least".to_owned());
        }
        wrong
    }

    /// Sets them on the process `pid`, a child of ours that has not been waited for.
    pub(crate) fn set(&self, pid: Pid) -> Result<(), LimitRefused> {
        for (key, resource, limit, grace) in [
            ("address_space", Resource::As, self.address_space, 0),
            ("cpu_seconds", Resource::Cpu, self.cpu_seconds, CPU_GRACE),
            ("open_files", Resource::Nofile, self.open_files, 0),
            ("file_size", Resource::Fsize, self.file_size, 0),
            ("core_size", Resource::Core, self.core_size, 0),
        ] {
            let Some(limit) = limit else { continue };
            let limit = at_most(resource, limit, grace);
            gone_is_fine(key, prlimit(Some(pid), resource, limit).map_err(io::Error::from))?;
        }
        if let Some(nice) = self.nice {
            gone_is_fine("nice", setpriority_process(Some(pid), nice).map_err(io::Error::from))?;
        }
        if let Some(score) = self.oom_score_adj {
            let file = format!("/proc/{}/oom_score_adj", pid.as_raw_pid());
            gone_is_fine("oom_score_adj", fs::write(file, score.to_string()))?;
        }
        Ok(())
    }

    /// Sets them on a process that does nothing, to see what the system says.
    pub(crate) fn try_out(&self) -> Result<(), LimitRefused> {
        if *self == Self::default() {
            return Ok(());
        }
        let mut idle = Command::new("/bin/sh");
        idle.args(["-c", "read nothing"]).env_clear();
        idle.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut idle = match idle.spawn() {
            Ok(idle) => idle,
            Err(error) => {
                warn!(category = "executor", %error, "executor.limits cannot be tried out without /bin/sh");
                return Ok(());
            }
        };
        let pid = i32::try_from(idle.id()).ok().and_then(Pid::from_raw);
        let outcome = pid.map_or(Ok(()), |pid| self.set(pid));
        if let Err(error) = idle.kill().and_then(|()| idle.wait()) {
            warn!(category = "executor", %error, "cannot end the process that tried out the limits");
        }
        outcome
    }
}

/// A limit that the system does not grant.
#[derive(Debug, thiserror::Error)]
#[error("executor.limits.{key}: the system refuses it")]
pub struct LimitRefused {
    /// Which.
    pub key: &'static str,
    /// What the system says.
    pub source: io::Error,
}

/// What we may not exceed ourselves, nobody may allow a child either.
fn at_most(resource: Resource, limit: u64, grace: u64) -> Rlimit {
    let own = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let maximum = limit.saturating_add(grace).min(own);
    Rlimit { current: Some(limit.min(maximum)), maximum: Some(maximum) }
}

/// It has ended already, within whatever limits.
fn gone_is_fine<T>(key: &'static str, outcome: io::Result<T>) -> Result<(), LimitRefused> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
        Err(source) => Err(LimitRefused { key, source }),
    }
}
