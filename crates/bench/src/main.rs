//! Measures ours beside a reference, in turns, in one run.
//!
//! A machine is never as fast as it was yesterday, so an absolute time says little: the result is the
//! ratio. Every round runs both sides, the order changes from round to round, and what is printed is
//! the median of the ratios with their range. A reference is written as its best user would write it.

mod report; // ratios, the table, JSON
mod executor; // the process pool beside bare loops

use std::{num::NonZeroUsize, process::ExitCode};

use clap::{Parser, Subcommand};

use report::Figure;

/// Measures ours beside a reference, in turns, in one run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
    /// Print one JSON object per figure instead of a table.
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
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { suite, json, rounds } = Arguments::parse();
    let figures = match suite {
        Suite::Executor => executor::measure(rounds)?,
    };
    if json {
        report::print_json(&figures)?;
    } else {
        report::print_table(&figures);
    }
    let passed = figures.iter().all(Figure::passes);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
