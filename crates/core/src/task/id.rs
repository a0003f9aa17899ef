//! What a task is called.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc, LazyLock,
        atomic::{self, AtomicU64},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

/// Name of a task in logs, metrics and dead letters.
#[derive(Clone)]
pub struct TaskId(Text);

/// Bytes of an id that needs no memory of its own: as many as those have that we generate for every task,
/// `task-`, 16 digits, `-` and 16 digits.
const SHORT: usize = 38;

#[derive(Clone)]
enum Text {
    Short { bytes: [u8; SHORT], length: u8 },
    Long(Arc<str>),
}

impl TaskId {
    /// A new id that sorts by the time it was made: `{prefix}-{nanoseconds}-{unique}`.
    #[must_use]
    pub fn generate(prefix: &str) -> Self {
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u8));
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX); // Until the year 2554.
        let unique = PROCESS.wrapping_add(COUNT.fetch_add(1, atomic::Ordering::Relaxed));
        // By hand: formatting is half of what it costs to make a task.
        let mut digits = [b'-'; 34];
        hexadecimal(nanos, &mut digits[1..17]);
        hexadecimal(unique, &mut digits[18..]);
        Self::joined(prefix.as_bytes(), &digits)
    }

    /// The same id for the same parts, in every process and release: `{prefix}-{hash of the parts}`.
    ///
    /// With [`Pending::contains`](crate::Pending::contains) a handler sees that the same work is
    /// under way. Parts are told apart: `["ab", "c"]` and `["a", "bc"]` differ.
    #[must_use]
    pub fn stable<P: AsRef<[u8]>>(prefix: &str, parts: impl IntoIterator<Item = P>) -> Self {
        let mut hash = Fnv::default();
        for part in parts {
            let part = part.as_ref();
            hash.write(&(part.len() as u64).to_le_bytes());
            hash.write(part);
        }
        Self::from(format!("{prefix}-{:032x}", hash.0))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Both were text before they were put together.
            Text::Short { bytes, length } => {
                str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default()
            }
            Text::Long(text) => text,
        }
    }

    /// Both are text.
    fn joined(head: &[u8], tail: &[u8]) -> Self {
        let length = head.len() + tail.len();
        if SHORT < length {
            return Self(Text::Long(String::from_utf8_lossy(&[head, tail].concat()).into()));
        }
        let mut bytes = [0; SHORT];
        bytes[..head.len()].copy_from_slice(head);
        bytes[head.len()..length].copy_from_slice(tail);
        // Shorter than SHORT.
        Self(Text::Short { bytes, length: u8::try_from(length).unwrap_or_default() })
    }
}

/// Writes all digits of `number`.
fn hexadecimal(number: u64, digits: &mut [u8]) {
    let (high, low) = digits.split_at_mut(8);
    high.copy_from_slice(&eight_digits(number >> 32));
    low.copy_from_slice(&eight_digits(number & 0xFFFF_FFFF));
}

/// The digits of a number below 2^32, all at once: one byte of the result for each nibble.
fn eight_digits(number: u64) -> [u8; 8] {
    let pairs = (number | (number << 16)) & 0x0000_FFFF_0000_FFFF;
    let bytes = (pairs | (pairs << 8)) & 0x00FF_00FF_00FF_00FF;
    let nibbles = (bytes | (bytes << 4)) & 0x0F0F_0F0F_0F0F_0F0F;
    // 6 more carry those from 10 on into the next bit; they are letters, 39 places behind the digits.
    let letters = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

/// FNV-1a with 128 bits: stable across releases, which the hasher of std does not promise.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013B);
        }
    }
}

impl PartialEq for TaskId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for TaskId {}

impl PartialOrd for TaskId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TaskId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

/// As text does: a map is asked by either.
impl Hash for TaskId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for TaskId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskId").field(&self.as_str()).finish()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AsRef<[u8]> for TaskId {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl From<&TaskId> for Bytes {
    fn from(id: &TaskId) -> Self {
        Self::copy_from_slice(id.as_ref())
    }
}

impl From<&str> for TaskId {
    fn from(id: &str) -> Self {
        Self::joined(id.as_bytes(), &[])
    }
}

impl From<String> for TaskId {
    fn from(id: String) -> Self {
        Self::from(id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_unique_and_sort_by_time() {
        let ids: Vec<TaskId> = (0..1_000).map(|_| TaskId::generate("t")).collect();
        let times: Vec<&str> = ids.iter().map(|id| &id.as_str()[..18]).collect();
        assert!(times.is_sorted(), "{times:?}");
        let unique: std::collections::HashSet<&TaskId> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for number in [0, 9, 10, 0xF, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            let mut digits = [0; 16];
            hexadecimal(number, &mut digits);
            assert_eq!(str::from_utf8(&digits).unwrap(), format!("{number:016x}"));
        }
    }

    #[test]
    fn stable_ids_repeat_and_tell_parts_apart() {
        assert_eq!(TaskId::stable("t", ["a", "b"]), TaskId::stable("t", ["a", "b"]));
        assert_ne!(TaskId::stable("t", ["ab", "c"]), TaskId::stable("t", ["a", "bc"]));
        assert_eq!(
            TaskId::stable("t", ["a"]).as_str(),
            "t-426d56754e03ad9adb79f299c730f21f",
            "the id is part of what users store: it must not change between releases"
        );
    }

    #[test]
    fn an_id_is_the_text_it_was_made_of_however_long() {
        for text in ["", "t", &"x".repeat(SHORT), &"x".repeat(SHORT + 1), &"\u{fc}".repeat(19)] {
            assert_eq!(TaskId::from(text).as_str(), text);
        }
        for prefix in ["t", "task", "orders", &"\u{fc}".repeat(30)] {
            let id = TaskId::generate(prefix);
            let (start, unique) = id.as_str().rsplit_once('-').unwrap();
            assert_eq!((start.len(), unique.len()), (prefix.len() + 17, 16), "{id}");
            assert!(start.starts_with(prefix), "{id}");
            u64::from_str_radix(unique, 16).unwrap();
            u64::from_str_radix(&start[prefix.len() + 1..], 16).unwrap();
        }
    }

    #[test]
    fn a_map_is_asked_for_an_id_by_its_text() {
        let ids = std::collections::HashSet::from([TaskId::from("t-1")]);
        assert!(ids.contains("t-1") && !ids.contains("t-2"));
    }
}
