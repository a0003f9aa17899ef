//! `drakkar dlq`: looks at dead letters, and sends them back.
//!
//! Nothing here is a member of a group, so no worker notices. Letters are read up to where the topic
//! ends when the command begins; a letter that comes later is for the next run. Kafka cannot delete
//! single records: the topic is only ever read.

mod args; // what can be asked for
mod connect; // configuration -> clients
mod read; // a topic -> its records up to its end
mod letter; // a record -> what was given up, and why
mod filter; // which letters are meant
mod show; // list, show: letters for people and machines
mod stats; // how many of what
mod fate; // whether a letter goes back, is parked, or cannot be
mod send; // records -> brokers -> confirmed
mod parked; // which letters are in the parking topic
mod once; // which messages were sent
mod stop; // SIGINT, SIGTERM
mod progress; // how far a replay came
mod pace; // at most so many per second
mod bar; // a line for who watches
mod pass; // each letter its fate, confirmed in batches
mod to_topic; // messages to their topics, letters to where they are parked
mod replay; // replay: letters back to their topic
mod to_sink; // replay --to-sink: refused payloads to their sinks
mod park; // park: letters out of the way

use std::{io, process::ExitCode};

pub(crate) use args::DlqCommand;
use drakkar::ConfigError;

use crate::say::say;

/// Exit code for what was asked for wrongly; clap has the same.
const USAGE: u8 = 2;

/// Exit code after SIGINT or SIGTERM.
const INTERRUPTED: u8 = 130;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It did what was asked for.
    Done,
    /// It did, except for letters that it has named.
    Partly,
    /// It was asked to stop.
    Interrupted,
}

/// Asked for wrongly: nothing was begun.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs one of the commands.
pub(crate) fn run(command: &DlqCommand) -> ExitCode {
    let ended = match command {
        DlqCommand::List(args) => show::list(args),
        DlqCommand::Show(args) => show::show(args),
        DlqCommand::Stats(args) => stats::stats(args),
        DlqCommand::Replay(args) => replay::replay(args),
        DlqCommand::Park(args) => park::park(args),
    };
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Partly) => ExitCode::FAILURE,
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("drakkar: {error:#}"));
            let is_usage = error.is::<Usage>() || error.is::<ConfigError>();
            if is_usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether the reader of our output has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
