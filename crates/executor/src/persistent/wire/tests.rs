//! The protocols: what is written is what is read, however it is cut; garbage is an error and no panic.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::*;

const LIMITS: Limits = Limits { stdout: 64, stderr: 16, answer: 4096 };

fn request(protocol: Protocol, id: u64, request: Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    protocol.encode(id, request, &mut out).unwrap();
    out
}

fn frame(id: u64, exit_code: i32, stdout: &[u8], stderr: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(&exit_code.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(stderr.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(stderr);
    frame.extend_from_slice(stdout);
    [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], &frame].concat()
}

fn answer(id: Option<u64>, exit_code: i32, stdout: &[u8], stderr: &[u8]) -> Answer {
    let (stdout, stderr) = (Kept::of(stdout, LIMITS.stdout), Kept::of(stderr, LIMITS.stderr));
    Answer { id, exit_code, stdout, stderr }
}

/// What is decoded when `bytes` arrive in pieces of `cuts` bytes, in turn.
fn arrive(
    protocol: Protocol,
    bytes: &[u8],
    cuts: &[usize],
    limits: Limits,
) -> Result<Vec<Answer>, Garbage> {
    let (mut inbox, mut answers, mut rest) = (Inbox::default(), Vec::new(), bytes);
    for cut in cuts.iter().cycle() {
        let (piece, later) = rest.split_at((*cut).min(rest.len()));
        inbox.space().extend_from_slice(piece);
        while let Some(answer) = protocol.decode(&mut inbox, limits)? {
            answers.push(answer);
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    Ok(answers)
}

#[test]
fn a_request_has_the_layout_that_the_documentation_gives() {
    let task = Task::new().arg("-n").stdin("text");
    let wanted = b"\0\0\0\x17\0\0\0\0\0\0\0\x07\0\0\0\0\x01\0\0\0\x02-ntext";
    assert_eq!(request(Protocol::Frames, 7, Request::Task(&task)), wanted);
    assert_eq!(
        request(Protocol::Frames, 8, Request::Ping),
        b"\0\0\0\x0d\0\0\0\0\0\0\0\x08\x01\0\0\0\0"
    );
    assert_eq!(
        request(Protocol::JsonLines, 7, Request::Task(&task)),
        b"{\"id\":7,\"args\":[\"-n\"],\"stdin\":\"text\"}\n"
    );
    assert_eq!(
        request(Protocol::JsonLines, 8, Request::Ping),
        b"{\"id\":8,\"ping\":true,\"args\":[],\"stdin\":\"\"}\n"
    );
    let line = Task::new().stdin("text");
    assert_eq!(request(Protocol::Lines, 9, Request::Task(&line)), b"text\n");
}

#[test]
fn bytes_that_are_no_text_travel_in_base64() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let task = Task::new().arg("a").arg(OsStr::from_bytes(&[0xFF])).stdin(&b"\xFE"[..]);
    let line = request(Protocol::JsonLines, 1, Request::Task(&task));
    let sent: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(sent, json!({"id": 1, "args_base64": ["YQ==", "/w=="], "stdin_base64": "/g=="}));
    let printed = b"\n{\"id\": 1, \"stdout_base64\": \"/g==\", \"took\": 3}\n";
    let answers = arrive(Protocol::JsonLines, printed, &[999], LIMITS).unwrap();
    assert_eq!(answers, [answer(Some(1), 0, b"\xFE", b"")]);
}

#[track_caller]
fn refused(protocol: Protocol, task: &Task, reason: &str) {
    let mut out = b"before".to_vec();
    let error = check(task).and_then(|()| protocol.encode(1, Request::Task(task), &mut out));
    let error = error.unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
    assert_eq!(out, b"before");
}

#[test]
fn what_a_running_process_cannot_be_given_is_refused() {
    for protocol in [Protocol::JsonLines, Protocol::Frames, Protocol::Lines] {
        refused(protocol, &Task::new().env("A", "1"), "environment");
        refused(protocol, &Task::new().working_dir("/"), "working directory");
        refused(protocol, &Task::new().stdin_file("/etc/passwd"), "file as input");
        refused(protocol, &Task::new().spool_stdout(), "spool");
    }
    refused(Protocol::Lines, &Task::new().arg("-n"), "arguments");
    refused(Protocol::Lines, &Task::new().stdin("two\nlines"), "line end");
    refused(Protocol::Lines, &Task::new().stdin("one\n"), "line end");
}

#[track_caller]
fn garbage(protocol: Protocol, printed: &[u8], expected: &str) {
    let error = arrive(protocol, printed, &[3], LIMITS).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_is_no_answer_is_said_to_be_none() {
    garbage(Protocol::Frames, &u32::MAX.to_be_bytes(), "more than 4096 bytes");
    garbage(Protocol::Frames, b"\0\0\0\x03abc", "does not hold");
    let mut liar = frame(1, 0, b"out", b"");
    liar[16..20].copy_from_slice(&4_u32.to_be_bytes());
    garbage(Protocol::Frames, &liar, "does not hold");
    garbage(Protocol::JsonLines, b"Traceback\n", "Syntax error in JSON");
    garbage(Protocol::JsonLines, b"{\"exit_code\":0}\n", "Data error in JSON");
    garbage(Protocol::JsonLines, b"{\"id\":1,\"stdout_base64\":\"*\"}\n", "base64");
    garbage(Protocol::JsonLines, b"{\"id\":1,\"stderr\":\"\",\"stderr_base64\":\"\"}\n", "and in");
    garbage(Protocol::JsonLines, &[b'x'; 4097], "more than 4096 bytes");
    garbage(Protocol::Lines, &[b'x'; 4097], "more than 4096 bytes");
}

#[test]
fn what_is_beyond_a_limit_of_capture_is_dropped_and_counted() {
    let printed = frame(1, 3, &[b'o'; 100], &[b'e'; 20]);
    let answers = arrive(Protocol::Frames, &printed, &[7], LIMITS).unwrap();
    let [Answer { exit_code: 3, stdout, stderr, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&stdout.bytes[..], stdout.dropped), (&[b'o'; 64][..], 36));
    assert_eq!((&stderr.bytes[..], stderr.dropped), (&[b'e'; 16][..], 4));
}

type Fields = (u64, i32, Vec<u8>, Vec<u8>);

fn fields() -> impl Strategy<Value = Vec<Fields>> {
    vec((any::<u64>(), any::<i32>(), vec(any::<u8>(), 0..99), vec(any::<u8>(), 0..30)), 1..6)
}

fn expected(fields: &[Fields]) -> Vec<Answer> {
    fields.iter().map(|(id, code, out, err)| answer(Some(*id), *code, out, err)).collect()
}

fn in_json((id, exit_code, out, err): &Fields) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut object = json!({"id": id, "exit_code": exit_code});
    for (name, bytes) in [("stdout", out), ("stderr", err)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => object[name] = text.into(),
            Err(_) => object[format!("{name}_base64")] = STANDARD.encode(bytes).into(),
        }
    }
    format!("{object}\n").into_bytes()
}

proptest! {
    #[test]
    fn frames_arrive_whole_however_they_are_cut(fields in fields(), cuts in vec(1_usize..200, 1..9)) {
        let printed: Vec<u8> =
            fields.iter().flat_map(|(id, code, out, err)| frame(*id, *code, out, err)).collect();
        let answers = arrive(Protocol::Frames, &printed, &cuts, LIMITS).unwrap();
        prop_assert_eq!(answers, expected(&fields));
    }

    #[test]
    fn objects_arrive_whole_however_they_are_cut(fields in fields(), cuts in vec(1_usize..200, 1..9)) {
        let printed: Vec<u8> = fields.iter().flat_map(in_json).collect();
        let answers = arrive(Protocol::JsonLines, &printed, &cuts, LIMITS).unwrap();
        prop_assert_eq!(answers, expected(&fields));
    }

    #[test]
    fn lines_arrive_whole_however_they_are_cut(lines in vec("[^\n]{0,40}", 1..6), cuts in vec(1_usize..50, 1..9)) {
        let printed: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        let answers = arrive(Protocol::Lines, printed.as_bytes(), &cuts, LIMITS).unwrap();
        let expected: Vec<Answer> =
            lines.iter().map(|line| answer(None, 0, line.as_bytes(), b"")).collect();
        prop_assert_eq!(answers, expected);
    }

    #[test]
    fn garbage_is_an_answer_or_an_error_and_never_more(printed in vec(any::<u8>(), 0..300), cuts in vec(1_usize..50, 1..5)) {
        let limits = Limits { stdout: 8, stderr: 8, answer: 64 };
        for protocol in [Protocol::JsonLines, Protocol::Frames, Protocol::Lines] {
            let Ok(answers) = arrive(protocol, &printed, &cuts, limits) else { continue };
            for answer in answers {
                prop_assert!(answer.stdout.bytes.len() <= 8 && answer.stderr.bytes.len() <= 8);
            }
        }
    }

    #[test]
    fn an_inbox_never_holds_more_than_one_answer_and_one_read(length in 0_usize..2_000) {
        let limits = Limits { stdout: 8, stderr: 8, answer: 100 };
        for protocol in [Protocol::JsonLines, Protocol::Lines] {
            let whole = arrive(protocol, &vec![b'x'; length], &[10], limits);
            prop_assert_eq!(whole.is_err(), 100 < length);
        }
    }
}
