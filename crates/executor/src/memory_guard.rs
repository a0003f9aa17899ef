//! The memory guard: starts nothing more when memory gets short, and takes back what started last when
//! it gets very short.
//!
//! What is free is the least that the worker's control group and the machine have left; file contents that
//! the kernel can drop count as free. One task may always run, or a shortage that is not ours would stop
//! the work for good: it is neither held back nor taken back.

use std::{fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::interval;
use tracing::{info, warn};

use crate::memory;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(250);

/// When to act. Percent of the memory that the worker may use: its control group's, else the machine's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryGuardConfig {
    /// Percent of the memory that the worker may use: no further task is started while less is
    /// free. Default: `0`, off.
    pub pause_below_percent: u8,
    /// Percent of the memory that the worker may use: the task that started last is ended and put
    /// back in line, uncharged, when less is free. Default: `0`, off.
    pub kill_below_percent: u8,
}

impl MemoryGuardConfig {
    pub(crate) fn is_on(self) -> bool {
        self.pause_below_percent > 0
    }

    /// What cannot be, each text with its key.
    pub(crate) fn validate(self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.pause_below_percent > 99 {
            wrong.push("memory_guard.pause_below_percent: must be below 100".to_owned());
        }
        // Or what was taken back would be started again at once.
        if self.kill_below_percent > self.pause_below_percent {
            wrong.push(
                "memory_guard.kill_below_percent: must not be above \
                 executor.memory_guard.pause_below_percent"
                    .to_owned(),
            );
        }
        wrong
    }

    fn verdict(self, free: u64) -> Verdict {
        if free < u64::from(self.kill_below_percent) {
            Verdict::Kill
        } else if free < u64::from(self.pause_below_percent) {
            Verdict::Pause
        } else {
            Verdict::Go
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Go,
    Pause,
    Kill,
}

/// What the guard does to a pool.
pub(crate) trait Guarded: Send {
    /// Starts nothing more, or goes on.
    fn pause(&self, paused: bool);
    /// Takes back what started last; `false` when there is nothing to take.
    fn take_back(&self) -> bool;
}

/// Guards until dropped; `free_percent` says how much is free.
pub(crate) async fn watch(
    config: MemoryGuardConfig,
    pool: impl Guarded,
    mut free_percent: impl FnMut() -> Option<u64>,
) {
    let mut tick = interval(EVERY);
    let mut before = Verdict::Go;
    let mut is_blind = false;
    loop {
        tick.tick().await;
        let Some(free) = free_percent() else {
            // It may be out of descriptors for a moment.
            if !std::mem::replace(&mut is_blind, true) {
                warn!(
                    category = "executor",
                    "cannot tell how much memory is free; not guarded until then"
                );
            }
            pool.pause(false);
            continue;
        };
        is_blind = false;
        let verdict = config.verdict(free);
        pool.pause(verdict != Verdict::Go);
        if verdict == Verdict::Kill && pool.take_back() {
            warn!(
                category = "executor",
                free_percent = free,
                "memory is short: a task is put back"
            );
        }
        match (before == Verdict::Go, verdict == Verdict::Go) {
            (true, false) => {
                warn!(
                    category = "executor",
                    free_percent = free,
                    "memory is short: no task starts"
                );
            }
            (false, true) => {
                info!(category = "executor", free_percent = free, "memory is free again");
            }
            _ => {}
        }
        before = verdict;
    }
}

/// The least percentage that any of our limits leaves.
pub(crate) fn free_percent() -> Option<u64> {
    let groups = memory::own_groups().into_iter().filter_map(|dir| of_group(&dir));
    groups.chain(of_machine()).map(percent).min()
}

fn percent((free, total): (u64, u64)) -> u64 {
    // "No limit" is a limit near the largest number there is.
    free / (total / 100).max(1)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Free and total bytes of a control group; `None` where it has no limit.
fn of_group(dir: &Path) -> Option<(u64, u64)> {
    let (limit, used, cache) = match number(&dir.join("memory.max")) {
        Some(limit) => (limit, number(&dir.join("memory.current"))?, "inactive_file "),
        None => {
            let limit = number(&dir.join("memory.limit_in_bytes"))?;
            (limit, number(&dir.join("memory.usage_in_bytes"))?, "total_inactive_file ")
        }
    };
    let statistics = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let held = used.saturating_sub(field(&statistics, cache).unwrap_or_default());
    Some((limit.saturating_sub(held), limit))
}

fn of_machine() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some((field(&text, "MemAvailable:")?, field(&text, "MemTotal:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_first_threshold_nothing_starts_below_the_second_one_ends() {
        let config = MemoryGuardConfig { pause_below_percent: 20, kill_below_percent: 10 };
        let verdicts = [0, 9, 10, 19, 20, 100].map(|free| config.verdict(free));
        let [kill, pause, go] = [Verdict::Kill, Verdict::Pause, Verdict::Go];
        assert_eq!(verdicts, [kill, kill, pause, pause, go, go]);
        assert_eq!(MemoryGuardConfig::default().verdict(0), go);
        let unlimited = u64::MAX / 2 - 4_095;
        let percents = [(20, 200), (0, 200), (unlimited, unlimited), (0, 0)].map(percent);
        assert_eq!(percents, [10, 0, 100, 0]);
    }

    #[test]
    fn a_group_is_read_in_both_versions_and_its_file_cache_counts_as_free() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(of_group(dir.path()), None);
        file("memory.limit_in_bytes", "1000\n");
        file("memory.usage_in_bytes", "900\n");
        file("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n");
        assert_eq!(of_group(dir.path()), Some((400, 1_000)));
        file("memory.max", "2000\n");
        file("memory.current", "500\n");
        file("memory.stat", "anon 7\ninactive_file 100\n");
        assert_eq!(of_group(dir.path()), Some((1_600, 2_000)));
        fs::remove_file(dir.path().join("memory.limit_in_bytes")).unwrap();
        file("memory.max", "max\n");
        assert_eq!(of_group(dir.path()), None);
    }

    #[test]
    fn this_machine_says_how_much_is_free() {
        assert!(free_percent().is_some_and(|free| free <= 100));
    }
}
