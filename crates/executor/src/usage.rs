//! What a program used, as far as the system tells without reaping it.
//!
//! Processor time stands in `/proc/{pid}/stat` until the zombie is reaped, in hundredths of a second. The
//! peak of its memory is gone with its address space: it is looked up while the program runs, more and more
//! rarely. So a program that ends before the first look has no peak, and what it grew after the last
//! one is missed.
//!
//! Costs nothing unless somebody wants to know.

use std::{convert::Infallible, time::Duration};

use crate::{orphans::text, reactor::sleep};

/// From the first look to the second one; twice as long from there to the next, and so on.
const FIRST: Duration = Duration::from_millis(20);

/// Between two looks, at most.
const LAST: Duration = Duration::from_secs(1);

/// Looks at the memory of one process.
pub(crate) struct Meter {
    pid: u32,
    pub(crate) max_rss: Option<u64>,
}

impl Meter {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, max_rss: None }
    }

    /// Looks at it while `running`, which must not outlive the process.
    pub(crate) async fn beside<T>(&mut self, running: impl Future<Output = T>) -> T {
        tokio::select! {
            biased; // When it has ended its id may be somebody else's.
            ended = running => ended,
            never = self.watch() => match never {},
        }
    }

    async fn watch(&mut self) -> Infallible {
        let mut pause = FIRST;
        loop {
            sleep(pause).await;
            self.max_rss = memory(self.pid, "VmHWM:").max(self.max_rss);
            pause = pause.saturating_mul(2).min(LAST);
        }
    }
}

/// Resident memory of a process, in bytes; unknown where it has just ended.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = text(&format!("/proc/{pid}/status")).ok()?;
    let (_, rest) = status.split_once(field)?;
    let kilobytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

/// Processor time of a process, and of its children that it has waited for: user, system.
pub(crate) fn times(pid: u32) -> Option<(Duration, Duration)> {
    let stat = text(&format!("/proc/{pid}/stat")).ok()?;
    parse(&stat, rustix::param::clock_ticks_per_second())
}

fn parse(stat: &str, ticks_per_second: u64) -> Option<(Duration, Duration)> {
    // The name of the program may hold anything, also this.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut ticks = after_name.split(' ').skip(11).map(|ticks| ticks.parse::<u64>().ok());
    let mut next = || ticks.next().flatten();
    let (user, system, children_user, children_system) = (next()?, next()?, next()?, next()?);
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1_000) / ticks_per_second);
    Some((time(user + children_user), time(system + children_system)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_and_of_its_children_are_added() {
        let stat = "7 (a) b) Z 1 7 7 0 -1 4 100 0 0 0 150 20 50 1 20 0 1 0 5 0 0\n";
        let expected = (Duration::from_secs(2), Duration::from_millis(210));
        assert_eq!(parse(stat, 100), Some(expected));
        assert_eq!(parse("7 (a) Z 1 2", 100), None);
    }

    #[test]
    fn this_process_has_memory_and_a_peak_that_is_not_smaller() {
        let pid = std::process::id();
        assert!(times(pid).is_some());
        assert!(rss(pid) > Some(0) && memory(pid, "VmHWM:") >= rss(pid));
        assert_eq!(rss(u32::MAX), None);
    }
}
