//! What is committed when, and what is not.

use drakkar_core::DoneMap;

use super::*;

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn position(next: i64, metadata: &str) -> Position {
    Position { next: Offset(next), metadata: metadata.to_owned() }
}

fn ours() -> Commits {
    let mut commits = Commits::default();
    commits.begin(partition(), None);
    commits
}

/// What is sent next, as offsets.
fn sent(commits: &mut Commits) -> Vec<i64> {
    let batch = commits.next_batch().unwrap_or_default();
    batch.into_iter().map(|(_, position)| position.next.0).collect()
}

#[test]
fn many_wishes_make_one_commit() {
    let mut commits = ours();
    (1..100).for_each(|next| commits.want(&partition(), position(next, "")));
    assert_eq!(sent(&mut commits), [99]);
}

#[test]
fn one_commit_at_a_time_is_on_its_way() {
    let mut commits = ours();
    commits.want(&partition(), position(1, ""));
    assert_eq!(sent(&mut commits), [1]);
    commits.want(&partition(), position(2, ""));
    assert_eq!(sent(&mut commits), [0_i64; 0]);
    assert_eq!(commits.settle(|_| Answer::Accepted), [(partition(), Offset(1))]);
    assert_eq!(sent(&mut commits), [2]);
}

#[test]
fn a_commit_never_goes_back() {
    let mut commits = ours();
    commits.want(&partition(), position(5, ""));
    commits.want(&partition(), position(4, ""));
    assert_eq!(sent(&mut commits), [5]);
    commits.want(&partition(), position(3, ""));
    commits.settle(|_| Answer::Accepted);
    commits.want(&partition(), position(2, ""));
    assert_eq!(sent(&mut commits), [0_i64; 0]);
}

#[test]
fn nothing_is_committed_twice() {
    let mut commits = Commits::default();
    commits.begin(partition(), Some(position(7, "map")));
    commits.want(&partition(), position(7, "map"));
    assert_eq!(sent(&mut commits), [0_i64; 0], "the group knows it already");
    commits.want(&partition(), position(7, "fuller map"));
    assert_eq!(sent(&mut commits), [7], "same offset, more settled behind it");
    commits.want(&partition(), position(7, "fuller map"));
    commits.settle(|_| Answer::Accepted);
    assert_eq!(sent(&mut commits), [0_i64; 0]);
    assert!(commits.all_done());
}

#[test]
fn a_refused_commit_is_made_again_unless_a_newer_one_came() {
    let mut commits = ours();
    commits.want(&partition(), position(1, ""));
    assert_eq!(sent(&mut commits), [1]);
    assert_eq!(commits.settle(|_| Answer::Refused), []);
    assert_eq!(sent(&mut commits), [1]);
    commits.want(&partition(), position(2, ""));
    commits.settle(|_| Answer::Refused);
    assert_eq!(sent(&mut commits), [2]);
}

/// A position with a done map of every other offset above it.
fn with_map(next: i64, count: i64) -> Position {
    let settled = (0..count).map(|nth| Offset(next + 2 * nth + 1));
    let metadata = DoneMap::encode(Offset(next), settled, 4096).metadata;
    Position { next: Offset(next), metadata }
}

/// Sends until a broker that takes `limit` bytes of metadata accepts; how often, and what.
fn until_accepted(commits: &mut Commits, limit: usize) -> (usize, Position) {
    for nth in 1..20 {
        let batch = commits.next_batch().expect("it is sent again");
        let [(_, sent)] = &batch[..] else { panic!("one partition: {batch:?}") };
        let too_long = limit < sent.metadata.len();
        let answer = if too_long { Answer::TooLong } else { Answer::Accepted };
        let committed = commits.settle(|_| answer);
        if !too_long {
            assert_eq!(committed, [(partition(), sent.next)]);
            return (nth, sent.clone());
        }
    }
    panic!("it is sent again and again");
}

#[test]
fn metadata_that_is_too_long_is_shortened_and_the_commit_is_made() {
    let mut commits = ours();
    let full = with_map(5, 2_000);
    commits.want(&partition(), full.clone());
    let (sent, accepted) = until_accepted(&mut commits, 200);
    assert!(1 < sent && accepted.next == Offset(5), "{sent} times, {accepted:?}");
    let kept: Vec<Offset> =
        DoneMap::decode(Offset(5), &accepted.metadata).unwrap().iter().collect();
    assert!(100 < kept.len(), "as much as fits is kept, not nothing: {}", kept.len());
    assert_eq!(kept[..2], [Offset(6), Offset(8)], "the lowest ones, which run again first");

    commits.want(&partition(), with_map(9, 2_000));
    let (sent, accepted) = until_accepted(&mut commits, 200);
    assert_eq!((sent, accepted.next), (1, Offset(9)), "the broker is not asked twice");
}

#[test]
fn a_broker_that_takes_no_metadata_gets_the_offset_alone() {
    let mut commits = ours();
    commits.want(&partition(), with_map(5, 2_000));
    let (_, accepted) = until_accepted(&mut commits, 0);
    assert_eq!(accepted, position(5, ""));
    commits.want(&partition(), position(7, "not ours to shorten"));
    assert_eq!(until_accepted(&mut commits, 0), (1, position(7, "")));
}

#[test]
fn what_is_asked_for_while_too_much_is_on_its_way_is_shortened_as_well() {
    let mut commits = ours();
    commits.want(&partition(), with_map(5, 2_000));
    let first = commits.next_batch().unwrap()[0].1.metadata.len();
    commits.want(&partition(), with_map(6, 2_000));
    commits.settle(|_| Answer::TooLong);
    let second = commits.next_batch().unwrap();
    assert_eq!(second[0].1.next, Offset(6), "the newer one");
    assert!(second[0].1.metadata.len() <= first / 2);
}

#[test]
fn a_partition_that_is_refused_does_not_take_back_what_was_accepted_for_the_others() {
    use RDKafkaErrorCode as Code;
    assert_eq!(Answer::of(None, true), Answer::Accepted);
    assert_eq!(Answer::of(None, false), Answer::Refused, "the broker did not get that far");
    assert_eq!(Answer::of(Some(Code::TopicAuthorizationFailed), true), Answer::Refused);
    assert_eq!(Answer::of(Some(Code::OffsetMetadataTooLarge), true), Answer::TooLong);
    assert_eq!(Answer::of(Some(Code::UnknownTopicOrPartition), true), Answer::Gone);
}

#[test]
fn of_a_topic_that_is_gone_nothing_is_committed_again_but_what_settles_later() {
    let mut commits = ours();
    commits.want(&partition(), position(5, ""));
    assert_eq!(sent(&mut commits), [5]);
    commits.want(&partition(), position(6, ""));
    commits.settle(|_| Answer::Gone);
    assert_eq!(sent(&mut commits), [0_i64; 0], "it may be a new log by then");
    assert!(commits.all_done(), "nothing waits for it");
    commits.want(&partition(), position(6, ""));
    assert_eq!(sent(&mut commits), [6]);
}

#[test]
fn a_log_that_was_cut_is_read_again_from_what_was_committed_or_from_the_cut() {
    let from = |committed: i64, found: i64| {
        let mut commits = Commits::default();
        commits.begin(partition(), Some(position(committed, "map")));
        let from = commits.rewind(&partition(), Some(Offset(420)), Offset(found));
        assert_eq!(sent(&mut commits), [from.0], "the group must not keep an offset above it");
        from
    };
    assert_eq!(from(450, 500), Offset(450), "what was open below the cut is still there");
    assert_eq!(from(1_000, 500), Offset(500), "these are other messages");
    assert_eq!(from(10, 500), Offset(420), "what is below was not there any more");
    let mut uncommitted = ours();
    assert_eq!(uncommitted.rewind(&partition(), Some(Offset(7)), Offset(500)), Offset(7));
}

#[test]
fn after_a_log_was_cut_nothing_of_the_old_log_is_committed() {
    let mut commits = Commits::default();
    commits.begin(partition(), Some(position(3, "")));
    commits.want(&partition(), position(8, "on its way"));
    assert_eq!(sent(&mut commits), [8]);
    commits.want(&partition(), position(9, "waits"));
    assert_eq!(commits.rewind(&partition(), Some(Offset(3)), Offset(5)), Offset(3));
    assert_eq!(commits.settle(|_| Answer::Accepted), [], "the answer is for the old log");
    assert_eq!(sent(&mut commits), [3], "also where the old one was accepted");
}

#[test]
fn of_a_partition_that_went_nothing_is_sent() {
    let mut commits = ours();
    commits.want(&partition(), position(1, ""));
    commits.end(&partition());
    commits.want(&partition(), position(2, ""));
    assert_eq!(sent(&mut commits), [0_i64; 0]);
}

#[test]
fn a_late_answer_does_not_settle_a_newer_assignment() {
    let mut commits = ours();
    commits.want(&partition(), position(5, ""));
    assert_eq!(sent(&mut commits), [5]);
    commits.end(&partition());
    commits.begin(partition(), Some(position(3, "")));
    assert_eq!(commits.settle(|_| Answer::Accepted), []);
    assert_eq!(commits.committed(&partition()), Some(Offset(3)));
}

#[test]
fn a_log_that_begins_anew_may_be_committed_from_its_start() {
    let mut commits = Commits::default();
    commits.begin(partition(), Some(position(1_000, "")));
    commits.started(&partition(), Offset(0));
    assert_eq!(sent(&mut commits), [0], "or the next owner would skip what comes below 1000");
    commits.settle(|_| Answer::Accepted);
    commits.want(&partition(), position(1, ""));
    assert_eq!(sent(&mut commits), [1]);
}

#[test]
fn reading_that_begins_at_or_above_what_was_committed_changes_nothing() {
    let mut commits = Commits::default();
    commits.begin(partition(), Some(position(5, "map")));
    commits.started(&partition(), Offset(7));
    assert_eq!(sent(&mut commits), [0_i64; 0]);
    assert_eq!(commits.committed(&partition()), Some(Offset(5)));
}
