//! Requests that wait for the pipe.

/// Bytes that are written, beyond which they are given back although others still wait.
const WRITTEN: usize = 64 * 1024;

/// A buffer grown beyond this by large requests is given back.
const LARGE: usize = 1024 * 1024;

/// What a process is to be asked, from the first byte that is not written.
#[derive(Debug, Default)]
pub(in crate::persistent) struct Outbox {
    bytes: Vec<u8>,
    /// Where what is not written begins.
    begin: usize,
}

impl Outbox {
    /// Where to append requests.
    pub(in crate::persistent) fn space(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is not written.
    pub(in crate::persistent) fn rest(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// Forgets `count` bytes, which are written. Of a busy process something may always wait, so what is
    /// written is given back as soon as it is more than what waits and has to be moved.
    pub(in crate::persistent) fn written(&mut self, count: usize) {
        self.begin += count;
        let left = self.bytes.len() - self.begin;
        if left == 0 || WRITTEN.max(left) <= self.begin {
            self.bytes.drain(..self.begin);
            self.begin = 0;
        }
        if left < LARGE && LARGE < self.bytes.capacity() / 2 {
            self.bytes.shrink_to(LARGE);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One that never runs empty, of requests of `size` bytes.
    fn busy(size: usize, requests: usize) -> Outbox {
        let (mut outbox, request) = (Outbox::default(), vec![0; size]);
        (0..2).for_each(|_| outbox.space().extend_from_slice(&request));
        for _ in 0..requests {
            outbox.space().extend_from_slice(&request);
            outbox.written(size);
        }
        outbox
    }

    #[test]
    fn what_is_written_is_forgotten_also_where_something_always_waits() {
        for size in [100, 16 * 1024, 300 * 1024] {
            let outbox = busy(size, 1_000);
            assert_eq!(outbox.rest().len(), 2 * size);
            let capacity = outbox.bytes.capacity();
            assert!(capacity <= 4 * LARGE, "{capacity} bytes for requests of {size}");
        }
    }

    #[test]
    fn room_for_large_requests_is_given_back() {
        let mut outbox = Outbox::default();
        outbox.space().resize(50 * LARGE, 0);
        outbox.written(50 * LARGE - 1);
        assert_eq!(outbox.rest().len(), 1);
        assert!(outbox.bytes.capacity() <= 2 * LARGE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))] // Many bytes each.

        #[test]
        fn every_byte_is_written_once_and_in_order(
            steps in prop::collection::vec((0..100_000_usize, 0..100_000_usize), 1..12),
        ) {
            let (mut outbox, mut next, mut expected) = (Outbox::default(), 0_usize, 0_usize);
            for (asked, taken) in steps {
                #[allow(clippy::cast_possible_truncation)] // Any pattern will do.
                outbox.space().extend((next..next + asked).map(|at| (at % 251) as u8));
                next += asked;
                let taken = taken.min(outbox.rest().len());
                let mut bytes = (expected..).zip(&outbox.rest()[..taken]);
                prop_assert!(bytes.all(|(at, &byte)| at % 251 == usize::from(byte)));
                expected += taken;
                outbox.written(taken);
                prop_assert_eq!(outbox.rest().len(), next - expected);
            }
        }
    }
}
