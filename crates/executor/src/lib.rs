//! Runs tasks as subprocesses: a fixed number of slots, one process per task, and nothing of a
//! process tree left when its task has ended.
//!
//! [`Pool`] owns the queue and the slots; a [`Job`] goes in, a [`Run`] comes out. The crate decides
//! nothing about failures: it tells what happened, and whoever submitted the job decides about
//! retries. Precomputed tasks need no process; they never come here.

mod config; // the `executor:` section
mod programs; // programs that tasks call by a name
mod cpus; // how many slots where nobody says
mod limits; // what a program may use at most
mod env; // what a child may inherit
mod queue; // who is next
mod fair; // who is next where programs share the slots
mod orphans; // who has lost its parent
mod warden; // a process that outlives the worker, to end what it started
mod guard; // nothing outlives its task
mod reactor; // what a slot does while it waits
mod spawn; // task → process, on threads of its own
mod process; // process → how it ended
mod capture; // what it printed
mod spool; // the same, in files
mod usage; // what it used
mod job_log; // whether to measure that
mod median; // how long programs usually take
mod memory; // whether the kernel killed for want of memory
mod memory_guard; // what to do when it gets short
mod stand_in; // what takes the place of processes in a test
mod runner; // one slot: a task from start to end
mod persistent; // processes that answer many tasks
mod threads; // where slots run
mod slots; // who runs and who waits
mod job; // what goes in, what comes out
mod ticket; // a claim on a job
mod pool; // all of the above, running

pub use config::{ExecutorConfig, Variables};
pub use cpus::effective_cpus;
pub use job::{CancelReason, Ended, Job, Run, Watched};
pub use job_log::JobLogConfig;
pub use limits::{LimitRefused, Limits};
pub use memory_guard::MemoryGuardConfig;
pub use persistent::ProgramStats;
pub use pool::{Pool, PoolStats, PoolWatch, StartError};
pub use programs::{Mode, ProgramConfig, Protocol};
pub use queue::{Place, Queue, Rank, Standing};
pub use spool::{SpoolConfig, SpoolWatch};
pub use stand_in::{FreeMemory, Scripted, StandIn};
pub use ticket::Ticket;
