//! A process that is killed while it writes, and a disk that is full: what was confirmed is there, once
//! for each time, and what was not is written later.
//!
//! The process that is killed is this program again, told by a variable to be that.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

mod desk;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use desk::{Desk, SOON, names, text};
use drakkar_core::{FilePayload, Payload, hold::HoldBoard};
use drakkar_sinks::{Compress, FileSink, FileSinkConfig, Settled, Sinks};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tempfile::TempDir;
use tokio::time::timeout;

const DIRECTORY: &str = "TEST_WRITES_TO";

fn config(directory: PathBuf) -> FileSinkConfig {
    let mut config = FileSinkConfig { base_path: directory, ..FileSinkConfig::default() };
    config.rotate.max_bytes = 20_000.try_into().ok();
    config.rotate.compress = Compress::Gzip;
    config
}

/// Text that is as long as its number says, so that a line that lost something shows.
fn padded(n: usize) -> String {
    format!("{n} {}", "x".repeat(n % 500))
}

/// Numbers lines, and says which are confirmed, until it is killed.
#[tokio::test]
async fn the_process_that_is_killed() {
    let Some(directory) = env::var_os(DIRECTORY) else {
        return; // An ordinary run: the tests below start it.
    };
    let sink = FileSink::open(&config(directory.into()), "worker-1").unwrap();
    let sinks = Sinks::builder(Arc::new(())).filesystem("files", sink).build();
    let board = Arc::new(HoldBoard::default());
    let hold = board.task();
    let deliver = |n: usize| {
        let payload = FilePayload::line(format!("{}.jsonl", n % 2), padded(n));
        let settled = sinks.deliver(Payload::File(payload), &hold);
        async move { (n, settled.await) }
    };
    let mut under_way: FuturesUnordered<_> = (0..64).map(deliver).collect();
    let mut next = 64;
    loop {
        tokio::select! {
            Some((n, settled)) = under_way.next() => {
                assert_eq!(settled, Settled::Confirmed);
                say(&format!("confirmed {n}"));
                under_way.push(deliver(next));
                next += 1;
            }
            () = board.changed() => if board.held_tasks() > 0 {
                say("held");
            }
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{text}").unwrap();
    out.flush().unwrap();
}

fn number_of(line: &str) -> Option<usize> {
    line.strip_prefix("confirmed ").map(|number| number.parse().unwrap())
}

fn start(program: &mut Command, directory: &Path) -> Child {
    program
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills it after so many confirmations; which were confirmed.
fn killed_after(directory: &Path, count: usize) -> Vec<usize> {
    let mut process = start(&mut Command::new(env::current_exe().unwrap()), directory);
    let mut confirmed = Vec::new();
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        confirmed.extend(number_of(&line.unwrap()));
        if confirmed.len() == count {
            process.kill().unwrap(); // What it says until it is dead counts as well.
        }
    }
    assert_eq!(process.wait().unwrap().signal(), Some(9));
    confirmed
}

fn read(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let names = names(directory);
    for name in &names {
        // What is being compressed is there twice for a moment, and once in part before.
        if name.ends_with(".partial") || names.contains(&format!("{name}.gz")) {
            continue;
        }
        let text = text(&directory.join(name));
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

#[test]
fn every_line_that_was_confirmed_before_a_kill_is_there_and_whole() {
    let base = TempDir::new().unwrap();
    let mut times = BTreeMap::new();
    for round in 0..4 {
        for n in killed_after(base.path(), 150 + 170 * round) {
            *times.entry(n).or_insert(0) += 1;
        }
    }
    assert!(times.len() > 600, "{}", times.len());
    let lines = read(base.path());
    for (n, confirmed) in times {
        let whole = padded(n);
        let found = lines.iter().filter(|line| **line == whole).count();
        assert!(confirmed <= found, "line {n}: confirmed {confirmed} times, there {found} times");
    }
    let torn = lines.iter().filter(|line| {
        let number = line.split(' ').next().and_then(|number| number.parse().ok());
        number.is_none_or(|number| **line != padded(number))
    });
    assert!(torn.count() <= 2 * 4, "more than a half line per file and kill");
}

#[test]
fn where_files_may_not_grow_lines_are_held_and_written_once_when_they_may() {
    let base = TempDir::new().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ && ulimit -S -f 8 && exec \"$0\" \"$@\""]);
    let mut process = start(limited.arg(env::current_exe().unwrap()), base.path());
    let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut confirmed: Vec<usize> = Vec::new();
    for line in said.by_ref().take_while(|line| line != "held") {
        confirmed.extend(number_of(&line));
    }
    for name in names(base.path()) {
        let text = fs::read_to_string(base.path().join(&name)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "half a line was left in {name}");
    }
    let pid = process.id().to_string();
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
    assert!(lifted.unwrap().success());
    for line in said {
        confirmed.extend(number_of(&line));
        if confirmed.len() == 500 {
            process.kill().unwrap();
        }
    }
    process.wait().unwrap();
    let lines = read(base.path());
    for n in confirmed {
        let whole = padded(n);
        assert_eq!(lines.iter().filter(|line| **line == whole).count(), 1, "line {n}");
    }
}

/// A file system of so many bytes.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: u32) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once, though the sink still has it open.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is left mounted", self.0.path().display());
        }
    }
}

#[tokio::test]
async fn while_the_disk_is_full_lines_are_held_and_none_is_left_half_written() {
    let Some(small) = SmallDisk::mount(512 * 1024) else {
        // Not captured: `integration/test` counts it.
        let why = "this user may not mount a small disk; a limit on files does for it";
        return writeln!(io::stderr(), "\nskipped here: while_the_disk_is_full: {why}").unwrap();
    };
    let directory = small.0.path().join("results");
    let desk = Desk::open_with(|config| config.base_path.clone_from(&directory));
    let filler = small.0.path().join("filler");
    fs::write(&filler, vec![0; 400 * 1024]).unwrap();
    let lines: Vec<String> = (0..1_000).map(padded).collect();
    let payloads = lines.iter().map(|line| FilePayload::line("a", line.clone())).collect();
    let mut sent = pin!(desk.deliver_all(payloads));
    tokio::select! {
        () = until_held(&desk.board) => {}
        _ = &mut sent => panic!("the disk was never full"),
    }
    let text = fs::read_to_string(directory.join("a")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "half a line was left");

    fs::remove_file(&filler).unwrap();
    assert_eq!(timeout(SOON, sent).await.unwrap(), vec![Settled::Confirmed; 1_000]);
    let text = fs::read_to_string(directory.join("a")).unwrap();
    assert!(text.lines().eq(&lines), "each line is there once, in order");
    assert_eq!(desk.board.held_tasks(), 0);
}

async fn until_held(board: &HoldBoard) {
    let held = async {
        while board.held_tasks() == 0 {
            board.changed().await;
        }
    };
    timeout(SOON, held).await.unwrap();
}
