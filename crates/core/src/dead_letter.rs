//! What could not be processed, and why.
//!
//! A dead letter carries the original message byte for byte: same key, same value, same headers in
//! the same order. What went wrong is added behind them in headers that begin with `drakkar-`, and
//! what a sink refused, so that it can be delivered without running the task again.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Header, SinkName, SourceMessage, TaskId};

mod carried; // the payloads that were refused

pub use carried::{Carried, MAX_PAYLOADS};

/// Longest error text that a dead letter carries, in bytes.
pub const MAX_ERROR_TEXT: usize = 4096;

/// Where on its way the message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Its value did not decode.
    Decode,
    /// `arrange` failed for it.
    Arrange,
    /// One of its tasks failed for good.
    Execute,
    /// `on_task_complete` failed.
    OnTaskComplete,
    /// `on_error` failed.
    OnError,
    /// `on_message_complete` failed.
    OnMessageComplete,
    /// `on_window_complete` failed.
    OnWindowComplete,
    /// A sink refused a payload for good, or there is no such sink.
    Deliver,
}

impl Stage {
    /// The stage as headers, metrics and logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Arrange => "arrange",
            Self::Execute => "execute",
            Self::OnTaskComplete => "on_task_complete",
            Self::OnError => "on_error",
            Self::OnMessageComplete => "on_message_complete",
            Self::OnWindowComplete => "on_window_complete",
            Self::Deliver => "deliver",
        }
    }
}

/// Why a message was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Where on its way.
    pub stage: Stage,
    /// Short, stable name of the error (`exit_code`, `timeout`, `panic`, `unknown_sink`).
    pub class: String,
    /// The error in words.
    pub message: String,
    /// What a log may say instead, where these words quote what a program printed or what a message
    /// holds.
    pub in_logs: Option<String>,
    /// How many attempts were made.
    pub attempt: u32,
    /// The task concerned.
    pub task: Option<TaskId>,
    /// The sink concerned.
    pub sink: Option<SinkName>,
    /// The payloads that were refused.
    pub carried: Carried,
}

impl Cause {
    /// A cause at `stage` on the first attempt. Of a long error text, the beginning is kept.
    pub fn new(stage: Stage, class: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            stage,
            class: class.into(),
            message: truncated(message.into()),
            in_logs: None,
            attempt: 1,
            task: None,
            sink: None,
            carried: Carried::default(),
        }
    }

    /// Says what a log may say instead of the message.
    #[must_use]
    pub fn in_logs(mut self, text: impl Into<String>) -> Self {
        self.in_logs = Some(text.into());
        self
    }

    /// The error in words that quote nothing.
    #[must_use]
    pub fn for_logs(&self) -> &str {
        self.in_logs.as_deref().unwrap_or(&self.message)
    }

    /// Names the task concerned.
    #[must_use]
    pub fn task(mut self, id: &TaskId) -> Self {
        self.task = Some(id.clone());
        self
    }

    /// Names the sink concerned.
    #[must_use]
    pub fn sink(mut self, sink: SinkName) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Adds payloads that were refused.
    #[must_use]
    pub fn carrying(mut self, more: Carried) -> Self {
        self.carried = std::mem::take(&mut self.carried).and(more);
        self
    }

    /// Says how many attempts were made.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

/// A message on its way to the dead-letter topic.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The message as Kafka delivered it.
    pub message: Arc<SourceMessage>,
    /// Why it was given up.
    pub cause: Cause,
}

impl DeadLetter {
    /// Headers of the record: those of the message, then ours.
    #[must_use]
    pub fn headers(&self, group: &str, worker: &str) -> Vec<Header> {
        let Self { message, cause } = self;
        let mut headers = message.headers.clone();
        let mut add = |name: &str, value: String| headers.push(Header::new(name, value));
        // Always the first of ours: whoever restores the message cuts here.
        add("drakkar-stage", cause.stage.as_str().to_owned());
        add("drakkar-error-class", cause.class.clone());
        add("drakkar-error-message", truncated(cause.message.clone()));
        add("drakkar-attempt", cause.attempt.to_string());
        if let Some(task) = &cause.task {
            add("drakkar-task", task.to_string());
        }
        if let Some(sink) = &cause.sink {
            add("drakkar-sink", sink.to_string());
        }
        add("drakkar-original-topic", message.partition.topic.to_string());
        add("drakkar-original-partition", message.partition.partition.to_string());
        add("drakkar-original-offset", message.offset.to_string());
        if let Some(timestamp) = message.timestamp {
            add("drakkar-original-timestamp", timestamp.millis().to_string());
        }
        add("drakkar-group", group.to_owned());
        add("drakkar-worker", worker.to_owned());
        headers.extend(cause.carried.headers());
        headers
    }

    /// The same letter without the payloads it carries, if it carries any.
    #[must_use]
    pub fn without_payloads(&self) -> Option<Self> {
        let carries = 0 < self.cause.carried.weight();
        carries.then(|| {
            let mut letter = self.clone();
            letter.cause.carried = letter.cause.carried.left_out();
            letter
        })
    }

    /// Bytes the record occupies, without those of our headers that are always small.
    #[must_use]
    pub fn size(&self) -> usize {
        self.message.size() + self.cause.carried.weight()
    }

    /// Key of the record.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.message.key.as_ref()
    }
}

fn truncated(mut text: String) -> String {
    if MAX_ERROR_TEXT < text.len() {
        text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT));
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KafkaPayload, Offset, Timestamp, TopicPartition};

    fn letter(message: &str) -> DeadLetter {
        DeadLetter {
            message: Arc::new(SourceMessage {
                partition: TopicPartition::new("orders", 3),
                offset: Offset(42),
                timestamp: Some(Timestamp::Created(1_700)),
                key: Some(Bytes::from_static(b"\xff\x00k")),
                value: None,
                headers: vec![Header::new("a", "1"), Header { name: "a".into(), value: None }],
            }),
            cause: Cause::new(Stage::Execute, "exit_code", message)
                .attempt(4)
                .task(&TaskId::from("t-1")),
        }
    }

    #[test]
    fn original_headers_come_first_and_untouched_then_every_header_of_ours() {
        let headers = letter("exit code 3").headers("group", "worker-1");
        let shown: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|h| (&*h.name, h.value.as_deref())).collect();
        let expected: Vec<(&str, Option<&[u8]>)> = vec![
            ("a", Some(b"1")),
            ("a", None),
            ("drakkar-stage", Some(b"execute")),
            ("drakkar-error-class", Some(b"exit_code")),
            ("drakkar-error-message", Some(b"exit code 3")),
            ("drakkar-attempt", Some(b"4")),
            ("drakkar-task", Some(b"t-1")),
            ("drakkar-original-topic", Some(b"orders")),
            ("drakkar-original-partition", Some(b"3")),
            ("drakkar-original-offset", Some(b"42")),
            ("drakkar-original-timestamp", Some(b"1700")),
            ("drakkar-group", Some(b"group")),
            ("drakkar-worker", Some(b"worker-1")),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_refused_payload_is_in_a_header_of_its_own_or_said_to_be_left_out() {
        let payload = |text: &'static str| Carried::of(&KafkaPayload::raw(text).into());
        let mut letter = letter("too large");
        letter.cause = letter.cause.carrying(payload("a")).carrying(payload("b"));
        let shown = |letter: &DeadLetter| -> Vec<(String, String)> {
            let text = |value: Option<Bytes>| String::from_utf8(value.unwrap().into()).unwrap();
            let headers = letter.headers("g", "w").into_iter();
            let of_payloads = headers.filter(|header| header.name.starts_with("drakkar-payload"));
            of_payloads.map(|header| (header.name.to_string(), text(header.value))).collect()
        };
        let all = shown(&letter);
        assert!(all.iter().all(|(name, _)| name == "drakkar-payload"), "{all:?}");
        assert!(all[0].1.contains(r#""value":"a""#) && all[1].1.contains(r#""value":"b""#));

        let bytes = letter.cause.carried.size();
        assert_eq!(letter.size(), letter.message.size() + bytes, "it counts where room is bounded");
        let without = letter.without_payloads().unwrap();
        assert_eq!(shown(&without), [("drakkar-payload-omitted".into(), bytes.to_string())]);
        assert_eq!(without.size(), letter.message.size());
        assert!(without.without_payloads().is_none());

        letter.cause.carried = letter.cause.carried.elsewhere(&letter.message);
        assert_eq!(shown(&letter), [("drakkar-payload-with".into(), "orders:3:42".into())]);
    }

    #[test]
    fn a_long_error_text_is_cut_at_a_character() {
        let text = "ä".repeat(MAX_ERROR_TEXT);
        let headers = letter(&text).headers("g", "w");
        let kept = headers.iter().find(|h| &*h.name == "drakkar-error-message").unwrap();
        assert_eq!(kept.value.as_ref().unwrap().len(), MAX_ERROR_TEXT);
    }
}
