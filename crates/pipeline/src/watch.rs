//! Which hook is being executed, on which thread, since when: what no time-out can end.
//!
//! A hook that waits is ended by its time-out. One that blocks or computes is not: its thread does
//! nothing else until it returns. So every thread has a place here, where it notes the hook before it
//! executes a piece of it and takes the note back afterwards. The lock of a place is its thread's own;
//! only a probe ever contends for it, for as long as it takes to copy the note.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use drakkar_core::TopicPartition;
use drakkar_telemetry::Hook;
use tokio::time::Instant;

/// A hook that has not given its thread back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckHook {
    /// Which hook.
    pub hook: Hook,
    /// The partition it was called for, if it was for one.
    pub partition: Option<TopicPartition>,
    /// For how long.
    pub since: Duration,
}

impl fmt::Display for StuckHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hook {}", self.hook.as_str())?;
        if let Some(partition) = &self.partition {
            write!(f, " of partition {partition}")?;
        }
        write!(f, " has blocked its thread for {} s", self.since.as_secs())
    }
}

/// All threads that execute hooks of one worker.
#[derive(Debug, Default)]
pub(crate) struct HookWatch {
    places: Mutex<Vec<Weak<Place>>>,
}

/// One thread's place.
#[derive(Debug, Default)]
struct Place(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    note: Option<Note>,
    /// What the note is about, or was the last one: mostly it is the same again, and to name it anew each
    /// time would have the threads contend for its name.
    partition: Option<TopicPartition>,
}

#[derive(Debug, Clone, Copy)]
struct Note {
    hook: Hook,
    since: Instant,
}

thread_local! {
    /// The places of this thread: one for each worker of this process that called a hook on it.
    static PLACES: RefCell<Vec<(Weak<HookWatch>, Arc<Place>)>> = const { RefCell::new(Vec::new()) };
}

/// This thread is executing a hook, until dropped.
#[derive(Debug)]
pub(crate) struct Executing {
    place: Arc<Place>,
    /// What it was executing around this, if it was.
    around: Option<(Note, Option<TopicPartition>)>,
}

impl HookWatch {
    /// Notes that this thread is executing `hook`, from `since` on, which is now.
    pub(crate) fn enter(
        self: &Arc<Self>,
        hook: Hook,
        partition: Option<&TopicPartition>,
        since: Instant,
    ) -> Executing {
        let place = self.place();
        let around = {
            let mut written = place.write();
            let around = written.note.replace(Note { hook, since });
            let around = around.map(|note| (note, written.partition.clone()));
            if written.partition.as_ref() != partition {
                written.partition = partition.cloned();
            }
            around
        };
        Executing { place, around }
    }

    /// The hook that has been executed for the longest time.
    pub(crate) fn longest(&self) -> Option<StuckHook> {
        let now = Instant::now();
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = places.iter().filter_map(|place| place.upgrade()?.read());
        let (longest, partition) = notes.min_by_key(|(note, _)| note.since)?;
        let since = now.saturating_duration_since(longest.since);
        Some(StuckHook { hook: longest.hook, partition, since })
    }

    /// The place of this thread; the first time, it is made.
    fn place(self: &Arc<Self>) -> Arc<Place> {
        PLACES.with_borrow_mut(|mine| {
            let known = mine.iter().find(|(watch, _)| watch.as_ptr() == Arc::as_ptr(self));
            if let Some((_, place)) = known {
                return Arc::clone(place);
            }
            mine.retain(|(watch, _)| watch.strong_count() > 0);
            let place = Arc::<Place>::default();
            mine.push((Arc::downgrade(self), Arc::clone(&place)));
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.retain(|place| place.strong_count() > 0);
            places.push(Arc::downgrade(&place));
            place
        })
    }
}

impl Place {
    fn read(&self) -> Option<(Note, Option<TopicPartition>)> {
        let written = self.write();
        Some((written.note?, written.partition.clone()))
    }

    fn write(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        let mut written = self.place.write();
        match self.around.take() {
            None => written.note = None,
            Some((note, partition)) => *written = Written { note: Some(note), partition },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(partition: i32) -> TopicPartition {
        TopicPartition::new("orders", partition)
    }

    fn seen(watch: &HookWatch) -> Option<(Hook, Option<TopicPartition>)> {
        watch.longest().map(|stuck| (stuck.hook, stuck.partition))
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_all_threads_is_told_and_a_hook_that_returned_is_not() {
        let watch = Arc::new(HookWatch::default());
        assert_eq!(seen(&watch), None);
        let first = watch.enter(Hook::Arrange, Some(&orders(3)), Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        let (entered, wait) = std::sync::mpsc::channel();
        let (leave, told) = std::sync::mpsc::channel::<()>();
        let other = Arc::clone(&watch);
        let thread = std::thread::spawn(move || {
            let _executing = other.enter(Hook::OnError, None, Instant::now());
            entered.send(()).unwrap();
            told.recv().unwrap();
        });
        wait.recv().unwrap();
        let stuck = watch.longest().unwrap();
        assert_eq!(
            stuck.to_string(),
            "the hook arrange of partition orders:3 has blocked its thread for 5 s"
        );
        drop(first);
        assert_eq!(seen(&watch), Some((Hook::OnError, None)));
        leave.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(seen(&watch), None, "and a thread that has ended is forgotten");
    }

    #[test]
    fn a_hook_inside_a_hook_gives_the_note_back() {
        let watch = Arc::new(HookWatch::default());
        let _outer = watch.enter(Hook::Arrange, None, Instant::now());
        let inner = watch.enter(Hook::MessageLabel, None, Instant::now());
        assert_eq!(seen(&watch), Some((Hook::MessageLabel, None)));
        drop(inner);
        assert_eq!(seen(&watch), Some((Hook::Arrange, None)));
    }

    #[test]
    fn a_hook_is_told_with_its_own_partition_whichever_the_thread_was_at_before() {
        let watch = Arc::new(HookWatch::default());
        for partition in [Some(orders(3)), Some(orders(3)), Some(orders(4)), None, Some(orders(4))]
        {
            let _executing = watch.enter(Hook::Arrange, partition.as_ref(), Instant::now());
            assert_eq!(seen(&watch), Some((Hook::Arrange, partition.clone())));
            let inner = watch.enter(Hook::OnError, Some(&orders(5)), Instant::now());
            assert_eq!(seen(&watch), Some((Hook::OnError, Some(orders(5)))));
            drop(inner);
            assert_eq!(seen(&watch), Some((Hook::Arrange, partition)));
        }
        assert_eq!(seen(&watch), None);
    }

    #[test]
    fn two_workers_on_one_thread_are_told_apart() {
        let (one, two) = (Arc::new(HookWatch::default()), Arc::new(HookWatch::default()));
        let _executing = one.enter(Hook::Arrange, None, Instant::now());
        assert_eq!(seen(&two), None);
    }
}
