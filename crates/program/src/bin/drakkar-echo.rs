//! Answers every task with its own input: `drakkar-echo frames` or `drakkar-echo json_lines`. To try a
//! configuration, and to test and measure what is between a task and its program.

use std::process::ExitCode;

use drakkar_program::{Answer, serve_frames, serve_json_lines};

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        Some("frames") => serve_frames(|request| Answer::ok(request.stdin)),
        Some("json_lines") => serve_json_lines(|request| Answer::ok(request.stdin)),
        _ => {
            eprintln!("usage: drakkar-echo frames|json_lines");
            return ExitCode::from(2);
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drakkar-echo: {error}");
            ExitCode::FAILURE
        }
    }
}
