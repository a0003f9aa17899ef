//! Backpressure under two real threads: the poll thread adds, the partition removes.

use std::{sync::mpsc, thread, time::Duration};

use drakkar_core::backpressure::{Intake, Limits, Load};
use proptest::prelude::*;

/// Far more than any hand-over between two threads takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// The poll thread of one partition, reduced to what concerns its load.
struct Poll<'a> {
    load: &'a Load,
    inbox: mpsc::Sender<usize>,
    resumes: mpsc::Receiver<()>,
    /// Messages that still come after a pause was asked for.
    in_the_air: usize,
    paused: bool,
    most_held: usize,
}

impl Poll<'_> {
    fn run(mut self, count: usize) -> Result<usize, mpsc::RecvTimeoutError> {
        let mut left = count;
        while 0 < left {
            if self.paused {
                for _ in 0..self.in_the_air.min(left) {
                    self.take();
                    left -= 1;
                }
                while self.paused {
                    self.resumes.recv_timeout(DEADLINE)?;
                    self.resume();
                }
            }
            while self.resumes.try_recv().is_ok() {
                self.resume();
            }
            if !self.paused && 0 < left {
                self.take();
                left -= 1;
            }
        }
        Ok(self.most_held)
    }

    /// A resume that a newer pause has overtaken is ignored: another one will follow.
    fn resume(&mut self) {
        self.paused = self.load.is_paused();
    }

    fn take(&mut self) {
        if self.load.add(1) == Intake::Pause {
            self.paused = true;
        }
        self.most_held = self.most_held.max(self.load.messages());
        assert!(self.inbox.send(1).is_ok(), "the partition outlives the poll thread");
    }
}

/// Runs `count` messages through; returns the most that were held at once.
#[track_caller]
fn check(limits: Limits, in_the_air: usize, count: usize) -> usize {
    let load = Load::new(limits);
    let (inbox, messages) = mpsc::channel();
    let (resume, resumes) = mpsc::channel();
    let most_held = thread::scope(|scope| {
        let load = &load;
        scope.spawn(move || {
            for (n, bytes) in messages.into_iter().enumerate() {
                if n % 7 == 0 {
                    thread::yield_now();
                }
                if load.remove(bytes) {
                    // The poll thread may have ended with all messages sent; then nobody needs it.
                    resume.send(()).ok();
                }
            }
        });
        let poll = Poll { load, inbox, resumes, in_the_air, paused: false, most_held: 0 };
        poll.run(count)
    });
    assert_eq!((load.messages(), load.bytes()), (0, 0));
    assert!(!load.is_paused(), "nothing is held and the partition is still paused");
    most_held.unwrap_or_else(|_| panic!("a resume was lost with limits {limits:?}"))
}

#[test]
fn no_resume_is_lost_between_two_threads() {
    for messages in [1, 2, 3, 10, 100] {
        check(Limits::new(messages, usize::MAX), 0, 4_000);
        check(Limits::new(usize::MAX, messages), 0, 4_000);
    }
}

#[test]
fn what_is_held_stays_within_the_limit_and_what_was_in_the_air() {
    for (messages, in_the_air) in [(1, 0), (8, 0), (8, 3), (50, 20)] {
        let most = check(Limits::new(messages, usize::MAX), in_the_air, 4_000);
        assert!(most <= messages + in_the_air, "{most} held with a limit of {messages}");
    }
}

#[test]
fn the_flag_tells_a_resume_that_a_newer_pause_has_overtaken() {
    let load = Load::new(Limits::new(1, usize::MAX));
    assert_eq!(load.add(1), Intake::Pause);
    assert!(load.remove(1), "this resume is on its way to the poll thread");
    assert_eq!(load.add(1), Intake::Pause, "one that was in the air");
    assert!(load.is_paused(), "so the resume must not be obeyed");
    assert!(load.remove(1), "another one follows");
}

/// A partition that shrinks and grows while it works: what is asked of it last is obeyed, and once
/// all is settled it is never left paused.
#[test]
fn no_resume_is_lost_while_limits_change() {
    let load = Load::new(Limits::new(10, usize::MAX));
    let (inbox, messages) = mpsc::channel::<usize>();
    let (resume, resumes) = mpsc::channel();
    thread::scope(|scope| {
        let load = &load;
        scope.spawn(move || {
            for bytes in messages {
                if load.remove(bytes) {
                    // The poll thread may have ended with all messages sent; then nobody needs it.
                    resume.send(()).ok();
                }
            }
        });
        let mut paused = false;
        for n in 0..20_000_usize {
            if load.limit(Limits::new(1 + n % 13, usize::MAX)) {
                paused = false;
            }
            while paused {
                assert!(resumes.recv_timeout(DEADLINE).is_ok(), "a resume was lost at {n}");
                paused = load.is_paused();
            }
            paused = load.add(1) == Intake::Pause;
            assert!(inbox.send(1).is_ok(), "the partition outlives the poll thread");
        }
        drop(inbox);
    });
    assert_eq!(load.messages(), 0);
    assert!(!load.is_paused(), "nothing is held and the partition is still paused");
}

/// What happens to a partition next.
#[derive(Debug, Clone)]
enum Step {
    Add(usize),
    Remove,
    Limit(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        11 => (0..40_usize).prop_map(Step::Add),
        9 => Just(Step::Remove),
        2 => (1..20_usize, 1..200_usize).prop_map(|(few, small)| Step::Limit(few, small)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_pauses_at_either_high_mark_and_resumes_when_both_low_marks_are_reached(
        messages in 1..20_usize,
        bytes in 1..200_usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let load = Load::new(Limits::new(messages, bytes));
        let (mut messages, mut bytes) = (messages, bytes);
        let mut held: Vec<usize> = Vec::new();
        let mut paused = false;
        for step in steps {
            match step {
                Step::Add(size) => {
                    held.push(size);
                    let total: usize = held.iter().sum();
                    let pauses = !paused && (messages <= held.len() || bytes <= total);
                    paused |= pauses;
                    prop_assert_eq!(load.add(size) == Intake::Pause, pauses);
                }
                Step::Limit(few, small) => {
                    (messages, bytes) = (few, small);
                    let total: usize = held.iter().sum();
                    let resumes = paused && held.len() <= messages / 2 && total <= bytes / 2;
                    paused &= !resumes;
                    prop_assert_eq!(load.limit(Limits::new(messages, bytes)), resumes);
                }
                Step::Remove if held.is_empty() => {}
                Step::Remove => {
                    let size = held.remove(0);
                    let total: usize = held.iter().sum();
                    let resumes = paused && held.len() <= messages / 2 && total <= bytes / 2;
                    paused &= !resumes;
                    prop_assert_eq!(load.remove(size), resumes);
                }
            }
            prop_assert_eq!(load.is_paused(), paused);
            prop_assert_eq!((load.messages(), load.bytes()), (held.len(), held.iter().sum()));
        }
    }
}
