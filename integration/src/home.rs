//! Where a test's own servers live, and die: also when the test is killed.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A directory for servers that `integration/<kind>` starts, each in a directory of its own below it. When this
/// is dropped, and when this process ends in whatever way, they are wiped and the directory is removed.
pub struct Home {
    dir: PathBuf,
    /// Does so as soon as its standard input is closed, also by our death.
    guard: Child,
}

impl Home {
    /// For servers of this script, `postgres/server`.
    #[must_use]
    pub fn of(script: &Path) -> Self {
        let dir = TempDir::with_prefix("drakkar-home-").unwrap().keep();
        let guard = Command::new(guard())
            .args([script, &dir])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0) // A Ctrl-C meant for the test must not reach it.
            .spawn()
            .unwrap();
        Self { dir, guard }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // A panic here would hide the one that ends the test.
        if !self.guard.wait().is_ok_and(|status| status.success()) {
            eprintln!("servers in {} are left behind", self.dir.display());
        }
    }
}

fn guard() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guard")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::wait::{SOON, until};

    #[test]
    fn servers_are_wiped_when_their_owner_is_killed() {
        let scripts = TempDir::new().unwrap();
        let script = scripts.path().join("server");
        fs::write(&script, "#!/bin/sh\necho \"$@\" >>\"$0.log\"\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let home = TempDir::new().unwrap().keep();
        fs::create_dir(home.join("one")).unwrap();
        let mut owner = Command::new("sleep").arg("600").stdout(Stdio::piped()).spawn().unwrap();
        let mut guard = Command::new(guard())
            .args([&script, &home])
            .stdin(owner.stdout.take().unwrap())
            .spawn()
            .unwrap();
        owner.kill().unwrap();
        owner.wait().unwrap();
        let gone = || if home.exists() { Err("it is there") } else { Ok(()) };
        until("the directory to be removed", SOON, gone);
        assert!(guard.wait().unwrap().success());
        let asked = fs::read_to_string(scripts.path().join("server.log")).unwrap();
        assert_eq!(asked, format!("wipe {}/one\n", home.display()));
    }
}
