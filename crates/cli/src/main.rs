//! The `drakkar` command.
//!
//! `demo` shows a worker at work on a machine that has nothing but Rust; `check` shows what a
//! configuration file means; `dlq` looks at dead letters and sends them back. Workers themselves are binaries of their users: they link the library.

mod say; // words for people, who may be gone
mod check; // what a configuration means
mod dlq; // dead letters: looked at, sent back, parked
mod demo; // a worker, a broker and an account of every message

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Runs programs on Kafka messages and loses none of them.
#[derive(Debug, Parser)]
#[command(name = "drakkar", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a real worker against an embedded broker, with tasks that fail, hang and print too much,
    /// and account for every message by reading the sinks back.
    ///
    /// Exits with 1 if the books do not balance.
    Demo(demo::DemoArgs),
    /// Show the configuration in effect, with secrets masked and where each value came from.
    ///
    /// Exits with 2 if the configuration is wrong.
    Check {
        /// The YAML file a worker would read; DRAKKAR_ variables win over it.
        config: PathBuf,
    },
    /// Look at dead letters, send them back, park them.
    Dlq {
        #[command(subcommand)]
        command: Box<dlq::DlqCommand>,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args).unwrap_or_else(|error| {
            say::say(&format!("drakkar: {error:#}"));
            ExitCode::FAILURE
        }),
        Command::Check { config } => check::run(&config),
        Command::Dlq { command } => dlq::run(&command),
    }
}
