//! The delivery reports of one write: one answer per record, and one call to whoever waits for all.
//!
//! The client's thread files a report per record; waking somebody for each would cost more than the
//! record. A record whose report never comes, because its client was dropped, has an answer as well.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

/// What the brokers said about one record.
pub(super) type Answer = Result<(), Code>;

/// The answers to some records, as far as they have come.
pub(super) struct Reports {
    answers: Mutex<Vec<Answer>>,
    open: AtomicUsize,
    all: Notify,
}

/// What the client files about one record; dropped unfiled, the record may or may not have arrived.
pub(super) struct Report {
    of: Arc<Reports>,
    index: usize,
}

impl Reports {
    /// No answers yet, to `count` records.
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(vec![Err(Code::PurgeInflight); count]),
            open: AtomicUsize::new(count),
            all: Notify::new(),
        })
    }

    /// What the client is to file about the record at `index`; to be asked for once for each.
    pub(super) fn report(self: &Arc<Self>, index: usize) -> Report {
        Report { of: Arc::clone(self), index }
    }

    /// Waits until every report was filed or dropped.
    pub(super) async fn answers(&self) -> Vec<Answer> {
        while 0 < self.open.load(Ordering::Acquire) {
            self.all.notified().await;
        }
        std::mem::take(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Report {
    pub(super) fn file(self, answer: Answer) {
        let mut answers = self.of.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = answers.get_mut(self.index) {
            *open = answer;
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.of.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.of.all.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_record_has_its_own_answer_also_one_whose_report_never_comes() {
        let reports = Reports::new(3);
        let [first, dropped, last] = [0, 1, 2].map(|index| reports.report(index));
        let waiting = tokio::spawn({
            let reports = Arc::clone(&reports);
            async move { reports.answers().await }
        });
        last.file(Err(Code::MessageSizeTooLarge));
        drop(dropped);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.file(Ok(()));
        let answers = [Ok(()), Err(Code::PurgeInflight), Err(Code::MessageSizeTooLarge)];
        assert_eq!(waiting.await.unwrap(), answers);
    }

    #[tokio::test]
    async fn no_records_have_no_answers() {
        assert_eq!(Reports::new(0).answers().await, []);
    }
}
