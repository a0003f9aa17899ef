//! What the demo prints at its end: the closed books in words.

use std::{fmt, time::Duration};

use super::{
    books::{Balance, Fault, Position, Tasks},
    broker::{DEAD_LETTERS, RESULTS},
    handler::RESULTS_FILE,
    number,
};

/// Ids that are named; the rest is counted.
const NAMED: usize = 20;

/// The closed books, with how long it took.
pub(crate) struct Summary<'a> {
    pub(crate) balance: &'a Balance,
    /// Messages per second, from the first message the worker was handed to the last outcome.
    pub(crate) rate: f64,
    /// How long the whole run took.
    pub(crate) took: Duration,
    /// Most resident memory of this process, in bytes.
    pub(crate) peak: Option<u64>,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance { planned, records, lines, letters, duplicates, lost, .. } = self.balance;
        let consumed = self.balance.consumed();
        row(f, "consumed", consumed, format_args!("of {} messages", number(*planned)))?;
        self.committed(f)?;
        self.tasks(f)?;
        row(f, "delivered", *records, format_args!("records to the topic {RESULTS}"))?;
        row(f, "", *lines, format_args!("lines to the file {RESULTS_FILE}"))?;
        let dead: u64 = letters.values().sum();
        row(f, "dead-lettered", dead, format_args!("to the topic {DEAD_LETTERS}, because of"))?;
        for (class, count) in letters {
            row(f, "", *count, format_args!("  {class}{}", meaning(class)))?;
        }
        row(f, "duplicates", *duplicates, format_args!(""))?;
        if self.balance.unfinished > 0 {
            let meaning = "neither finished nor committed: the next worker would process them";
            row(f, "unfinished", self.balance.unfinished, format_args!("{meaning}"))?;
        }
        row(f, "lost", lost.len() as u64, format_args!(""))?;
        row(f, "speed", whole(self.rate), format_args!("messages/s, one process each"))?;
        row(f, "time", self.took.as_secs(), format_args!("s, joining the group included"))?;
        if let Some(peak) = self.peak {
            row(f, "peak memory", peak >> 20, format_args!("MiB, embedded broker included"))?;
        }
        self.verdict(f)
    }
}

impl Summary<'_> {
    fn committed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions = &self.balance.positions;
        let ends: i64 = positions.iter().map(|at| at.end).sum();
        let at_end = positions.iter().filter(|at| at.committed == at.end).count();
        let (what, count) = ("partitions committed to their end", positions.len());
        let ends = number(u64::try_from(ends).unwrap_or(0));
        let is_at_end = |Position { committed, end, .. }: &Position| committed == end;
        let sign = if positions.iter().all(is_at_end) { "=" } else { "of" };
        row(
            f,
            "committed",
            self.balance.consumed(),
            format_args!("{sign} end offsets {ends} ({at_end} of {count} {what})"),
        )
    }

    fn tasks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tasks { at_once, retried, cut, precomputed } = self.balance.tasks;
        row(f, "tasks", at_once, format_args!("answered by their first run"))?;
        row(f, "", retried, format_args!("answered after a retry"))?;
        row(f, "", cut, format_args!("answered, output beyond the capture limit dropped"))?;
        row(f, "", precomputed, format_args!("answered without a run (tombstone)"))?;
        // An invalid message has no task.
        let failed = self.balance.letters.iter().filter(|(class, _)| *class != "invalid_value");
        row(f, "", failed.map(|(_, count)| count).sum(), format_args!("failed for good"))
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance { lost, faults, duplicates, .. } = self.balance;
        if self.balance.is_balanced() {
            return write!(f, "\nThe books balance: lost 0, duplicates {duplicates}.");
        }
        write!(f, "\nTHE BOOKS DO NOT BALANCE: lost {}, faults {}.", lost.len(), faults.len())?;
        if !lost.is_empty() {
            let ids: Vec<String> = lost.iter().take(NAMED).map(u64::to_string).collect();
            let more = if NAMED < lost.len() { " ..." } else { "" };
            write!(f, "\n  lost messages: {}{more}", ids.join(", "))?;
        }
        for Fault { id, what } in faults.iter().take(NAMED) {
            match id {
                Some(id) => write!(f, "\n  message {id}: {what}")?,
                None => write!(f, "\n  {what}")?,
            }
        }
        Ok(())
    }
}

fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    count: u64,
    what: fmt::Arguments<'_>,
) -> fmt::Result {
    let line = format!("  {name:<14}{:>10} {what}", number(count));
    writeln!(f, "{}", line.trim_end())
}

/// What a class of the demo's own making stands for.
fn meaning(class: &str) -> &'static str {
    match class {
        "exit_code" => " (every attempt exited with 3)",
        "timeout" => " (hung and were ended; one of them ignored TERM)",
        "invalid_value" => " (not JSON)",
        _ => "",
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A rate; saturates.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn balance() -> Balance {
        Balance {
            planned: 1_000,
            sent: 1_000,
            records: 988,
            lines: 987,
            letters: BTreeMap::from([("timeout".to_owned(), 4), ("invalid_value".to_owned(), 3)]),
            tasks: Tasks { at_once: 979, retried: 5, cut: 3, precomputed: 1 },
            positions: vec![Position { partition: 0, committed: 1_000, end: 1_000 }],
            duplicates: 0,
            unfinished: 0,
            lost: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn shown(balance: &Balance) -> String {
        let took = Duration::from_secs(9);
        Summary { balance, rate: 1_800.4, took, peak: Some(90 << 20) }.to_string()
    }

    #[test]
    fn a_good_run_says_what_was_read_back() {
        let text = shown(&balance());
        for line in [
            "  consumed           1 000 of 1 000 messages\n",
            "  committed          1 000 = end offsets 1 000 (1 of 1 partitions committed to their end)\n",
            "                         4 failed for good\n",
            "                         3   invalid_value (not JSON)\n",
            "  lost                   0\n",
            "  peak memory           90 MiB, embedded broker included\n",
            "The books balance: lost 0, duplicates 0.",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn a_bad_run_names_the_messages() {
        let fault = Fault { id: Some(7), what: "was dead-lettered because of io".to_owned() };
        let text = shown(&Balance { lost: (0..30).collect(), faults: vec![fault], ..balance() });
        assert!(text.contains("THE BOOKS DO NOT BALANCE: lost 30, faults 1."), "{text}");
        assert!(text.contains("lost messages: 0, 1, 2,") && text.contains("19 ..."), "{text}");
        assert!(text.contains("message 7: was dead-lettered because of io"), "{text}");
    }
}
