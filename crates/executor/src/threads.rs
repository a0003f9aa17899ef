//! The threads of the slots: on each of them a slot starts its processes, reads what they print and waits
//! for their ends.
//!
//! Nothing of a task crosses threads between its start and its end. A start blocks its thread until the
//! program is loaded, which may take long where files are on another machine: so a slot shares its
//! thread with no other.

use std::{io, thread};

use crate::reactor::{Alarm, block_on};

/// Starts a thread for `slot`, which ends with it.
pub(crate) fn start(
    number: usize,
    slot: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let alarm = Alarm::new()?;
    let name = format!("drakkar-slot-{number}");
    thread::Builder::new().name(name).spawn(move || block_on(&alarm, slot)).map(drop)
}
