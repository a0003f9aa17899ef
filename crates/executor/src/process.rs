//! One process, from its start to the end of its whole group.
//!
//! A process leads its own group. Its exit is noticed through a descriptor of ours, which leaves it a
//! zombie; the group is killed then, and only then is the leader reaped. While it is a zombie its id
//! cannot be given to anybody else, so the signal cannot hit a stranger. (A kernel before 5.3 has no
//! such descriptors: there the leader is reaped first and the group killed at once after it, which is
//! wrong only if all process ids were used up in between.)
//!
//! What has left the group is ended by the [`Ward`] of the process.
//!
//! Refuses to wait for output that outlives the program by more than a grace. For a disk of ours that
//! has not taken it yet it waits as long as the task may take.

use std::{
    io,
    os::fd::OwnedFd,
    pin::{Pin, pin},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use drakkar_core::StopSignal;
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use tokio::{
    io::{AsyncWriteExt, Interest, unix::AsyncFd},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::{capture::Capture, guard::Ward, usage};

/// How long, at least, a disk is waited for at a time.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// A running process and its group. Dropped before its end, the group is killed.
pub(crate) struct Process {
    child: Child,
    leader: Pid,
    exit: Option<AsyncFd<OwnedFd>>,
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
    pub(crate) fn new(child: Child, mut ward: Ward, started: Instant) -> io::Result<Self> {
        let spawned_in = started.elapsed();
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let leader = id.ok_or_else(|| io::Error::other("a process without an id"))?;
        ward.leads(leader);
        let mut process = Self {
            child,
            leader,
            exit: None,
            ward: Some(ward),
            reaped: false,
            started,
            spawned_in,
            is_measured: false,
            times: None,
        };
        process.exit = match pidfd_open(leader, PidfdFlags::NONBLOCK) {
            Ok(descriptor) => Some(watch(descriptor)?),
            Err(Errno::NOSYS) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(process)
    }

    pub(crate) fn leader(&self) -> Pid {
        self.leader
    }

    pub(crate) fn id(&self) -> u32 {
        self.leader.as_raw_pid().unsigned_abs()
    }

    /// Has measured what it uses. Not where its id may be somebody else's when it has ended.
    pub(crate) fn measure(&mut self) -> Option<usage::Meter> {
        self.is_measured = self.exit.is_some();
        self.is_measured.then(|| usage::Meter::new(self.id()))
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
        let pipes = serve(
            (self.child.stdin.take(), stdin),
            (self.child.stdout.take(), stdout),
            (self.child.stderr.take(), stderr),
        );
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
        &mut self,
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

    /// Its pipes, for whoever talks to it; `None` where one is missing.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout, ChildStderr)> {
        let Child { stdin, stdout, stderr, .. } = &mut self.child;
        Some((stdin.take()?, stdout.take()?, stderr.take()?))
    }

    /// Waits for its exit, for as long as `patience`; then TERM, `grace`, KILL; and ends its group.
    pub(crate) async fn stop(
        &mut self,
        patience: Duration,
        grace: Duration,
    ) -> io::Result<ExitStatus> {
        let exited = match timeout(patience, self.exited()).await {
            Ok(exited) => exited,
            Err(_) => self.terminate(&[(StopSignal::Terminate, grace)]).await,
        };
        self.signal(Signal::KILL);
        let status = self.reap().await;
        exited.and(status)
    }

    /// Waits for the exit of the leader, and leaves it a zombie where the kernel lets us.
    pub(crate) async fn exited(&mut self) -> io::Result<()> {
        match &self.exit {
            Some(exit) => exit.readable().await.map(drop),
            None => self.child.wait().await.map(drop),
        }
    }

    /// Each signal and its grace, KILL.
    async fn terminate(&mut self, steps: &[(StopSignal, Duration)]) -> io::Result<()> {
        for &(signal, grace) in steps {
            self.signal(number(signal));
            tokio::select! {
                exited = self.exited() => return exited,
                () = sleep(grace) => {}
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
        let status = self.child.wait().await;
        self.reaped = true;
        status
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

#[expect(
    deprecated,
    reason = "its successor is `unsafe`, for types that may close their descriptor; an `OwnedFd` cannot"
)]
fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    Exit,
    Deadline,
    Request,
}

/// The pipes of one process, served while something else is awaited.
struct Pipes<'a, S> {
    serving: Pin<&'a mut S>,
    /// Whether what was read is being written to a disk.
    storing: Option<Arc<AtomicBool>>,
    ended: Option<io::Result<()>>,
}

impl<S: Future<Output = io::Result<()>>> Pipes<'_, S> {
    async fn serve_until<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        loop {
            tokio::select! {
                biased; // The event counts, however much there is to read.
                happened = &mut event => return happened,
                ended = self.serving.as_mut(), if self.ended.is_none() => self.ended = Some(ended),
            }
        }
    }

    /// The program has ended by itself: whatever it printed may wait for the disk until its time is up.
    async fn serve_disk(
        &mut self,
        grace: Duration,
        deadline: impl Future<Output = ()>,
        killed: impl Future<Output = ()>,
    ) -> io::Result<Cause> {
        let disk = async {
            while self.ended.is_none() && self.storing.as_ref().is_some_and(|is| is.load(Relaxed)) {
                self.serve_for(grace.max(SHORTEST_LOOK)).await;
            }
        };
        tokio::select! {
            biased; // What is taken is taken.
            () = disk => Ok(Cause::Exit),
            () = killed => Ok(Cause::Request),
            // It ended in time. What has no whole file is told by whoever writes the file.
            () = deadline => Ok(Cause::Exit),
        }
    }

    async fn serve_for(&mut self, grace: Duration) {
        if self.ended.is_none()
            && let Ok(ended) = timeout(grace, self.serving.as_mut()).await
        {
            self.ended = Some(ended);
        }
    }
}

/// Writes the input while both outputs are read.
async fn serve(
    (stdin, input): (Option<ChildStdin>, Option<Bytes>),
    (stdout, out): (Option<ChildStdout>, &mut Capture),
    (stderr, err): (Option<ChildStderr>, &mut Capture),
) -> io::Result<()> {
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            match stdin.write_all(&input).await {
                // It has read what it needs.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        Ok(())
    };
    let read_out = async {
        match stdout {
            Some(stdout) => out.drain(stdout).await,
            None => Ok(()),
        }
    };
    let read_err = async {
        match stderr {
            Some(stderr) => err.drain(stderr).await,
            None => Ok(()),
        }
    };
    // Not `try_join`: one broken pipe is no reason to let the program block on another.
    let (input, out, err) = tokio::join!(feed, read_out, read_err);
    input.and(out).and(err)
}
