//! What a line says, what becomes of the file, and that nobody waits for it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::FileTypeExt as _,
    path::Path,
    process::Command,
};

use drakkar_core::Usage;
use serde_json::Value;
use tokio::time::Instant;

use super::*;

fn log(path: &Path, max_bytes: u64) -> (Arc<Metrics>, JobLogGuard) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = JobLogSettings {
        path: path.to_owned(),
        max_bytes,
        worker: "worker-1".to_owned(),
        program: Some("/bin/default".into()),
    };
    let guard = metrics.log_jobs(settings).unwrap();
    (metrics, guard)
}

fn orders() -> TopicPartition {
    TopicPartition::new("orders", 3)
}

fn complete(metrics: &Metrics, task: &Task, output: &Output) {
    metrics.log_job(&orders(), task, 1, output, JobEnd::Finished);
}

/// As dropping it does, but however long the disk takes.
fn end(guard: &JobLogGuard) {
    guard.metrics.job_log.get().unwrap().lines.lock().unwrap().take();
    let ended = guard.ended.recv_timeout(Duration::from_mins(2));
    assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_says_everything_about_a_run_and_nothing_that_may_be_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    let (metrics, guard) = log(&path, 1 << 20);
    let task = Task::new()
        .with_id("t-1")
        .program("/bin/convert")
        .arg("hunter2")
        .env("TOKEN", "hunter2")
        .stdin("hunter2")
        .with_source_offsets((0..20).map(Offset).collect::<Vec<_>>());
    let output = Output {
        stdout: "hunter2".into(),
        stderr_dropped: 5,
        pid: Some(77),
        started_at: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)),
        waited: Duration::from_millis(250),
        spawned_in: Duration::from_millis(1),
        took: Duration::from_secs(2),
        usage: Usage { max_rss: Some(4_096), user: Some(Duration::from_millis(500)), system: None },
        ..Output::default()
    };
    complete(&metrics, &task, &output);
    end(&guard);
    let messages: Vec<String> = (0..16).map(|offset| format!("orders:3:{offset}")).collect();
    let expected = serde_json::json!({
        "task": "t-1", "attempt": 1, "worker": "worker-1",
        "messages": messages, "message_count": 20,
        "program": "/bin/convert", "pid": 77, "started": "1970-01-01T00:00:01.500000Z",
        "wait_seconds": 0.25, "spawn_seconds": 0.001, "run_seconds": 2.0,
        "outcome": "ok", "reason": null, "exit_code": 0, "signal": null, "timed_out": false,
        "stdin_bytes": 7, "stdout_bytes": 7, "stdout_truncated": false,
        "stderr_bytes": 5, "stderr_truncated": true,
        "max_rss_bytes": 4096, "user_seconds": 0.5, "system_seconds": null,
    });
    assert_eq!(lines(&path), [expected]);
    assert!(!fs::read_to_string(&path).unwrap().contains("hunter2"));
}

#[test]
fn every_way_to_end_has_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    let (metrics, guard) = log(&path, 1 << 20);
    let missing =
        Failure::Unstartable { program: "x".into(), reason: "none".into(), permanent: true };
    for end in [
        JobEnd::Failed(&Failure::Exit(3)),
        JobEnd::Failed(&Failure::Signal(11)),
        JobEnd::Failed(&Failure::TimedOut(Duration::from_secs(1))),
        JobEnd::Failed(&Failure::OutOfMemory),
        JobEnd::Failed(&missing),
        JobEnd::Cancelled("memory"),
    ] {
        let task = Task::new().stdin_file("/etc/hosts");
        metrics.log_job(&orders(), &task, 2, &Output::default(), end);
    }
    end(&guard);
    let ends: Vec<Value> = lines(&path)
        .iter()
        .map(|line| {
            assert_eq!((&line["program"], &line["attempt"]), (&"/bin/default".into(), &2.into()));
            assert_eq!((&line["stdin_bytes"], &line["run_seconds"]), (&Value::Null, &Value::Null));
            serde_json::json!([
                line["outcome"],
                line["reason"],
                line["exit_code"],
                line["signal"],
                line["timed_out"]
            ])
        })
        .collect();
    let expected = serde_json::json!([
        ["exit_code", null, 3, null, false],
        ["signal", null, null, 11, false],
        ["timeout", null, null, null, true],
        ["memory", null, null, null, false],
        ["unstartable", null, null, null, false],
        ["cancelled", "memory", null, null, false],
    ]);
    assert_eq!(Value::from(ends), expected);
}

#[test]
fn a_full_file_becomes_the_predecessor_and_no_line_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    let ids = |path: &Path| -> BTreeSet<String> {
        lines(path).iter().map(|line| line["task"].as_str().unwrap().to_owned()).collect()
    };
    for number in 0..5 {
        // With the end of each log everything is written: one write each.
        let (metrics, guard) = log(&path, 1_200);
        complete(&metrics, &Task::new().with_id(format!("t-{number}")), &Output::default());
        end(&guard);
    }
    let old = dir.path().join("jobs.1");
    let (new, old_ids) = (ids(&path), ids(&old));
    assert!(fs::metadata(&path).unwrap().len() <= 1_200);
    assert_eq!((new.len(), old_ids.len()), (1, 2), "{new:?} {old_ids:?}");
    assert!(new.contains("t-4") && old_ids.contains("t-3"));
}

#[test]
fn what_is_no_regular_file_is_never_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let pipe = fs::File::options().read(true).write(true).open(&path).unwrap();
    let (metrics, guard) = log(&path, 1);
    complete(&metrics, &Task::new(), &Output::default());
    // Two writes: the first has arrived before the second is reported.
    BufReader::new(pipe).read_line(&mut String::new()).unwrap();
    complete(&metrics, &Task::new(), &Output::default());
    end(&guard);
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    assert_eq!(metrics.job_log_dropped.get(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_link_as_dev_stdout_is_one_is_never_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("stdout"), dir.path().join("redirected"));
    std::os::unix::fs::symlink(&file, &path).unwrap();
    for _ in 0..3 {
        let (metrics, guard) = log(&path, 1);
        complete(&metrics, &Task::new(), &Output::default());
        end(&guard);
    }
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!((lines(&file).len(), fs::read_dir(dir.path()).unwrap().count()), (3, 2));
}

#[test]
fn a_line_that_a_crash_has_torn_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs");
    fs::write(&path, "{\"task\":\"tor").unwrap();
    let (metrics, guard) = log(&path, 1 << 20);
    complete(&metrics, &Task::new().with_id("whole"), &Output::default());
    end(&guard);
    let text = fs::read_to_string(&path).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((text.lines().count(), &last["task"]), (2, &"whole".into()));
}

#[test]
fn a_disk_that_refuses_is_counted_and_delays_nobody() {
    let (metrics, guard) = log(Path::new("/dev/full"), 1 << 20);
    for _ in 0..3 {
        complete(&metrics, &Task::new(), &Output::default());
    }
    end(&guard);
    assert_eq!(metrics.job_log_dropped.get(), 3);
    let shown = metrics.render().unwrap();
    assert!(shown.contains("\ndrakkar_job_log_dropped_total 3\n"), "{shown}");
}

#[test]
fn a_disk_that_hangs_delays_nobody_and_what_it_does_not_take_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Opened for reading and writing a pipe opens at once; nobody reads, so it fills and then hangs.
    let (metrics, guard) = log(&path, 1 << 30);
    let reported = QUEUE as u64 * 2;
    let since = Instant::now();
    for _ in 0..reported {
        complete(&metrics, &Task::new(), &Output::default());
    }
    drop(guard);
    assert!(since.elapsed() < Duration::from_mins(2), "somebody has waited for the disk");
    assert!(0 < metrics.job_log_dropped.get() && metrics.job_log_dropped.get() < reported);
}
