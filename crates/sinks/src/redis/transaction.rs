//! Payloads that are applied together: all of them, or none.
//!
//! A transaction (`MULTI` … `EXEC`) is what keeps the order of a key. Were a batch sent as single
//! commands, the server could refuse the first write to a key for now (it has no memory left, it is
//! no primary any more) and accept the second, and the first would be repeated on top of it. A
//! transaction that cannot be accepted now is not applied at all, and is repeated whole; what is wrong
//! with a command itself concerns that command alone. For the same reason a connection that ends in
//! the middle leaves nothing half done.

use std::ops::Range;

use drakkar_core::{Delivery, RedisPayload, SinkError};
use redis::{Cmd, Pipeline, Value, cmd};

use super::{
    encode::{Encoder, Known},
    verdict,
};

/// What is applied together.
#[derive(Default)]
pub(super) struct Transaction {
    commands: Vec<Cmd>,
    /// Which payload of the batch, and which of the commands are its own.
    parts: Vec<(usize, Range<usize>)>,
    /// The scripts it brings along.
    known: Known,
}

impl Transaction {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Adds what carries out the payload at `index` of the batch, or says what became of it already.
    /// No argument may be longer than `max_bulk` bytes.
    pub(super) fn add(
        &mut self,
        encoder: &Encoder,
        index: usize,
        payload: &RedisPayload,
        max_bulk: usize,
    ) -> Option<Delivery> {
        match encoder.encode(payload, &mut self.known, max_bulk) {
            Ok(commands) if commands.is_empty() => Some(Delivery::Confirmed),
            Ok(commands) => {
                self.push(index, commands);
                None
            }
            Err(error) => Some(Delivery::Permanent(error)),
        }
    }

    fn push(&mut self, index: usize, commands: Vec<Cmd>) {
        let begin = self.commands.len();
        self.commands.extend(commands);
        self.parts.push((index, begin..self.commands.len()));
    }

    /// Adds it to what is sent, each part of which is answered, and says how the answers are to be read.
    pub(super) fn write(self, pipeline: &mut Pipeline) -> Answers {
        let begin = pipeline.len();
        let is_single = self.commands.len() == 1; // As good as a transaction.
        if !is_single {
            pipeline.add_command(cmd("MULTI"));
        }
        for command in self.commands {
            pipeline.add_command(command);
        }
        if !is_single {
            pipeline.add_command(cmd("EXEC"));
        }
        Answers { replies: begin..pipeline.len(), parts: self.parts, is_single }
    }
}

/// Which answers are whose.
pub(super) struct Answers {
    /// Its own of all that come back.
    replies: Range<usize>,
    parts: Vec<(usize, Range<usize>)>,
    is_single: bool,
}

impl Answers {
    /// What became of each payload, by its place in the batch.
    pub(super) fn read(self, replies: &[Value]) -> Vec<(usize, Delivery)> {
        let replies = replies.get(self.replies).unwrap_or_default();
        let (queued, executed) = match replies {
            _ if self.is_single => (replies, None),
            // The server does no transactions: each command was carried out by itself.
            [Value::ServerError(_), commands @ .., _] => (commands, None),
            [_, commands @ .., executed] => (commands, Some(executed)),
            _ => (&[][..], None),
        };
        let outcome = |own: Range<usize>| match (first_error(queued, &own), executed) {
            (Some(refused), _) => refused,
            (None, None) if queued.len() < own.end => short(),
            (None, None) => Delivery::Confirmed,
            (None, Some(Value::Array(results))) if results.len() < own.end => short(),
            (None, Some(Value::Array(results))) => {
                first_error(results, &own).unwrap_or(Delivery::Confirmed)
            }
            // It was given up, because of another command or of the server's state: nothing of it
            // was applied.
            (None, Some(Value::ServerError(error))) => Delivery::Transient(verdict::said(error)),
            (None, Some(_)) => short(),
        };
        self.parts.into_iter().map(|(index, own)| (index, outcome(own))).collect()
    }

    /// The same, where there is no answer at all.
    pub(super) fn none(self, error: &SinkError) -> Vec<(usize, Delivery)> {
        let held = |(index, _)| (index, Delivery::Transient(error.clone()));
        self.parts.into_iter().map(held).collect()
    }
}

fn first_error(answers: &[Value], own: &Range<usize>) -> Option<Delivery> {
    let own = answers.get(own.clone())?;
    own.iter().map(verdict::delivery).find(|delivery| *delivery != Delivery::Confirmed)
}

fn short() -> Delivery {
    Delivery::Transient(SinkError::new(
        "wrong_answer",
        "the server answered less than it was asked",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Value {
        redis::parse_redis_value(format!("{text}\r\n").as_bytes()).unwrap()
    }

    /// A transaction of three payloads, the second of which takes two commands.
    fn answers() -> Answers {
        let mut transaction = Transaction::default();
        transaction.push(0, vec![cmd("SET")]);
        transaction.push(2, vec![cmd("RPUSH"), cmd("LTRIM")]);
        transaction.push(5, vec![cmd("SET")]);
        let mut pipeline = Pipeline::new();
        let answers = transaction.write(&mut pipeline);
        assert_eq!(pipeline.len(), 6);
        answers
    }

    /// `+` confirmed, `~` held, `-` refused.
    #[track_caller]
    fn check(replies: &[Value], outcomes: &str) {
        let read = answers().read(replies);
        assert_eq!(read.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2, 5]);
        let sign = |(_, delivery)| match delivery {
            Delivery::Confirmed => '+',
            Delivery::Transient(_) => '~',
            Delivery::Permanent(_) => '-',
        };
        assert_eq!(read.into_iter().map(sign).collect::<String>(), outcomes, "{replies:?}");
    }

    fn replies(queued: [&str; 4], executed: Value) -> Vec<Value> {
        let mut replies = vec![reply("+OK")];
        replies.extend(queued.map(reply));
        replies.push(executed);
        replies
    }

    const QUEUED: &str = "+QUEUED";
    const WRONG: &str = "-WRONGTYPE no list";

    #[test]
    fn what_is_wrong_with_one_command_concerns_its_payload_alone() {
        let results = |of: [&str; 4]| Value::Array(of.map(reply).to_vec());
        check(&replies([QUEUED; 4], results(["+OK", ":1", "+OK", "+OK"])), "+++");
        check(&replies([QUEUED; 4], results(["+OK", WRONG, WRONG, "+OK"])), "+-+");
        check(&replies([QUEUED; 4], results(["+OK", ":1", WRONG, "+OK"])), "+-+");
        check(&replies([QUEUED; 4], results(["+OK", ":1", "+OK", "-OOM no memory"])), "++~");
    }

    #[test]
    fn what_was_given_up_is_held_except_for_what_is_refused_by_itself() {
        let aborted = || reply("-EXECABORT Transaction discarded because of previous errors.");
        check(&replies([QUEUED, "-OOM no memory", QUEUED, QUEUED], aborted()), "~~~");
        check(&replies([QUEUED, QUEUED, "-ERR unknown command", QUEUED], aborted()), "~-~");
        check(&replies([QUEUED; 4], reply("-OOM no memory")), "~~~");
        check(&replies([QUEUED; 4], reply("-ERR whatever EXEC may say")), "~~~");
    }

    #[test]
    fn nothing_counts_as_delivered_that_was_not_answered() {
        check(&replies([QUEUED; 4], Value::Array(vec![reply("+OK"), reply(":1")])), "+~~");
        check(&replies([QUEUED; 4], Value::Nil), "~~~");
        check(&[reply("+OK")], "~~~");
        check(&[], "~~~");
    }

    #[test]
    fn without_transactions_the_answers_of_the_commands_count() {
        let mut replies = replies(["+OK", ":1", "+OK", WRONG], reply("-ERR EXEC without MULTI"));
        replies[0] = reply("-NOPERM no multi");
        check(&replies, "++-");
    }

    #[test]
    fn a_single_command_needs_no_transaction() {
        let mut transaction = Transaction::default();
        transaction.push(3, vec![cmd("SET")]);
        let mut pipeline = Pipeline::new();
        let answers = transaction.write(&mut pipeline);
        assert_eq!(pipeline.len(), 1);
        assert_eq!(answers.read(&[reply("+OK")]), [(3, Delivery::Confirmed)]);
    }

    #[test]
    fn transactions_that_are_sent_together_each_have_their_own_answers() {
        let mut pipeline = Pipeline::new();
        let sent = [(7, 1), (8, 2), (9, 1)].map(|(index, count)| {
            let mut transaction = Transaction::default();
            transaction.push(index, vec![cmd("SET"); count]);
            transaction.write(&mut pipeline)
        });
        let replies = [
            reply("+OK"),
            reply("+OK"),
            reply(QUEUED),
            reply(QUEUED),
            Value::Array(vec![reply("+OK"), reply(WRONG)]),
            reply("-MOVED 1 b:1"),
        ];
        assert_eq!(pipeline.len(), replies.len());
        let [first, second, third] = sent.map(|answers| answers.read(&replies).remove(0));
        assert_eq!(first, (7, Delivery::Confirmed));
        assert!(matches!(second, (8, Delivery::Permanent(_))), "{second:?}");
        assert!(matches!(third, (9, Delivery::Transient(_))), "{third:?}");
    }
}
