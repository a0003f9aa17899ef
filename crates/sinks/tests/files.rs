//! File sinks against a real directory.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

mod desk;

use std::{fs, io::Write, os::unix::fs::symlink, sync::Arc, time::Duration};

use desk::{Desk, SOON, line_for, text};
use drakkar_core::{Delivery, FilePayload, Sink};
use drakkar_sinks::{FileSink, FileSinkConfig, Fsync, Settled, Sinks};
use futures_util::future::join_all;
use tempfile::TempDir;

#[tokio::test]
async fn lines_are_appended_and_missing_directories_are_made() {
    let desk = Desk::open();
    for line in ["{\"n\":1}", "{\"n\":2}", ""] {
        assert_eq!(desk.append("a/b/c.jsonl", line).await, Settled::Confirmed);
    }
    assert_eq!(desk.append("./top.jsonl", "t").await, Settled::Confirmed);
    assert_eq!(desk.text("a/b/c.jsonl"), "{\"n\":1}\n{\"n\":2}\n\n");
    assert_eq!(desk.text("top.jsonl"), "t\n");
    let left: Vec<_> = fs::read_dir(desk.path("")).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing of ours is left behind: {left:?}");
}

#[tokio::test]
async fn a_thousand_lines_of_a_thousand_tasks_are_all_whole() {
    let desk = Desk::open();
    let sent = (0..1_000).map(|n| {
        let (sinks, hold) = (desk.sinks.clone(), desk.board.task());
        let line = format!("{n}-{}", "x".repeat(n % 300));
        tokio::spawn(async move {
            sinks.deliver(line_for(format!("{}.jsonl", n % 7), &line), &hold).await
        })
    });
    for settled in join_all(sent).await {
        assert_eq!(settled.unwrap(), Settled::Confirmed);
    }
    let mut seen = vec![0; 1_000];
    for file in 0..7 {
        for line in desk.text(&format!("{file}.jsonl")).lines() {
            let (n, rest) = line.split_once('-').unwrap();
            let n: usize = n.parse().unwrap();
            assert_eq!((n % 7, rest.len()), (file, n % 300));
            seen[n] += 1;
        }
    }
    assert_eq!(seen, vec![1; 1_000]);
}

#[tokio::test]
async fn no_path_leads_out_of_the_directory() {
    let desk = Desk::open();
    let outside = desk.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, desk.path("link")).unwrap();
    symlink("../../outside", desk.path("relative")).unwrap();
    symlink(outside.join("made.jsonl"), desk.path("file.jsonl")).unwrap();
    for path in [
        "../escape.jsonl",
        "a/../../escape.jsonl",
        "a/../inside.jsonl",
        "link/escape.jsonl",
        "link/deeper/escape.jsonl",
        "relative/escape.jsonl",
        "file.jsonl",
    ] {
        assert_eq!(desk.refusal(path).await, "outside_base_path", "{path}");
    }
    let absolute = outside.join("absolute.jsonl");
    assert_eq!(desk.refusal(&absolute).await, "outside_base_path");
    let absolute_inside = desk.path("inside.jsonl");
    assert_eq!(desk.refusal(&absolute_inside).await, "outside_base_path");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    assert!(!desk.base.path().join("out/escape.jsonl").exists());
}

#[tokio::test]
async fn a_symlink_that_stays_inside_is_followed() {
    let desk = Desk::open();
    fs::create_dir(desk.path("real")).unwrap();
    symlink("real", desk.path("alias")).unwrap();
    assert_eq!(desk.append("alias/a.jsonl", "1").await, Settled::Confirmed);
    assert_eq!(desk.text("real/a.jsonl"), "1\n");
}

#[tokio::test]
async fn what_can_never_be_a_line_of_a_file_is_refused_and_its_neighbours_are_not() {
    let desk = Desk::open();
    fs::create_dir(desk.path("dir")).unwrap();
    fs::write(desk.path("file"), "").unwrap();
    assert_eq!(desk.refusal("").await, "no_file_name");
    assert_eq!(desk.refusal(".").await, "no_file_name");
    assert_eq!(desk.refusal("dir").await, "IsADirectory");
    assert_eq!(desk.refusal("file/below.jsonl").await, "NotADirectory");
    assert_eq!(desk.refusal("n".repeat(300)).await, "InvalidFilename");
    assert_eq!(desk.refusal("nul\0byte").await, "InvalidInput");
    let hold = desk.board.task();
    let [before, torn, after] = ["1", "2\n3", "4"].map(|line| line_for("lines.jsonl", line));
    let (before, torn, after) = tokio::join!(
        desk.sinks.deliver(before, &hold),
        desk.sinks.deliver(torn, &hold),
        desk.sinks.deliver(after, &hold),
    );
    let Settled::Refused(torn) = torn else {
        panic!("a line feed inside a line was accepted");
    };
    assert_eq!(torn.error.class, "line_feed");
    assert_eq!((before, after), (Settled::Confirmed, Settled::Confirmed));
    assert_eq!(desk.text("lines.jsonl"), "1\n4\n");
}

#[tokio::test]
async fn a_file_that_is_renamed_or_removed_meanwhile_is_made_anew() {
    let desk = Desk::open_with(|config| config.fsync = Fsync::Never);
    assert_eq!(desk.append("a.jsonl", "1").await, Settled::Confirmed);
    fs::rename(desk.path("a.jsonl"), desk.path("a.jsonl.1")).unwrap();
    assert_eq!(desk.append("a.jsonl", "2").await, Settled::Confirmed);
    fs::remove_file(desk.path("a.jsonl")).unwrap();
    assert_eq!(desk.append("a.jsonl", "3").await, Settled::Confirmed);
    assert_eq!(desk.text("a.jsonl.1"), "1\n");
    assert_eq!(desk.text("a.jsonl"), "3\n");
}

#[tokio::test]
async fn lines_go_to_the_directory_that_has_the_name_now() {
    let desk = Desk::open();
    let out = desk.path("");
    assert_eq!(desk.append("a", "1").await, Settled::Confirmed);
    let before = desk.base.path().join("out/before");
    fs::rename(&out, &before).unwrap();
    fs::create_dir(&out).unwrap();
    assert_eq!(desk.append("a", "2").await, Settled::Confirmed);
    assert_eq!((text(&before.join("a")).as_str(), desk.text("a").as_str()), ("1\n", "2\n"));
    fs::remove_dir_all(&out).unwrap();
    fs::create_dir(&out).unwrap();
    assert_eq!(desk.append("b/a", "3").await, Settled::Confirmed);
    assert_eq!(desk.text("b/a"), "3\n");
}

#[tokio::test]
async fn while_the_directory_is_missing_lines_are_held_and_nothing_takes_its_place() {
    let base = TempDir::new().unwrap();
    let out = base.path().join("out");
    let config = FileSinkConfig { base_path: out.clone(), ..FileSinkConfig::default() };
    let sink = FileSink::open(&config, "worker-1").unwrap();
    let line = [FilePayload::line("a", "1")];
    for stands_there in [false, true] {
        fs::remove_dir_all(&out).unwrap();
        if stands_there {
            fs::write(&out, "").unwrap();
        }
        let [Delivery::Transient(error)] = &sink.deliver(&line).await[..] else { panic!("taken") };
        assert!(error.message.contains(out.to_str().unwrap()), "{error}");
        sink.probe().await.unwrap_err();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), usize::from(stands_there));
        if stands_there {
            fs::remove_file(&out).unwrap();
        }
        fs::create_dir(&out).unwrap();
        sink.probe().await.unwrap();
        assert_eq!(sink.deliver(&line).await, [Delivery::Confirmed]);
        assert_eq!(text(&out.join("a")), "1\n");
    }
}

#[tokio::test]
async fn two_sinks_may_append_to_one_file() {
    let desk = Desk::open();
    let config = FileSinkConfig {
        base_path: desk.path(""),
        fsync: Fsync::Never,
        ..FileSinkConfig::default()
    };
    let other = Sinks::builder(Arc::new(()))
        .filesystem("other", FileSink::open(&config, "worker-1").unwrap())
        .build();
    let mut sent = Vec::new();
    for n in 0..500 {
        for sinks in [&desk.sinks, &other] {
            let (sinks, hold) = (sinks.clone(), desk.board.task());
            let line = "x".repeat(n);
            sent.push(tokio::spawn(async move {
                sinks.deliver(line_for("shared.jsonl", &line), &hold).await
            }));
        }
    }
    for settled in join_all(sent).await {
        assert_eq!(settled.unwrap(), Settled::Confirmed);
    }
    let mut lengths: Vec<usize> = desk.text("shared.jsonl").lines().map(str::len).collect();
    lengths.sort_unstable();
    let twice: Vec<usize> = (0..500).flat_map(|n| [n, n]).collect();
    assert_eq!(lengths, twice);
}

#[tokio::test]
async fn while_a_file_cannot_be_opened_its_lines_are_held_and_written_once_when_it_can() {
    let desk = Desk::open();
    // Somebody else has locked it for good, as far as the sink can tell.
    let mut locked = fs::File::create(desk.path("a.jsonl")).unwrap();
    locked.lock().unwrap();
    let (sinks, hold) = (desk.sinks.clone(), desk.board.task());
    let sent = tokio::spawn(async move { sinks.deliver(line_for("a.jsonl", "2"), &hold).await });
    let until_held = async {
        while desk.board.held_tasks() == 0 {
            desk.board.changed().await;
        }
    };
    tokio::time::timeout(SOON, until_held).await.unwrap();
    locked.write_all(b"1\n").unwrap();
    drop(locked);
    assert_eq!(tokio::time::timeout(SOON, sent).await.unwrap().unwrap(), Settled::Confirmed);
    assert_eq!(desk.text("a.jsonl"), "1\n2\n");
    assert_eq!(desk.board.held_tasks(), 0);
}

#[tokio::test]
async fn what_waits_for_a_file_that_is_renamed_meanwhile_is_written_to_the_new_one() {
    let desk = Desk::open();
    assert_eq!(desk.append("a", "1").await, Settled::Confirmed);
    // As another worker does that ends the file.
    let locked = fs::File::open(desk.path("a")).unwrap();
    locked.lock().unwrap();
    let (sinks, hold) = (desk.sinks.clone(), desk.board.task());
    let sent = tokio::spawn(async move { sinks.deliver(line_for("a", "2"), &hold).await });
    let is_open = || {
        let open = fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
            let target = fs::read_link(entry.as_ref().unwrap().path());
            target.is_ok_and(|target| target == desk.path("a"))
        });
        open.count() == 2
    };
    let opened = async {
        while !is_open() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, opened).await.unwrap();
    fs::rename(desk.path("a"), desk.path("b")).unwrap();
    drop(locked);
    assert_eq!(sent.await.unwrap(), Settled::Confirmed);
    assert_eq!((desk.text("b").as_str(), desk.text("a").as_str()), ("1\n", "2\n"));
}

#[test]
fn a_directory_that_cannot_be_written_to_is_an_error_at_the_start() {
    let base = TempDir::new().unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    let base_path = base.path().join("file");
    assert!(
        FileSink::open(&FileSinkConfig { base_path, ..FileSinkConfig::default() }, "worker-1")
            .is_err()
    );
}
