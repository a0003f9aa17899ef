//! A record of the dead-letter topic: the original message, and why it was given up.
//!
//! A worker writes the headers of the message first and its own behind them, beginning with
//! `drakkar-stage`. The last header of that name is where the message ends, so that a message which
//! itself had such headers (somebody consumes a dead-letter topic) is restored as it was.

use std::{borrow::Cow, fmt::Write as _};

use drakkar::{Header, SourceMessage};

/// Counts the replays of a message; travels with it.
pub(super) const REPLAYS: &str = "drakkar-replays";

/// Added to a parked letter: which letter it is a copy of.
pub(super) const PARKED_FROM: &str = "drakkar-parked-from";

/// A payload that was refused, as JSON.
pub(super) const PAYLOAD: &str = "drakkar-payload";

/// The first header of ours.
const FIRST: &str = "drakkar-stage";

/// A record of the dead-letter topic.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// The record as it is.
    pub record: SourceMessage,
    /// Whether the names of its headers are what is in the topic: one that is not UTF-8 is read with
    /// `U+FFFD` in it, and cannot be written again.
    pub is_exact: bool,
    /// How many of its headers are those of the message.
    pub(super) message: usize,
}

impl Letter {
    pub(super) fn new(record: SourceMessage) -> Self {
        let first = record.headers.iter().rposition(|header| &*header.name == FIRST);
        let message = first.unwrap_or(record.headers.len());
        Self { record, is_exact: true, message }
    }

    /// Headers of the message.
    pub(super) fn original_headers(&self) -> &[Header] {
        &self.record.headers[..self.message]
    }

    /// The header `drakkar-{name}` that the worker wrote.
    pub(super) fn ours(&self, name: &str) -> Option<Cow<'_, str>> {
        let ours = &self.record.headers[self.message..];
        let is_it = |header: &&Header| header.name.strip_prefix("drakkar-") == Some(name);
        let value = ours.iter().find(is_it)?.value.as_ref()?;
        Some(String::from_utf8_lossy(value))
    }

    /// The payloads that a sink refused, as JSON.
    pub(super) fn payloads(&self) -> Vec<&[u8]> {
        let ours = self.record.headers[self.message..].iter();
        let of_payloads = ours.filter(|header| &*header.name == PAYLOAD);
        of_payloads.map(|header| header.value.as_deref().unwrap_or_default()).collect()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.ours(name)?.parse().ok()
    }

    /// Topic the message was read from; `None` when no worker wrote this record.
    pub(super) fn original_topic(&self) -> Option<Cow<'_, str>> {
        self.ours("original-topic")
    }

    pub(super) fn original_partition(&self) -> Option<i32> {
        i32::try_from(self.number("original-partition")?).ok()
    }

    pub(super) fn original_offset(&self) -> Option<i64> {
        self.number("original-offset")
    }

    pub(super) fn original_timestamp(&self) -> Option<i64> {
        self.number("original-timestamp")
    }

    /// `topic:partition:offset` of the message.
    pub(super) fn original(&self) -> Option<String> {
        let topic = self.original_topic()?;
        Some(format!("{topic}:{}:{}", self.original_partition()?, self.original_offset()?))
    }

    /// How often the message was replayed before it was given up again.
    pub(super) fn replays(&self) -> u32 {
        let mut headers = self.original_headers().iter().rev();
        let count = headers.find(|header| &*header.name == REPLAYS);
        let text = count.and_then(|header| std::str::from_utf8(header.value.as_ref()?).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// When it was given up, in milliseconds since the Unix epoch.
    pub(super) fn time(&self) -> Option<i64> {
        self.record.timestamp.map(drakkar::Timestamp::millis)
    }
}

/// Bytes as text on one line: what is UTF-8 as it is, other bytes and control characters escaped.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                    text.extend(c.escape_default());
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            // A String takes everything that is written to it.
            write!(text, "\\x{byte:02x}").ok();
        }
    }
    text
}

/// Milliseconds since the Unix epoch as people write them, in UTC.
pub(super) fn time_text(millis: i64) -> String {
    // What a clock shows; anything else is a number that somebody made up.
    const LAST: u64 = 253_402_300_799_999;
    match u64::try_from(millis) {
        Ok(millis @ ..=LAST) => {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis);
            humantime::format_rfc3339_millis(at).to_string()
        }
        _ => format!("{millis} ms"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use drakkar::{Bytes, Offset, Timestamp, TopicPartition};

    use super::*;

    /// A letter with these headers of the message, given up while it was executed.
    pub(in crate::dlq) fn letter(original: &[(&str, &str)]) -> Letter {
        let ours = [
            ("drakkar-stage", "execute"),
            ("drakkar-error-class", "exit_code"),
            ("drakkar-error-message", "exit code 3"),
            ("drakkar-attempt", "4"),
            ("drakkar-original-topic", "orders"),
            ("drakkar-original-partition", "3"),
            ("drakkar-original-offset", "42"),
            ("drakkar-original-timestamp", "1700"),
        ];
        let headers = original.iter().chain(&ours);
        Letter::new(SourceMessage {
            partition: TopicPartition::new("orders_dlq", 1),
            offset: Offset(7),
            timestamp: Some(Timestamp::Created(1_795_000_000_000)),
            key: Some(Bytes::from_static(b"\xff\x00k")),
            value: Some(Bytes::from_static(br#"{"user": {"id": 42, "name": "ann"}, "ok": true}"#)),
            headers: headers.map(|(name, value)| Header::new(*name, (*value).to_owned())).collect(),
        })
    }

    #[test]
    fn the_headers_of_the_message_are_told_from_those_of_the_worker() {
        let letter = letter(&[("a", "1"), ("a", "2")]);
        let names: Vec<&str> = letter.original_headers().iter().map(|h| &*h.name).collect();
        assert_eq!(names, ["a", "a"]);
        assert_eq!(letter.original().as_deref(), Some("orders:3:42"));
        assert_eq!(letter.ours("error-class").as_deref(), Some("exit_code"));
    }

    #[test]
    fn a_message_that_had_such_headers_itself_keeps_them() {
        let own = [("drakkar-stage", "decode"), ("drakkar-original-topic", "other"), ("b", "2")];
        let letter = letter(&own);
        assert_eq!(letter.original_headers().len(), 3);
        assert_eq!(letter.original_topic().as_deref(), Some("orders"));
        assert_eq!(letter.ours("stage").as_deref(), Some("execute"));
    }

    #[test]
    fn a_record_that_no_worker_wrote_is_all_message() {
        let mut record = letter(&[]).record;
        record.headers = vec![Header::new("a", "1")];
        let letter = Letter::new(record);
        assert_eq!((letter.original_headers().len(), letter.original()), (1, None));
    }

    #[test]
    fn replays_are_counted_by_the_last_header_of_the_message() {
        assert_eq!(letter(&[]).replays(), 0);
        assert_eq!(letter(&[("drakkar-replays", "2"), ("a", "1")]).replays(), 2);
        assert_eq!(letter(&[("drakkar-replays", "many")]).replays(), 0);
    }

    #[test]
    fn bytes_are_shown_on_one_line_and_no_two_look_the_same() {
        assert_eq!(escape("grün\n\\".as_bytes()), "grün\\n\\\\");
        assert_eq!(escape(b"\xff\x00k"), "\\xff\\u{0}k");
        assert_eq!(escape(b"\\xff"), "\\\\xff");
    }
}
