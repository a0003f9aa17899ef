//! What a program may use at most.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use drakkar_core::Failure;
use drakkar_executor::{ExecutorConfig, Limits, Pool, StartError};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use support::{config, failed, finished, pool, run, sh};

fn limited(limits: Limits) -> ExecutorConfig {
    ExecutorConfig { limits, ..config(2) }
}

#[tokio::test]
async fn a_program_and_its_children_have_the_limits_of_the_configuration() {
    let pool = pool(&limited(Limits {
        address_space: Some(4 << 30),
        cpu_seconds: Some(77),
        open_files: Some(99),
        file_size: Some(1 << 20),
        core_size: Some(0),
        nice: Some(7),
        oom_score_adj: Some(900),
    }));
    // Limits arrive while a program is being linked, this one as the last.
    let script = "until [ $(cat /proc/$$/oom_score_adj) = 900 ]; do :; done
                  cat /proc/self/limits /proc/self/oom_score_adj; nice";
    let output = finished(run(&pool, sh(script)).await);
    let text = String::from_utf8(output.stdout.to_vec()).unwrap();
    for (name, soft, hard) in [
        ("Max address space", "4294967296", "4294967296"),
        ("Max cpu time", "77", "82"),
        ("Max open files", "99", "99"),
        ("Max file size", "1048576", "1048576"),
        ("Max core file size", "0", "0"),
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let values: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [soft, hard], "{name}");
    }
    assert!(text.ends_with("900\n7\n"), "{text}");
    assert_ne!(std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(), "900\n");
}

#[tokio::test]
async fn a_program_beyond_its_processor_time_is_ended_by_the_kernel() {
    let pool = pool(&limited(Limits { cpu_seconds: Some(1), ..Limits::default() }));
    let (failure, _) = failed(run(&pool, sh("while :; do :; done")).await);
    assert_eq!(failure, Failure::Signal(24), "SIGXCPU");
}

#[tokio::test]
async fn a_program_cannot_write_a_larger_file_than_it_may() {
    let (pool, dir) = (
        pool(&limited(Limits { file_size: Some(100_000), ..Limits::default() })),
        tempfile::tempdir().unwrap(),
    );
    let script = "while [ $(ulimit -f) = unlimited ]; do :; done; head -c 200000 /dev/zero >file";
    failed(run(&pool, sh(script).working_dir(dir.path())).await);
    assert_eq!(dir.path().join("file").metadata().unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_limit_above_our_own_is_our_own() {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap();
    let limits = Limits { open_files: Some(u64::MAX), ..Limits::default() };
    let output = finished(run(&pool(&limited(limits)), sh("ulimit -Hn")).await);
    assert_eq!(String::from_utf8(output.stdout.to_vec()).unwrap().trim(), own.to_string());
}

/// Takes from this thread what an ordinary user does not have either.
fn become_ordinary() {
    let mut own = capabilities(None).unwrap();
    own.effective.remove(CapabilitySet::SYS_NICE | CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, own).unwrap();
}

#[tokio::test]
async fn limits_that_the_system_refuses_keep_the_pool_from_starting() {
    become_ordinary();
    for (key, limits) in [
        ("nice", Limits { nice: Some(-5), ..Limits::default() }),
        ("oom_score_adj", Limits { oom_score_adj: Some(-900), ..Limits::default() }),
    ] {
        let Err(error) = Pool::start(&limited(limits)) else {
            panic!("limits.{key} is refused only when a task runs")
        };
        let named = format!("executor.limits.{key}: the system refuses it");
        assert!(matches!(error, StartError::Limit(_)) && error.to_string() == named, "{error}");
    }
}
