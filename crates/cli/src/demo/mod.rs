//! `drakkar demo`: a real worker, a broker inside of this process, and an account of every message.
//!
//! The worker is the one users run; only its broker is embedded. What is printed at the end is read
//! back from the sinks and asked from the broker, not taken from the worker's own counters.

mod input; // what is sent, and what must become of it
mod broker; // where it is sent
mod feed; // who sends it, and how fast
mod handler; // what the worker does with it
mod reader; // who reads the sinks back
mod books; // the account of every message
mod progress; // one line while it runs
mod summary; // what is printed at the end
mod run; // all of it together

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use input::Plan;

/// What can be asked of the demo.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many messages to send.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    messages: u64,
    /// Send no more than this many messages per second; unlimited if not given.
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Keep the directory with the result file and the worker's log.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; the exit code is 0 only if the books balance.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args.messages).map_err(anyhow::Error::msg)?;
    if args.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        bail!("--rate must be more than 0");
    }
    let directory = tempfile::Builder::new()
        .prefix("drakkar-demo-")
        .tempdir()
        .context("no directory to work in")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ending = runtime.block_on(run::run(plan, args.rate, directory.path()))?;
    drop(runtime);
    if args.keep || ending == run::Ending::Unbalanced {
        println!("Results and logs are kept in {}", directory.keep().display());
    }
    Ok(match ending {
        run::Ending::Balanced => ExitCode::SUCCESS,
        run::Ending::Unbalanced => ExitCode::FAILURE,
        run::Ending::Aborted => ExitCode::from(130),
    })
}

/// `count` with its thousands apart.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let groups = [&digits[..first]]
        .into_iter()
        .chain((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 999, 1_000, 20_000, 1_234_567].map(super::number);
        assert_eq!(shown, ["0", "999", "1 000", "20 000", "1 234 567"]);
    }
}
