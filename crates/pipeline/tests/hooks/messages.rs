//! `decode`.

use bytes::Bytes;
use drakkar_telemetry::Hook;
use drakkar_testing::World;

use crate::witness::*;

#[tokio::test]
async fn the_handler_decodes_and_a_panic_in_it_is_an_invalid_message() {
    let (witness, _) = Witness::new();
    let mut world = World::of(witness).start();
    for value in ["text", "panic", "invalid", "more"] {
        world.produce(0, value);
    }
    world.committed(0, 4).await;
    let mut values: Vec<Bytes> =
        world.results.all().into_iter().filter_map(|record| record.value).collect();
    values.sort();
    assert_eq!(values, ["MORE", "TEXT"]);
    let mut reasons: Vec<String> =
        world.dead_letters.all().into_iter().map(|letter| letter.cause.message).collect();
    reasons.sort();
    assert_eq!(reasons, ["as told", "decoding panicked: as told"]);
    assert_eq!(errors(&world, Hook::Decode), 1, "an invalid message is no error of the hook");
}
