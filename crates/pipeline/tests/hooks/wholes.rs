//! What is left of a message or a window as a whole whose hook failed.

use bytes::Bytes;
use drakkar_core::{
    Collect, Handler, HookResult, Input, Message, MessageGroup, Offset, Pending, Precomputed,
    SourceMessage, Stage, Task, WindowGroup,
};
use drakkar_testing::World;

/// Panics when it is dropped.
struct Clinging(Bytes);

impl Input for Clinging {
    fn decode(message: &SourceMessage) -> HookResult<Self> {
        Ok(Self(message.value.clone().unwrap_or_default()))
    }
}

impl Drop for Clinging {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "as told");
    }
}

/// Fails at message 0 as a whole, or at its window.
struct Fails<const WINDOWS: bool>;

fn fails(message: &Message<Clinging>) -> HookResult<Collect> {
    if message.input.0 == "0" { Err("no".into()) } else { Ok(Collect::new()) }
}

impl<const WINDOWS: bool> Handler for Fails<WINDOWS> {
    type Input = Clinging;
    const AGGREGATES_MESSAGES: bool = !WINDOWS;
    const AGGREGATES_WINDOWS: bool = WINDOWS;

    async fn arrange(&self, window: &[Message<Clinging>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message| Task::for_message(message).precomputed(Precomputed::default());
        Ok(window.iter().map(task).collect())
    }

    async fn on_message_complete(&self, group: &MessageGroup<Clinging>) -> HookResult<Collect> {
        fails(&group.message)
    }

    async fn on_window_complete(&self, group: &WindowGroup<Clinging>) -> HookResult<Collect> {
        fails(&group.messages[0])
    }
}

/// Who is dead-lettered, and where it failed.
async fn dead_letters<const WINDOWS: bool>() -> Vec<(Offset, Stage)> {
    let mut world = World::of(Fails::<WINDOWS>)
        .in_memory()
        .allow_unused_hooks()
        .settings(|settings| settings.window_size = 1)
        .start();
    world.produce(0, "0");
    world.produce(0, "1");
    world.committed(0, 2).await;
    let letters = world.dead_letters.all();
    world.stop().await.unwrap();
    letters.into_iter().map(|letter| (letter.message.offset, letter.cause.stage)).collect()
}

#[tokio::test(start_paused = true)]
async fn inputs_that_panic_when_they_are_dropped_cost_only_the_message_or_window_whose_hook_failed()
{
    assert_eq!(dead_letters::<false>().await, [(Offset(0), Stage::OnMessageComplete)]);
    assert_eq!(dead_letters::<true>().await, [(Offset(0), Stage::OnWindowComplete)]);
}
