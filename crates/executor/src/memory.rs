//! Whether the kernel has killed for want of memory.
//!
//! A program that ends by SIGKILL does not say who sent it. The kernel counts its own kills: of the
//! worker's control group where it has one, else of the system. A count that has grown since the last
//! look explains one such end. Not covered: beside a count of the whole system, a kill of a stranger
//! may explain a SIGKILL that somebody else has sent to our program in the same moment.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Kills of the kernel, each of which explains one end.
#[derive(Debug)]
pub(crate) struct MemoryKills {
    source: Option<Source>,
    explained: Mutex<u64>,
}

/// A file with a line `{key} {count}`.
#[derive(Debug)]
struct Source {
    file: PathBuf,
    key: &'static str,
}

impl Source {
    fn count(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.file).ok()?;
        text.lines().find_map(|line| line.strip_prefix(self.key)?.trim().parse().ok())
    }
}

impl MemoryKills {
    /// Counts from now on.
    pub(crate) fn watch() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let found = candidates(&groups)
            .into_iter()
            .find_map(|source| source.count().map(|count| (count, Some(source))));
        let (count, source) = found.unwrap_or_default();
        Self { source, explained: Mutex::new(count) }
    }

    /// Whether there was a kill that has explained nothing yet; it has now.
    pub(crate) fn explains_one(&self) -> bool {
        let Some(count) = self.source.as_ref().and_then(Source::count) else { return false };
        let mut explained = self.explained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = count > *explained;
        *explained += u64::from(is_new);
        is_new
    }
}

/// The directories of the control groups whose memory is ours, the nearest first.
pub(crate) fn own_groups() -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let found = candidates(&groups).into_iter();
    found
        .filter_map(|source| Some(source.file.parent()?.to_owned()))
        .filter(|dir| dir.starts_with(CGROUPS))
        .collect()
}

/// Where to look, the best first. Inside of a container the path that the kernel names may not be there:
/// what is mounted is the container's own group.
fn candidates(groups: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (mount, name) = match controllers {
            "" => (CGROUPS, "memory.events"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            _ => continue,
        };
        let below = path.trim_start_matches('/');
        for dir in [Path::new(mount).join(below), PathBuf::from(mount)] {
            found.push(Source { file: dir.join(name), key: "oom_kill " });
        }
    }
    found.push(Source { file: "/proc/vmstat".into(), key: "oom_kill " });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_of_the_kernel_explains_one_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let count = |text: &str| fs::write(&file, text).unwrap();
        count("low 0\noom 7\noom_kill 2\noom_group_kill 9\n");
        let source = Source { file: file.clone(), key: "oom_kill " };
        let kills = MemoryKills { explained: Mutex::new(2), source: Some(source) };
        assert!(!kills.explains_one());
        count("oom_kill 4\n");
        assert_eq!([(); 3].map(|()| kills.explains_one()), [true, true, false]);
        fs::remove_file(&file).unwrap();
        assert!(!kills.explains_one());
    }

    #[test]
    fn the_own_group_comes_before_the_mount_and_the_system_last() {
        let found = candidates("4:memory:/a/b\n2:cpu:/\n0::/pod\n");
        let files: Vec<&str> = found.iter().map(|one| one.file.to_str().unwrap()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/a/b/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
                "/sys/fs/cgroup/pod/memory.events",
                "/sys/fs/cgroup/memory.events",
                "/proc/vmstat",
            ]
        );
    }
}
