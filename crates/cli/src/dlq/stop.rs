//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::INTERRUPTED;

/// Whether to stop.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens from now on.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let stop = Self(Arc::new(AtomicBool::new(false)));
        let told = stop.clone();
        let listen = async move {
            for is_second in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if is_second {
                    // What is under way is repeated by the next run.
                    std::process::exit(i32::from(INTERRUPTED));
                }
                told.0.store(true, Ordering::Relaxed);
            }
        };
        let named = thread::Builder::new().name("signals".to_owned());
        named.spawn(move || runtime.block_on(listen)).context("cannot listen to signals")?;
        Ok(stop)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
