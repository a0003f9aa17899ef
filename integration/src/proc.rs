//! What the operating system knows of processes: who carries a mark, how much memory one used.

use std::{fs, process::Command};

/// The variable that programs started for one test's tasks carry, and nothing else does.
pub const MARK: &str = "TEST_MARK";

/// Processes that carry the mark `mark`, each with its command line.
#[must_use]
pub fn marked(mark: &str) -> Vec<(u32, String)> {
    let wanted = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may end while we look; a zombie has no environment, and runs nothing.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|&byte| byte == 0).any(|one| one == wanted.as_bytes()) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Sends SIGKILL to process `pid`, which may be gone already.
pub fn kill(pid: u32) {
    let script = format!("kill -KILL {pid} 2>/dev/null");
    drop(Command::new("/bin/sh").args(["-c", &script]).status());
}

/// Sends the signal `name` (`STOP`) to process `pid`.
pub fn signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    let sent = Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
    assert!(sent.success(), "SIG{name} cannot be sent to {pid}");
}

/// The most memory that process `pid` has ever had resident, in MiB; `None` when it has ended.
#[must_use]
pub fn peak_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // One that has ended and that nobody has waited for has no memory.
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    Some(kib / 1024)
}
