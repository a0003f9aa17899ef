//! What all partitions hold together.

mod common;

use common::Echo;
use drakkar_core::{Delivery, KafkaPayload, SinkError};
use drakkar_testing::{Script, World};

const PARTITIONS: i32 = 200;
const MESSAGES: i64 = 10;
const SIZE: usize = 1_000;

#[tokio::test]
async fn two_hundred_partitions_hold_no_more_results_together_than_a_few_and_all_go_on() {
    let down = |_: &KafkaPayload| Delivery::Transient(SinkError::new("Down", "down"));
    let results = Script::answering(down);
    let mut world = World::of(Echo::default())
        // Half a result for each of them: one is let through.
        .settings(|s| s.max_result_bytes_total = SIZE * 100)
        .results(&results)
        .start();
    for partition in 1..PARTITIONS {
        world.assign(partition, None);
    }
    // All are assigned before anything is held.
    while world.status.view().assigned < 200 {
        tokio::task::yield_now().await;
    }
    for partition in 0..PARTITIONS {
        for _ in 0..MESSAGES {
            world.produce(partition, vec![b'x'; SIZE]);
        }
    }
    while world.metrics.tasks_precomputed.get() < 200 {
        tokio::task::yield_now().await;
    }
    // Whatever could still begin has begun by then: every task of the runtime had many turns.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.metrics.tasks_precomputed.get(), 200, "one of each partition");
    results.answer(|_| Delivery::Confirmed);
    for partition in 0..PARTITIONS {
        world.committed(partition, MESSAGES).await;
    }
}
