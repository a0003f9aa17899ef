//! The words and the decisions of Drakkar.
//!
//! Everything that decides is data or a pure function of its arguments: no I/O, no clock, no task is
//! spawned; time and randomness come in as arguments. Beside that there are the words two threads
//! share ([`backpressure::Load`], [`hold`], [`source`]). One exception decides nothing:
//! [`TaskId::generate`] reads the clock, because the id it makes must sort by time.
//!
//! Read [`handler`] first: it is what users write. [`ledger`] and [`watermark`] are why a commit
//! is safe.

pub mod message; // what Kafka delivered
pub mod input; // its value, decoded
pub mod handler; // what users write
pub mod contain; // what panics in it, as data
pub mod task; // what they ask for
pub mod control; // how it is run
pub mod result; // how it ended
pub mod spool; // what it printed, in a file
pub mod group; // the same for a message or a window as a whole
pub mod payload; // what they want delivered
pub mod sink; // where it goes
pub mod ready; // what is connected before the first message
pub mod hold; // which deliveries wait for a sink that is down
pub mod dead_letter; // where it goes otherwise
pub mod source; // the channel between the poll thread and the pipeline
pub mod backpressure; // when a partition pauses
pub mod order; // which message may start when
pub mod numbered; // maps by a number
pub mod ledger; // which message waits for what
pub mod watermark; // what may be committed
pub mod done_map; // which later offsets are settled, as text in a commit
pub mod flood; // how many may be dead-lettered before a partition is held
pub mod retry; // how long to wait before the next attempt
pub mod kafka_client; // how to reach and authenticate to a cluster
pub mod secret; // values that are never printed
pub mod lenient; // numbers where configuration expects text
pub mod observe; // what the outer crates report while they work

pub use control::{Keep, StopSignal};
pub use dead_letter::{Carried, Cause, DeadLetter, Stage};
pub use done_map::DoneMap;
pub use group::{MessageGroup, WindowGroup};
pub use handler::{Handler, HookError, HookResult, OnDeliveryError, OnError, Pending};
pub use input::{Input, Json, OnInvalid};
pub use message::{Header, Message, Offset, SourceMessage, Timestamp, TopicPartition};
pub use payload::{
    Collect, CustomPayload, FileContent, FilePayload, HttpBody, HttpPart, HttpPayload, JsonObject,
    KafkaPayload, MongoPayload, MongoWrite, Payload, PayloadError, PostgresPayload, PostgresWrite,
    RedisCommand, RedisOnlyIf, RedisPayload,
};
pub use ready::Ready;
pub use result::{Failure, Output, TaskFailure, TaskResult, Usage};
pub use secret::Secret;
pub use sink::{Delivery, DeliveryFailure, Sink, SinkError, SinkKind, SinkName};
pub use spool::SpooledFile;
pub use task::{Precomputed, Task, TaskId};
