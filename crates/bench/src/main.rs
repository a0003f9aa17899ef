//! Measures ours beside a reference, in turns, in one run.
//!
//! A machine is never as fast as it was yesterday, so an absolute time says little: the result is the
//! ratio. Every round runs both sides, the order changes from round to round, and what is printed is
//! the median of the ratios with their range. A reference is written as its best user would write it.

mod report; // ratios, the table, JSON
mod usage; // processor time and memory of this process
mod executor; // the process pool beside bare loops
mod persistent; // programs that stay beside one process per task
mod broker; // a Kafka broker inside this process, filled
mod bare; // what a careful user would write without us
mod ours; // a worker, started and stopped
mod stuck; // behind an offset that does not settle
mod memory; // much lag beside little
mod latency; // end to end at a fixed rate
mod pipeline; // a worker beside it, broker to committed offset
mod sinks; // a worker that writes rows beside a loop that does

use std::{num::NonZeroUsize, process::ExitCode};

use clap::{Parser, Subcommand};

use report::Figure;

/// Measures ours beside a reference, in turns, in one run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
    /// Print one JSON object per figure instead of a table and its notes.
    #[arg(long, global = true)]
    json: bool,
    /// How often every side is measured.
    #[arg(long, global = true, default_value = "5")]
    rounds: NonZeroUsize,
}

#[derive(Subcommand)]
enum Suite {
    /// The process pool beside bare loops that spawn.
    Executor,
    /// Echoes frames: the program of a measurement, not for people.
    #[command(hide = true, name = persistent::ECHO)]
    Echo,
    /// A worker beside bare loops, from the broker to the committed offset.
    Pipeline(pipeline::Rows),
    /// A worker that writes rows beside loops that do, against the servers of `integration/services up`.
    Sinks(sinks::Rows),
    /// The worker whose memory is measured; the suite starts it.
    #[command(hide = true)]
    LagWorker(memory::Measured),
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { suite, json, rounds } = Arguments::parse();
    let (figures, notes) = match suite {
        Suite::Echo => {
            persistent::echo()?;
            return Ok(ExitCode::SUCCESS);
        }
        Suite::Executor => (executor::measure(rounds)?, Vec::new()),
        Suite::Pipeline(rows) => pipeline::measure(rounds, &rows)?,
        Suite::Sinks(rows) => sinks::measure(rounds, &rows)?,
        Suite::LagWorker(measured) => {
            memory::run(measured)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if json {
        report::print_json(&figures)?;
    } else {
        report::print_table(&figures);
        for note in notes {
            println!("{note}");
        }
    }
    let passed = figures.iter().all(Figure::passes);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
