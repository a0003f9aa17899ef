//! The line that shows how far a command has come: only where somebody watches.

use std::process::Command;

use crate::world::{World, letter};

/// What `drakkar dlq replay` shows on a terminal, which `script` (util-linux) plays.
#[test]
fn somebody_at_a_terminal_sees_how_far_a_replay_is_and_the_line_is_gone_at_the_end() {
    let world = World::new();
    world.letters((0..8).map(|number| letter(number, &[])));
    let arguments = ["replay", "--rate", "4"];
    let log = world.dlq(&arguments).succeeds();
    assert!(!log.stderr.contains("\x1b[K"), "nobody watches: {}", log.stderr);

    let restart = ["replay", "--rate", "4", "--restart"];
    let line = format!("{} {}", env!("CARGO_BIN_EXE_drakkar"), world.words(&restart).join(" "));
    let terminal = Command::new("script").args(["-qec", &line, "/dev/null"]).output();
    let output = terminal.expect("script, of util-linux");
    let seen = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{seen}");
    let pictures: Vec<&str> = seen.split("\r\x1b[K").skip(1).collect();
    let shows = |text: &str| pictures.iter().any(|picture| picture.starts_with(text));
    assert!(shows("[##########          ] 4/8 | "), "{pictures:?}");
    let (last, before) = pictures.split_last().unwrap();
    assert!(before.iter().all(|picture| picture.starts_with('[')), "{pictures:?}");
    assert!(!last.contains('[') && last.contains("8 replayed"), "{last:?}");
}
