//! Metrics and logs: what the outside sees of a worker.
//!
//! Every metric name stands in [`metrics`], every event that is both logged and counted in
//! [`events`], so that the two never contradict each other. Nothing here reports back: a full log
//! drops lines and counts them, and no caller waits for a reader.

pub mod metrics; // every name, once
pub mod events; // log line and metric of one event, together
mod observers; // the same for what the source and the sinks report
mod throttle; // how often one event is logged
pub mod logging; // where the lines go
mod format; // and what they look like
mod job_log; // a line per run of a task

pub use events::SkipReason;
pub use job_log::{JOB_LOG_WITHIN, JobEnd, JobLogGuard, JobLogSettings};
pub use logging::{
    LOG_WITHIN, LogFormat, LogGuard, LogIdentity, LogLevel, LogOutput, LoggingConfig, LoggingError,
};
pub use metrics::{Hook, HookMetrics, Metrics, PartitionMetrics, ProgramView};
/// The library the metrics are made with; a handler registers its own with the same one.
pub use prometheus;
