//! What a thread of ours does while it waits: sleep until something happens, and miss nothing.

use std::{
    os::fd::OwnedFd,
    sync::{Barrier, mpsc},
};

use tokio::sync::{Notify, oneshot};

use super::*;

/// Longer than anything that is awaited here takes.
const LONG: Duration = Duration::from_secs(30);

fn on_thread<T>(future: impl Future<Output = T>) -> T {
    block_on(&Alarm::new().unwrap(), future)
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), writer.into())
}

#[test]
fn a_thread_sleeps_as_long_as_its_future_and_no_longer_than_the_shortest_of_two() {
    let (short, began) = (Duration::from_millis(30), Instant::now());
    let first = on_thread(async {
        tokio::select! {
            () = sleep(LONG) => "long",
            () = sleep(short) => "short",
        }
    });
    assert_eq!(first, "short");
    assert!(began.elapsed() >= short && began.elapsed() < LONG);
    assert_eq!(on_thread(timeout(Duration::MAX, async { 7 })), Some(7));
}

#[test]
fn a_wake_up_from_another_thread_is_not_missed_whenever_it_comes() {
    const ROUNDS: usize = 2_000;
    let (there, back) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (their_there, their_back) = (Arc::clone(&there), Arc::clone(&back));
    let other = thread::spawn(move || {
        on_thread(async {
            for _ in 0..ROUNDS {
                their_there.notified().await;
                their_back.notify_one();
            }
        });
    });
    let played = on_thread(timeout(LONG, async {
        for _ in 0..ROUNDS {
            there.notify_one();
            back.notified().await;
        }
    }));
    assert_eq!(played, Some(()), "somebody sleeps on");
    other.join().unwrap();
}

#[test]
fn what_is_written_is_read_and_the_end_is_seen_while_something_else_is_awaited() {
    let ((reader, ours), (theirs, writer)) = (pipe(), pipe());
    let echo = thread::spawn(move || {
        io::copy(&mut std::fs::File::from(reader), &mut std::fs::File::from(writer)).unwrap()
    });
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let received = on_thread(async {
        let write = async { Watched::pipe(ours)?.write_all(&sent).await };
        let read = async {
            let (theirs, mut buffer) = (Watched::pipe(theirs)?, vec![0; 60_000]);
            let mut received = Vec::new();
            loop {
                match theirs.read(&mut buffer).await? {
                    0 => return io::Result::Ok(received),
                    count => received.extend_from_slice(&buffer[..count]),
                }
            }
        };
        timeout(LONG, async { tokio::try_join!(write, read) }).await
    });
    let ((), received) = received.unwrap().unwrap();
    assert!(received == sent);
    assert_eq!(echo.join().unwrap(), 3_000_000);
}

#[test]
fn what_one_descriptor_brought_is_not_taken_for_news_of_the_next_one() {
    let mut awaited = Awaited::new();
    let alarm = Alarm::new().unwrap();
    let (ended, writer) = pipe();
    drop(writer);
    let one = |id, owned| Arc::new(Descriptor { id, owned, reads: AtomicU8::new(0) });
    let (silent, _writer) = pipe();
    let (ended, silent) = (one(1, ended), one(2, silent));
    assert!(awaited.poll(&ended, PollFlags::IN).is_pending());
    awaited.wait(&alarm);
    assert_eq!(Arc::strong_count(&ended), 1, "what is dropped now is closed now");
    assert!(awaited.poll(&silent, PollFlags::IN).is_pending());
    assert!(awaited.poll(&ended, PollFlags::IN).is_ready());
    assert!(awaited.poll(&ended, PollFlags::IN).is_pending(), "taken");
}

#[test]
fn a_channel_of_a_runtime_wakes_a_thread_of_ours() {
    let (start, ready) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (sender, receiver) = oneshot::channel();
    let (result, results) = mpsc::channel();
    let (their_start, their_ready) = (Arc::clone(&start), Arc::clone(&ready));
    thread::spawn(move || {
        their_start.wait();
        their_ready.wait();
        result.send(on_thread(receiver)).unwrap();
    });
    start.wait();
    ready.wait();
    sender.send(5).unwrap();
    assert_eq!(results.recv_timeout(LONG).unwrap(), Ok(5));
}

#[test]
fn no_time_is_up_before_it_was_looked_what_there_is() {
    let (reader, writer) = pipe();
    let printed = vec![7; 60_000];
    rustix::io::write(&writer, &printed).unwrap();
    drop(writer);
    let read = on_thread(async {
        let (pipe, mut read, mut buffer) = (Watched::pipe(reader).unwrap(), 0, [0; 1_000]);
        let all = async {
            loop {
                match pipe.read(&mut buffer).await.unwrap() {
                    0 => return,
                    count => read += count,
                }
            }
        };
        let ended = timeout(Duration::ZERO, all).await;
        (ended, read)
    });
    assert_eq!(read, (Some(()), printed.len()));
}

#[test]
fn who_prints_without_end_is_not_read_without_end() {
    let (reader, writer) = pipe();
    let flood = thread::spawn(move || while rustix::io::write(&writer, &[0; 4_096]).is_ok() {});
    let ended = on_thread(async move {
        let (pipe, mut buffer) = (Watched::pipe(reader).unwrap(), [0; 64]);
        let all = async { while pipe.read(&mut buffer).await.unwrap() > 0 {} };
        timeout(Duration::from_millis(50), all).await
    });
    assert_eq!(ended, None);
    flood.join().unwrap();
}

#[test]
fn an_alarm_that_rings_before_its_thread_sleeps_keeps_it_awake() {
    let mut looks = 0;
    let twice = poll_fn(|context| {
        looks += 1;
        context.waker().wake_by_ref();
        if looks < 2 { Poll::Pending } else { Poll::Ready(()) }
    });
    let began = Instant::now();
    on_thread(timeout(LONG, twice));
    assert!(began.elapsed() < LONG / 2);
    assert_eq!(looks, 2);
}
