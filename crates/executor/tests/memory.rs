//! What becomes of tasks where memory runs out: for real, in a control group of this test's own, where
//! the machine lets us make one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{env, fs, path::PathBuf, process::Command, sync::Arc, time::Duration};

use drakkar_core::{Failure, Task};
use drakkar_executor::{ExecutorConfig, FreeMemory, MemoryGuardConfig, Pool, Protocol, StandIn};
use support::{
    config, failed, finished,
    persistent::{Stage, task},
    pool, run, sh, submit, until,
};
use tokio::time::Instant;

/// A control group with little memory; removed when dropped.
struct SmallGroup(PathBuf);

impl SmallGroup {
    /// `None` where this machine does not let us.
    fn new(name: &str, mib: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = |prefix: &str| {
            let path = groups.lines().find_map(|line| line.split_once(prefix))?.1;
            Some(path.trim_start_matches('/').to_owned())
        };
        let (dir, limit) = match own(":memory:") {
            Some(path) => {
                (PathBuf::from("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes")
            }
            None => (PathBuf::from("/sys/fs/cgroup").join(own("0::")?), "memory.max"),
        };
        let group = Self(dir.join(format!("drakkar-{name}-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), (mib << 20).to_string()).ok()?;
        Some(group)
    }

    /// Runs the test `name` again, inside of it.
    #[track_caller]
    fn run_inside(&self, name: &str) {
        let inner = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"])
            .arg(self.0.join("cgroup.procs"))
            .arg(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inner.stderr);
        assert!(inner.status.success(), "{}: {said}", inner.status);
    }
}

impl Drop for SmallGroup {
    fn drop(&mut self) {
        // What ran in it may still be on its way out; an empty group does no harm.
        drop(fs::remove_dir(&self.0));
    }
}

const INSIDE: &str = "POOL_TEST_INSIDE";

#[tokio::test]
async fn a_program_that_the_kernel_kills_for_memory_is_reported_as_such() {
    const NAME: &str = "a_program_that_the_kernel_kills_for_memory_is_reported_as_such";
    if env::var_os(INSIDE).is_none() {
        match SmallGroup::new("killed", 48) {
            Some(group) => group.run_inside(NAME),
            None => println!("this machine gives us no control group; see the unit tests"),
        }
        return;
    }
    let pool = pool(&config(1));
    // `tail` keeps the last lines, and there is only one.
    for script in ["exec tail /dev/zero", "tail /dev/zero; exit $?"] {
        let (failure, _) = failed(run(&pool, sh(script)).await);
        assert_eq!(failure, Failure::OutOfMemory, "{script}");
    }
    let (failure, _) = failed(run(&pool, sh("kill -KILL $$")).await);
    assert_eq!(failure, Failure::Signal(9), "memory has nothing to do with it");
}

/// Holds forty megabytes once `{name}-grow` is there, until `{name}-end` is; each start leaves a line.
fn greedy(dir: &tempfile::TempDir, name: &str) -> Task {
    let script = "echo started >>$1-starts
                  { until [ -e $1-grow ]; do sleep 0.02; done
                    head -c 40000000 /dev/zero; touch $1-has-grown
                    until [ -e $1-end ]; do sleep 0.02; done; } | tail -n 1 >/dev/null";
    sh(script).arg("sh").arg(name).working_dir(dir.path())
}

#[tokio::test]
async fn the_youngest_task_makes_room_and_runs_again_when_there_is_room() {
    const NAME: &str = "the_youngest_task_makes_room_and_runs_again_when_there_is_room";
    if env::var_os(INSIDE).is_none() {
        match SmallGroup::new("guarded", 128) {
            Some(group) => group.run_inside(NAME),
            None => println!("this machine gives us no control group; see the unit tests"),
        }
        return;
    }
    let memory_guard = MemoryGuardConfig { pause_below_percent: 45, kill_below_percent: 40 };
    let pool = pool(&ExecutorConfig { memory_guard, ..config(3) });
    let dir = tempfile::tempdir().unwrap();
    let touch = |name: &str| fs::write(dir.path().join(name), "").unwrap();
    let exists = |name: &str| dir.path().join(name).exists();
    let starts = |name: &str| {
        fs::read_to_string(dir.path().join(format!("{name}-starts")))
            .map_or(0, |s| s.lines().count())
    };

    let (_old, old_ends) = submit(&pool, greedy(&dir, "old"));
    until("the old one runs", || starts("old") == 1).await;
    let (_young, young_ends) = submit(&pool, greedy(&dir, "young"));
    until("the young one runs", || starts("young") == 1).await;
    touch("old-grow");
    until("the old one has grown", || exists("old-has-grown")).await;
    assert_eq!(pool.stats().taken_back, 0);

    touch("young-grow");
    // What it held is free then, so it is started again, and so on; the old one is left alone.
    until("the young one makes room", || pool.stats().taken_back >= 1).await;
    until("it is started again", || starts("young") >= 2).await;
    fs::remove_file(dir.path().join("young-grow")).unwrap();
    touch("old-end");
    finished(old_ends.await.unwrap());
    assert_eq!(starts("old"), 1);
    touch("young-grow");
    touch("young-end");
    finished(young_ends.await.unwrap());
}

#[tokio::test]
async fn nothing_starts_while_memory_is_short_unless_nothing_runs() {
    let memory_guard = MemoryGuardConfig { pause_below_percent: 99, kill_below_percent: 0 };
    let pool = pool(&ExecutorConfig { memory_guard, ..config(3) });
    until("it is short", || pool.stats().paused).await;
    let dir = tempfile::tempdir().unwrap();
    let first = submit(&pool, sh("until [ -e end ]; do sleep 0.02; done").working_dir(dir.path()));
    until("one runs", || pool.stats().active == 1).await;
    // Each fails if it is started before the first one may end.
    let others = [(); 3].map(|()| submit(&pool, sh("[ -e end ]").working_dir(dir.path())));
    let since = Instant::now();
    until("they could have started", || since.elapsed() > Duration::from_millis(300)).await;
    assert_eq!((pool.stats().active, pool.stats().queued), (1, 3));
    fs::write(dir.path().join("end"), "").unwrap();
    finished(first.1.await.unwrap());
    for (_ticket, end) in others {
        finished(end.await.unwrap());
    }
}

#[tokio::test]
async fn without_a_guard_memory_is_not_looked_at() {
    let pool = pool(&config(1));
    finished(run(&pool, Task::new().program("true")).await);
    assert!(!pool.stats().paused);
}

fn guarded(config: &ExecutorConfig, free: u64) -> (Arc<FreeMemory>, Pool) {
    let free = FreeMemory::percent(free);
    let memory_guard = MemoryGuardConfig { pause_below_percent: 20, kill_below_percent: 10 };
    let config = ExecutorConfig { memory_guard, ..config.clone() };
    let stand_in: Arc<dyn StandIn> = Arc::clone(&free) as _;
    (free, Pool::start_with(&config, Some(&stand_in)).unwrap())
}

#[tokio::test]
async fn the_guard_puts_the_youngest_back_and_counts_what_it_does() {
    let (free, pool) = guarded(&config(2), 100);
    let dir = tempfile::tempdir().unwrap();
    let script = "echo x >>$1; until [ -e end ]; do sleep 0.02; done";
    let start = |name: &str| submit(&pool, sh(script).arg("sh").arg(name).working_dir(dir.path()));
    let starts = |name: &str| fs::read(dir.path().join(name)).map_or(0, |text| text.len() / 2);
    let (_old, old_ends) = start("old");
    until("the old one runs", || starts("old") == 1).await;
    let (_young, young_ends) = start("young");
    until("the young one runs", || starts("young") == 1).await;

    free.set(5);
    until("the young one is put back", || pool.stats().queued == 1).await;
    let seen = pool.stats();
    assert_eq!((seen.paused, seen.pauses, seen.taken_back), (true, 1, 1));
    free.set(100);
    until("it starts again", || starts("young") == 2).await;
    fs::write(dir.path().join("end"), "").unwrap();
    finished(old_ends.await.unwrap());
    finished(young_ends.await.unwrap());
    let seen = pool.stats();
    assert_eq!((starts("old"), seen.paused, seen.pauses), (1, false, 1));
}

#[tokio::test]
async fn a_persistent_program_gets_one_task_at_a_time_while_memory_is_short() {
    let stage = Stage::new(Protocol::JsonLines).set(|program| {
        program.instances = 3_usize.try_into().ok();
        program.stop_grace = Duration::from_millis(10); // None ends by itself.
    });
    let (free, pool) = guarded(&stage.config, 5);
    until("it is short", || pool.stats().paused).await;
    until("all take tasks", || pool.programs()["stay"].ready == 3).await;
    let mut ends: Vec<_> = (0..3).map(|_| submit(&pool, task("hang")).1).collect();
    until("one works", || pool.programs()["stay"].in_flight == 1).await;
    // Longer than the guard takes to look again.
    let since = Instant::now();
    until("others could", || since.elapsed() > Duration::from_millis(600)).await;
    let stats = &pool.programs()["stay"];
    assert_eq!((stats.in_flight, stats.queued), (1, 2));
    assert_eq!(pool.stats().pauses, 1, "one, however often it is looked");
    free.set(100);
    until("all work", || pool.programs()["stay"].in_flight == 3).await;
    pool.close().await;
    assert!(ends.iter_mut().all(|end| end.try_recv().is_err()), "none has ended");
}
