//! Hooks that would never be called.
//!
//! A handler says at compile time that it aggregates, because the compiler cannot see whether it
//! overrides a hook. Here it can be seen, once the compiler is done: what the default body answers has
//! a type of its own.

use std::any::type_name;

use drakkar_core::{Handler, handler::NotOverridden};

/// The name of what `hook` answers.
fn answer_of<'a, H: 'a, G: 'a, F>(_hook: impl FnOnce(&'a H, &'a G) -> F) -> &'static str {
    type_name::<F>()
}

fn is_overridden(answer: &str) -> bool {
    answer != type_name::<NotOverridden>()
}

/// What is wrong with `H`: what it overrides without saying that it aggregates.
pub(crate) fn fault_of<H: Handler>() -> Option<String> {
    let message = is_overridden(answer_of(H::on_message_complete)) && !H::AGGREGATES_MESSAGES;
    let window = is_overridden(answer_of(H::on_window_complete)) && !H::AGGREGATES_WINDOWS;
    let (hook, constant) = match (message, window) {
        (true, _) => ("on_message_complete", "AGGREGATES_MESSAGES"),
        (_, true) => ("on_window_complete", "AGGREGATES_WINDOWS"),
        (false, false) => return None,
    };
    Some(format!(
        "{} overrides {hook}, which would never be called: write `const {constant}: bool = true;` \
         into its `impl Handler` (a handler that passes hooks on to another one: see \
         WorldBuilder::allow_unused_hooks)",
        type_name::<H>()
    ))
}

#[cfg(test)]
mod tests {
    use drakkar_core::{Collect, HookResult, Message, MessageGroup, Pending, Task, WindowGroup};

    use super::*;

    /// Overrides nothing.
    struct Plain;

    /// Overrides both hooks and says so where `M` and `W` do.
    struct Both<const M: bool, const W: bool>;

    /// Overrides a hook with what is no `async fn`, and whose answer is like the default.
    struct Ready;

    impl Handler for Plain {
        type Input = String2;

        async fn arrange(&self, _: &[Message<String2>], _: &Pending) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }
    }

    struct String2;

    impl drakkar_core::Input for String2 {
        fn decode(_: &drakkar_core::SourceMessage) -> HookResult<Self> {
            Ok(Self)
        }
    }

    impl<const M: bool, const W: bool> Handler for Both<M, W> {
        type Input = bytes::Bytes;
        const AGGREGATES_MESSAGES: bool = M;
        const AGGREGATES_WINDOWS: bool = W;

        async fn arrange(&self, _: &[Message<bytes::Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }

        async fn on_message_complete(&self, _: &MessageGroup<bytes::Bytes>) -> HookResult<Collect> {
            Ok(Collect::new())
        }

        async fn on_window_complete(&self, _: &WindowGroup<bytes::Bytes>) -> HookResult<Collect> {
            Ok(Collect::new())
        }
    }

    impl Handler for Ready {
        type Input = bytes::Bytes;

        async fn arrange(&self, _: &[Message<bytes::Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }

        fn on_window_complete(
            &self,
            _: &WindowGroup<bytes::Bytes>,
        ) -> impl Future<Output = HookResult<Collect>> + Send {
            std::future::ready(Ok(Collect::new()))
        }
    }

    #[test]
    fn a_handler_that_overrides_nothing_has_nothing_to_say() {
        assert_eq!(fault_of::<Plain>(), None);
    }

    #[test]
    fn a_handler_that_says_what_it_overrides_is_fine() {
        assert_eq!(fault_of::<Both<true, true>>(), None);
    }

    #[test]
    fn a_hook_that_is_overridden_in_silence_is_named_with_the_line_that_is_missing() {
        let fault = fault_of::<Both<false, true>>().unwrap();
        assert!(fault.contains("on_message_complete"), "{fault}");
        assert!(fault.contains("const AGGREGATES_MESSAGES: bool = true;"), "{fault}");
        let fault = fault_of::<Both<true, false>>().unwrap();
        assert!(fault.contains("on_window_complete"), "{fault}");
        assert!(fault.contains("const AGGREGATES_WINDOWS: bool = true;"), "{fault}");
        assert!(fault_of::<Ready>().unwrap().contains("on_window_complete"));
    }
}
