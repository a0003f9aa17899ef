//! A pool that has ended leaves nothing of its warden in the process that goes on.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

use std::{fs, time::Duration};

use drakkar_executor::{ExecutorConfig, Pool};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};

/// Whether this process wants to be told when a child ends.
fn handles_ends_of_children() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let sigchld = nix::sys::signal::Signal::SIGCHLD as u32;
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (sigchld - 1)) != 0
}

/// The children of this process, zombies included.
fn children() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Such a handler stays for ever, and with it each process that ends wakes every runtime there is.
#[test]
fn a_pool_that_has_ended_leaves_no_zombie_and_no_handler_of_signals() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let pool = Pool::start(&ExecutorConfig::default()).unwrap();
        assert_eq!(children().len(), 1, "the warden");
        pool.close().await;
        drop(pool);
        let gone = async {
            while !children().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_mins(2), gone).await.expect("the warden ends and is reaped");
    });
    assert!(!handles_ends_of_children());
}
