//! What happens to a message between its poll and its commit.
//!
//! ```text
//! poll ─► partition ─► arrange ─► execute ─► collect ─► deliver ─► commit
//! ```
//!
//! The listing below is that way. [`Pipeline`] starts one task per assigned partition; that task owns
//! all of the partition's state, so there is no lock here. It awaits nothing but its own events:
//! hooks and deliveries run beside it and report back. What may be committed is decided by
//! [`drakkar_core::ledger`]; this crate only tells it what ended.
//!
//! It knows channels, not Kafka: see [`drakkar_core::source`].

mod poll; // source events -> partitions
mod partition; // one loop per partition, owns everything below
mod held; // what is kept of an open message
mod intake; // inbox -> window
mod arrange; // window -> tasks (user hook)
mod turn; // tasks -> those whose turn has come
mod lines; // who of them is next, by program
mod execute; // task -> how it ended
mod collect; // how it ended -> payloads or a verdict (user hooks)
mod aggregate; // what has ended -> payloads of a message or a window as a whole (user hooks)
mod flood; // what was given up -> dead letters, up to a limit
mod deliver; // payloads -> sinks, messages -> dead letters
mod post; // the same for what tasks led to, without waiting for each
mod commit; // when to report what is settled
mod handover; // what is dropped and what is finished when a partition is taken away
mod attendance; // the hooks that are told of partitions that come and go
mod periodic; // work by the clock (user code)
mod flows; // what runs beside a partition loop
mod hook; // user code, contained
mod watch; // which hook blocks its thread
mod status; // what probes may see
mod settings; // what the configuration says

pub use commit::CommitPace;
pub use hook::{HookFailure, apart, contained};
pub use periodic::{AfterError, Periodic, Work};
pub use poll::{ANSWER_WITHIN, Pipeline, PipelineError, Stop};
pub use settings::Settings;
pub use status::{HeldPartition, Status, StatusView};
pub use watch::StuckHook;
