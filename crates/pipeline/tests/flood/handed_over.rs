//! A partition that is handed over while it is held, or was about to be.

use drakkar_core::{
    Offset,
    done_map::{Extras, Noted},
    flood::FloodMark,
};
use drakkar_testing::message;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hand_over_while_held_is_quick_and_the_next_owner_holds_on() {
    let service = Service::default();
    let mut world = tripped(&service, 10, 60).await;
    let started = Instant::now();
    let position = revoke(&mut world).await.expect("something was settled");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(held(&world), [], "it is not ours any more");
    let noted = Noted::decode(position.next, &position.metadata).unwrap();
    assert_eq!(noted.extras.flood.held, Some(FloodReason::Consecutive));

    let mut next = limited(service.in_collect(), limits(10, 0.0)).start();
    next.assign(1, Some(position.clone()));
    produce(&mut next, 1, usize::try_from(position.next.0).unwrap()..60);
    sleep(ALMOST + MOMENT).await;
    assert_eq!(held(&next).len(), 1);
    assert_eq!((next.dead_letters.len(), next.results.len()), (0, 0), "no new allowance");
    sleep(2 * MOMENT).await;
    assert_eq!(next.dead_letters.len(), 1, "one try");
    service.set_up(true);
    next.committed(1, 60).await;
    assert_eq!(next.dead_letters.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_below_the_limit_is_handed_over_too() {
    let mut world = limited(Service::default().in_collect(), limits(10, 0.0)).start();
    let mut position = None;
    for letters in [6, 10] {
        if position.is_some() {
            world.assign(0, position);
        }
        produce(&mut world, 0, 0..6);
        world.dead_letters.until(letters).await;
        sleep(MOMENT).await;
        assert_eq!(world.dead_letters.len(), letters);
        position = revoke(&mut world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_made_anew_while_nobody_read_it_begins_with_a_new_allowance() {
    let mut world = limited(Service::default().in_collect(), limits(10, 0.0)).start();
    let flood =
        FloodMark { held: Some(FloodReason::Consecutive), consecutive: 10, ..FloodMark::default() };
    let noted = Noted::encode(Offset(100), [], &Extras { flood }, 4096);
    let position = Position { next: Offset(100), metadata: noted.metadata };
    world.assign(1, Some(position));
    for offset in 0..6 {
        world.send(message(1, offset, "x"));
    }
    // What is held tries one; that shows that the log is another.
    sleep(INTERVAL + MOMENT).await;
    assert_eq!(world.dead_letters.len(), 6, "all of them, not one in an interval");
    assert_eq!(held(&world), []);
    let shown = world.metrics.render().unwrap();
    assert!(!shown.contains("drakkar_partition_held{"), "{shown}");
}
