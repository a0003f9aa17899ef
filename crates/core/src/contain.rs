//! Code of others, contained: its panics come back as data.
//!
//! A call is the smallest part of it. The text of an error is code as well, and so is the end of a value
//! and of a future that is dropped where it waits. Nothing here decides what follows from a panic.

use std::{
    any::Any,
    error::Error,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use crate::HookError;

/// A future of others: a panic of it is its answer. It ends with this, in its place, and panics no more.
///
/// ```
/// # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
/// use drakkar_core::contain::Contained;
///
/// let place = pin!(Some(async { panic!("as told") }));
/// let mut contained = Contained::new(place);
/// let answer: Poll<std::thread::Result<()>> =
///     pin!(&mut contained).poll(&mut Context::from_waker(Waker::noop()));
/// assert!(matches!(answer, Poll::Ready(Err(_))));
/// ```
#[derive(Debug)]
pub struct Contained<'a, F>(Pin<&'a mut Option<F>>);

impl<'a, F> Contained<'a, F> {
    /// Contains what is in `place`, and takes it from there in the end.
    #[must_use]
    pub fn new(place: Pin<&'a mut Option<F>>) -> Self {
        Self(place)
    }
}

impl<F: Future> Future for Contained<'_, F> {
    type Output = thread::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.0.as_mut().as_pin_mut() else {
            return Poll::Pending; // Nothing was ever there to answer.
        };
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(answer) => answer.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

impl<F> Drop for Contained<'_, F> {
    fn drop(&mut self) {
        finish(|| self.0.set(None));
    }
}

/// Values of others: what one of them does when it is dropped concerns neither its owner nor the others.
///
/// ```
/// use drakkar_core::contain::Each;
///
/// struct Clings;
///
/// impl Drop for Clings {
///     fn drop(&mut self) {
///         panic!("as told");
///     }
/// }
///
/// drop(Each::from(vec![Clings, Clings]));
/// ```
#[derive(Debug)]
pub struct Each<T>(Vec<T>);

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> From<Vec<T>> for Each<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> Deref for Each<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Each<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> Drop for Each<T> {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_iter().for_each(let_go);
    }
}

/// Drops `value`, whatever that does.
pub fn let_go<T>(value: T) {
    finish(|| drop(value));
}

/// What was to end with it has ended; the panic itself was reported when it began.
fn finish(end: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(end)) {
        std::mem::forget(panic); // Its own end could be the next one.
    }
}

/// What a panic said.
#[must_use]
pub fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let panic = match panic.downcast::<String>() {
        Ok(text) => return *text,
        Err(panic) => panic,
    };
    match panic.downcast::<&str>() {
        Ok(text) => (*text).to_owned(),
        Err(panic) => {
            std::mem::forget(panic); // As above.
            "with a value that is not text".to_owned()
        }
    }
}

/// Most sources of an error that are shown: they may go round in a circle.
const MOST_SOURCES: usize = 32;

/// Why `error` came about: its source, the source of that, and so on, but not for ever.
pub fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&inner| inner.source()).take(MOST_SOURCES)
}

/// What an error says, with its sources: `outer: inner: innermost`.
#[must_use]
pub fn error_text(error: HookError) -> String {
    let text = catch_unwind(AssertUnwindSafe(|| chain(&*error)));
    let_go(error);
    text.unwrap_or_else(|panic| format!("an error whose text panicked: {}", panic_text(panic)))
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for inner in sources(error) {
        let inner_text = inner.to_string();
        // Some errors print their source themselves.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fmt, panic::panic_any, pin::pin};

    use super::*;

    /// Panics when it is dropped, with a value that does so as well.
    #[derive(Debug)]
    struct Clinging(u32);

    impl Drop for Clinging {
        fn drop(&mut self) {
            if 0 < self.0 && !thread::panicking() {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    impl Error for Clinging {}

    impl fmt::Display for Clinging {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("clings")
        }
    }

    #[test]
    fn an_error_is_shown_with_its_sources_and_each_once() {
        let number = "disk".parse::<i32>().unwrap_err();
        let error = std::io::Error::other(number); // It prints its source itself.
        assert_eq!(error_text(error.into()), "invalid digit found in string");
    }

    /// Two errors, each the source of the other.
    #[derive(Debug)]
    struct Round(u32);

    impl Error for Round {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            static ROUND: [Round; 2] = [Round(0), Round(1)];
            Some(&ROUND[usize::from(self.0 == 0)])
        }
    }

    impl fmt::Display for Round {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)
        }
    }

    #[test]
    fn sources_that_go_round_in_a_circle_are_shown_for_a_while() {
        let text = error_text(Round(0).into());
        assert_eq!(text.matches(": ").count(), MOST_SOURCES, "{text}");
        assert!(text.starts_with("0: 1: 0: 1: "), "{text}");
    }

    #[test]
    fn the_end_of_a_value_an_error_a_panic_and_a_future_may_panic() {
        let_go(Clinging(2));
        assert_eq!(error_text(Clinging(2).into()), "clings");
        assert_eq!(panic_text(Box::new(Clinging(2))), "with a value that is not text");
        let place = pin!(Some(async {
            let _clinging = Clinging(2);
            std::future::pending::<()>().await;
        }));
        let mut contained = Contained::new(place);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(pin!(&mut contained).poll(&mut context).is_pending());
    }
}
