//! What the client calls back while it is polled: noted here, acted upon by the loop.
//!
//! Every callback runs inside a poll, on the poll thread, and a poll returns right after a rebalance or
//! a commit was reported. So nothing needs to be decided here, and all state stays with the loop. Only
//! once the consumer is being closed and the loop has ended, revoked partitions are given up here.

use std::{
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tracing::{debug, error, info, warn};

/// Something the client reported.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Partitions are given to us.
    Assign(TopicPartitionList),
    /// Partitions are taken from us; `lost`: they are somebody else's already.
    Revoke { partitions: TopicPartitionList, lost: bool },
    /// A commit was answered.
    Committed { outcome: KafkaResult<()>, offsets: TopicPartitionList },
    /// The client has trouble.
    Error { code: Option<RDKafkaErrorCode>, reason: String },
    /// How far the client is.
    Statistics(Box<Statistics>),
    /// It spoke about something that needs no action.
    Log,
}

/// Collects [`Notice`]s.
#[derive(Debug, Default)]
pub(crate) struct Context {
    notices: Mutex<Vec<Notice>>,
    closing: AtomicBool,
}

impl Context {
    /// What was reported since the last call.
    pub(crate) fn take(&self) -> Vec<Notice> {
        mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on nobody listens: revoked partitions are given up at once.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn note(&self, notice: Notice) {
        if !self.closing.load(Ordering::Relaxed) {
            self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
        }
    }
}

/// Whether librdkafka reports as an error as well what it logs like this. [`Context::error`] hears of it,
/// and the observer logs it once.
fn is_reported(level: RDKafkaLogLevel, facility: &str) -> bool {
    match facility {
        // Of a connection, an error; what is less it only logs.
        "FAIL" => level as i32 <= RDKafkaLogLevel::Error as i32,
        "FATAL" | "MAXPOLL" => true,
        _ => false,
    }
}

/// Gives `partitions` up.
pub(crate) fn give_back(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) {
    let answer = match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
        RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
    };
    if let Err(error) = answer {
        // The group has moved on without us; its next rebalance tells what is ours.
        warn!(category = "kafka", %error, "the un-assign was overtaken");
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel as Level;
        let closing = self.closing.load(Ordering::Relaxed);
        match level {
            _ if !closing && is_reported(level, facility) => {
                debug!(target: "librdkafka", category = "kafka", facility, "{message}");
            }
            Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
                error!(target: "librdkafka", category = "kafka", facility, "{message}");
            }
            Level::Warning => {
                warn!(target: "librdkafka", category = "kafka", facility, "{message}");
            }
            Level::Notice | Level::Info => {
                info!(target: "librdkafka", category = "kafka", facility, "{message}");
            }
            Level::Debug => debug!(target: "librdkafka", category = "kafka", facility, "{message}"),
        }
        self.note(Notice::Log);
    }

    fn stats(&self, statistics: Statistics) {
        self.note(Notice::Statistics(Box::new(statistics)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(Notice::Error { code: error.rdkafka_error_code(), reason: reason.to_owned() });
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            // Closing revokes everything. Only that is answered, and only once: an assignment it has
            // overtaken is void, and a client that has ended answers no call, ever.
            if !assign && !consumer.closed() {
                give_back(consumer, partitions);
            }
            return;
        }
        self.note(if assign {
            Notice::Assign(partitions.clone())
        } else {
            Notice::Revoke { partitions: partitions.clone(), lost: consumer.assignment_lost() }
        });
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.note(Notice::Committed { outcome, offsets: offsets.clone() });
    }
}
