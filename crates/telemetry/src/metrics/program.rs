//! The series of the persistent programs. Who runs them counts; here the counts are shown.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::register::{Registrar, Result};

const LABELS: [&str; 1] = ["program"];

/// How a persistent program is, with totals since the start of the worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramView {
    /// Processes that take tasks.
    pub ready: usize,
    /// Tasks given to a process and not answered.
    pub in_flight: usize,
    /// Tasks that wait for a process.
    pub queued: usize,
    /// Whether a process fails again and again without an answer.
    pub is_crash_looping: bool,
    /// Starts of processes.
    pub starts: u64,
    /// Processes that failed.
    pub failures: u64,
    /// Processes replaced because they had served their time.
    pub recycled: u64,
    /// Tasks put back because of a failure that was not theirs.
    pub requeued: u64,
    /// Lines of standard error that were not logged.
    pub stderr_suppressed: u64,
}

/// The families that carry `program`.
#[derive(Debug)]
pub(super) struct Programs {
    gauges: [IntGaugeVec; 4],
    counters: [IntCounterVec; 5],
}

impl Programs {
    pub(super) fn new(add: &Registrar<'_>) -> Result<Self> {
        let gauge = |name: &str, help: &str| add.gauges(name, help, &LABELS);
        let counter = |name: &str, help: &str| add.counters(name, help, &LABELS);
        Ok(Self {
            gauges: [
                gauge("drakkar_program_processes", "Processes that take tasks")?,
                gauge("drakkar_program_in_flight", "Tasks given to a process and not answered")?,
                gauge("drakkar_program_queued", "Tasks that wait for a process")?,
                gauge(
                    "drakkar_program_crash_loop",
                    "1 while a process fails again and again without an answer",
                )?,
            ],
            counters: [
                counter("drakkar_program_starts_total", "Starts of processes")?,
                counter(
                    "drakkar_program_failures_total",
                    "Processes that ended or had to be ended unasked, and starts that failed",
                )?,
                counter(
                    "drakkar_program_recycled_total",
                    "Processes replaced because they had served their time",
                )?,
                counter(
                    "drakkar_program_requeued_total",
                    "Tasks put back because of a failure that was not theirs",
                )?,
                counter(
                    "drakkar_program_stderr_suppressed_total",
                    "Lines of standard error that were not logged because there were too many",
                )?,
            ],
        })
    }

    pub(super) fn show(&self, program: &str, view: &ProgramView) {
        let ProgramView { ready, in_flight, queued, is_crash_looping, .. } = *view;
        let now = [ready, in_flight, queued, usize::from(is_crash_looping)];
        for (family, value) in self.gauges.iter().zip(now) {
            family.with_label_values(&[program]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let ProgramView { starts, failures, recycled, requeued, stderr_suppressed, .. } = *view;
        let totals = [starts, failures, recycled, requeued, stderr_suppressed];
        for (family, total) in self.counters.iter().zip(totals) {
            let counter = family.with_label_values(&[program]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
