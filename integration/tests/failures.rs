//! Programs and hooks that misbehave: each message of theirs is answered all the same, its neighbours
//! notice nothing, and no program is left behind.

use drakkar_integration::{Act, Books, SOON, World, until};

/// Runs one worker on `act` with an ordinary message on either side, in the same partition.
#[track_caller]
fn with_neighbours(act: Act) -> (World, Books) {
    let world = World::new(1);
    let _worker = world.start();
    world.order([("before", Act::Echo), ("odd", act), ("after", Act::Echo)]);
    world.drained();
    world.no_program_survives();
    let books = world.books();
    for id in ["before", "after"] {
        assert_eq!(books.result(id).id(), id);
    }
    (world, books)
}

/// The message is dead-lettered at `stage` for `class`, and what is said about it holds `text`.
#[track_caller]
fn gives_up(act: Act, stage: &str, class: &str, text: &str) {
    let (_, books) = with_neighbours(act);
    books.balance();
    books.given_up("odd", stage, class);
    let said = books.letter("odd").header("drakkar-error-message").unwrap_or_default();
    assert!(said.contains(text), "{text:?} is not in {said:?}");
}

#[track_caller]
fn answers(act: Act, value: &str) -> World {
    let (world, books) = with_neighbours(act);
    books.balance();
    assert_eq!(books.result("odd").value.as_deref(), Some(value.as_bytes()));
    world
}

#[test]
fn a_program_that_fails_is_tried_again_and_then_its_message_is_dead_lettered() {
    gives_up(Act::Fail, "execute", "exit_code", "exit code 3; stderr: out of luck");
}

#[test]
fn a_program_that_fails_once_is_answered_by_its_second_attempt() {
    let (_, books) = with_neighbours(Act::FailOnce);
    books.balance();
    assert_eq!(books.result("odd").header("attempt").as_deref(), Some("2"));
    assert_eq!(books.dead, []);
}

#[test]
fn a_program_that_does_not_exist_is_not_tried_again() {
    let (_, books) = with_neighbours(Act::Missing);
    books.balance();
    books.given_up("odd", "execute", "unstartable");
    let letter = books.letter("odd");
    assert_eq!(letter.header("drakkar-attempt").as_deref(), Some("1"));
    let said = letter.header("drakkar-error-message").unwrap();
    assert!(said.contains("/nonexistent/program"), "{said}");
}

#[test]
fn a_file_that_is_not_executable_is_not_tried_again() {
    let (_, books) = with_neighbours(Act::NotExecutable);
    books.balance();
    books.given_up("odd", "execute", "unstartable");
    assert_eq!(books.letter("odd").header("drakkar-attempt").as_deref(), Some("1"));
}

#[test]
fn a_program_that_does_not_end_is_ended_at_its_time_limit() {
    gives_up(Act::Hang, "execute", "timeout", "timed out after 400ms");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    gives_up(Act::IgnoreTerm, "execute", "timeout", "timed out after 400ms");
}

#[test]
fn what_a_program_leaves_behind_is_killed_when_it_ends() {
    answers(Act::Fork, "forked\n");
}

#[test]
fn what_a_program_hides_in_other_sessions_is_killed_when_it_ends() {
    answers(Act::Escape, "escaped\n");
}

#[test]
fn nothing_survives_a_worker_that_is_killed() {
    let world = World::new(1);
    let mut worker = world.start();
    world.order_many("odd", 4, Act::EscapeAndHang);
    until("all programs to run", SOON, || {
        let programs = world.programs();
        let sleeping = programs.iter().filter(|(_, command)| command.starts_with("sleep "));
        match sleeping.count() {
            16 => Ok(()),
            some => Err(format!("{some} sleep")),
        }
    });
    worker.kill();
    world.no_program_survives();
}

#[test]
fn a_gibibyte_of_output_is_read_to_its_end_and_not_kept() {
    let world = World::new(1);
    let worker = world.start();
    world.order([("before", Act::Echo), ("odd", Act::PrintGibibyte), ("after", Act::Echo)]);
    world.drained();
    let books = world.books();
    books.balance();
    let kept = 1 << 20;
    let expected = format!("kept {kept} dropped {}", (1_u64 << 30) - kept);
    assert_eq!(books.result("odd").value.as_deref(), Some(expected.as_bytes()));
    let peak = worker.peak_mib();
    assert!(peak < 150, "the worker had {peak} MiB resident");
    let truncated = worker.metric("drakkar_executor_output_truncated_total{stream=\"stdout\"}");
    assert_eq!(truncated, 1);
}

#[test]
fn a_program_that_closes_its_input_early_is_answered() {
    answers(Act::CloseStdin, "closed\n");
}

#[test]
fn a_payload_for_a_sink_that_is_not_configured_dead_letters_its_message() {
    gives_up(Act::UnknownSink, "deliver", "unknown_sink", "sinks.kafka.nowhere");
}

#[test]
fn an_error_in_on_task_complete_dead_letters_the_message() {
    gives_up(Act::HookError, "on_task_complete", "hook_error", "fails as told");
}

#[test]
fn a_panic_in_on_task_complete_dead_letters_the_message_and_nothing_else() {
    gives_up(Act::HookPanic, "on_task_complete", "hook_panic", "panics as told");
}

#[test]
fn an_error_in_arrange_dead_letters_only_the_message_it_is_about() {
    gives_up(Act::ArrangeError, "arrange", "hook_error", "arrange fails as told");
}

#[test]
fn a_panic_in_arrange_dead_letters_only_the_message_it_is_about() {
    gives_up(Act::ArrangePanic, "arrange", "hook_panic", "arrange panics as told");
}

#[test]
fn a_task_for_a_message_outside_of_its_window_dead_letters_the_message_it_was_made_for() {
    gives_up(Act::Foreign, "arrange", "foreign_offset", "which is not in its window");
}

#[test]
fn a_message_without_a_task_is_settled_at_once() {
    let (_, books) = with_neighbours(Act::Nothing);
    let books = books.without(["odd"]);
    books.balance();
    assert_eq!(books.dead, []);
}

#[test]
fn all_of_it_together_is_answered_message_by_message() {
    let acts = [
        Act::Fail,
        Act::FailOnce,
        Act::Hang,
        Act::Fork,
        Act::CloseStdin,
        Act::Missing,
        Act::NotExecutable,
        Act::UnknownSink,
        Act::HookError,
        Act::HookPanic,
        Act::ArrangeError,
        Act::ArrangePanic,
        Act::Foreign,
        Act::Echo,
    ];
    let world = World::new(3);
    let mut worker = world.start();
    let orders: Vec<(String, Act)> =
        (0..140).map(|number| (format!("mixed-{number}"), acts[number % acts.len()])).collect();
    world.order(orders.iter().map(|(id, act)| (id.as_str(), *act)));
    world.drained();
    world.no_program_survives();
    let books = world.books();
    books.balance();
    // FailOnce, Fork, CloseStdin and Echo answer; the rest is given up.
    assert_eq!((books.results.len(), books.dead.len()), (40, 100));
    worker.stop();
}

#[test]
fn sigterm_ends_the_programs_that_do_not_end_by_themselves_within_the_drain_time_out() {
    let world = World::new(1).with("executor.drain_timeout_seconds", 1);
    let mut worker = world.start();
    world.order([("long", Act::SleepMs(3_600_000))]);
    until("the program to run", SOON, || match world.programs().len() {
        0 => Err("none runs"),
        _ => Ok(()),
    });
    worker.stop();
    world.no_program_survives();
    assert_eq!(world.committed(), 0, "its message is still to be processed");
}
