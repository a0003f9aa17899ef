//! What workers that were killed may have done in vain: the only duplicates that a crash excuses.

use std::collections::BTreeMap;

use crate::{worker::WorkerProcess, world::World};

/// The crashes of one test.
#[derive(Default)]
pub struct Crashes(Vec<(String, BTreeMap<i32, i64>)>);

impl Crashes {
    /// Kills `worker`, and remembers what is committed just before.
    pub fn kill(&mut self, world: &World, worker: &mut WorkerProcess) {
        self.0.push((worker.id.clone(), world.commits()));
        worker.kill();
    }

    /// Asserts that nothing is lost, and that no more came out twice than those who were killed had answered
    /// without a commit of it.
    ///
    /// They are looked for now: a broker may still have been reading what they wrote when they died.
    #[track_caller]
    pub fn balance(self, world: &World) {
        let books = world.books();
        let most = self.0.iter().map(|(worker, committed)| books.open_of(worker, committed)).sum();
        let why = format!("crashes had answered {most} messages that were not committed");
        books.balance_with(most, &why);
    }
}
