//! Values as JSON, in memory of just their size.
//!
//! How long a value gets is not known before it is written. So it is written where the last one was, and
//! then copied: what waits for a sink takes no more memory than its bytes, asked for once.

use std::cell::Cell;

use bytes::Bytes;
use serde::Serialize;

use super::PayloadError;

/// Longest memory that is kept for the next value, in bytes; what is longer is given away as it is.
const KEPT: usize = 64 << 10;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `value` as JSON.
pub(super) fn bytes(value: &impl Serialize) -> Result<Bytes, PayloadError> {
    // A value that makes another one while it is written finds none, and leaves its own.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    serde_json::to_writer(&mut scratch, value)?;
    if KEPT < scratch.capacity() {
        return Ok(scratch.into());
    }
    let bytes = Bytes::copy_from_slice(&scratch);
    SCRATCH.set(scratch);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde::{Serializer, ser::Error};

    use super::*;

    #[track_caller]
    fn check(value: &impl Serialize) {
        assert_eq!(bytes(value).unwrap(), serde_json::to_vec(value).unwrap());
    }

    #[test]
    fn each_value_is_as_it_would_be_alone() {
        check(&"a longer value");
        check(&"short");
        check(&"x".repeat(2 * KEPT));
        check(&());
    }

    #[test]
    fn a_value_that_fails_in_the_middle_leaves_nothing_to_the_next() {
        struct Fails;
        impl Serialize for Fails {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(S::Error::custom("no"))
            }
        }
        assert!(bytes(&("begun", Fails)).is_err());
        check(&"next");
    }

    #[test]
    fn a_value_may_make_another_while_it_is_written() {
        struct Outer;
        impl Serialize for Outer {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let inner = bytes(&"inner").map_err(S::Error::custom)?;
                (inner.len(), "outer").serialize(to)
            }
        }
        check(&Outer);
        check(&[Outer, Outer]);
    }
}
