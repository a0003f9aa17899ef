//! Task → how it ended: from the backlog into the pool, and again after a failure.
//!
//! A window of 100 000 tasks is 100 000 entries in the backlog, not 100 000 futures: only as many as
//! the pool, the hooks and the byte budget have room for are under way.

use std::{
    ops::{AddAssign, SubAssign},
    sync::{Arc, atomic::Ordering},
};

use drakkar_core::{
    Handler, Output, Precomputed, SpooledFile,
    ledger::{Freed, TaskKey},
};
use drakkar_executor::{Job, Run, Standing, Ticket, Watched};
use drakkar_telemetry::JobEnd;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::{
    aggregate::Outcome,
    collect::{Collecting, Ended, Ran, What},
    flood::{Failed, GivenUp},
    held::{Fate, Held},
    lines::{Line, PRECOMPUTED, Spot},
    partition::{Partition, TaskStage},
};

impl<H: Handler> Partition<H> {
    /// Collects what has run and gives the pool what it has room for.
    pub(crate) fn start_what_fits(&mut self) {
        self.close_what_is_ready();
        while self.collecting < self.shared.settings.max_hooks {
            let Some((key, run)) = self.ran.pop_front() else { break };
            let held_bytes = held_bytes(&run);
            self.collect(key, Some(Box::new(run)), held_bytes);
        }
        if self.holds_enough() {
            self.recall();
        }
        let now = Instant::now();
        while let Some(spot) = self.next_to_start(now) {
            if let Some(key) = self.backlog.withdraw(spot) {
                self.start(key);
            }
        }
        self.flows.begin();
    }

    /// Who of the backlog is to start now, if there is room. Where the pool holds as many of a line as it
    /// may, the last that waits there gives way to one that goes before it.
    fn next_to_start(&mut self, now: Instant) -> Option<Spot> {
        if !self.results_have_room() {
            // Nothing is under way, so only groups that are not complete hold the budget, and none gets
            // complete unless something runs: that which waits longest, because it began first.
            let idle = self.pooled == 0 && self.ran.is_empty() && self.collecting == 0;
            return self.backlog.oldest().filter(|_| idle);
        }
        let mut after = None;
        while let Some((standing, best)) = self.backlog.best(now, after) {
            if self.makes_room(best.line, standing, now) {
                return Some(best);
            }
            after = Some(standing);
        }
        None
    }

    /// Whether the pool takes one more of a line, which may have to be for another one that gives way.
    fn makes_room(&mut self, line: Line, standing: Standing, now: Instant) -> bool {
        let is_full = self.shared.settings.max_in_pool <= self.pooled_in[line];
        if line == PRECOMPUTED || !is_full {
            return true;
        }
        while let Some((stands, worst)) = self.queued.worst(line, now) {
            if stands <= standing {
                return false;
            }
            if self.take_back(worst) {
                return true;
            }
        }
        false
    }

    fn results_have_room(&self) -> bool {
        self.collecting + self.ran.len() < self.shared.settings.max_hooks && !self.holds_enough()
    }

    /// Whether the output that waits for a hook or is in one, with that kept for groups, is all this
    /// partition may hold: an equal share of what all may. At least something, so that one result always
    /// passes.
    fn holds_enough(&self) -> bool {
        let partitions = self.shared.status.assigned.load(Ordering::Relaxed).max(1);
        let settings = &self.shared.settings;
        let memory = settings.max_result_bytes.min(settings.max_result_bytes_total / partitions);
        // The other half is for what runs already: a run that finds no room fails.
        let files = settings.max_spooled_bytes / 2 / partitions as u64;
        let (held, kept) = (self.result_bytes, self.groups.kept_bytes());
        memory.max(1) <= held.memory + kept.memory || files.max(1) <= held.files + kept.files
    }

    /// Takes back what waits for a slot: its results would come on top of those that nobody takes.
    /// What runs is finished, so the budget is exceeded by as much as the slots print.
    pub(crate) fn recall(&mut self) {
        while let Some(spot) = self.queued.oldest() {
            self.take_back(spot);
        }
    }

    /// Takes one task back from the pool, unless it has a slot, or has to run alone; then it is not tried
    /// again.
    fn take_back(&mut self, spot: Spot) -> bool {
        let key = self.queued.withdraw(spot);
        key.is_some_and(|key| self.take_back_if(key, Ticket::recall))
    }

    /// Takes a task back if `is_taken` says that the pool lets go of it.
    pub(crate) fn take_back_if(&mut self, key: TaskKey, is_taken: fn(&Ticket) -> bool) -> bool {
        let Some(active) = self.tasks.get_mut(&key) else { return false };
        let TaskStage::InPool(ticket, spot) = &active.stage else { return false };
        if !is_taken(ticket) {
            return false;
        }
        self.queued.withdraw(*spot); // Where it was not looked for there.
        self.pooled -= 1;
        self.pooled_in[active.line] -= 1;
        active.stage = TaskStage::Backlog(self.backlog.push(active.line, active.rank, key));
        true
    }

    fn start(&mut self, key: TaskKey) {
        let Some(active) = self.tasks.get_mut(&key) else { return };
        if let Some(known) = active.task.known_result() {
            let held_bytes = Weight::of_known(known);
            self.shared.metrics.task_started();
            self.ledger.mark_started(key);
            self.result_bytes += held_bytes;
            self.collect(key, None, held_bytes);
            return;
        }
        let report = self.report_run.clone();
        let job = Job {
            task: Arc::clone(&active.task),
            rank: active.rank,
            // The partition may be gone: then nobody is interested.
            done: Box::new(move |run| drop(report.send((key, run)))),
        };
        let metrics = Arc::clone(&self.shared.metrics);
        let logged = metrics.logs_jobs().then(|| (self.id.clone(), Arc::clone(&active.task)));
        let attempt = active.attempt;
        let ticket = self.shared.pool.submit_watched(job, move |seen| match (seen, &logged) {
            (Watched::Begun, _) => metrics.task_started(),
            (Watched::Ended(ended), Some((partition, task))) => {
                let (output, end) = job_end(ended);
                metrics.log_job(partition, task, attempt, output, end);
            }
            (Watched::Ended(_), None) => {}
        });
        active.stage = TaskStage::InPool(ticket, self.queued.push(active.line, active.rank, key));
        self.pooled += 1;
        self.pooled_in[active.line] += 1;
    }

    /// The pool has run a task.
    pub(crate) fn task_ran(&mut self, key: TaskKey, run: Run) {
        let Some(active) = self.tasks.get_mut(&key) else { return };
        if let TaskStage::InPool(_, spot) = std::mem::replace(&mut active.stage, TaskStage::Ran) {
            self.queued.withdraw(spot);
            self.pooled -= 1;
            self.pooled_in[active.line] -= 1;
        }
        self.ledger.mark_started(key);
        self.result_bytes += held_bytes(&run);
        self.ran.push_back((key, run));
    }

    /// Has the hook for the outcome called, beside the loop. Without a `run` the task knew its result.
    fn collect(&mut self, key: TaskKey, run: Option<Box<Run>>, held_bytes: Weight) {
        let Some(active) = self.tasks.get_mut(&key) else { return };
        active.stage = TaskStage::Collecting;
        let (task, attempt) = (Arc::clone(&active.task), active.attempt);
        let settings = &self.shared.settings;
        let may_replace = active.chain < settings.max_replacements;
        let retries_left = settings.max_retries.saturating_sub(attempt - 1 - active.forgiven);
        let failed = match &run {
            Some(run) => matches!(**run, Run::Failed { .. }),
            None => task.known_result().is_some_and(|known| known.exit_code != 0),
        };
        let messages = if failed { self.messages_of(key).collect() } else { SmallVec::new() };
        let ran = Ran { task, run, held_bytes, attempt, retries_left, may_replace, messages };
        self.collecting += 1;
        let here = Arc::clone(&self.here);
        self.flows.add(Collecting { here, key, what: What::Task(ran) });
    }

    /// The hooks and the sinks are done with a task. What follows for its messages is added to `freed`.
    pub(crate) fn collected(
        &mut self,
        key: TaskKey,
        held_bytes: Weight,
        ended: Ended,
        freed: &mut Freed<Held>,
    ) {
        self.collecting -= 1;
        self.result_bytes -= held_bytes;
        let Some(active) = self.tasks.get_mut(&key) else { return };
        match ended {
            Ended::Settled(outcome) => {
                self.ledger.change_messages_of(key, |held| held.fate = Fate::Succeeded);
                self.finished(key, outcome.map(|outcome| *outcome), freed);
            }
            Ended::Skipped(skipped) => {
                let (outcome, labels) = *skipped;
                let mut labels = labels.into_iter();
                self.ledger.change_messages_of(key, |held| held.skip(labels.next().flatten()));
                self.finished(key, outcome, freed);
            }
            Ended::GivenUp(given_up) => {
                let (cause, outcome) = *given_up;
                self.give_up(GivenUp { what: Failed::Task { key, outcome }, cause });
            }
            Ended::Retry(wait) => {
                active.attempt += 1;
                active.stage = TaskStage::BackingOff;
                self.retries.insert(key, wait);
            }
            Ended::Replace(replacements) => {
                let Some(parent) = self.forget_task(key) else { return };
                self.count_replaced(key);
                let Some((keys, freed)) = self.ledger.replace(key, replacements.len()) else {
                    return;
                };
                for (key, task) in keys.into_iter().zip(replacements) {
                    self.enlist(key, Arc::new(task), parent.chain + 1, parent.rank);
                }
                self.freed(freed);
            }
        }
    }

    /// A task has ended, and all it led to.
    fn finished(&mut self, key: TaskKey, outcome: Option<Outcome>, freed: &mut Freed<Held>) {
        self.forget_task(key);
        self.keep(key, outcome);
        self.ledger.finish_into(key, freed);
    }

    /// The backoff of a task is over: it goes ahead of what is younger.
    pub(crate) fn retry_due(&mut self, key: TaskKey) {
        if let Some(active) = self.tasks.get_mut(&key) {
            active.stage = TaskStage::Backlog(self.backlog.push(active.line, active.rank, key));
        }
    }
}

/// The end of a run as the job log tells it.
fn job_end(ended: drakkar_executor::Ended<'_>) -> (&Output, JobEnd<'_>) {
    use drakkar_executor::Ended::{Cancelled, Ran};
    match ended {
        Ran(Run::Finished(output)) => (output, JobEnd::Finished),
        Ran(Run::Failed { failure, output }) => (output, JobEnd::Failed(failure)),
        Cancelled { reason, output } => (output, JobEnd::Cancelled(reason.as_str())),
    }
}

fn held_bytes(run: &Run) -> Weight {
    let (Run::Finished(output) | Run::Failed { output, .. }) = run;
    Weight::of(output)
}

/// Bytes of output, by where they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weight {
    pub memory: usize,
    pub files: u64,
}

impl Weight {
    pub(crate) fn of(output: &Output) -> Self {
        let files = output.spooled.as_ref().map_or(0, SpooledFile::len);
        Self { memory: output.size(), files }
    }

    fn of_known(known: &Precomputed) -> Self {
        Self { memory: known.stdout.len() + known.stderr.len(), files: 0 }
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, more: Self) {
        self.memory += more.memory;
        self.files += more.files;
    }
}

impl SubAssign for Weight {
    fn sub_assign(&mut self, less: Self) {
        self.memory -= less.memory;
        self.files -= less.files;
    }
}
