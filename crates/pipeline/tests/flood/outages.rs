//! A service that comes and goes: whatever hook needs it, every message is answered or dead-lettered.

use drakkar_core::{Collect, KafkaPayload, Message, Task};

use super::*;
use crate::common::Whole;

/// Every stage that can fail for want of a service, one after the other.
#[derive(Debug, Clone, Copy)]
enum Where {
    Arrange,
    OnTaskComplete,
    OnMessageComplete,
    OnWindowComplete,
}

fn failing<const MESSAGES: bool, const WINDOWS: bool>(
    service: &Service,
    fails: Where,
) -> Whole<MESSAGES, WINDOWS> {
    let ask = |here: &'static [Where]| {
        let service = service.clone();
        let needed =
            here.iter().any(|at| std::mem::discriminant(at) == std::mem::discriminant(&fails));
        move || if needed { service.ask() } else { Ok(()) }
    };
    let arrange = ask(&[Where::Arrange]);
    let complete = ask(&[Where::OnTaskComplete]);
    let message = ask(&[Where::OnMessageComplete]);
    let window = ask(&[Where::OnWindowComplete]);
    let tasks = Echo::default()
        .arrange(move |messages: &[Message<Bytes>]| -> HookResult<Vec<Task>> {
            arrange().map(|()| messages.iter().flat_map(|m| [echo(m), echo(m)]).collect())
        })
        .complete(move |_| complete().map(|()| Collect::new()));
    let answer = |value: &Bytes| KafkaPayload::raw(value.clone());
    Whole::new(tasks)
        .message(move |group| {
            message()?;
            Ok(if WINDOWS {
                Collect::new()
            } else {
                Collect::new().kafka(answer(&group.message.input))
            })
        })
        .window(move |group| {
            window()?;
            Ok(group.messages.iter().fold(Collect::new(), |all, m| all.kafka(answer(&m.input))))
        })
}

async fn outage<const MESSAGES: bool, const WINDOWS: bool>(fails: Where) {
    let service = Service::default();
    let handler = failing::<MESSAGES, WINDOWS>(&service, fails);
    let mut world = limited(handler, limits(20, 0.0)).start();
    produce(&mut world, 0, 0..100);
    sleep(INTERVAL + INTERVAL / 2).await;
    let offsets = |world: &World| -> BTreeSet<i64> {
        world.dead_letters.all().iter().map(|letter| letter.message.offset.0).collect()
    };
    let tripped = offsets(&world);
    assert!(tripped.len() <= 30, "{fails:?}: {tripped:?}");
    assert_eq!(held(&world).len(), 1, "{fails:?}");
    service.set_up(true);
    committed_within(&mut world, 100, 2 * INTERVAL).await;
    assert_eq!(offsets(&world), tripped, "{fails:?}: nothing more");
    assert_eq!(held(&world), [], "{fails:?}");
    let answers = world.results.len();
    assert!(100 <= tripped.len() + answers, "{fails:?}: {tripped:?}, {answers} answered");
    if !WINDOWS && !matches!(fails, Where::OnTaskComplete) {
        balance(&world, 100);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_done_again_from_where_it_failed_whatever_the_hook() {
    outage::<true, false>(Where::Arrange).await;
    outage::<true, false>(Where::OnTaskComplete).await;
    outage::<true, false>(Where::OnMessageComplete).await;
    outage::<false, true>(Where::Arrange).await;
    outage::<false, true>(Where::OnTaskComplete).await;
    outage::<false, true>(Where::OnWindowComplete).await;
    outage::<true, true>(Where::OnMessageComplete).await;
}

#[tokio::test(start_paused = true)]
async fn whenever_the_service_comes_and_goes_every_message_is_answered_or_dead_lettered() {
    for seed in 0..25 {
        let mut random = fastrand::Rng::with_seed(seed);
        let service = Service::default();
        service.set_up(random.bool());
        let mut limits = limits(random.u32(1..30), if random.bool() { 0.05 } else { 0.0 });
        limits.probe_interval = Duration::from_millis(random.u64(1..2_000));
        let mut world = limited(service.in_collect(), limits).start();
        let mut position: Option<Position> = None;
        let mut count = 0;
        for _ in 0..30 {
            let more = random.usize(0..40);
            produce(&mut world, 0, count..count + more);
            count += more;
            sleep(Duration::from_millis(random.u64(0..1_500))).await;
            service.set_up(random.bool());
            if random.u8(..) < 25 {
                position = revoke(&mut world).await.or(position);
                let next = position.as_ref().map_or(0, |position| position.next.0);
                world.assign(0, position.clone());
                // The next owner reads again from what was committed.
                produce(&mut world, 0, usize::try_from(next).unwrap()..count);
            }
        }
        service.set_up(true);
        // The last one so far may have been a try that failed.
        produce(&mut world, 0, count..count + 1);
        committed_within(&mut world, i64::try_from(count + 1).unwrap(), 200 * INTERVAL).await;
        assert_eq!(held(&world), [], "seed {seed}");
        balance(&world, count + 1);
    }
}
