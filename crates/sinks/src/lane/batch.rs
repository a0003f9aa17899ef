//! One batch: written, and what is held of it written again, until each payload is answered.

use std::{pin::pin, sync::Arc, time::Duration};

use drakkar_core::{
    Delivery, Sink, SinkError,
    contain::{Contained, panic_text},
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tracing::error;

use super::{
    Common, Entry, OnOpen, Permanent, Ticket,
    breaker::{Pass, Writes},
    pause::{self, Asked},
    places::Place,
    trouble::Standing,
};
use crate::{Refused, Settled};

/// Payloads that are written together.
pub(super) struct Batch<S: Sink> {
    /// Among those of its lane.
    number: u64,
    sink: Arc<S>,
    common: Arc<Common>,
    payloads: Vec<S::Payload>,
    /// As many as payloads, in the same order.
    tickets: Vec<Ticket<S::Payload>>,
    /// Declared, and so dropped, before the place: who takes that must not find this one held.
    standing: Standing,
    /// `None` while it waits for its next attempt.
    place: Option<Place>,
}

/// What one write came to.
struct Attempt {
    /// How many left the batch, one way or the other.
    answered: usize,
    /// How many the sink accepted or refused for good: it is there.
    heard: usize,
    /// Why the rest is held; of several reasons the first.
    error: Option<SinkError>,
    /// Why some of it would be refused for good, if this lane refused anything.
    hopeless: Option<SinkError>,
    /// The longest wait the far side asked for.
    retry_after: Duration,
}

impl Attempt {
    /// Tells the circuit what it says of the sink, for this batch.
    fn report(&self, pass: Pass, batch: u64) {
        if 0 < self.heard {
            pass.succeeded();
        } else if !self.error.as_ref().is_some_and(pause::is_unsent) {
            pass.failed(batch, Instant::now());
        }
    }
}

impl<S: Sink> Batch<S> {
    /// Made for `count` payloads, more or less.
    pub(super) fn new(
        number: u64,
        sink: Arc<S>,
        common: Arc<Common>,
        place: Place,
        count: usize,
    ) -> Self {
        let standing = Standing::begin(&common);
        let (payloads, tickets) = (Vec::with_capacity(count), Vec::with_capacity(count));
        Self { number, sink, common, payloads, tickets, standing, place: Some(place) }
    }

    pub(super) fn push(&mut self, entry: Entry<S::Payload>) {
        self.payloads.push(entry.payload);
        self.tickets.push(entry.ticket);
    }

    pub(super) fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Writes until every payload is answered or nobody waits for it any more.
    pub(super) async fn run(mut self) {
        let mut retry = 0;
        let mut writes = Writes::New;
        self.drop_abandoned();
        while !self.payloads.is_empty() {
            let Some(pass) = self.pass(writes).await else {
                continue;
            };
            let attempt = self.attempt().await;
            if let Some(pass) = pass {
                attempt.report(pass, self.number);
            }
            self.standing.tried(attempt.answered > 0);
            let Some(error) = attempt.error else {
                return;
            };
            if !self.common.places.are_kept() {
                writes = Writes::Again;
            }
            self.standing.hold();
            self.standing.hopeless(attempt.hopeless);
            self.common.trouble.refused(&error);
            retry = if attempt.answered > 0 { 1 } else { retry + 1 };
            let wait = self.common.settings.patience.backoff.delay(retry, fastrand::f64());
            self.rest(wait.max(attempt.retry_after), &error).await;
            self.drop_abandoned();
        }
    }

    /// Waits until a write may begin: `Some(None)` where there is no circuit, `None` when the batch is to be
    /// looked at again: somebody has left, or was told to, or something else is to be waited for.
    async fn pass(&mut self, writes: Writes) -> Option<Option<Pass>> {
        let (common, breaker) = (Arc::clone(&self.common), self.common.breaker.clone());
        let asked = common.pause.now();
        let is_open = match (&breaker, &asked) {
            (None, None) => return Some(None),
            (None, Some(_)) => false,
            (Some(breaker), Some(_)) => breaker.blocks(writes, Instant::now()),
            (Some(breaker), None) => match breaker.try_pass(writes, Instant::now()) {
                Ok(pass) => return Some(Some(pass)),
                Err(_) => true,
            },
        };
        if is_open && common.settings.patience.on_open == OnOpen::DeadLetter {
            self.refuse_if(&left_alone(), |_| true);
            return None;
        }
        self.standing.hold();
        self.tickets.iter_mut().for_each(|ticket| ticket.set_held(true));
        let limit = common.settings.patience.give_up_after;
        let since = self.waits_since(asked.as_ref());
        let error = asked.as_ref().map_or_else(left_alone, |asked| asked.error.clone());
        let given_up = join_all(self.tickets.iter_mut().map(|ticket| ticket.reply.closed()));
        let pass = tokio::select! {
            biased; // Who may write does.
            pass = common.turn(breaker, writes, asked) => pass,
            _ = given_up => None,
            () = expired(since, limit) => {
                self.refuse_if(&error, |ticket| ticket.is_expired(limit));
                None
            }
        };
        self.drop_abandoned(); // Not to be written behind what somebody else has written since.
        pass.filter(|_| !self.payloads.is_empty()).map(Some)
    }

    /// From when on the time counts that it is tried. What was never written is given up only where the far
    /// side has been away, or has wanted to be left alone, for as long: where it is only slow, each payload
    /// is written once at least.
    fn waits_since(&self, asked: Option<&Asked>) -> Option<Instant> {
        let oldest = self.tickets.iter().map(|ticket| ticket.since).min()?;
        let asked = asked.filter(|_| self.tickets.iter().all(|ticket| ticket.attempts == 0));
        let Some(asked) = asked else { return Some(oldest) };
        let unheard = self.common.trouble.unheard().map(|(since, _)| since);
        Some(oldest.max(unheard.map_or(asked.since, |since| since.min(asked.since))))
    }

    /// These are not held any more: `error` is why.
    fn refuse_if(&mut self, error: &SinkError, is_refused: impl Fn(&Ticket<S::Payload>) -> bool) {
        let payloads = std::mem::take(&mut self.payloads);
        for (payload, ticket) in payloads.into_iter().zip(std::mem::take(&mut self.tickets)) {
            if is_refused(&ticket) {
                self.common.give_up(payload, ticket, error.clone());
            } else {
                self.payloads.push(payload);
                self.tickets.push(ticket);
            }
        }
    }

    /// Writes once, answers what is settled and keeps the rest.
    async fn attempt(&mut self) -> Attempt {
        let begun = Instant::now();
        let outcomes = self.write().await;
        let took = begun.elapsed();
        let count = |what: fn(&Delivery) -> bool| outcomes.iter().filter(|of| what(of)).count();
        let confirmed = count(|outcome| matches!(outcome, Delivery::Confirmed));
        let heard = count(|outcome| !matches!(outcome, Delivery::Transient(_)));
        let unheard = match outcomes.first() {
            Some(Delivery::Transient(error)) if heard == 0 => Some(error.clone()),
            _ => None,
        };
        let before = self.payloads.len();
        if confirmed == before && self.standing.is_moving() {
            self.place = None; // Nothing of it is written again: the next may begin.
        }
        let (error, hopeless, retry_after) = self.sort(outcomes);
        if confirmed > 0 {
            self.common.trouble.accepted();
        }
        match unheard {
            Some(error) => self.common.trouble.futile(begun, &error),
            None => self.common.trouble.asked(Ok(())),
        }
        let name = &self.common.settings.name;
        self.common.observe(|observer| observer.batch(name, confirmed, took));
        Attempt { answered: before - self.payloads.len(), heard, error, hopeless, retry_after }
    }

    /// Exactly one outcome per payload, whatever the sink does.
    async fn write(&self) -> Vec<Delivery> {
        let place = pin!(Some(async { self.sink.deliver(&self.payloads).await }));
        let write = Contained::new(place);
        let limit = self.common.settings.patience.timeout;
        let written = match limit {
            Some(limit) => timeout(limit, write).await,
            None => Ok(write.await),
        };
        let Ok(written) = written else {
            let text = format!("no answer within {:?}", limit.unwrap_or_default());
            let error = SinkError::new("timeout", text);
            return vec![Delivery::Transient(error); self.payloads.len()];
        };
        let problem = match written {
            Ok(outcomes) if outcomes.len() == self.payloads.len() => return outcomes,
            Ok(outcomes) => {
                let (answers, payloads) = (outcomes.len(), self.payloads.len());
                let text = format!("the sink gave {answers} answers for {payloads} payloads");
                SinkError::new("wrong_answer", text)
            }
            Err(panic) => SinkError::new("panic", panic_text(panic)),
        };
        error!(
            sink = %self.common.settings.name,
            class = problem.class,
            error = problem.message,
            "bug in a sink; what it was given is held and tried again"
        );
        vec![Delivery::Transient(problem); self.payloads.len()]
    }

    /// Answers the payloads that `outcomes` settle; the others stay, held.
    fn sort(
        &mut self,
        outcomes: Vec<Delivery>,
    ) -> (Option<SinkError>, Option<SinkError>, Duration) {
        let payloads = std::mem::take(&mut self.payloads);
        let tickets = std::mem::take(&mut self.tickets);
        let (mut first, mut hopeless) = (None, None);
        let mut retry_after = Duration::ZERO;
        for ((payload, mut ticket), outcome) in payloads.into_iter().zip(tickets).zip(outcomes) {
            ticket.attempts = ticket.attempts.saturating_add(1);
            let error = match outcome {
                Delivery::Confirmed => {
                    ticket.answer(Settled::Confirmed);
                    continue;
                }
                Delivery::Permanent(error)
                    if self.common.settings.shape.permanent == Permanent::Refuse =>
                {
                    self.common.refuse(payload, ticket, error);
                    continue;
                }
                Delivery::Transient(error) => error,
                Delivery::Permanent(error) => {
                    hopeless.get_or_insert_with(|| error.clone());
                    error
                }
            };
            self.common.pause.heard(&error);
            if ticket.is_expired(self.common.settings.patience.give_up_after) {
                self.common.give_up(payload, ticket, error);
                continue;
            }
            self.common.refused(&error, true);
            retry_after = retry_after.max(pause::wait(&error));
            ticket.set_held(true);
            first.get_or_insert(error);
            self.payloads.push(payload);
            self.tickets.push(ticket);
        }
        (first, hopeless, retry_after)
    }

    /// Waits before the next attempt, unless nobody waits for it; where others may pass, without a place.
    /// What is given up meanwhile is refused with its last `error`.
    async fn rest(&mut self, wait: Duration, error: &SinkError) {
        let common = Arc::clone(&self.common);
        let is_kept = common.places.are_kept();
        if !is_kept {
            self.standing.leave_place();
            self.place = None;
        }
        let mut next = pin!(async {
            sleep(wait).await;
            if is_kept { None } else { Some(common.places.take_again().await) }
        });
        let limit = common.settings.patience.give_up_after;
        while !self.payloads.is_empty() {
            let oldest = self.tickets.iter().map(|ticket| ticket.since).min();
            let turn = async {
                tokio::select! {
                    biased; // Who may write does.
                    place = &mut next => Some(place),
                    () = expired(oldest, limit) => None,
                }
            };
            match self.unless_given_up(turn).await {
                Some(Some(place)) => {
                    self.place = place.or(self.place.take());
                    return self.standing.take_place();
                }
                Some(None) => self.refuse_if(error, |ticket| ticket.is_expired(limit)),
                None => return,
            }
        }
    }

    /// `None` when nobody waits for any of it any more.
    async fn unless_given_up<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let given_up = join_all(self.tickets.iter_mut().map(|ticket| ticket.reply.closed()));
        tokio::select! {
            what = what => Some(what),
            _ = given_up => None,
        }
    }

    /// Drops what nobody waits for: its partition was fenced, its messages are somebody else's.
    fn drop_abandoned(&mut self) {
        if self.tickets.iter().all(|ticket| !ticket.reply.is_closed()) {
            return;
        }
        let payloads = std::mem::take(&mut self.payloads);
        let tickets = std::mem::take(&mut self.tickets);
        for (payload, ticket) in payloads.into_iter().zip(tickets) {
            if !ticket.reply.is_closed() {
                self.payloads.push(payload);
                self.tickets.push(ticket);
            }
        }
    }
}

impl Common {
    /// The sink will never take it: `error` is why.
    fn refuse<P>(&self, payload: P, ticket: Ticket<P>, error: SinkError) {
        self.send_back(payload, ticket, error, false);
    }

    /// It is not held any more, although the sink may take it one day: `error` is why it has not.
    pub(super) fn give_up<P>(&self, payload: P, ticket: Ticket<P>, error: SinkError) {
        self.send_back(payload, ticket, error, true);
    }

    fn send_back<P>(&self, payload: P, ticket: Ticket<P>, error: SinkError, is_given_up: bool) {
        self.refused(&error, false);
        let (sink, attempts) = (self.settings.name.clone(), ticket.attempts);
        let refused = Refused { payload, sink, error, attempts, is_given_up };
        ticket.answer(Settled::Refused(Box::new(refused)));
    }

    fn refused(&self, error: &SinkError, held: bool) {
        let name = &self.settings.name;
        self.observe(|observer| observer.refused(name, error, held));
    }
}

/// Why what waits for a sink behind an open circuit is refused.
fn left_alone() -> SinkError {
    let text = "the sink failed again and again and is left alone for a while";
    SinkError::new("circuit_open", text)
}

/// Waits until what was taken at `oldest` is tried for too long.
async fn expired(oldest: Option<Instant>, limit: Option<Duration>) {
    match oldest.zip(limit) {
        Some((oldest, limit)) => sleep(limit.saturating_sub(oldest.elapsed())).await,
        None => std::future::pending().await,
    }
}

impl<P> Ticket<P> {
    /// Whether it was tried for `limit`.
    pub(super) fn is_expired(&self, limit: Option<Duration>) -> bool {
        limit.is_some_and(|limit| limit <= self.since.elapsed())
    }

    fn answer(mut self, answer: Settled<P>) {
        // First: who was answered must not count as held, or a hand-over waits for one task less.
        self.set_held(false);
        self.reply.send(answer);
    }
}
