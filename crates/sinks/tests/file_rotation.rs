//! Files that are full or old are renamed, compressed and deleted, and no payload is lost, divided or
//! written twice by it.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

mod desk;

use std::{fs, path::Path, sync::Arc, time::Duration};

use desk::{Desk, SOON, class, is_compressed, line_for, names, text};
use drakkar_core::FilePayload;
use drakkar_sinks::{Compress, FileSink, FileSinkConfig, RotateConfig, Settled, Sinks};
use futures_util::future::join_all;
use tokio::time::Instant;

fn by_size(max: u64) -> impl FnOnce(&mut FileSinkConfig) {
    move |config| config.rotate.max_bytes = Some(max.try_into().unwrap())
}

/// Everything that is in the files of the directory, in the order of their names, the current ones
/// last; whole lines only.
fn all_lines(directory: &Path) -> Vec<String> {
    let mut names = names(directory);
    names.sort_by_key(|name| age(name));
    let text: String = names.iter().map(|name| text(&directory.join(name))).collect();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(str::to_owned).collect()
}

/// When it was renamed; the one that was not comes last.
fn age(name: &str) -> (bool, String, u32) {
    let (time, rest) = name.split_once('Z').unwrap_or((name, ""));
    let n = rest.strip_prefix('-').and_then(|rest| rest.split('.').next());
    (!name.contains('Z'), time.to_owned(), n.map_or(0, |n| n.parse().unwrap()))
}

/// Waits until the names in the directory are such.
fn until(directory: &Path, what: &str, is_so: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + SOON;
    loop {
        let names = names(directory);
        if is_so(&names) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {names:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_full_file_is_renamed_and_no_payload_is_divided() {
    let desk = Desk::open_with(by_size(10));
    let lines = ["1234", "5678", "9", "a payload that is larger than a file", "b", "c"];
    let payloads = lines.map(|line| FilePayload::line("sub/a.jsonl", line)).into();
    assert_eq!(desk.deliver_all(payloads).await, vec![Settled::Confirmed; 6]);
    let directory = desk.path("sub");
    assert_eq!(all_lines(&directory), lines);
    let sizes: Vec<u64> = names(&directory)
        .iter()
        .map(|name| fs::metadata(directory.join(name)).unwrap().len())
        .filter(|size| 10 < *size)
        .collect();
    assert_eq!(sizes, [37], "only the one that is too large by itself");
    assert_eq!(names(&directory).len(), 4);
    assert!(names(&directory).iter().all(|name| name == "a.jsonl" || name.starts_with("a.20")));
}

#[tokio::test]
async fn the_size_of_a_file_counts_when_the_worker_starts_again() {
    let mut desk = Desk::open();
    assert_eq!(desk.append("a.jsonl", "123456").await, Settled::Confirmed);
    desk.restart_with(by_size(10));
    assert_eq!(desk.append("a.jsonl", "78").await, Settled::Confirmed);
    assert_eq!(desk.names(), ["a.jsonl"], "both have room");
    desk.restart_with(|_| {});
    assert_eq!(desk.append("a.jsonl", "9").await, Settled::Confirmed);
    assert_eq!((desk.names().len(), desk.text("a.jsonl")), (2, "9\n".to_owned()));
    assert_eq!(all_lines(&desk.path("")), ["123456", "78", "9"]);
}

#[tokio::test]
async fn an_old_file_is_renamed_by_the_next_payload_also_when_the_worker_starts_again() {
    let hour = Duration::from_hours(1);
    let mut desk = Desk::open_with(|config| config.rotate.max_age = Some(hour));
    assert_eq!(desk.append("a.jsonl", "1").await, Settled::Confirmed);
    desk.pass(hour / 2);
    assert_eq!(desk.append("a.jsonl", "2").await, Settled::Confirmed);
    assert_eq!(desk.names(), ["a.jsonl"]);
    desk.pass(hour / 2);
    assert_eq!(desk.append("a.jsonl", "3").await, Settled::Confirmed);
    assert_eq!((desk.names().len(), desk.text("a.jsonl")), (2, "3\n".to_owned()));

    desk.restart_with(|_| {});
    // The file system knows since when the file is there: by its own clock, an hour ago at most.
    desk.pass(2 * hour);
    assert_eq!(desk.append("a.jsonl", "4").await, Settled::Confirmed);
    assert_eq!((desk.names().len(), desk.text("a.jsonl")), (3, "4\n".to_owned()));
    assert_eq!(all_lines(&desk.path("")), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn names_of_the_same_second_do_not_collide() {
    let desk = Desk::open_with(by_size(1));
    let lines: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let payloads = lines.iter().map(|line| FilePayload::line("a", line.clone())).collect();
    assert_eq!(desk.deliver_all(payloads).await, vec![Settled::Confirmed; 50]);
    let mut found = all_lines(&desk.path(""));
    found.sort_by_key(|line| line.parse::<u32>().unwrap());
    assert_eq!((found, desk.names().len()), (lines, 50));
}

#[tokio::test]
async fn each_file_of_a_table_begins_with_its_columns() {
    #[derive(serde::Serialize)]
    struct Row {
        n: u32,
    }
    let mut desk = Desk::open_with(by_size(8));
    for n in 10..20 {
        let row = FilePayload::csv("a.csv", &Row { n }).unwrap();
        assert_eq!(desk.deliver(row).await, Settled::Confirmed);
        if n % 3 == 0 {
            desk.restart_with(|_| {});
        }
    }
    let mut rows = Vec::new();
    for name in desk.names() {
        let text = desk.text(&name);
        let (columns, row) = text.split_once('\n').unwrap();
        assert_eq!(columns, "n", "{name}");
        assert!(row.len() <= 6, "{name}: {row}");
        rows.extend(row.lines().map(|row| row.parse::<u32>().unwrap()));
    }
    rows.sort_unstable();
    assert_eq!(rows, (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn renamed_files_are_compressed_and_the_oldest_deleted() {
    let desk = Desk::open_with(|config| {
        config.rotate = RotateConfig {
            max_bytes: 5.try_into().ok(),
            compress: Compress::Gzip,
            keep: 3,
            ..RotateConfig::default()
        };
    });
    for n in 10..20 {
        assert_eq!(desk.append("a.jsonl", &n.to_string()).await, Settled::Confirmed);
        desk.pass(Duration::from_secs(1));
    }
    assert_eq!(desk.append("other.jsonl", "x").await, Settled::Confirmed);
    until(&desk.path(""), "three compressed files and two current", |names| {
        names.len() == 5 && names.iter().filter(|name| name.ends_with("Z.jsonl.gz")).count() == 3
    });
    assert_eq!(all_lines(&desk.path("")), ["16", "17", "18", "19", "x"]);
}

#[tokio::test]
async fn files_of_a_directory_that_was_made_anew_are_compressed_there() {
    let desk = Desk::open_with(|config| {
        config.rotate = RotateConfig { compress: Compress::Gzip, ..RotateConfig::default() };
        by_size(5)(config);
    });
    for round in 0..2 {
        for line in ["1234", "5678"] {
            assert_eq!(desk.append("a", line).await, Settled::Confirmed);
        }
        until(&desk.path(""), "a compressed file and the current one", |names| {
            names.len() == 2 && names.iter().any(|name| name.ends_with("Z.gz"))
        });
        assert_eq!(all_lines(&desk.path("")), ["1234", "5678"]);
        let before = desk.base.path().join(format!("out/before-{round}"));
        fs::rename(desk.path(""), before).unwrap();
        fs::create_dir(desk.path("")).unwrap();
    }
}

/// Three files of one line are kept of what is appended; returns the lines that are left.
async fn kept_of_twenty(between: impl Fn(&Desk)) -> Vec<String> {
    let desk = Desk::open_with(|config| {
        by_size(2)(config);
        config.rotate.keep = 3;
    });
    for n in 0..20 {
        assert_eq!(desk.append("a", &char::from(b'a' + n).to_string()).await, Settled::Confirmed);
        // So that the next rotation finds what the last one left.
        until(&desk.path(""), "three files and the current one", |names| names.len() <= 4);
        between(&desk);
    }
    all_lines(&desk.path(""))
}

#[tokio::test]
async fn of_many_files_of_one_second_the_youngest_are_kept() {
    assert_eq!(kept_of_twenty(|_| {}).await, ["q", "r", "s", "t"]);
}

#[tokio::test]
async fn the_youngest_are_kept_also_when_the_clock_is_set_back() {
    let back = |desk: &Desk| *desk.now.lock().unwrap() -= Duration::from_mins(1);
    assert_eq!(kept_of_twenty(back).await, ["q", "r", "s", "t"]);
}

#[tokio::test]
async fn of_the_files_of_one_batch_the_youngest_are_kept() {
    let desk = Desk::open_with(|config| {
        by_size(2)(config);
        config.rotate = RotateConfig { compress: Compress::Gzip, keep: 3, ..config.rotate.clone() };
    });
    let payloads = (b'a'..=b't').map(|c| FilePayload::line("a", char::from(c).to_string()));
    assert_eq!(desk.deliver_all(payloads.collect()).await, vec![Settled::Confirmed; 20]);
    until(&desk.path(""), "three compressed files and the current one", |names| {
        names.len() == 4 && names.iter().filter(|name| is_compressed(Path::new(name))).count() == 3
    });
    assert_eq!(all_lines(&desk.path("")), ["q", "r", "s", "t"]);
}

#[tokio::test]
async fn a_copy_that_a_crash_left_half_written_is_made_again_from_the_original() {
    let desk = Desk::open_with(|config| {
        by_size(2)(config);
        config.rotate.compress = Compress::Gzip;
    });
    let left = "a.20200101T000000Z.jsonl";
    fs::write(desk.path(left), "whole\n").unwrap();
    fs::write(desk.path(&format!("{left}.gz.partial")), "half").unwrap();
    // Renamed to its final name, and then the crash came: both are there.
    let both = "a.20200101T000000Z-1.jsonl";
    fs::write(desk.path(both), "both\n").unwrap();
    fs::write(desk.path(&format!("{both}.gz")), "as good as compressed").unwrap();
    for text in ["1", "2"] {
        assert_eq!(desk.append("a.jsonl", text).await, Settled::Confirmed);
    }
    until(&desk.path(""), "three compressed files and nothing else", |names| {
        names.len() == 4 && names.iter().filter(|name| name.ends_with(".jsonl.gz")).count() == 3
    });
    let mut lines = all_lines(&desk.path(""));
    lines.sort();
    assert_eq!(lines, ["1", "2", "both", "whole"]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_passed_over() {
    let mut desk = Desk::open();
    assert_eq!(desk.append("a", "1").await, Settled::Confirmed);
    desk.restart_with(by_size(2));
    let now = humantime::format_rfc3339_seconds(*desk.now.lock().unwrap()).to_string();
    let name = format!("a.{}", now.replace(['-', ':'], ""));
    std::os::unix::fs::symlink("nowhere", desk.path(&name)).unwrap();
    fs::write(desk.path(&format!("{name}-1.gz")), "compressed").unwrap();
    assert_eq!(desk.append("a", "2").await, Settled::Confirmed);
    assert_eq!(desk.text(&format!("{name}-2")), "1\n");
    assert_eq!((desk.text("a").as_str(), desk.names().len()), ("2\n", 4));
}

#[tokio::test]
async fn a_name_that_leaves_no_room_for_the_time_is_refused_where_files_are_renamed() {
    let long = "n".repeat(250);
    assert_eq!(Desk::open().refusal(&long).await, "confirmed");
    let desk = Desk::open_with(by_size(10));
    assert_eq!(desk.refusal(&long).await, "name_too_long");
    assert_eq!(class(desk.append("n".repeat(200), "x").await), "confirmed");
}

#[tokio::test]
async fn two_sinks_may_fill_one_file() {
    let set = |config: &mut FileSinkConfig| {
        by_size(100)(config);
        config.rotate.compress = Compress::Gzip;
    };
    let desk = Desk::open_with(set);
    let mut config = FileSinkConfig { base_path: desk.path(""), ..FileSinkConfig::default() };
    set(&mut config);
    let other = FileSink::open(&config, "worker-2").unwrap();
    let other = Sinks::builder(Arc::new(())).filesystem("other", other).build();
    let mut delivered = Vec::new();
    for n in 0..400 {
        let sinks = [&desk.sinks, &other][n % 2].clone();
        let hold = desk.board.task();
        delivered.push(tokio::spawn(async move {
            sinks.deliver(line_for("shared", &format!("{n:03}")), &hold).await
        }));
    }
    for settled in join_all(delivered).await {
        assert_eq!(settled.unwrap(), Settled::Confirmed);
    }
    until(&desk.path(""), "all but the current file to be compressed", |names| {
        names.iter().all(|name| name == "shared" || is_compressed(Path::new(name)))
    });
    let mut lines = all_lines(&desk.path(""));
    lines.sort();
    let expected: Vec<String> = (0..400).map(|n| format!("{n:03}")).collect();
    assert_eq!(lines, expected);
}
