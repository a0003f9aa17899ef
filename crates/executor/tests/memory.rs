//! What becomes of tasks where memory runs out: for real, in a control group of this test's own, where
//! the machine lets us make one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::{env, fs, path::PathBuf, process::Command};

use drakkar_core::Failure;
use support::{config, failed, pool, run, sh};

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
