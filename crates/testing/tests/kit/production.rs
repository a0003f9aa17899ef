//! What is green here is green with a worker: a played program, or a real persistent one, is treated as
//! a worker would.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use drakkar::{
    Bytes, Collect, Handler, HookResult, Keep, Message, Pending, Task, TaskResult,
    sections::{Mode, ProgramConfig, Protocol},
};
use drakkar_testing::{Run, Scripted, World, WorldBuilder};

const SECOND: Duration = Duration::from_secs(1);

/// One task per message, made by this.
struct Each(Make);

type Make = fn(Task, &str) -> Task;

impl Handler for Each {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message: &Message<Bytes>| {
            let text = String::from_utf8_lossy(&message.input);
            (self.0)(Task::for_message(message), &text)
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, _: &TaskResult) -> HookResult<Collect> {
        Ok(Collect::new())
    }
}

/// A world whose program `sort` stays; it is this `command`.
fn persistent_as(
    command: &[&str],
    task: Make,
    (protocol, depth): (Protocol, usize),
) -> WorldBuilder<Each> {
    let program = ProgramConfig {
        mode: Mode::Persistent,
        protocol,
        binary: Some(command[0].into()),
        args: command[1..].iter().map(|&arg| arg.to_owned()).collect(),
        instances: NonZeroUsize::new(1),
        depth: NonZeroUsize::new(depth).unwrap(),
        ..ProgramConfig::default()
    };
    World::of(Each(task)).executor(move |executor| {
        executor.max_retries = 0;
        executor.programs.insert("sort".to_owned(), program);
    })
}

fn persistent(task: Make, protocol: Protocol, depth: usize) -> WorldBuilder<Each> {
    persistent_as(&["cat"], task, (protocol, depth))
}

fn of_a_line(task: Task, line: &str) -> Task {
    task.program("sort").stdin(line.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_task_says_what_is_kept_of_a_played_program() {
    let mut world = World::of(Each(|task, _| {
        let task = task.program("count");
        task.keep_stdout(Keep { head: 2, tail: 3 }).keep_stderr(Keep { head: 1, tail: 0 })
    }))
    .in_memory()
    .processes(|_| Scripted::prints("abcdefghij").with_stderr("xyz"))
    .start();
    world.produce(0, "a");
    world.settled().await;
    let Some(Run::Finished(output)) = world.runs.all().remove(0).run else { panic!("it failed") };
    assert_eq!((&*output.stdout, output.stdout_dropped), (&b"abhij"[..], 5));
    assert_eq!((&*output.stderr, output.stderr_dropped), (&b"x"[..], 2));
}

#[tokio::test(start_paused = true)]
async fn a_played_program_that_takes_much_longer_than_usual_is_ended() {
    let mut world = World::of(Each(|task, text| {
        let limit = NonZeroU32::new(200).unwrap();
        task.program("count").arg(text).timeout_percent(limit)
    }))
    .in_memory()
    .executor(|executor| executor.max_retries = 0)
    .processes(|call| match &*call.args_text() {
        "slow" => Scripted::prints("1").takes(SECOND * 5),
        _ => Scripted::prints("1").takes(SECOND),
    })
    .start();
    for _ in 0..20 {
        world.produce(0, "as usual");
    }
    world.settled().await;
    world.produce(0, "slow");
    world.settled().await;
    let letter = world.dead_letters.only();
    assert_eq!((letter.message.offset.0, &*letter.cause.class), (20, "timeout"));
    assert_eq!(letter.cause.message, "timed out after 2s");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_no_persistent_program_can_be_given_fails_when_it_is_played_too() {
    let tasks: [(Protocol, Make, &str); 4] = [
        (Protocol::JsonLines, |task, _| task.program("sort").env("A", "b"), "the environment"),
        (Protocol::Frames, |task, _| task.program("sort").working_dir("/tmp"), "directory"),
        (Protocol::JsonLines, |task, _| task.program("sort").stdin_file("/dev/null"), "a file"),
        (Protocol::Lines, |task, _| task.program("sort").arg("-r"), "no arguments"),
    ];
    for (protocol, task, why) in tasks {
        let world = persistent(task, protocol, 1).in_memory();
        let mut world = world.processes(|_| Scripted::prints("sorted")).start();
        world.produce(0, "a");
        world.settled().await;
        let letter = world.dead_letters.only();
        assert_eq!(&*letter.cause.class, "unstartable", "{letter:?}");
        assert!(letter.cause.message.contains(why), "{why} is not in {:?}", letter.cause.message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_played_persistent_program_has_the_limits_of_one() {
    // What a task says of its output and its usual time is for processes of its own.
    let mut world = persistent(
        |task, _| {
            let task = task.program("sort").stdin("b").keep_stdout(Keep { head: 1, tail: 1 });
            task.timeout_percent(NonZeroU32::MIN)
        },
        Protocol::Frames,
        4,
    )
    .in_memory()
    .executor(|executor| executor.max_stdout_bytes = 3)
    .processes(|_| Scripted::prints("12345").takes(SECOND))
    .start();
    for _ in 0..20 {
        world.produce(0, "a");
    }
    world.settled().await;
    world.assert_no_dead_letters();
    for run in world.runs.all() {
        let Some(Run::Finished(output)) = run.run else { panic!("it failed") };
        assert_eq!((&*output.stdout, output.stdout_dropped), (&b"123"[..], 2));
    }
}

#[tokio::test]
async fn what_a_real_persistent_program_does_is_recorded() {
    let mut world = persistent(of_a_line, Protocol::Lines, 1).start();
    world.produce(0, "b");
    world.produce(0, "a");
    world.runs.started(2).await;
    world.settled().await;
    let printed: Vec<String> = world
        .runs
        .all()
        .into_iter()
        .map(|run| match run.run {
            Some(Run::Finished(output)) => String::from_utf8(output.stdout.into()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(printed, ["b", "a"]);
    assert_eq!((world.runs.most_at_once(), world.runs.running().len()), (1, 0));
    world.runs.assert_nothing_ran_twice();
}

#[tokio::test]
async fn what_a_real_persistent_program_cannot_do_or_be_given_is_recorded_as_failed() {
    let dies = ["sh", "-c", "read line; exit 3"];
    let mut world = persistent_as(&dies, of_a_line, (Protocol::Lines, 1)).start();
    world.produce(0, "a");
    world.produce(0, "two\nlines");
    world.settled().await;
    let failures: Vec<String> =
        world.runs.all().iter().filter_map(|run| Some(run.failure()?.to_string())).collect();
    assert_eq!((failures.len(), world.dead_letters.len()), (2, 2), "{failures:?}");
    let says = |what: &str| failures.iter().any(|failure| failure.contains(what));
    assert!(says("ended without an answer") && says("takes one line"), "{failures:?}");
}

#[tokio::test]
async fn what_is_taken_away_from_a_real_persistent_program_is_recorded_as_killed() {
    let sleeps = ["sleep", "1000"];
    let mut world = persistent_as(&sleeps, of_a_line, (Protocol::Frames, 2)).in_memory().start();
    world.produce(0, "a");
    world.produce(0, "b");
    world.runs.started(2).await;
    world.revoke(0, Duration::from_millis(10)).await;
    world.runs.ended(2).await;
    assert!(world.runs.all().iter().all(drakkar_testing::TaskRun::is_killed));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "time is paused")]
async fn a_world_with_paused_time_does_not_start_a_real_persistent_program() {
    persistent(of_a_line, Protocol::Lines, 1).start();
}
