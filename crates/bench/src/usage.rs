//! Processor time and memory of this process, as Linux accounts for them.
//!
//! Time of child processes is left out, and that of the broker's thread can be told from the rest: it
//! would be another machine's.

use std::{fs, time::Duration};

use anyhow::Context;

/// One unit of times in `stat`: Linux shows programs a `USER_HZ` of 100 everywhere.
const TICK_MILLIS: u64 = 10;

/// Name that librdkafka gives to the thread of its broker.
const BROKER_THREAD: &str = "rdk:mock";

/// Processor time of this process so far, without children and without the broker inside it.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    let all = ticks(&fs::read_to_string("/proc/self/stat")?)?;
    let mut broker = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let path = thread?.path();
        // A thread may end while we look.
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        if name.trim() == BROKER_THREAD {
            broker += ticks(&fs::read_to_string(path.join("stat"))?)?;
        }
    }
    Ok(Duration::from_millis(all.saturating_sub(broker) * TICK_MILLIS))
}

/// User and system time of a line of `stat`, in ticks.
fn ticks(stat: &str) -> anyhow::Result<u64> {
    // The name is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next =
        || -> anyhow::Result<u64> { Ok(fields.next().context("too few fields in stat")?.parse()?) };
    Ok(next()? + next()?)
}

/// One line of `/proc/self/status` that is a size, in MiB.
pub(crate) fn memory(line: &str) -> anyhow::Result<f64> {
    kib(&fs::read_to_string("/proc/self/status")?, line).map(|kib| f64::from(kib) / 1024.0)
}

fn kib(status: &str, name: &str) -> anyhow::Result<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name} in status"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_no_field() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 900 900 20 0 4 0";
        assert_eq!(ticks(stat).unwrap(), 200);
        ticks("7 (a) S 1").unwrap_err();
    }

    #[test]
    fn a_size_is_found_by_its_whole_name() {
        let status = "VmRSSx:\t1 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(kib(status, "VmRSS").unwrap(), 2_048);
        kib(status, "VmHWM").unwrap_err();
    }

    #[test]
    fn this_process_has_used_some_memory_and_no_negative_time() {
        assert!(memory("VmHWM").unwrap() > 0.0);
        own_cpu().unwrap();
    }
}
