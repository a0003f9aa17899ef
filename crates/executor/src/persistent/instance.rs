//! One place for a process: started, served, ended, replaced; for as long as the program is open.

use std::{
    os::unix::process::ExitStatusExt,
    panic::AssertUnwindSafe,
    pin::pin,
    process::ExitStatus,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use drakkar_core::Failure;
use futures_util::FutureExt;
use tokio::{
    process::{ChildStdin, ChildStdout},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    flights::{Blame, Flight},
    program::Program,
    queued::Queued,
    service::{Service, output},
    stderr::{self, Current},
    trouble::{End, Trouble},
};
use crate::{CancelReason, Run, process::Process, spawn::Spawner};

/// What becomes of the place of a process.
enum Next {
    /// Another process, at once.
    Restart,
    /// Another process, when it has waited.
    BackOff,
    /// Nothing.
    Stop,
}

impl Program {
    /// Keeps process `number` alive until the program is closed.
    pub(super) async fn run(self: Arc<Self>, number: usize, spawner: Spawner) {
        loop {
            match self.one_life(number, &spawner).await {
                Next::Restart => {}
                Next::BackOff => {
                    let failures = self.books.rows[number].failures();
                    self.wait(number, self.backoff().delay(failures, fastrand::f64())).await;
                }
                Next::Stop => return,
            }
            if self.is_closed() {
                return;
            }
        }
    }

    /// Waits, but not longer than the program is open.
    async fn wait(&self, number: usize, delay: Duration) {
        let mut over = pin!(sleep(delay));
        loop {
            tokio::select! {
                () = self.signal(number).notified() => if self.is_closed() { return },
                () = &mut over => return,
            }
        }
    }

    async fn one_life(self: &Arc<Self>, number: usize, spawner: &Spawner) -> Next {
        self.books.starts.fetch_add(1, Relaxed);
        let mut process = match spawner.spawn(&self.start).await {
            Ok(process) => process,
            Err(error) => return self.failed(number, &error.to_string()),
        };
        let (mut stdin, mut stdout, errors) = match process.pipes() {
            Ok(pipes) => pipes,
            Err(error) => return self.failed(number, &format!("its pipes: {error}")),
        };
        let (pid, current) = (process.id(), Arc::new(Current::default()));
        let log = stderr::log(Arc::clone(self), pid, Arc::clone(&current), errors);
        let log = tokio::spawn(log);
        debug!(category = "program", program = self.name(), pid, "started");
        let mut service = Service::new(self, number, pid, &current);
        let serving = service.serve(&mut process, &mut stdin, &mut stdout);
        // A fault of ours: neither the process nor its tasks may be lost by it.
        let served = AssertUnwindSafe(serving).catch_unwind().await;
        let end = served.unwrap_or(End::Failed(Trouble::Panicked));
        service.leave();
        let Service { flights, given, .. } = service;
        let is_suspect = given == 1 || flights.items().any(|queued| queued.is_suspect);
        self.books.in_flight.fetch_sub(flights.len(), Relaxed);

        let status = self.end(process, stdin, stdout, &end).await;
        // What it said last is in the pipe; what it started may hold that open.
        let mut log = pin!(log);
        if timeout(self.patience.pipe, &mut log).await.is_err() {
            log.abort();
        }
        let blame = match &end {
            End::Failed(Trouble::Overdue) => flights.overdue(),
            End::Failed(Trouble::Killed) | End::Closed | End::Recycled => flights.ended(),
            // It may be the late output of a task before, for which this one is charged if it is seen
            // twice.
            End::Failed(Trouble::Garbage(_) | Trouble::Unasked) if !is_suspect => flights.ended(),
            End::Failed(_) => flights.failed(),
        };
        match end {
            End::Closed => {
                cut_off(&blame.others, CancelReason::Shutdown, pid);
                Next::Stop
            }
            End::Recycled => {
                self.books.recycled.fetch_add(1, Relaxed);
                debug!(category = "program", program = self.name(), pid, "recycled");
                Next::Restart
            }
            End::Failed(trouble) => {
                self.settle(blame, &trouble, status, pid);
                if matches!(trouble, Trouble::Killed) {
                    return Next::Restart;
                }
                let status = status.map_or_else(|| "no exit status".to_owned(), |s| s.to_string());
                self.failed(number, &format!("{trouble} ({status})"))
            }
        }
    }

    /// Ends a process with all it has started: gracefully where it has done nothing wrong.
    async fn end(
        &self,
        mut process: Process,
        stdin: ChildStdin,
        stdout: ChildStdout,
        end: &End,
    ) -> Option<ExitStatus> {
        drop(stdin);
        let patience = match end {
            End::Closed | End::Recycled => self.stop_grace(),
            // It is on its way out.
            End::Failed(Trouble::Ended | Trouble::Io(_)) => self.patience.pipe,
            End::Failed(_) => Duration::ZERO,
        };
        let status = process.stop(patience, self.patience.kill).await;
        // Until now: a program that flushes at its end shall find somebody to write to.
        drop(stdout);
        match status {
            Ok(status) => Some(status),
            Err(error) => {
                warn!(category = "program", program = self.name(), %error, "cannot end a process");
                None
            }
        }
    }

    /// Charges whoever is to blame and puts back everybody else.
    fn settle(
        &self,
        blame: Blame<Flight<Queued>>,
        trouble: &Trouble,
        status: Option<ExitStatus>,
        pid: u32,
    ) {
        if let Some(flight) = blame.charged {
            let failure = match (trouble, status) {
                (Trouble::Overdue, _) => Failure::TimedOut(flight.limit),
                (Trouble::Ended, Some(status)) => match status.signal() {
                    Some(signal) => Failure::Signal(signal),
                    None => {
                        Failure::Io(format!("{} ended without an answer ({status})", self.name()))
                    }
                },
                _ => Failure::Io(format!("{}: {trouble}", self.name())),
            };
            if flight.item.control.is_killed() {
                cut_off(&[flight], CancelReason::Program, pid);
            } else {
                let output = output(&flight, pid, Instant::now());
                flight.item.report(Run::Failed { failure, output });
            }
        }
        cut_off(&blame.others, CancelReason::Program, pid);
        let mut others: Vec<Queued> = blame.others.into_iter().map(|flight| flight.item).collect();
        others.retain(|queued| !queued.control.is_killed());
        for queued in &mut others {
            queued.is_suspect |= !trouble.has_culprit();
        }
        self.requeue(others);
    }

    /// Takes note of a failure.
    fn failed(&self, number: usize, what: &str) -> Next {
        self.books.failures.fetch_add(1, Relaxed);
        let in_a_row = self.books.rows[number].failed();
        warn!(category = "program", program = self.name(), in_a_row, "a process failed: {what}");
        *self.books.last_failure.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(what.to_owned());
        Next::BackOff
    }
}

fn cut_off(flights: &[Flight<Queued>], reason: CancelReason, pid: u32) {
    let now = Instant::now();
    for flight in flights {
        flight.item.cut_off(reason, &output(flight, pid, now));
    }
}
