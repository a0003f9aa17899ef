//! One process, from its start to the end of its whole group.
//!
//! A process leads its own group. Its exit is noticed through a descriptor, which leaves it a zombie; the
//! group is killed then, and only then is the leader reaped. While it is a zombie its id cannot be given
//! to anybody else, so the signal cannot hit a stranger. (A kernel before 5.3 has no such descriptors,
//! and a sandbox may forbid them: there it is looked at again and again.)
//!
//! What has left the group is ended by the [`Ward`] of the process.
//!
//! Refuses to wait for output that outlives the program by more than a grace. For a disk of ours that
//! has not taken it yet it waits as long as the task may take.

mod pipes; // what goes in and what comes out

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    pin::pin,
    process::ExitStatus,
    thread,
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::StopSignal;
use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group,
        pidfd_open, waitid, waitpid,
    },
};
use tokio::{
    process::{ChildStderr, ChildStdin, ChildStdout},
    time::Instant,
};
use tracing::warn;

pub(crate) use pipes::Ends;
use pipes::{Cause, Pipes, serve};

use crate::{
    capture::Capture,
    guard::Ward,
    reactor::{Watched, sleep, timeout},
    usage,
};

/// How often is looked for what the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running process and its group. Dropped before its end, the group is killed.
pub(crate) struct Process {
    leader: Pid,
    ends: Option<Ends>,
    exit: Option<Watched>,
    ward: Option<Ward>,
    reaped: bool,
    pub(crate) started: Instant,
    pub(crate) spawned_in: Duration,
    is_measured: bool,
    /// User and system; known after its end if it was to be measured.
    pub(crate) times: Option<(Duration, Duration)>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience<'a> {
    pub(crate) limit: Duration,
    pub(crate) kill: Duration,
    /// Instead of TERM and `kill`.
    pub(crate) steps: Option<&'a [(StopSignal, Duration)]>,
    pub(crate) pipe: Duration,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself, or by a signal that is not ours.
    Exited(ExitStatus),
    /// By us, because its time was up.
    TimedOut,
    /// By us, because somebody asked.
    Killed,
    /// By itself or by us, and what became of it is not known.
    Lost(io::Error),
}

impl Process {
    /// Takes over a child that leads its own group and carries the mark of `ward`; `started` is when it
    /// was asked for.
    pub(crate) fn new(
        leader: Pid,
        ends: Ends,
        mut ward: Ward,
        started: Instant,
    ) -> io::Result<Self> {
        let spawned_in = started.elapsed();
        ward.leads(leader);
        let mut process = Self {
            leader,
            ends: Some(ends),
            exit: None,
            ward: Some(ward),
            reaped: false,
            started,
            spawned_in,
            is_measured: false,
            times: None,
        };
        // Only waited for, never read: needs no flag, and those that there are need newer kernels.
        let descriptor = if_there_are_any(pidfd_open(leader, PidfdFlags::empty()))?;
        process.exit = descriptor.map(Watched::new).transpose()?;
        Ok(process)
    }

    pub(crate) fn leader(&self) -> Pid {
        self.leader
    }

    pub(crate) fn id(&self) -> u32 {
        self.leader.as_raw_pid().unsigned_abs()
    }

    /// Has measured what it uses.
    pub(crate) fn measure(&mut self) -> usage::Meter {
        self.is_measured = true;
        usage::Meter::new(self.id())
    }

    /// Runs to the end: of the program, of its output (within the grace), of its group.
    pub(crate) async fn run(
        &mut self,
        stdin: Option<Bytes>,
        (stdout, stderr): (&mut Capture, &mut Capture),
        patience: Patience<'_>,
        killed: impl Future<Output = ()>,
    ) -> End {
        let deadline = sleep(patience.limit.saturating_sub(self.started.elapsed()));
        let (mut deadline, mut killed) = (pin!(deadline), pin!(killed));
        let storing = stdout.storing();
        let pipes = serve(self.ends.take(), stdin, stdout, stderr);
        let mut pipes = Pipes { serving: pin!(pipes), storing, ended: None };
        let cause = pipes.serve_until(self.exit_or(deadline.as_mut(), killed.as_mut())).await;
        let waited = match cause {
            Ok(Cause::Deadline | Cause::Request) => {
                let usual = [(StopSignal::Terminate, patience.kill)];
                let steps = patience.steps.unwrap_or(&usual);
                pipes.serve_until(self.terminate(steps)).await
            }
            Ok(Cause::Exit) | Err(_) => Ok(()),
        };
        self.end_group(&mut pipes, patience.pipe).await;
        let cause = match cause {
            Ok(Cause::Exit) => pipes.serve_disk(patience.pipe, deadline, killed).await,
            ended_by_us => ended_by_us,
        };
        let served = pipes.ended.take().unwrap_or(Ok(()));
        let reaped = self.reap().await;
        match (cause, waited.and(reaped)) {
            (Ok(Cause::Deadline), Ok(_)) => End::TimedOut,
            (Ok(Cause::Request), Ok(_)) => End::Killed,
            (Ok(Cause::Exit), Ok(status)) => match served {
                // A failed program says more than the pipe it left behind.
                Err(error) if status.success() => End::Lost(error),
                _ => End::Exited(status),
            },
            (Err(error), _) | (_, Err(error)) => End::Lost(error),
        }
    }

    async fn exit_or(
        &self,
        deadline: impl Future<Output = ()>,
        killed: impl Future<Output = ()>,
    ) -> io::Result<Cause> {
        tokio::select! {
            biased; // A program that ended in time ended in time.
            exited = self.exited() => exited.map(|()| Cause::Exit),
            () = killed => Ok(Cause::Request),
            () = deadline => Ok(Cause::Deadline),
        }
    }

    /// Its pipes, for whoever talks to it on a runtime.
    pub(crate) fn pipes(&mut self) -> io::Result<(ChildStdin, ChildStdout, ChildStderr)> {
        let taken = || io::Error::other("a process without pipes");
        let Ends { stdin, stdout, stderr } = self.ends.take().ok_or_else(taken)?;
        Ok((
            ChildStdin::from_std(stdin.ok_or_else(taken)?.into())?,
            ChildStdout::from_std(stdout.into())?,
            ChildStderr::from_std(stderr.into())?,
        ))
    }

    /// Waits for its exit, for as long as `patience`; then TERM, `grace`, KILL; and ends its group.
    pub(crate) async fn stop(
        &mut self,
        patience: Duration,
        grace: Duration,
    ) -> io::Result<ExitStatus> {
        let exited = match timeout(patience, self.exited()).await {
            Some(exited) => exited,
            None => self.terminate(&[(StopSignal::Terminate, grace)]).await,
        };
        self.signal(Signal::KILL);
        let status = self.reap().await;
        exited.and(status)
    }

    /// Waits for the exit of the leader, and leaves it a zombie.
    pub(crate) async fn exited(&self) -> io::Result<()> {
        if let Some(exit) = &self.exit {
            return exit.readable().await;
        }
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(self.leader), look)?.is_none() {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Each signal and its grace, KILL.
    async fn terminate(&self, steps: &[(StopSignal, Duration)]) -> io::Result<()> {
        for &(signal, grace) in steps {
            self.signal(number(signal));
            if let Some(exited) = timeout(grace, self.exited()).await {
                return exited;
            }
        }
        self.signal(Signal::KILL);
        self.exited().await
    }

    /// Gives the pipes their grace, kills what is left of the group, and lets the pipes run dry.
    async fn end_group<S: Future<Output = io::Result<()>>>(
        &self,
        pipes: &mut Pipes<'_, S>,
        grace: Duration,
    ) {
        pipes.serve_for(grace).await;
        self.signal(Signal::KILL);
        if let Some(ward) = &self.ward {
            pipes.serve_until(ward.end()).await;
        }
        // Whoever still holds a pipe now is out of our reach.
        pipes.serve_for(grace).await;
    }

    async fn reap(&mut self) -> io::Result<ExitStatus> {
        // From here on the id may be given to somebody else.
        if let Some(ward) = self.ward.take() {
            ward.end().await;
        }
        if self.is_measured {
            self.times = usage::times(self.id());
        }
        loop {
            match waitpid(Some(self.leader), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => {
                    self.reaped = true;
                    return Ok(ExitStatus::from_raw(status.as_raw()));
                }
                // It was killed and has not gone yet.
                Ok(None) => sleep(LOOK_EVERY).await,
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.reaped = true; // By somebody else: the id is not ours any more.
                    return Err(error.into());
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        match kill_process_group(self.leader, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            // All that is left has changed its user; nothing of ours can end it.
            Err(error) => {
                warn!(category = "executor", pid = self.id(), %error, "cannot signal a group");
            }
        }
    }
}

/// `None`: the kernel has no such descriptors, or a filter around us lets nobody have one.
fn if_there_are_any(opened: Result<OwnedFd, Errno>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(descriptor) => Ok(Some(descriptor)),
        // There are, and a moment later there may be one for us.
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

fn number(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Hangup => Signal::HUP,
        StopSignal::Interrupt => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::User1 => Signal::USR1,
        StopSignal::User2 => Signal::USR2,
        // Any that is added later is mapped when it is.
        StopSignal::Terminate | _ => Signal::TERM,
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::KILL);
        // Nobody waits for it any more: a thread does, which is as rare as a fault of ours.
        let leader = self.leader;
        let reap = move || match waitpid(Some(leader), WaitOptions::empty()) {
            Ok(_) => {}
            Err(error) => warn!(category = "executor", %error, "cannot reap a process"),
        };
        if let Err(error) = thread::Builder::new().name("drakkar-reaper".to_owned()).spawn(reap) {
            warn!(category = "executor", %error, "a process that was killed remains as a zombie");
        }
    }
}

#[cfg(test)]
mod tests;
