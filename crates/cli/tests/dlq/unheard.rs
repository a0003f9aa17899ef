//! Nobody reads what the command says: `2>&1 | tee` is gone, after Ctrl-C say.

use std::process::Command;

use crate::world::{World, letter};

#[test]
fn whoever_stops_reading_costs_no_letter_and_repeats_none() {
    let world = World::new();
    world.letters([letter(0, &[]), letter(1, &[]).foreign(), letter(2, &[])]);
    let unheard = world.begin_unheard(&["replay"]);
    assert_eq!(unheard.ended().code, Some(1), "the letter that is not sent was named to nobody");
    let again = world.dlq(&["replay"]).succeeds();
    assert!(again.stdout.contains(" 0 replayed"), "{again:?}");
    assert_eq!(world.read(&world.source).len(), 2);
}

#[test]
fn whoever_interrupts_a_run_and_its_reader_is_told_130_and_nothing_is_sent_twice() {
    let world = World::new();
    let (first, rest) = (letter(0, &[]).foreign(), (1..40).map(|number| letter(number, &[])));
    world.letters([first].into_iter().chain(rest));
    let unheard = world.begin_unheard(&["replay", "--rate", "10"]);
    world.wait_for(&world.source, 3);
    let sent = Command::new("kill").args(["-INT", &unheard.id().to_string()]).status();
    assert!(sent.unwrap().success());
    assert_eq!(unheard.ended().code, Some(130));
    world.dlq(&["replay"]).succeeds();
    assert_eq!(world.read(&world.source).len(), 39);
}

#[test]
fn what_only_reads_ends_well_when_its_reader_has_seen_enough() {
    let world = World::new();
    world.letters((0..3).map(|number| letter(number, &[])));
    for command in [&["list"][..], &["show", "0:0"], &["stats"], &["replay", "--dry-run"]] {
        assert_eq!(world.begin_unheard(command).ended().code, Some(0), "{command:?}");
    }
    let nowhere = world.begin_unheard(&["list", "--partition", "7"]);
    assert_eq!(nowhere.ended().code, Some(1));
}
