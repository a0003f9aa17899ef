//! Files of a spool: what is in them, how many bytes there may be, and when they go.

use std::{sync::mpsc, time::Duration};

use drakkar_core::Output;
use tokio::time::{Instant, sleep, timeout};

use super::*;

fn config(dir: &Path, max_task_bytes: u64, max_bytes: u64) -> SpoolConfig {
    SpoolConfig { dir: Some(dir.to_owned()), max_task_bytes, max_bytes }
}

async fn written(spool: &Arc<Spool>, pieces: &[&[u8]]) -> Run {
    let mut writer = spool.create().await.unwrap();
    for piece in pieces {
        writer.write(piece).await;
    }
    writer.finish().await;
    writer.attach(Run::Finished(Output::default()))
}

impl SpoolWriter {
    /// One whose disk takes no more than a pipe holds while nobody reads it.
    pub(crate) async fn stalling(dir: &Path) -> (Self, io::PipeReader) {
        let spool = Spool::open(&config(dir, 1 << 30, 1 << 30)).unwrap().unwrap();
        let mut writer = spool.create().await.unwrap();
        let (disk, end) = io::pipe().unwrap();
        writer.file = BufWriter::new(File::from(std::os::fd::OwnedFd::from(end)).into());
        (writer, disk)
    }
}

#[track_caller]
fn output(run: Run) -> Output {
    match run {
        Run::Finished(output) => output,
        Run::Failed { failure, .. } => panic!("{failure}"),
    }
}

/// Waits until the thread has done what it is to do.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn used(spool: &Spool) -> u64 {
    spool.removal.books.used.load(Relaxed)
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn a_file_holds_what_was_printed_and_goes_with_its_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&config(dir.path(), 100, 100)).unwrap().unwrap();
    let done = output(written(&spool, &[b"one ", b"two"]).await);
    let path = done.stdout_file().unwrap().to_owned();
    assert_eq!(fs::read(&path).unwrap(), b"one two");
    assert_eq!((done.stdout_len(), done.stdout_dropped, done.size()), (7, 0, 0));
    let later = done.clone();
    drop(done);
    assert!(path.exists());
    drop(later);
    until("its room is given back", || used(&spool) == 0).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn what_exceeds_the_limit_of_a_task_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&config(dir.path(), 5, 100)).unwrap().unwrap();
    let done = output(written(&spool, &[b"123", b"4567", b"89"]).await);
    assert_eq!(fs::read(done.stdout_file().unwrap()).unwrap(), b"12345");
    assert_eq!((done.stdout_len(), done.stdout_dropped), (5, 4));
    assert!(done.is_truncated());
}

#[tokio::test]
async fn a_run_for_which_there_is_no_room_fails_and_leaves_room_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&config(dir.path(), 8, 10)).unwrap().unwrap();
    let held = output(written(&spool, &[b"12345678"]).await);
    let Run::Failed { failure, output: failed } = written(&spool, &[b"12", b"3", b"4"]).await
    else {
        panic!("there was room");
    };
    assert!(failure.to_string().contains("executor.spool.max_bytes"), "{failure}");
    assert_eq!((failed.stdout_file(), failed.stdout_dropped), (None, 4));
    drop(held); // It may still be there when the next one needs its room.
    output(written(&spool, &[b"12345678"]).await);
}

#[tokio::test]
async fn a_disk_that_refuses_fails_a_run_that_succeeded_and_explains_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&config(dir.path(), 1 << 20, 1 << 20)).unwrap().unwrap();
    let full = async || {
        let mut writer = spool.create().await.unwrap();
        let device = File::options().write(true).open("/dev/full").unwrap();
        writer.file = BufWriter::new(device.into());
        writer.write(&vec![7; 100_000]).await;
        writer.finish().await;
        writer
    };
    let run = full().await.attach(Run::Finished(Output::default()));
    let Run::Failed { failure: Failure::Io(text), output } = run else { panic!("{run:?}") };
    assert!(text.contains("No space left"), "{text}");
    assert_eq!((output.stdout_dropped, output.spooled), (100_000, None));
    let crashed = Run::Failed { failure: Failure::Signal(11), output: Output::default() };
    let run = full().await.attach(crashed);
    assert!(matches!(run, Run::Failed { failure: Failure::Signal(11), .. }), "{run:?}");
}

#[tokio::test]
async fn a_handler_may_move_a_file_away() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(&config(dir.path(), 100, 100)).unwrap().unwrap();
    let done = output(written(&spool, &[b"mine"]).await);
    let mine = dir.path().join("mine");
    fs::rename(done.stdout_file().unwrap(), &mine).unwrap();
    drop(done);
    assert_eq!(fs::read(mine).unwrap(), b"mine");
    until("its room is given back", || used(&spool) == 0).await;
}

#[tokio::test]
async fn what_a_dead_worker_left_is_removed_and_what_a_living_one_has_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), 100, 100);
    let living = Spool::open(&config).unwrap().unwrap();
    let held = output(written(&living, &[b"held"]).await);
    let dead = dir.path().join(format!("{PREFIX}1-0"));
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join(LOCK), "").unwrap();
    fs::write(dead.join("0"), "left").unwrap();
    fs::create_dir(dir.path().join(format!("{PREFIX}1-1"))).unwrap();
    fs::write(dir.path().join("somebody's"), "").unwrap();

    let second = Spool::open(&config).unwrap().unwrap();
    assert!(!dead.exists());
    assert!(held.stdout_file().unwrap().exists());
    // The two directories, the door, and what is not ours.
    assert_eq!(entries(dir.path()), 4);
    let (second_ends, living_ends) = (second.watch(), living.watch());
    drop(second);
    drop(living);
    second_ends.gone().await;
    assert_eq!(entries(dir.path()), 3, "a file that is held keeps its directory");
    drop(held);
    living_ends.gone().await;
    assert_eq!(entries(dir.path()), 2);
}

#[tokio::test]
async fn a_directory_whose_lock_cannot_be_looked_at_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = dir.path().join(format!("{PREFIX}1-0"));
    fs::create_dir(&unknown).unwrap();
    std::os::unix::fs::symlink(LOCK, unknown.join(LOCK)).unwrap(); // Leads to itself.
    fs::write(unknown.join("0"), "perhaps held").unwrap();
    let spool = Spool::open(&config(dir.path(), 100, 100)).unwrap().unwrap();
    assert!(unknown.join("0").exists());
    drop(spool);
}

/// A spool whose disk removes nothing until the other side is dropped.
fn hanging(dir: &Path) -> (Arc<Spool>, mpsc::Sender<()>) {
    let (disk, hangs) = mpsc::channel::<()>();
    let remove = move |path: &Path| {
        assert!(hangs.recv().is_err(), "nothing is ever sent");
        fs::remove_file(path)
    };
    (Spool::open_with(&config(dir, 100, 100), remove).unwrap().unwrap(), disk)
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_nobody_who_lets_go_of_a_result_and_keeps_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, disk) = hanging(dir.path());
    let (one, other) = (written(&spool, &[b"12"]).await, written(&spool, &[b"345"]).await);
    let path = output(one.clone()).stdout_file().unwrap().to_owned();
    drop((one, other)); // Would never return here.
    assert!(path.exists());
    assert_eq!(used(&spool), 5, "what is there takes room");
    let ends = spool.watch();
    drop(spool);
    assert!(timeout(Duration::from_millis(50), ends.clone().gone()).await.is_err());
    drop(disk);
    ends.gone().await;
    assert_eq!(entries(dir.path()), 1, "nothing but the door is left");
}

#[tokio::test]
async fn a_run_waits_for_room_that_nobody_holds_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, disk) = hanging(dir.path());
    drop(written(&spool, &[&[7; 60]]).await);
    let mut next = std::pin::pin!(written(&spool, &[&[8; 60]]));
    assert!(timeout(Duration::from_millis(50), next.as_mut()).await.is_err(), "no room yet");
    drop(disk);
    let next = timeout(Duration::from_secs(30), next).await.unwrap();
    assert_eq!(output(next).stdout_len(), 60);
}

#[tokio::test]
async fn no_file_is_begun_while_too_many_wait_to_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, disk) = hanging(dir.path());
    for _ in 0..removal::MOST {
        drop(spool.create().await.unwrap());
    }
    let mut next = std::pin::pin!(spool.create());
    assert!(timeout(Duration::from_millis(50), next.as_mut()).await.is_err(), "one more");
    drop(disk);
    timeout(Duration::from_secs(30), next).await.unwrap().unwrap();
}
