//! The books must notice whatever goes wrong; a run that went well is only the first test.

use super::*;
use crate::demo::input::Kind;

const MESSAGES: u64 = 100;

/// Books of a run in which everything was sent, to one partition.
fn sent() -> Books {
    let mut books = Books::new(Plan::new(MESSAGES).unwrap());
    for id in 0..MESSAGES {
        books.sent(id, 0, i64::try_from(id).unwrap());
    }
    books
}

fn deliver(books: &mut Books, id: u64) {
    let key = id.to_string();
    match books.plan.destination(id) {
        Destination::Results { answer } => {
            let line = serde_json::to_vec(&Answer { id, answer, attempt: 1, dropped: 0 }).unwrap();
            books.result(key.as_bytes(), Some(&line));
            books.line(&line);
        }
        Destination::Deleted => books.result(key.as_bytes(), None),
        Destination::DeadLetters { class } => {
            let value = books.plan.value(id);
            books.letter(&Letter { key: key.as_bytes(), value: value.as_deref(), class });
        }
    }
}

fn delivered_except(missing: &[u64]) -> Books {
    let mut books = sent();
    for id in (0..MESSAGES).filter(|id| !missing.contains(id)) {
        deliver(&mut books, id);
    }
    books
}

fn id_of(books: &Books, kind: Kind) -> u64 {
    (0..MESSAGES).find(|id| books.plan.kind(*id) == kind).unwrap()
}

fn committed(committed: i64) -> [Position; 1] {
    [Position { partition: 0, committed, end: 100 }]
}

#[test]
fn a_run_that_went_well_balances() {
    let balance = delivered_except(&[]).balance(&committed(100), true);
    assert!(balance.is_balanced(), "{:?}", balance.faults);
    assert_eq!((balance.consumed(), balance.duplicates, balance.unfinished), (100, 0, 0));
    assert_eq!(balance.letters.values().sum::<u64>(), 12);
    assert_eq!(balance.tasks.at_once + balance.tasks.precomputed + 12, MESSAGES);
}

#[test]
fn a_committed_message_without_an_output_is_lost() {
    for kind in [Kind::Plain, Kind::Fails, Kind::Hangs, Kind::Invalid, Kind::Tombstone] {
        let id = id_of(&sent(), kind);
        let balance = delivered_except(&[id]).balance(&committed(100), true);
        assert_eq!(balance.lost, [id], "{kind:?}");
        assert!(!balance.is_balanced());
    }
}

#[test]
fn a_result_that_is_only_in_one_of_two_sinks_is_lost() {
    let id = id_of(&sent(), Kind::Plain);
    let mut books = delivered_except(&[id]);
    let Destination::Results { answer } = books.plan.destination(id) else { unreachable!() };
    books.line(&serde_json::to_vec(&Answer { id, answer, attempt: 1, dropped: 0 }).unwrap());
    assert_eq!(books.balance(&committed(100), true).lost, [id]);
}

#[test]
fn a_message_that_was_not_committed_is_unfinished_and_not_lost() {
    let books = delivered_except(&[99]);
    let interrupted = books.balance(&committed(99), false);
    assert!(interrupted.is_balanced());
    assert_eq!((interrupted.unfinished, interrupted.lost.len()), (1, 0));
    assert!(!books.balance(&committed(99), true).is_balanced());
}

#[test]
fn an_offset_that_is_left_uncommitted_at_the_end_is_a_fault() {
    let balance = delivered_except(&[]).balance(&committed(99), true);
    assert_eq!(balance.faults[0].what, "partition 0 ends at 100 and is committed up to 99");
}

#[test]
fn duplicates_are_counted_per_sink_and_are_no_fault() {
    let mut books = delivered_except(&[]);
    let plain = id_of(&books, Kind::Plain);
    let failing = id_of(&books, Kind::Fails);
    deliver(&mut books, plain);
    deliver(&mut books, failing);
    let balance = books.balance(&committed(100), true);
    assert!(balance.is_balanced());
    assert_eq!(balance.duplicates, 3);
}

#[test]
fn a_wrong_answer_is_a_fault_of_its_message() {
    let mut books = sent();
    let id = id_of(&books, Kind::Plain);
    let line = serde_json::to_vec(&Answer { id, answer: 99, attempt: 1, dropped: 0 }).unwrap();
    books.result(id.to_string().as_bytes(), Some(&line));
    assert_eq!(books.faults[0].id, Some(id));
}

#[test]
fn a_dead_letter_for_another_reason_or_with_another_value_is_a_fault() {
    let mut books = sent();
    let id = id_of(&books, Kind::Fails);
    let (key, value) = (id.to_string(), books.plan.value(id).unwrap());
    books.letter(&Letter { key: key.as_bytes(), value: Some(&value), class: "timeout" });
    books.letter(&Letter { key: key.as_bytes(), value: Some(b"{}"), class: "exit_code" });
    let found: Vec<&str> = books.faults.iter().map(|fault| fault.what.as_str()).collect();
    assert_eq!(
        found,
        ["was dead-lettered because of timeout", "its dead letter is not what was sent"]
    );
}

#[test]
fn an_output_that_belongs_to_no_message_is_a_fault() {
    let mut books = sent();
    books.result(b"100", None);
    books.line(b"not json");
    books.letter(&Letter { key: b"", value: None, class: "timeout" });
    assert_eq!(books.faults.len(), 3);
    assert!(books.faults.iter().all(|fault| fault.id.is_none()));
}
