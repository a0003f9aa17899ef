//! A disk that does not take what a program prints: who waits for it, and for how long.

use std::{io::Read, sync::OnceLock};

use tokio::runtime::Runtime;

use super::*;
use crate::{
    env::Environment,
    guard::Guard,
    limits::Limits,
    programs,
    reactor::{Alarm, block_on},
    spawn::Common,
};

/// Longer than everybody who gives up early needs.
const MOMENT: Duration = Duration::from_millis(500);

/// Runs it as slots are run.
fn on_slot(test: impl Future<Output = ()>) {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    block_on(&Alarm::new().unwrap(), test);
}

fn runner() -> Runner {
    let config = ExecutorConfig {
        pipe_grace: Duration::from_millis(10),
        kill_grace: Duration::from_millis(10),
        ..ExecutorConfig::default()
    };
    let guard = Guard::start(&tokio::runtime::Handle::current()).unwrap();
    let common = Common {
        binary_path: None,
        environment: Environment::new(&config, std::iter::empty()).unwrap(),
        guard,
        limits: Limits::default(),
        presets: programs::presets(&config.programs),
        nothing: OnceLock::new(),
    };
    let spawner = Spawner::Here(Arc::new(common));
    Runner::new(&config, spawner, Arc::new(Experience::new()), None, None)
}

fn printing(bytes: usize) -> Task {
    Task::new().program("/usr/bin/head").arg("-c").arg(bytes.to_string()).arg("/dev/zero")
}

#[track_caller]
fn failed(run: Option<Run>) -> String {
    match run {
        Some(Run::Failed { failure, output }) if output.spooled.is_none() => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

/// As much as fits into the pipe of the program while the disk takes nothing.
const MUCH: usize = 600_000;

#[test]
fn the_disk_is_waited_for_when_the_program_has_ended() {
    on_slot(async {
        for bytes in [MUCH, 100_000] {
            let dir = tempfile::tempdir().unwrap();
            let (writer, mut disk) = SpoolWriter::stalling(dir.path()).await;
            let mut runner = runner();
            runner.stdout.spool = Some(writer);
            let (task, kill) = (Arc::new(printing(bytes)), Notify::new());
            let running = runner.run_opened(&task, Duration::ZERO, &kill);
            let mut running = std::pin::pin!(running);
            let early = timeout(MOMENT, &mut running).await;
            assert!(early.is_none(), "{early:?}");
            let taken = std::thread::spawn(move || {
                let mut taken = Vec::new();
                disk.read_to_end(&mut taken).unwrap();
                taken.len()
            });
            let Some(Run::Finished(output)) = running.await else { panic!("it has failed") };
            assert_eq!((output.stdout_len(), output.stdout_dropped), (bytes as u64, 0));
            assert_eq!(taken.join().unwrap(), bytes);
        }
    });
}

#[test]
fn the_disk_is_waited_for_no_longer_than_the_task_may_take() {
    on_slot(async {
        for bytes in [MUCH, 100_000] {
            let dir = tempfile::tempdir().unwrap();
            let (writer, disk) = SpoolWriter::stalling(dir.path()).await;
            let mut runner = runner();
            runner.stdout.spool = Some(writer);
            let (task, kill) = (Arc::new(printing(bytes).timeout(MOMENT)), Notify::new());
            let run = timeout(120 * MOMENT, runner.run_opened(&task, Duration::ZERO, &kill));
            let failure = failed(run.await.unwrap());
            // On a machine so busy that the program itself was late, that is what is said.
            let says = ["the disk did not take it in time", "timed out"];
            assert!(says.iter().any(|text| failure.contains(text)), "{failure}");
            drop(disk);
        }
    });
}

#[test]
fn a_task_that_waits_for_the_disk_can_be_killed() {
    on_slot(async {
        for bytes in [MUCH, 100_000] {
            let dir = tempfile::tempdir().unwrap();
            let (writer, disk) = SpoolWriter::stalling(dir.path()).await;
            let mut runner = runner();
            runner.stdout.spool = Some(writer);
            let (task, kill) = (Arc::new(printing(bytes)), Notify::new());
            let running = runner.run_opened(&task, Duration::ZERO, &kill);
            let mut running = std::pin::pin!(running);
            let early = timeout(MOMENT, &mut running).await;
            assert!(early.is_none(), "{early:?}");
            kill.notify_one();
            let end = timeout(120 * MOMENT, running).await.unwrap();
            assert!(end.is_none(), "{end:?}");
            drop(disk);
        }
    });
}
