//! The job log: one JSON line per run of a task, on a thread of its own.
//!
//! Whoever reports a run never waits: the queue is bounded, and what it or the disk does not take is
//! counted. A line holds neither arguments nor variables nor input or output of a program: they may be
//! secret.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    time::{Duration, SystemTime},
};

use drakkar_core::{Failure, Offset, Output, Task, TaskId, TopicPartition};
use prometheus::IntCounter;
use serde::{Serialize, Serializer};
use tracing::warn;

use crate::Metrics;

mod writer; // lines → file, and its predecessor

/// Lines that wait for the disk.
const QUEUE: usize = 4_096;

/// Messages that one line names.
const MESSAGES: usize = 16;

/// How long the end of a worker waits for lines to be written.
pub const JOB_LOG_WITHIN: Duration = Duration::from_secs(2);

/// What is to be logged where.
#[derive(Debug, Clone)]
pub struct JobLogSettings {
    /// The file.
    pub path: PathBuf,
    /// Bytes after which it is begun anew.
    pub max_bytes: u64,
    /// Who runs the tasks.
    pub worker: String,
    /// Program of the tasks that name none.
    pub program: Option<PathBuf>,
}

/// Where runs are reported to.
#[derive(Debug)]
pub(crate) struct JobLog {
    worker: Arc<str>,
    program: Option<Arc<PathBuf>>,
    lines: Mutex<Option<SyncSender<Line>>>,
    dropped: IntCounter,
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub enum JobEnd<'a> {
    /// With exit code 0.
    Finished,
    /// In another way.
    Failed(&'a Failure),
    /// It was cut off, for this reason.
    Cancelled(&'static str),
}

/// Keeps the log open. Dropped, it waits for a moment until what was reported is written.
#[derive(Debug)]
pub struct JobLogGuard {
    metrics: Arc<Metrics>,
    /// Its sender goes when the thread ends.
    ended: mpsc::Receiver<()>,
}

impl Drop for JobLogGuard {
    fn drop(&mut self) {
        if let Some(log) = self.metrics.job_log.get() {
            log.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        // Nothing is ever sent: the end comes, or a disk hangs, for which nobody waits longer.
        if self.ended.recv_timeout(JOB_LOG_WITHIN) == Err(RecvTimeoutError::Timeout) {
            warn!(category = "executor", "the end of the job log could not be written in time");
        }
    }
}

impl Metrics {
    /// Logs every run of a task from now on, until the guard is dropped.
    ///
    /// A file that cannot be written is no error: it is logged, tried again, and counted.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn log_jobs(self: &Arc<Self>, settings: JobLogSettings) -> std::io::Result<JobLogGuard> {
        let JobLogSettings { path, max_bytes, worker, program } = settings;
        let (lines, queue) = mpsc::sync_channel(QUEUE);
        let (ending, ended) = mpsc::channel::<()>();
        let dropped = self.job_log_dropped.clone();
        let writer = writer::Writer::new(path, max_bytes, dropped.clone());
        std::thread::Builder::new().name("drakkar-job-log".to_owned()).spawn(move || {
            writer.run(&queue);
            drop(ending);
        })?;
        let log = JobLog {
            worker: worker.into(),
            program: program.map(Arc::new),
            lines: Mutex::new(Some(lines)),
            dropped,
        };
        // A second log for the same worker has no use: the first one stays.
        drop(self.job_log.set(log));
        Ok(JobLogGuard { metrics: Arc::clone(self), ended })
    }

    /// Whether anybody wants to know of runs.
    #[must_use]
    pub fn logs_jobs(&self) -> bool {
        self.job_log.get().is_some()
    }

    /// A run of `task` ended.
    pub fn log_job(
        &self,
        partition: &TopicPartition,
        task: &Task,
        attempt: u32,
        output: &Output,
        end: JobEnd<'_>,
    ) {
        let Some(log) = self.job_log.get() else { return };
        let line = log.line(partition, task, attempt, output, end);
        let lines = log.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err()) {
            log.dropped.inc();
        }
    }
}

impl JobLog {
    fn line(
        &self,
        partition: &TopicPartition,
        task: &Task,
        attempt: u32,
        output: &Output,
        end: JobEnd<'_>,
    ) -> Line {
        let offsets = task.source_offsets();
        let is_started = output.pid.is_some();
        let named = || task.program_path().map(|path| Arc::new(path.clone()));
        Line {
            task: task.id().clone(),
            attempt,
            worker: Arc::clone(&self.worker),
            messages: Messages(partition.clone(), offsets.iter().take(MESSAGES).copied().collect()),
            message_count: offsets.len(),
            program: named().or_else(|| self.program.clone()),
            pid: output.pid,
            started: output.started_at,
            wait: output.waited,
            spawn: Some(output.spawned_in).filter(|time| !time.is_zero()),
            run: is_started.then_some(output.took),
            outcome: match end {
                JobEnd::Finished => "ok",
                JobEnd::Failed(failure) => failure.class(),
                JobEnd::Cancelled(_) => "cancelled",
            },
            reason: match end {
                JobEnd::Cancelled(reason) => Some(reason),
                JobEnd::Finished | JobEnd::Failed(_) => None,
            },
            exit_code: match end {
                JobEnd::Finished => Some(0),
                JobEnd::Failed(Failure::Exit(code)) => Some(*code),
                JobEnd::Failed(_) | JobEnd::Cancelled(_) => None,
            },
            signal: match end {
                JobEnd::Failed(Failure::Signal(signal)) => Some(*signal),
                _ => None,
            },
            timed_out: matches!(end, JobEnd::Failed(Failure::TimedOut(_))),
            stdin_bytes: match task.stdin_path() {
                None => Some(task.stdin_bytes().map_or(0, |stdin| stdin.len() as u64)),
                Some(_) => None,
            },
            stdout_bytes: output.stdout_len() + output.stdout_dropped,
            stdout_truncated: output.stdout_dropped > 0,
            stderr_bytes: output.stderr.len() as u64 + output.stderr_dropped,
            stderr_truncated: output.stderr_dropped > 0,
            max_rss_bytes: output.usage.max_rss,
            user: output.usage.user,
            system: output.usage.system,
        }
    }
}

/// What is written about one run. Names and units are part of what users build on.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(serialize_with = "as_text")]
    task: TaskId,
    attempt: u32,
    worker: Arc<str>,
    messages: Messages,
    message_count: usize,
    #[serde(serialize_with = "as_path")]
    program: Option<Arc<PathBuf>>,
    pid: Option<u32>,
    #[serde(serialize_with = "as_moment")]
    started: Option<SystemTime>,
    #[serde(rename = "wait_seconds", serialize_with = "as_seconds")]
    wait: Duration,
    #[serde(rename = "spawn_seconds", serialize_with = "as_known_seconds")]
    spawn: Option<Duration>,
    #[serde(rename = "run_seconds", serialize_with = "as_known_seconds")]
    run: Option<Duration>,
    outcome: &'static str,
    reason: Option<&'static str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    timed_out: bool,
    stdin_bytes: Option<u64>,
    stdout_bytes: u64,
    stdout_truncated: bool,
    stderr_bytes: u64,
    stderr_truncated: bool,
    max_rss_bytes: Option<u64>,
    #[serde(rename = "user_seconds", serialize_with = "as_known_seconds")]
    user: Option<Duration>,
    #[serde(rename = "system_seconds", serialize_with = "as_known_seconds")]
    system: Option<Duration>,
}

/// The first of them.
#[derive(Debug)]
struct Messages(TopicPartition, Vec<Offset>);

impl Serialize for Messages {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let Self(partition, offsets) = self;
        out.collect_seq(offsets.iter().map(|offset| format!("{partition}:{}", offset.0)))
    }
}

fn as_text<S: Serializer>(id: &TaskId, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(id.as_str())
}

#[expect(clippy::ref_option, reason = "serde passes the field")]
fn as_path<S: Serializer>(path: &Option<Arc<PathBuf>>, out: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(out)
}

#[expect(clippy::ref_option, reason = "serde passes the field")]
fn as_moment<S: Serializer>(moment: &Option<SystemTime>, out: S) -> Result<S::Ok, S::Error> {
    moment.map(|moment| humantime::format_rfc3339_micros(moment).to_string()).serialize(out)
}

fn as_seconds<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(time.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "serde passes the field")]
fn as_known_seconds<S: Serializer>(time: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(out)
}

#[cfg(test)]
mod tests;
