//! What a process holds of a fan-out: alone in its program, because it is the whole process that is looked
//! at.
#![allow(clippy::unwrap_used)] // Helpers outside of test functions.

mod common;

use common::{Echo, echo};
use drakkar_core::Collect;
use drakkar_testing::World;

/// One message that fans out to so many tasks.
async fn fan_out(tasks: usize) {
    let handler = Echo::default()
        .arrange(move |window| Ok((0..tasks).map(|_| echo(&window[0])).collect()))
        .complete(|_| Ok(Collect::new()));
    let mut world = World::of(handler).start();
    world.produce(0, "fan out");
    world.committed(0, 1).await;
    assert_eq!(world.metrics.tasks_precomputed.get(), tasks as u64);
}

/// The most bytes that this process had in memory so far.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test]
async fn a_task_more_in_a_fan_out_costs_a_small_constant_of_memory() {
    const FEW: usize = 1_000;
    const MANY: usize = 100_000;
    fan_out(FEW).await;
    let before = peak();
    fan_out(MANY).await;
    let each = (peak() - before) / (MANY - FEW);
    assert!(each < 4_096, "{each} bytes per task");
}
