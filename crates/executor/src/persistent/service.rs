//! One process while it serves: requests in, answers out.
//!
//! What can be done at once is done at once: a batch is taken under one lock and written with one
//! call, and all answers of a read are handed out before anything is awaited again.

use std::{
    io,
    pin::pin,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use drakkar_core::{Failure, Output};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    time::{Instant, sleep_until, timeout},
};

use super::{
    flights::{Flight, Flights},
    program::{Program, Taken},
    queued::Queued,
    stats::Row,
    stderr::Current,
    trouble::{End, Trouble},
    wire::{self, Answer, Inbox, Outbox, Request, Unfit},
};
use crate::{Protocol, Run, process::Process, usage::rss};

/// Bytes of requests that wait for the pipe; with more, no further task is taken.
const MAX_WAITING: usize = 256 * 1024;

/// How often the memory of a process is looked at.
const RSS_EVERY: Duration = Duration::from_secs(1);

/// When there is nothing to wait for.
const FAR: Duration = Duration::from_hours(1);

/// One process and what it is asked.
pub(super) struct Service<'a> {
    program: &'a Program,
    number: usize,
    pid: u32,
    current: &'a Current,
    pub(super) flights: Flights<Queued>,
    inbox: Inbox,
    outbox: Outbox,
    batch: Vec<Queued>,
    /// The ping that is not answered: its id, and until when it must be.
    ping: Option<(u64, Instant)>,
    born: Instant,
    /// When the failures before it are over; `None`: they are.
    well_at: Option<Instant>,
    heard: Instant,
    rss_seen: Instant,
    /// Tasks so far.
    pub(super) given: u64,
    /// Whether the requests that there are must stay alone.
    alone: bool,
    retires: bool,
    /// Whether others count on it to take jobs.
    accepts: bool,
}

impl<'a> Service<'a> {
    pub(super) fn new(program: &'a Program, number: usize, pid: u32, current: &'a Current) -> Self {
        let now = Instant::now();
        Self {
            program,
            number,
            pid,
            current,
            flights: Flights::new(now),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            batch: Vec::new(),
            ping: None,
            born: now,
            well_at: Some(now + program.settings.backoff_max),
            heard: now,
            rss_seen: now,
            given: 0,
            alone: false,
            retires: false,
            accepts: false,
        }
    }

    /// The failures before it.
    fn row(&self) -> &'a Row {
        &self.program.books.rows[self.number]
    }

    fn protocol(&self) -> Protocol {
        self.program.settings.protocol
    }

    /// Serves until it must not or cannot any more.
    pub(super) async fn serve(
        &mut self,
        process: &mut Process,
        stdin: &mut ChildStdin,
        stdout: &mut ChildStdout,
    ) -> End {
        self.serve_until(process, stdin, stdout).await.unwrap_or_else(End::Failed)
    }

    async fn serve_until(
        &mut self,
        process: &mut Process,
        stdin: &mut ChildStdin,
        stdout: &mut ChildStdout,
    ) -> Result<End, Trouble> {
        let signal = self.program.signal(self.number);
        let mut signalled = pin!(signal.notified());
        let mut exited = pin!(process.exited());
        let mut timer = pin!(sleep_until(self.born));
        if self.program.settings.ping {
            self.ping(self.program.settings.start_timeout, self.born);
        }
        loop {
            if let Some(end) = self.fill(stdout)? {
                return Ok(end);
            }
            // Moved only when it must come sooner: later is what it finds out when it comes.
            let next = self.next_look();
            if timer.is_elapsed() || next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased; // What was answered in time was answered in time.
                () = &mut signalled => {
                    signalled.set(signal.notified());
                    if self.program.is_closed() {
                        return Ok(End::Closed);
                    }
                    if self.flights.items().any(|queued| queued.control.is_killed()) {
                        return Err(Trouble::Killed);
                    }
                }
                read = stdout.read_buf(self.inbox.space()) => {
                    if read? == 0 {
                        return Err(Trouble::Ended);
                    }
                    let now = Instant::now();
                    self.answers(now)?;
                    self.look_after(now)?;
                }
                written = stdin.write(self.outbox.rest()), if !self.outbox.rest().is_empty() => {
                    self.outbox.written(written?);
                }
                status = &mut exited => {
                    status?;
                    return Err(self.hear_out(stdout).await);
                }
                () = &mut timer => self.look_after(Instant::now())?,
            }
        }
    }

    /// What a process printed that has ended. Something that it started may hold the pipe open, and talk.
    async fn hear_out(&mut self, stdout: &mut ChildStdout) -> Trouble {
        let grace = self.program.patience.pipe;
        let hearing = async {
            while let Ok(1..) = stdout.read_buf(self.inbox.space()).await {
                self.answers(Instant::now())?;
            }
            Ok(())
        };
        match timeout(grace, hearing).await {
            Ok(Err(trouble)) => trouble,
            Ok(Ok(())) | Err(_) => Trouble::Ended,
        }
    }

    /// Takes what there is room for and writes it down.
    pub(super) fn fill(&mut self, stdout: &ChildStdout) -> Result<Option<End>, Trouble> {
        if self.retires && self.flights.is_empty() {
            return Ok(Some(End::Recycled));
        }
        let is_blocked = self.retires || self.ping.is_some() || self.alone;
        if is_blocked {
            self.leave();
            return Ok(None);
        }
        loop {
            let room = self.room();
            if room == 0 {
                return Ok(None);
            }
            // What was printed before the question is not its answer.
            if self.protocol() == Protocol::Lines
                && 0 < rustix::io::ioctl_fionread(stdout).map_err(io::Error::from)?
            {
                return Ok(None);
            }
            self.accepts = true;
            let load = self.flights.len();
            let mut batch = std::mem::take(&mut self.batch);
            let taken = self.program.take(self.number, load, room, &mut batch);
            let now = Instant::now();
            for queued in batch.drain(..) {
                self.give(queued, now);
            }
            self.batch = batch;
            match taken {
                Taken::Closed => return Ok(Some(End::Closed)),
                Taken::Nothing => return Ok(None),
                Taken::Suspect if !self.flights.is_empty() => {
                    self.alone = true;
                    return Ok(None);
                }
                // A suspect that was killed is none any more: the next one.
                Taken::Suspect | Taken::Jobs => {}
            }
        }
    }

    fn room(&self) -> usize {
        if MAX_WAITING < self.outbox.rest().len() {
            return 0;
        }
        let depth = self.program.settings.depth.get().saturating_sub(self.flights.len());
        let left = self
            .program
            .settings
            .recycle_after_tasks
            .map_or(u64::MAX, |most| most.get().saturating_sub(self.given));
        depth.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Tells the others that this one takes nothing for now.
    pub(super) fn leave(&mut self) {
        if std::mem::take(&mut self.accepts) {
            self.program.leave(self.number);
        }
    }

    fn give(&mut self, queued: Queued, now: Instant) {
        if queued.control.is_killed() {
            return;
        }
        let task = &queued.job.task;
        queued.control.begins(task);
        let id = self.flights.next_id();
        let request = Request::Task(task);
        let (protocol, space) = (self.protocol(), self.outbox.space());
        let given = wire::check(task).and_then(|()| protocol.encode(id, request, space));
        if let Err(unfit) = given {
            return self.refuse(queued, unfit, now);
        }
        if self.program.settings.depth.get() == 1 {
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(task));
        }
        self.given += 1;
        let is_last = |most: std::num::NonZeroU64| most.get() <= self.given;
        self.retires |= self.program.settings.recycle_after_tasks.is_some_and(is_last);
        let limit = task.time_limit().unwrap_or(self.program.patience.limit);
        self.flights.sent(id, queued, limit, now);
        self.program.books.in_flight.fetch_add(1, Relaxed);
    }

    fn refuse(&self, queued: Queued, unfit: Unfit, now: Instant) {
        let failure = unfit.failure(self.program.name());
        let waited = now.duration_since(queued.since);
        queued.report(Run::Failed { failure, output: Output { waited, ..Output::default() } });
    }

    /// Hands out every answer that is there.
    fn answers(&mut self, now: Instant) -> Result<(), Trouble> {
        self.heard = now;
        while let Some(answer) = self.protocol().decode(&mut self.inbox, self.program.limits)? {
            if self.ping.take_if(|(id, _)| Some(*id) == answer.id).is_some() {
                self.row().comes_up();
                continue;
            }
            let flight = self.flights.answered(answer.id, now).ok_or(Trouble::Unasked)?;
            self.program.books.in_flight.fetch_sub(1, Relaxed);
            self.report(flight, answer, now);
        }
        if self.flights.is_empty() {
            self.alone = false;
            // Without ids the rest would be taken for the answer to the next request.
            if self.protocol() == Protocol::Lines && !self.inbox.is_empty() {
                return Err(Trouble::Unasked);
            }
        }
        Ok(())
    }

    fn report(&self, flight: Flight<Queued>, answer: Answer, now: Instant) {
        self.row().ends();
        let Answer { exit_code, stdout, stderr, .. } = answer;
        let output = Output {
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            stdout_dropped: stdout.dropped,
            stderr_dropped: stderr.dropped,
            ..output(&flight, self.pid, now)
        };
        flight.item.report(match exit_code {
            0 => Run::Finished(output),
            code => Run::Failed { failure: Failure::Exit(code), output },
        });
    }

    /// What time has brought: what is overdue, old, large or silent.
    fn look_after(&mut self, now: Instant) -> Result<(), Trouble> {
        if self.flights.deadline().is_some_and(|deadline| deadline <= now) {
            return Err(Trouble::Overdue);
        }
        if self.ping.is_some_and(|(_, deadline)| deadline <= now) {
            return Err(Trouble::Mute);
        }
        if self.well_at().is_some_and(|well_at| well_at <= now) {
            self.well_at = None;
            self.row().ends();
        }
        let settings = &self.program.settings;
        self.retires |= settings.recycle_after.is_some_and(|age| self.born + age <= now);
        if let Some(most) = settings.recycle_rss_bytes
            && self.rss_seen + RSS_EVERY <= now
        {
            self.rss_seen = now;
            self.retires |= rss(self.pid).is_some_and(|bytes| most.get() < bytes);
        }
        if self.is_silent() && self.heard + settings.ping_interval <= now {
            self.ping(settings.ping_timeout, now);
        }
        Ok(())
    }

    /// When it has lived longer than a process is waited for. One that owes an answer may as well hang.
    fn well_at(&self) -> Option<Instant> {
        self.well_at.filter(|_| self.ping.is_none() && self.flights.is_empty())
    }

    fn is_silent(&self) -> bool {
        self.program.settings.ping && self.flights.is_empty() && self.ping.is_none()
    }

    /// When to look after it, if nothing happens before.
    fn next_look(&self) -> Instant {
        let settings = &self.program.settings;
        let times = [
            self.flights.deadline(),
            self.ping.map(|(_, deadline)| deadline),
            settings.recycle_after.filter(|_| !self.retires).map(|age| self.born + age),
            settings.recycle_rss_bytes.map(|_| self.rss_seen + RSS_EVERY),
            self.well_at(),
            self.is_silent().then(|| self.heard + settings.ping_interval),
        ];
        times.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + FAR)
    }

    fn ping(&mut self, patience: Duration, now: Instant) {
        let id = self.flights.next_id();
        // A protocol without pings is not configured with them.
        if self.protocol().encode(id, Request::Ping, self.outbox.space()).is_ok() {
            self.ping = Some((id, now + patience));
        }
    }
}

/// What is known of a run beside what it printed.
pub(super) fn output(flight: &Flight<Queued>, pid: u32, now: Instant) -> Output {
    let took = now.saturating_duration_since(flight.sent);
    Output {
        pid: Some(pid),
        started_at: SystemTime::now().checked_sub(took),
        waited: flight.sent.saturating_duration_since(flight.item.since),
        took,
        ..Output::default()
    }
}
