//! What file sinks write, and where: lines, bytes, rows; paths with placeholders.

#![allow(clippy::unwrap_used)] // A helper of a test fails the test.

mod desk;

use std::{fs, os::unix::fs::symlink};

use desk::{Desk, class};
use drakkar_core::FilePayload;
use drakkar_sinks::{Fsync, Settled};
use serde::Serialize;

#[derive(Serialize)]
struct Hit<'a> {
    pattern: &'a str,
    count: u32,
}

fn hit(path: &str, pattern: &str, count: u32) -> FilePayload {
    FilePayload::csv(path, &Hit { pattern, count }).unwrap()
}

#[tokio::test]
async fn bytes_are_written_as_they_are_and_lines_beside_them_stay_lines() {
    let desk = Desk::open();
    let payloads = vec![
        FilePayload::raw("a.bin", &b"\x00\xff\n"[..]),
        FilePayload::raw("a.bin", &b"no line feed"[..]),
        FilePayload::line("a.bin", "a line"),
        FilePayload::json("a.bin", &[1, 2]).unwrap(),
        FilePayload::raw("a.bin", &b""[..]),
    ];
    assert_eq!(desk.deliver_all(payloads).await, vec![Settled::Confirmed; 5]);
    let bytes = fs::read(desk.path("a.bin")).unwrap();
    assert_eq!(bytes, b"\x00\xff\nno line feed\na line\n[1,2]\n");
}

#[tokio::test]
async fn a_table_has_its_columns_once_also_when_the_worker_starts_again() {
    let mut desk = Desk::open();
    let payloads = vec![hit("hits.csv", "a,\"b\"", 1), hit("hits.csv", "two\nlines", 2)];
    assert_eq!(desk.deliver_all(payloads).await, vec![Settled::Confirmed; 2]);
    desk.restart_with(|_| {});
    assert_eq!(desk.deliver(hit("hits.csv", "", 3)).await, Settled::Confirmed);
    let sequence = FilePayload::csv("hits.csv", &("x", 4)).unwrap();
    assert_eq!(desk.deliver(sequence).await, Settled::Confirmed);
    let expected = "pattern,count\n\"a,\"\"b\"\"\",1\n\"two\nlines\",2\n,3\nx,4\n";
    assert_eq!(desk.text("hits.csv"), expected);
}

#[tokio::test]
async fn a_row_of_other_columns_is_refused_and_its_neighbours_are_not() {
    #[derive(Serialize)]
    struct Other {
        count: u32,
    }
    let desk = Desk::open();
    let other = FilePayload::csv("hits.csv", &Other { count: 2 }).unwrap();
    let settled =
        desk.deliver_all(vec![hit("hits.csv", "a", 1), other, hit("hits.csv", "b", 3)]).await;
    let classes: Vec<String> = settled.into_iter().map(class).collect();
    assert_eq!(classes, ["confirmed", "other_columns", "confirmed"]);
    assert_eq!(desk.text("hits.csv"), "pattern,count\na,1\nb,3\n");
}

#[tokio::test]
async fn what_a_crash_left_of_a_row_is_closed_before_the_next() {
    let mut desk = Desk::open();
    assert_eq!(desk.deliver(hit("hits.csv", "a", 1)).await, Settled::Confirmed);
    let torn = desk.text("hits.csv") + "\"torn, in quotes\n";
    fs::write(desk.path("hits.csv"), &torn).unwrap();
    desk.restart_with(|_| {});
    assert_eq!(desk.deliver(hit("hits.csv", "b", 2)).await, Settled::Confirmed);
    assert_eq!(desk.text("hits.csv"), format!("{torn}\"\nb,2\n"));
}

#[tokio::test]
async fn a_payload_without_a_path_goes_where_the_sink_says() {
    let desk =
        Desk::open_with(|config| config.path = "{topic}/{date}/{worker_id}.jsonl".to_owned());
    let now = humantime_of(&desk);
    let payload = || FilePayload::line("", "x");
    assert_eq!(desk.deliver(payload().param("topic", "orders")).await, Settled::Confirmed);
    assert_eq!(desk.text(&format!("orders/{}/worker-1.jsonl", &now[..10])), "x\n");
    assert_eq!(desk.append("mine", "y").await, Settled::Confirmed);
    assert_eq!(desk.text("mine"), "y\n");
    assert_eq!(class(desk.deliver(payload()).await), "param");
}

fn humantime_of(desk: &Desk) -> String {
    humantime::format_rfc3339_seconds(*desk.now.lock().unwrap()).to_string()
}

#[tokio::test]
async fn nothing_that_a_payload_fills_in_leads_out_of_the_directory() {
    let desk = Desk::open_with(|config| config.path = "{a}/{b}.jsonl".to_owned());
    let outside = desk.base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, desk.path("link")).unwrap();
    symlink(outside.join("made"), desk.path("file.jsonl")).unwrap();
    let payload = |a: &str, b: &str| FilePayload::line("", "x").param("a", a).param("b", b);
    let absolute = outside.to_str().unwrap();
    for (a, b) in [("..", "x"), (absolute, "x"), ("../outside", "x"), ("x", "../../outside/x")] {
        assert_eq!(class(desk.deliver(payload(a, b)).await), "param", "{a} {b}");
    }
    assert_eq!(class(desk.deliver(payload("link", "x")).await), "outside_base_path");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

#[tokio::test]
async fn a_thousand_payloads_at_once_keep_their_order_in_each_file() {
    let desk = Desk::open_with(|config| config.rotate.max_bytes = 1_000.try_into().ok());
    let payloads =
        (0..1_000).map(|n| FilePayload::line(format!("{}", n % 3), format!("{n:04}"))).collect();
    assert_eq!(desk.deliver_all(payloads).await, vec![Settled::Confirmed; 1_000]);
    for file in 0..3 {
        let file = file.to_string();
        let of_file = |name: &String| **name == file || name.starts_with(&format!("{file}."));
        let mut names: Vec<String> = desk.names().into_iter().filter(of_file).collect();
        assert_eq!(names.len(), 2, "5 bytes each of {names:?}");
        names.rotate_left(1); // The renamed one is older.
        let text: String = names.iter().map(|name| desk.text(name)).collect();
        let lines: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        let expected: Vec<usize> = (0..1_000).filter(|n| (n % 3).to_string() == file).collect();
        assert_eq!(lines, expected);
    }
}

#[tokio::test]
async fn however_many_files_there_are_none_is_kept_open() {
    let desk = Desk::open_with(|config| config.fsync = Fsync::Never);
    let payloads = (0..3_000).map(|n| FilePayload::line(format!("{}/{n}", n % 100), "x")).collect();
    assert_eq!(desk.deliver_all(payloads).await, vec![Settled::Confirmed; 3_000]);
    let base = desk.path("");
    let open = fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = fs::read_link(entry.as_ref().unwrap().path());
        target.is_ok_and(|target| target.starts_with(&base) && target != base)
    });
    assert_eq!(open.count(), 0);
}
