//! Programs that are played: slots, retries, limits and kills around them are the real ones.

use std::{num::NonZeroUsize, time::Duration};

use drakkar::{Collect, Handler, HookResult, Json, Message, Pending, Task, TaskResult};
use drakkar_testing::{Run, Scripted, Stage, World, WorldBuilder};
use tokio::time::Instant;

use crate::handler::{Counted, Order, PerMessage, PerWord, order};

const SECOND: Duration = Duration::from_secs(1);

/// Every word is there as often as it has letters.
fn letters() -> WorldBuilder<PerWord> {
    World::of(PerWord)
        .in_memory()
        .processes(|call| Scripted::prints(call.args_text().len().to_string()).takes(SECOND))
}

#[tokio::test(start_paused = true)]
async fn a_message_fans_out_into_runs_whose_output_reaches_the_sink() {
    let mut world = letters().start();
    world.produce(0, order(["a", "bb", "ccc"]));
    world.settled().await;
    let mut counted: Vec<Counted> = world.results.json();
    counted.sort_by_key(|counted| counted.count);
    let shown: Vec<(&str, usize)> = counted.iter().map(|c| (&*c.word, c.count)).collect();
    assert_eq!(shown, [("a", 1), ("bb", 2), ("ccc", 3)]);
    assert_eq!(world.results.json_of::<Counted>("bb"), [counted[1].clone()]);
    assert_eq!(world.runs.of(0).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn runs_take_slots_and_time_as_processes_do() {
    let mut world = letters().start();
    let begun = Instant::now();
    world.produce(0, order(["a", "b", "c", "d", "e"]));
    world.settled().await;
    assert_eq!(world.runs.most_at_once(), 2, "there are two slots");
    let took = begun.elapsed();
    assert!(3 * SECOND <= took && took < 4 * SECOND, "five runs in two slots: {took:?}");
    let runs = world.runs.all();
    assert!(runs[0].overlaps(&runs[1]) && !runs[0].overlaps(&runs[2]));
    world.runs.assert_nothing_ran_twice();
}

#[tokio::test(start_paused = true)]
async fn with_one_slot_the_oldest_message_runs_first() {
    let mut world =
        letters().executor(|executor| executor.max_executors = NonZeroUsize::new(1)).start();
    for word in ["a", "b", "c"] {
        world.produce(0, order([word]));
    }
    world.settled().await;
    let order: Vec<String> =
        world.runs.all().iter().map(|run| run.task.args()[0].to_string_lossy().into()).collect();
    assert_eq!(order, ["a", "b", "c"]);
    assert_eq!(world.runs.most_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_closure_sees_which_attempt_it_plays() {
    let mut world = World::of(PerWord)
        .in_memory()
        .processes(|call| match call.attempt {
            1 => Scripted::exits(7).with_stderr("not yet"),
            2 => Scripted::signalled(9),
            3 => Scripted::unstartable("out of memory"),
            attempt => Scripted::prints(attempt.to_string()),
        })
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    assert_eq!(world.results.json::<Counted>()[0].count, 4);
    let failures: Vec<String> =
        world.runs.all().iter().filter_map(|run| run.failure().map(ToString::to_string)).collect();
    assert_eq!(
        failures,
        ["exit code 7", "killed by signal 9", "cannot start count: out of memory"]
    );
    let attempts: Vec<u32> = world.runs.all().iter().map(|run| run.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    world.runs.assert_nothing_ran_twice();
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_ended_by_its_time_limit_and_dead_lettered_when_no_retry_is_left() {
    let mut world = World::of(PerWord).in_memory().processes(|_| Scripted::hangs()).start();
    let begun = Instant::now();
    world.produce(0, order(["a"]));
    world.settled().await;
    let letter = world.dead_letters.only();
    assert_eq!((letter.cause.stage, &*letter.cause.class), (Stage::Execute, "timeout"));
    assert_eq!((letter.cause.attempt, world.runs.len()), (4, 4));
    assert!(8 * Duration::from_mins(1) <= begun.elapsed(), "four times 120 s");
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_replaced_and_the_replacement_stands_for_its_message() {
    let mut world = World::of(PerWord)
        .in_memory()
        .processes(|call| match call.program_path().unwrap().to_str() {
            Some("slow-count") => Scripted::prints("77"),
            _ => Scripted::exits(2),
        })
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    assert_eq!(world.results.json::<Counted>()[0].count, 77);
    assert_eq!(world.runs.of(0).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_as_a_whole_is_seen_after_its_last_run() {
    let mut world = World::of(PerMessage)
        .in_memory()
        .processes(|call| match &*call.args_text() {
            "bad" => Scripted::missing(),
            _ => Scripted::prints("1").takes(SECOND),
        })
        .start();
    world.produce(0, order(["a", "bad", "c"]));
    world.settled().await;
    assert_eq!(world.results.json::<String>(), ["2 of 3"]);
    assert_eq!(&*world.dead_letters.at(0, 0).unwrap().cause.class, "unstartable");
}

#[tokio::test(start_paused = true)]
async fn output_beyond_the_limits_is_cut_off_and_counted() {
    let mut world = World::of(PerWord)
        .in_memory()
        .executor(|executor| (executor.max_stdout_bytes, executor.max_stderr_bytes) = (1, 2))
        .processes(|_| Scripted::prints("12345").with_stderr("12345"))
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    let Some(Run::Finished(output)) = world.runs.all().remove(0).run else { panic!("it failed") };
    assert_eq!((output.stdout.len(), output.stdout_dropped), (1, 4));
    assert_eq!((output.stderr.len(), output.stderr_dropped), (2, 3));
}

#[tokio::test]
async fn real_programs_are_recorded_as_well() {
    let mut world = World::of(PerWord).executor(|executor| executor.max_retries = 3).start();
    world.produce(0, order(["a"]));
    world.settled().await;
    // There is no program `count`: it can never start.
    assert_eq!(&*world.dead_letters.only().cause.class, "unstartable");
    assert!(world.runs.all().iter().all(|run| run.failure().is_some()), "{:?}", world.runs.all());
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_configuration_that_concerns_the_pipeline_counts() {
    let mut world = World::of(PerWord)
        .in_memory()
        .settings(|settings| settings.max_replacements = 0)
        .executor(|executor| executor.max_retries = 1)
        .processes(|_| Scripted::exits(7))
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    assert_eq!(world.runs.len(), 2, "the first attempt and one retry");
}

/// [`PerWord`], with output in files.
struct Spooling;

impl Handler for Spooling {
    type Input = Json<Order>;

    async fn arrange(
        &self,
        window: &[Message<Self::Input>],
        pending: &Pending,
    ) -> HookResult<Vec<Task>> {
        let tasks = PerWord.arrange(window, pending).await?;
        Ok(tasks.into_iter().map(Task::spool_stdout).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        let mut read = done.clone();
        read.output.stdout = std::fs::read(done.output.stdout_file().ok_or("no file")?)?.into();
        PerWord.on_task_complete(&read).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_played_program_prints_is_spooled_and_its_file_goes() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().to_owned();
    let mut world = World::of(Spooling)
        .in_memory()
        .executor(|executor| executor.spool.dir = Some(spool))
        .processes(|_| Scripted::prints("7").takes(SECOND))
        .start();
    world.produce(0, order(["a"]));
    world.settled().await;
    assert_eq!(world.results.json::<Counted>()[0].count, 7);
    let files = || -> usize {
        let own = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
        own.filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| std::fs::read_dir(entry.path()).unwrap().count())
            .sum()
    };
    // A thread removes it, in the time of the machine.
    let began = std::time::SystemTime::now();
    while files() != 1 {
        assert!(began.elapsed().unwrap() < SECOND * 30, "more than the lock");
        tokio::task::yield_now().await;
    }
}
