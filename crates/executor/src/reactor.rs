//! Drives one future on a thread that has nothing else to do: while the future waits, the thread sleeps in
//! one `poll(2)` over whatever the future waits for.
//!
//! No time is up before it was looked what had happened until then: with a busy machine the thread may
//! come late, and what a program did in time it did in time.
//!
//! A slot needs a handful of descriptors and one deadline for a few milliseconds. To register and remove
//! them with a runtime costs more than to name them anew before every sleep.
//!
//! [`sleep`], [`timeout`] and [`Watched`] work wherever they are awaited: on a thread of ours, and on the
//! runtime, where persistent programs and tests with played programs live. What was made on a thread
//! stays there.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{OFlags, fcntl_setfl},
    io::Errno,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};
use tracing::warn;

thread_local! {
    /// What the future of this thread waits for; `None` on threads of others.
    static AWAITED: RefCell<Option<Awaited>> = const { RefCell::new(None) };
}

struct Awaited {
    /// Before the last sleep: what had happened by then is known.
    looked: Instant,
    /// Named since the last sleep.
    descriptors: Vec<(Arc<Descriptor>, PollFlags)>,
    until: Option<Instant>,
    /// What the last sleep has brought, until somebody takes it.
    ready: Vec<(u64, PollFlags)>,
}

/// A descriptor with a number that no other one had or will have: the system gives its own numbers again.
#[derive(Debug)]
pub(crate) struct Descriptor {
    id: u64,
    owned: OwnedFd,
    /// In a row, without a look at anything else.
    reads: AtomicU8,
}

/// Reads in a row: more than the widest pipe holds, so that what a program left behind is read at once.
const MOST_READS: u8 = 128;

/// Drives `future` to its end.
pub(crate) fn block_on<T>(alarm: &Arc<Alarm>, future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::clone(alarm));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    AWAITED.set(Some(Awaited::new()));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            AWAITED.set(None);
            return output;
        }
        // Taken out, not borrowed: nothing that goes wrong below can reach it.
        let Some(mut awaited) = AWAITED.take() else { continue };
        awaited.wait(alarm);
        AWAITED.set(Some(awaited));
    }
}

impl Awaited {
    fn new() -> Self {
        Self { looked: Instant::now(), descriptors: Vec::new(), until: None, ready: Vec::new() }
    }

    /// Sleeps until something of it happens, or the alarm rings.
    fn wait(&mut self, alarm: &Alarm) {
        self.ready.clear();
        let until = self.until.take();
        self.looked = Instant::now();
        // Too long a time for the system is no time limit.
        let left = until.map(|until| until.saturating_duration_since(self.looked));
        let time = if alarm.goes_to_sleep() { left } else { Some(Duration::ZERO) };
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        let mut descriptors: Vec<PollFd<'_>> = Vec::with_capacity(1 + self.descriptors.len());
        descriptors.push(PollFd::new(&alarm.bell, PollFlags::IN));
        let named = self.descriptors.iter().map(|(one, events)| PollFd::new(&one.owned, *events));
        descriptors.extend(named);
        match poll(&mut descriptors, time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                warn!(category = "executor", %error, "cannot wait for a process; again soon");
                thread::sleep(Duration::from_millis(10));
            }
        }
        alarm.wakes_up(!descriptors[0].revents().is_empty());
        let happened = descriptors[1..].iter().map(PollFd::revents);
        let ids = self.descriptors.iter().map(|(one, _)| one.id);
        self.ready.extend(ids.zip(happened).filter(|(_, events)| !events.is_empty()));
        // Or what is dropped from now on would be closed late.
        self.descriptors.clear();
    }

    fn poll(&mut self, one: &Arc<Descriptor>, events: PollFlags) -> Poll<()> {
        let wanted = events | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let is_it =
            |(id, happened): &(u64, PollFlags)| *id == one.id && happened.intersects(wanted);
        if let Some(at) = self.ready.iter().position(is_it) {
            self.ready.swap_remove(at);
            return Poll::Ready(());
        }
        self.descriptors.push((Arc::clone(one), events));
        Poll::Pending
    }
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const RUNG: u8 = 2;

/// Wakes the thread of a [`block_on`].
pub(crate) struct Alarm {
    state: AtomicU8,
    bell: OwnedFd,
}

impl Alarm {
    /// An alarm for one thread.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { state: AtomicU8::new(AWAKE), bell }))
    }

    /// `false`: it has rung since the last sleep.
    fn goes_to_sleep(&self) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let slept = self.state.compare_exchange(AWAKE, ASLEEP, success, failure).is_ok();
        if !slept {
            self.state.swap(AWAKE, Ordering::AcqRel);
        }
        slept
    }

    fn wakes_up(&self, is_bell: bool) {
        self.state.swap(AWAKE, Ordering::AcqRel);
        // Silent already, at worst: it may ring once more for nothing.
        if is_bell
            && let Err(error) = rustix::io::read(&self.bell, &mut [0; 8])
            && error != Errno::AGAIN
        {
            warn!(category = "executor", %error, "cannot silence an alarm");
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP
            && let Err(error) = rustix::io::write(&self.bell, &1_u64.to_ne_bytes())
        {
            warn!(category = "executor", %error, "cannot wake a slot");
        }
    }
}

fn is_ours() -> bool {
    AWAITED.with_borrow(Option::is_some)
}

/// Waits for so long.
pub(crate) async fn sleep(time: Duration) {
    if !is_ours() {
        return tokio::time::sleep(time).await;
    }
    // What is too far away never comes.
    let until = Instant::now().checked_add(time);
    poll_fn(|_| {
        AWAITED.with_borrow_mut(|awaited| {
            let (Some(awaited), Some(until)) = (awaited, until) else { return Poll::Pending };
            if until <= awaited.looked {
                return Poll::Ready(());
            }
            awaited.until = Some(awaited.until.map_or(until, |other| other.min(until)));
            Poll::Pending
        })
    })
    .await;
}

/// What `future` answers, unless that takes longer than `time`.
pub(crate) async fn timeout<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        answer = future => Some(answer),
        () = sleep(time) => None,
    }
}

/// A descriptor that can be waited for, on the thread where it was made or on the runtime.
pub(crate) enum Watched {
    Here(Arc<Descriptor>),
    Runtime(AsyncFd<OwnedFd>),
}

impl Watched {
    /// Something that does not block.
    pub(crate) fn new(owned: OwnedFd) -> io::Result<Self> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        if is_ours() {
            let (id, reads) = (IDS.fetch_add(1, Ordering::Relaxed), AtomicU8::new(0));
            return Ok(Self::Here(Arc::new(Descriptor { id, owned, reads })));
        }
        Ok(Self::Runtime(watch(owned)?))
    }

    /// Our end of a pipe.
    pub(crate) fn pipe(owned: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&owned, OFlags::NONBLOCK)?;
        Self::new(owned)
    }

    /// Waits until there is something to read, or to be told.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Here(one) => {
                happens(one, PollFlags::IN).await;
                Ok(())
            }
            Self::Runtime(one) => one.readable().await.map(drop),
        }
    }

    /// Reads what there is; 0 at the end.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Here(one) => loop {
                let reads = one.reads.load(Ordering::Relaxed);
                if reads == 0 || reads == MOST_READS {
                    // Whatever it is: the kernel may say that all writers are gone and keep silent about what
                    // they wrote just before. Only an empty read is the end.
                    happens(one, PollFlags::IN).await;
                    one.reads.store(0, Ordering::Relaxed);
                }
                match rustix::io::read(&one.owned, &mut *buffer) {
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => one.reads.store(0, Ordering::Relaxed),
                    read => {
                        one.reads.fetch_add(1, Ordering::Relaxed);
                        return Ok(read?);
                    }
                }
            },
            Self::Runtime(one) => {
                let read = |owned: &OwnedFd| Ok(rustix::io::read(owned, &mut *buffer)?);
                one.async_io(Interest::READABLE, read).await
            }
        }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Here(one) => match rustix::io::write(&one.owned, bytes) {
                    Err(Errno::AGAIN) => {
                        happens(one, PollFlags::OUT).await;
                        0
                    }
                    Err(Errno::INTR) => 0,
                    written => written?,
                },
                Self::Runtime(one) => {
                    let write = |owned: &OwnedFd| Ok(rustix::io::write(owned, bytes)?);
                    one.async_io(Interest::WRITABLE, write).await?
                }
            };
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Here(one) => one.owned.as_fd(),
            Self::Runtime(one) => one.get_ref().as_fd(),
        }
    }
}

async fn happens(one: &Arc<Descriptor>, events: PollFlags) {
    poll_fn(|_| {
        AWAITED.with_borrow_mut(|awaited| match awaited {
            Some(awaited) => awaited.poll(one, events),
            None => {
                debug_assert!(false, "waited for on the thread of somebody else");
                Poll::Pending
            }
        })
    })
    .await;
}

#[expect(
    deprecated,
    reason = "its successor is `unsafe`, for types that may close their descriptor; an `OwnedFd` cannot"
)]
fn watch(owned: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(owned)
}

#[cfg(test)]
mod tests;
