//! How long programs usually take: the running median behind a time limit in percent.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Runs that are remembered per program.
const RECENT: usize = 101;

/// Fewer runs than this say nothing.
const ENOUGH: usize = 10;

/// Programs that are remembered; a handler that names more runs those without a limit in percent.
const PROGRAMS: usize = 1_000;

/// What the successful runs of the last programs took.
#[derive(Debug, Default)]
pub(crate) struct Medians(Mutex<HashMap<PathBuf, VecDeque<Duration>>>);

impl Medians {
    /// Takes note of a successful run.
    pub(crate) fn add(&self, program: &Path, took: Duration) {
        let mut programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !programs.contains_key(program) {
            if programs.len() >= PROGRAMS {
                return;
            }
            programs.insert(program.to_owned(), VecDeque::with_capacity(RECENT));
        }
        let Some(recent) = programs.get_mut(program) else { return };
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(took);
    }

    /// So many percent of the median; `None` while too little is known.
    pub(crate) fn limit(&self, program: &Path, percent: NonZeroU32) -> Option<Duration> {
        let mut recent: Vec<Duration> = {
            let programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            programs.get(program)?.iter().copied().collect()
        };
        if recent.len() < ENOUGH {
            return None;
        }
        let middle = recent.len() / 2;
        let (_, median, _) = recent.select_nth_unstable(middle);
        Some(median.saturating_mul(percent.get()) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_median_of_the_recent_runs_of_that_program() {
        let (medians, ms) = (Medians::default(), Duration::from_millis);
        let limit = |percent| medians.limit(Path::new("/a"), NonZeroU32::new(percent).unwrap());
        for took in [1, 1, 1, 1, 100, 100, 100, 100, 100] {
            medians.add(Path::new("/a"), ms(took));
            assert_eq!(limit(200), None);
        }
        medians.add(Path::new("/a"), ms(9_000));
        medians.add(Path::new("/b"), ms(5));
        assert_eq!((limit(200), limit(50)), (Some(ms(200)), Some(ms(50))));
        for _ in 0..RECENT {
            medians.add(Path::new("/a"), ms(8));
        }
        assert_eq!(limit(100), Some(ms(8)), "old runs are forgotten");
    }
}
