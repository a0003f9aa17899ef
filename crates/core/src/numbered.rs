//! Maps by a number that we count ourselves or that a broker does: offsets, tasks, windows.
//!
//! Nobody who sends a message chooses these numbers, so they need no defence against collisions, and
//! the one of the standard library is what a settled message costs most.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map whose key is one number.
pub type NumberedMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads one number over all bits. Not for keys that others choose.
#[derive(Debug, Default, Clone, Copy)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: neighbours end far from each other. The map looks at the
        // low bits first, and those of a product are the worst.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        hash::{BuildHasher, Hash},
    };

    use crate::{Offset, ledger::TaskKey};

    use super::*;

    /// How many different values `part` takes among the hashes of `keys`.
    fn spread<K: Hash>(keys: impl Iterator<Item = K>, part: impl Fn(u64) -> u64) -> usize {
        let of = BuildHasherDefault::<NumberHasher>::default();
        keys.map(|key| part(of.hash_one(key))).collect::<HashSet<_>>().len()
    }

    #[test]
    fn neighbours_and_multiples_fall_into_different_places() {
        for step in [1, 2, 8, 100, 4096, 65_536] {
            let keys = || (0..1_000).map(|n| TaskKey(n * step));
            assert!(500 < spread(keys(), |hash| hash & 0xFFF), "low bits, every {step}");
            assert!(100 < spread(keys(), |hash| hash >> 57), "high bits, every {step}");
        }
        let around_zero = (-500..500).map(Offset);
        assert_eq!(spread(around_zero, |hash| hash), 1_000);
    }
}
