//! One line that is redrawn while the demo runs; where nobody watches, a plain line now and then.

use std::{
    collections::VecDeque,
    fs,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use tokio::time::Instant;

use super::{books::Standing, number};

/// How often a plain line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// The rate shown is that of the last so many looks.
const LOOKS: usize = 20;

/// Characters of the bar.
const BAR: usize = 12;

/// The line.
pub(crate) struct Progress {
    total: u64,
    is_terminal: bool,
    looks: VecDeque<(Instant, u64)>,
    plain_due: Instant,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { total, is_terminal, looks: VecDeque::new(), plain_due: Instant::now() }
    }

    /// Shows where the run stands.
    pub(crate) fn show(&mut self, standing: Standing) {
        let now = Instant::now();
        self.looks.push_back((now, standing.done));
        if LOOKS < self.looks.len() {
            self.looks.pop_front();
        }
        if !self.is_terminal {
            if now < self.plain_due {
                return;
            }
            self.plain_due = now + PLAIN_EVERY;
        }
        let rate = self.rate();
        self.write(&line(standing, self.total, rate, running()));
    }

    /// Says something that stays.
    pub(crate) fn say(&self, text: &str) {
        self.write(text);
        if self.is_terminal {
            write_raw("\n");
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        if self.is_terminal {
            write_raw("\r\x1b[K");
        }
    }

    fn rate(&self) -> f64 {
        match (self.looks.front(), self.looks.back()) {
            (Some((from, before)), Some((to, now))) if from < to => {
                #[allow(clippy::cast_precision_loss)] // Far below 2^52.
                let count = (now - before) as f64;
                count / (*to - *from).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn write(&self, line: &str) {
        if self.is_terminal {
            write_raw(&format!("\r\x1b[K{line}"));
        } else {
            write_raw(&format!("{line}\n"));
        }
    }
}

fn write_raw(text: &str) {
    let mut out = io::stderr().lock();
    // Whoever closed our standard error does not want to see it.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Fits into 80 columns.
fn line(standing: Standing, total: u64, rate: f64, running: Option<usize>) -> String {
    let Standing { done, letters, .. } = standing;
    if done == 0 {
        return "joining the group (takes about 3 s) ...".to_owned();
    }
    let filled = usize::try_from(BAR as u64 * done / total.max(1)).unwrap_or(BAR);
    let bar = format!("{:<BAR$}", "#".repeat(filled));
    let running = running.map_or(String::new(), |count| format!(" | {count} running"));
    let dead = if letters == 1 { "dead letter" } else { "dead letters" };
    format!(
        "[{bar}] {}/{} | {rate:.0} msg/s{running} | {} {dead}",
        number(done),
        number(total),
        number(letters)
    )
}

/// Children of this process; `None` where the kernel does not tell.
fn running() -> Option<usize> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let children = |thread: io::Result<fs::DirEntry>| -> Option<usize> {
        let pids = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        Some(pids.split_whitespace().count())
    };
    // A thread may have ended meanwhile; where the kernel tells nothing, no thread has the file.
    let counts: Vec<usize> = threads.filter_map(children).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_how_far_and_how_fast_and_what_was_given_up() {
        let standing = Standing { sent: 12_000, done: 10_000, letters: 7 };
        assert_eq!(
            line(standing, 20_000, 1_999.6, Some(4)),
            "[######      ] 10 000/20 000 | 2000 msg/s | 4 running | 7 dead letters"
        );
        let first = line(Standing { letters: 1, ..standing }, 20_000, 1_999.6, Some(4));
        assert!(first.ends_with(" | 1 dead letter"), "{first}");
    }

    #[test]
    fn before_the_first_result_it_says_what_is_waited_for() {
        let standing = Standing { sent: 4_000, done: 0, letters: 0 };
        assert!(line(standing, 20_000, 0.0, None).starts_with("joining the group"));
    }
}
