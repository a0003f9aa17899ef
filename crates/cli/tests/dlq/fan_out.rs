//! Messages with several letters: each task of theirs that failed wrote one.

use crate::world::{Letter, World, letter};

/// Letters of two messages, one after the other, as two partitions of workers write them.
fn interleaved(count: usize) -> impl Iterator<Item = Letter> {
    (0..count).map(|number| letter(number % 2, &[]))
}

#[test]
fn a_message_of_which_several_tasks_failed_is_sent_once() {
    let world = World::new();
    let elsewhere = letter(0, &[]).class("timeout").elsewhere();
    world.letters(interleaved(6).chain([elsewhere]));
    let dry = world.dlq(&["replay", "--dry-run"]).succeeds();
    assert!(dry.stdout.contains("2 would be replayed"), "{}", dry.stdout);
    let ended = world.dlq(&["replay"]).succeeds();
    let left_out = "5 left out because their message is that of another letter";
    for line in ["2 replayed", left_out] {
        assert!(ended.stdout.contains(line), "{}", ended.stdout);
    }
    assert_eq!(world.read(&world.source).len(), 2);
    let group = format!("drakkar-replay.{}", world.letters);
    assert_eq!(world.committed(&group), [Some(6), Some(1)], "they are done with");
}

#[test]
fn a_run_that_goes_on_knows_what_the_one_before_has_sent_also_from_another_partition() {
    let world = World::new();
    world.letters(interleaved(4).chain([letter(1, &[]).elsewhere()]));
    for sent in [1, 2, 2] {
        world.dlq(&["replay", "--limit", "1"]).succeeds();
        assert_eq!(world.read(&world.source).len(), sent);
    }
    world.letters([letter(0, &[])]);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stdout.contains(" 0 replayed"), "{}", ended.stdout);
    world.dlq(&["replay", "--restart"]).succeeds();
    assert_eq!(world.read(&world.source).len(), 4, "asked for anew, each goes once more");
}

#[test]
fn another_message_at_the_same_place_is_another_message() {
    let world = World::new();
    let mut anew = letter(0, &[]);
    anew.record.value = Some(b"of a topic that was made anew".to_vec());
    let again = letter(0, &[("drakkar-replays", Some(b"1"))]);
    let foreign = || letter(0, &[]).foreign();
    world.letters([letter(0, &[]), anew, again, foreign(), foreign()]);
    world.dlq(&["replay", "--to", &world.other]).succeeds();
    assert_eq!(world.read(&world.other).len(), 5);
}

#[test]
fn each_letter_of_a_message_that_was_replayed_too_often_is_parked_and_it_comes_back_once() {
    let world = World::new();
    let letters = || letter(0, &[("drakkar-replays", Some(b"3"))]);
    world.letters([letters(), letters().class("timeout")]);
    let ended = world.dlq(&["replay"]).succeeds();
    assert!(ended.stdout.contains("2 parked in"), "{}", ended.stdout);
    let ended = world.dlq_of(&world.parked, &["replay", "--max-replays", "9"]).succeeds();
    assert!(ended.stdout.contains("1 replayed"), "{}", ended.stdout);
}

#[test]
fn what_somebody_passed_over_by_hand_was_not_sent() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(0, &[]).class("timeout")]);
    world.commit(&format!("drakkar-replay.{}", world.letters), &[1, 0]);
    world.dlq(&["replay"]).succeeds();
    assert_eq!(world.read(&world.source).len(), 1);
}
