//! What persistent programs say on standard error: to the log, line by line, within limits.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drakkar_core::Task;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};
use tracing::{debug, info};

use super::Program;

/// Bytes of a line that are logged.
const MAX_LINE: usize = 1024;

/// Lines of a program that are logged in [`WINDOW`].
const BURST: u64 = 50;
const WINDOW: Duration = Duration::from_secs(10);

/// Bytes per read.
const CHUNK: usize = 8 * 1024;

/// The task that a process works on, where it has one at a time.
pub(super) type Current = Mutex<Option<Arc<Task>>>;

/// Cuts bytes into lines of at most [`MAX_LINE`] bytes; the rest of a longer one is left out.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str, bool)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = MAX_LINE - self.line.len();
            self.is_cut |= room < text.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                self.end(&mut line);
            }
        }
    }

    fn end(&mut self, mut line: impl FnMut(&str, bool)) {
        if !self.line.is_empty() {
            line(&String::from_utf8_lossy(&self.line), self.is_cut);
        }
        self.line.clear();
        self.is_cut = false;
    }
}

/// How many lines of a program are logged.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u64,
    suppressed: u64,
}

impl Throttle {
    fn lock(&self) -> std::sync::MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, now: Instant) -> bool {
        let mut window = self.lock();
        if window.began.is_none_or(|began| WINDOW <= now.duration_since(began)) {
            window.began = Some(now);
            window.lines = 0;
        }
        window.lines += 1;
        let is_admitted = window.lines <= BURST;
        window.suppressed += u64::from(!is_admitted);
        is_admitted
    }

    /// Lines that were left out so far.
    pub(super) fn suppressed(&self) -> u64 {
        self.lock().suppressed
    }
}

/// Logs what a process says until it says no more.
pub(super) async fn log(
    program: Arc<Program>,
    pid: u32,
    current: Arc<Current>,
    mut pipe: impl AsyncRead + Unpin,
) {
    let mut chunk = vec![0; CHUNK];
    let mut lines = Lines::default();
    let say = |line: &str, is_cut: bool| {
        if program.stderr.admits(Instant::now()) {
            let current = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let task = current.as_ref().map(|task| task.id().as_str());
            info!(
                category = "program",
                program = program.name(),
                pid,
                task,
                line,
                is_cut,
                "stderr"
            );
        }
    };
    loop {
        match pipe.read(&mut chunk).await {
            Ok(0) => return lines.end(say),
            Ok(read) => lines.push(&chunk[..read], say),
            Err(error) => {
                return debug!(category = "program", program = program.name(), pid, %error, "stderr");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let mut lines = Lines::default();
        let mut said = Vec::new();
        let mut say = |line: &str, is_cut: bool| said.push((line.to_owned(), is_cut));
        lines.push(b"one\n\ntw", &mut say);
        lines.push(b"o\n", &mut say);
        lines.push(&[b'x'; MAX_LINE], &mut say);
        lines.push(b"yyy", &mut say);
        lines.push(b"\nlast", &mut say);
        lines.end(&mut say);
        let long = ("x".repeat(MAX_LINE), true);
        let plain = |text: &str| (text.to_owned(), false);
        assert_eq!(said, [plain("one"), plain("two"), long, plain("last")]);
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_counted() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!((0..BURST + 7).filter(|_| throttle.admits(start)).count() as u64, BURST);
        assert_eq!(throttle.suppressed(), 7);
        assert!(throttle.admits(start + WINDOW));
    }
}
