//! What can be asked for on the command line.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::filter::{Equal, When};

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// Print one line per dead letter.
    List(List),
    /// Print everything about one dead letter.
    Show(Show),
    /// Count dead letters by stage, class, sink, topic and hour.
    Stats(Stats),
    /// Send letters back to the topics they came from, from where the last replay stopped.
    ///
    /// Key, value, headers and timestamp are those of the original message; the header
    /// `drakkar-replays` is added and counts. Exits with 0 when everything was sent, 1 when something
    /// was not, 2 when asked for wrongly, 130 when interrupted.
    Replay(Replay),
    /// Copy letters to the parking topic, so that replay leaves them out.
    ///
    /// They stay in the dead-letter topic: Kafka cannot delete single records.
    Park(Park),
}

/// Where the letters are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Configuration file of the worker; DRAKKAR_ variables win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Bootstrap servers, instead of those of the configuration.
    #[arg(long)]
    pub brokers: Option<String>,
    /// Dead-letter topic, instead of that of the configuration.
    #[arg(long)]
    pub topic: Option<String>,
    /// How long brokers may be silent before the command gives up: 30s, 2m, or a number of seconds.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

/// A time span as people write it; a number alone is seconds, as in the configuration.
fn duration(text: &str) -> Result<Duration, String> {
    let advised = |wrong: &dyn std::fmt::Display| {
        Err(format!("{wrong}; write 30s, 2m, or a number of seconds"))
    };
    let read = text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text));
    match read {
        Ok(Duration::ZERO) => advised(&"nobody answers in no time"),
        Ok(duration) => Ok(duration),
        Err(error) => advised(&error),
    }
}

/// Which letters are meant: those that match everything that is given. An option that is given more
/// than once matches any of its values, except for --header and --json, which must all match.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Choice {
    /// Error class (`exit_code`, `timeout`, ...).
    #[arg(long)]
    pub class: Vec<String>,
    /// Stage (`decode`, `execute`, `deliver`, ...).
    #[arg(long)]
    pub stage: Vec<String>,
    /// Sink that refused (kafka/results). With --to-sink: only payloads for this sink are delivered.
    #[arg(long)]
    pub sink: Vec<String>,
    /// Given up at or after this: 2026-11-21T13:00:00Z, 2026-11-21, or 2h (ago).
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// Given up before this.
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
    /// Partition of the dead-letter topic.
    #[arg(long)]
    pub partition: Vec<i32>,
    /// Key of the message, as it is or as `show` prints it.
    #[arg(long)]
    pub key: Vec<String>,
    /// A header with this value, as it is or as `show` prints it.
    #[arg(long, value_name = "NAME=VALUE")]
    pub header: Vec<Equal>,
    /// The value of the message is JSON with this at a pointer (/user/id=42).
    #[arg(long, value_name = "POINTER=VALUE", value_parser = Equal::at_pointer)]
    pub json: Vec<Equal>,
}

/// For people or for machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub place: Place,
    /// Stop after so many letters.
    #[arg(long)]
    pub limit: Option<u64>,
    /// For people or for machines.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    #[command(flatten)]
    pub choice: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Where it is, as `list` prints it: PARTITION:OFFSET or TOPIC:PARTITION:OFFSET.
    pub coordinates: String,
    #[command(flatten)]
    pub place: Place,
    /// For people or for machines.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub place: Place,
    /// For people or for machines.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    #[command(flatten)]
    pub choice: Choice,
}

/// How much is sent, and how fast.
#[derive(Debug, Args)]
pub(crate) struct Pace {
    /// Letters per second, at most.
    #[arg(long, value_name = "N")]
    pub rate: Option<NonZeroU32>,
    /// Stop after so many letters.
    #[arg(long)]
    pub limit: Option<u64>,
    /// Print what would be sent where, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

impl Pace {
    /// What stands before what was done, where it only would be.
    pub(super) fn would(&self) -> &'static str {
        if self.dry_run { "would be " } else { "" }
    }
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option by itself")]
pub(crate) struct Replay {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub pace: Pace,
    /// Send to this topic instead of the ones the messages came from.
    #[arg(long, value_name = "TOPIC")]
    pub to: Option<String>,
    /// Give messages the time at which they are sent, instead of their own.
    #[arg(long)]
    pub now: bool,
    /// Deliver the payloads that sinks refused to these sinks, without running a task again. The sinks
    /// are those of --config. Stops at the first that is refused again.
    #[arg(long, requires = "config", conflicts_with_all = ["to", "max_replays", "now"])]
    pub to_sink: bool,
    /// With --to-sink: name what is refused again or cannot be read, and go on. A sink that is down stops it.
    #[arg(long, requires = "to_sink")]
    pub keep_going: bool,
    /// A message that was replayed so often is parked. 0 parks everything.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub max_replays: u32,
    /// Parking topic. Default: the dead-letter topic with `_parked` behind it.
    #[arg(long, value_name = "TOPIC")]
    pub park_to: Option<String>,
    /// Progress is kept as the committed offsets of the group `drakkar-replay.NAME`. Default: the
    /// dead-letter topic; with --to-sink, that and `.to-sink`.
    #[arg(long)]
    pub name: Option<String>,
    /// Begin at the first letter, wherever the last replay of that name stopped.
    #[arg(long)]
    pub restart: bool,
    #[command(flatten)]
    pub choice: Choice,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_field_names, reason = "each is an option of that name")]
pub(crate) struct Park {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub pace: Pace,
    /// Parking topic. Default: the dead-letter topic with `_parked` behind it.
    #[arg(long, value_name = "TOPIC")]
    pub park_to: Option<String>,
    #[command(flatten)]
    pub choice: Choice,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_span_without_a_unit_is_seconds() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "soon", "30 parsecs", "-1", "0", "0s"] {
            let error = duration(wrong).unwrap_err();
            assert!(error.contains("write 30s"), "{wrong:?}: {error}");
        }
    }
}
