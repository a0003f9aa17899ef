//! A batch → commands → one outcome per payload.
//!
//! The server says by index what it refused. With `ordered` it stops there: what it refused for good
//! is left out, and what stands behind is sent. When it is away, or cannot promise that a write
//! lasts, nothing more is sent: all that has no outcome by then is to be tried again. What is known is
//! answered before the lane stops waiting, else all of it would be carried out again and again.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use drakkar_core::{Delivery, SinkError};
use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, doc, error::Error};
use tokio::time::{Instant, timeout_at};

use super::{
    run::{self, Run},
    verdict::{self, DUPLICATE_KEY, Failure},
    write::{Kind, Write},
};
use crate::most::Most;

/// Who carries commands out.
pub(super) trait Server: Sync {
    /// Runs `command` and answers what the server says.
    fn run(
        &self,
        command: RawDocumentBuf,
    ) -> impl Future<Output = Result<Document, Failure>> + Send;
}

/// How writes are asked for.
#[derive(Debug, Clone)]
pub(super) struct How {
    pub(super) ordered: bool,
    /// When a write counts.
    pub(super) concern: Document,
    /// After what time the lane stops waiting for a batch.
    limit: Duration,
}

impl How {
    pub(super) fn new(ordered: bool, concern: Document) -> Self {
        Self { ordered, concern, limit: Duration::from_secs(30) }
    }

    /// Hears after what time the lane stops waiting. Nobody would hear of a server that waits for its
    /// members for longer.
    pub(super) fn dropped_after(&mut self, limit: Duration) {
        let longest = i64::try_from((limit / 3).as_millis()).unwrap_or(i64::MAX).max(1);
        let asked = self.concern.get_i64("wtimeout").ok().filter(|asked| 0 < *asked);
        self.concern.insert("wtimeout", asked.map_or(longest, |asked| asked.min(longest)));
        self.limit = limit;
    }
}

/// How long commands are begun for one batch, at most; it is a third of what the lane waits if that is less.
const ENOUGH: Duration = Duration::from_secs(5);

/// The class of what was not answered in time.
const TIMEOUT: &str = "timeout";

/// Carries out what can be written, in order; exactly one outcome for each, in order.
pub(super) async fn deliver<S: Server>(
    server: &S,
    how: &How,
    most: &Most,
    batch: Vec<Result<Write, SinkError>>,
) -> Vec<Delivery> {
    let began = Instant::now();
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut writes = Vec::with_capacity(batch.len());
    for write in batch {
        outcomes.push(write.as_ref().err().map(|error| Delivery::Permanent(error.clone())));
        writes.push(write.ok());
    }
    let mut runs = run::runs(&writes, how.ordered, most.get());
    let until = began + how.limit * 4 / 5;
    let mut carried = Carried { server, how, most, until, writes, outcomes, again: HashSet::new() };
    let mut away = SinkError::new("slow", "what is before it took long; it is sent next");
    while began.elapsed() < ENOUGH.min(how.limit / 3)
        && let Some(run) = runs.pop_front()
    {
        match carried.carry_out(&run).await {
            Ok(left) => left.into_iter().rev().for_each(|run| runs.push_front(run)),
            Err(error) => {
                away = error;
                break;
            }
        }
    }
    let settled = carried.outcomes.into_iter();
    settled.map(|outcome| outcome.unwrap_or_else(|| Delivery::Transient(away.clone()))).collect()
}

struct Carried<'a, S> {
    server: &'a S,
    how: &'a How,
    most: &'a Most,
    /// What is not answered by then is not waited for.
    until: Instant,
    writes: Vec<Option<Write>>,
    /// `None`: not known yet.
    outcomes: Vec<Option<Delivery>>,
    /// Upserts that found their document inserted by somebody else, and were sent again.
    again: HashSet<usize>,
}

impl<S: Server> Carried<'_, S> {
    /// Sends `run`; answers what is to be sent next of it, or why nothing can be.
    async fn carry_out(&mut self, run: &[usize]) -> Result<Vec<Run>, SinkError> {
        let writes: Vec<&Write> =
            run.iter().filter_map(|&place| self.writes[place].as_ref()).collect();
        let Some(&Write { ref collection, kind, .. }) = writes.first().copied() else {
            return Ok(Vec::new());
        };
        let How { ordered, concern, .. } = self.how;
        let command = run::command(collection, kind, &writes, *ordered, concern);
        let command = command.map_err(|error| SinkError::new("Bson", error.to_string()))?;
        match self.ask(command).await {
            Ok(reply) => {
                self.most.was_fine(run.len());
                self.settle(run, &Reply::read(&reply, run.len())?).await
            }
            Err(Failure::Away(error)) => {
                if error.class == TIMEOUT {
                    self.most.was_too_many(run.len());
                }
                Err(error)
            }
            // It does not say which of them: they are sent by halves until one is left.
            Err(Failure::Refused(_)) if 1 < run.len() => {
                let (one, other) = run.split_at(run.len() / 2);
                Ok(vec![one.to_vec(), other.to_vec()])
            }
            Err(Failure::Refused(error)) => {
                self.outcomes[run[0]] = Some(Delivery::Permanent(error));
                Ok(Vec::new())
            }
        }
    }

    async fn ask(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        timeout_at(self.until, self.server.run(command)).await.unwrap_or_else(|_| {
            Err(Failure::Away(SinkError::new(TIMEOUT, "the server did not answer in time")))
        })
    }

    /// Books what `reply` says about `run`; answers what is to be sent next of it.
    async fn settle(&mut self, run: &[usize], reply: &Reply) -> Result<Vec<Run>, SinkError> {
        let reached = match reply.errors.first() {
            Some(first) if self.how.ordered => first.index,
            _ => run.len(),
        };
        if reply.unsafe_yet.is_none() {
            let refused: HashSet<usize> = reply.errors.iter().map(|error| error.index).collect();
            for (index, &place) in run.iter().enumerate().take(reached) {
                if !refused.contains(&index) {
                    self.outcomes[place] = Some(Delivery::Confirmed);
                }
            }
        }
        let found = self.find_all(run, reply).await;
        let mut away = reply.unsafe_yet.clone();
        let mut left = Vec::new();
        for refused in &reply.errors {
            let place = run[refused.index];
            match self.judge(place, refused, found.get(&place)).await {
                // What was there before lasts no more than what was written now.
                Judged::There if reply.unsafe_yet.is_some() => {}
                Judged::There => self.outcomes[place] = Some(Delivery::Confirmed),
                Judged::Refused(error) => self.outcomes[place] = Some(Delivery::Permanent(error)),
                Judged::Again => left.push(place),
                Judged::Later(error) => drop(away.get_or_insert(error)),
            }
        }
        if let Some(error) = away {
            return Err(error);
        }
        for &place in run.iter().skip(reached + 1) {
            // One that is there with other content is sent all the same: the server says it better.
            match found.get(&place) {
                Some(true) => self.outcomes[place] = Some(Delivery::Confirmed),
                _ => left.push(place),
            }
        }
        Ok(if left.is_empty() { Vec::new() } else { vec![left] })
    }

    async fn judge(&mut self, place: usize, refused: &WriteError, found: Option<&bool>) -> Judged {
        let error = verdict::error(refused.code, &refused.message);
        if verdict::passes(refused.code) {
            return Judged::Later(error);
        }
        let Some(write) = self.writes[place].as_ref() else { return Judged::Refused(error) };
        if refused.code != DUPLICATE_KEY {
            return Judged::Refused(error);
        }
        if write.upsert && self.again.insert(place) {
            return Judged::Again;
        }
        if write.kind != Kind::Insert {
            return Judged::Refused(error);
        }
        let is_there = match found {
            Some(&is_there) => Ok(is_there),
            None => self.find(&[place]).await.map(|found| found.get(&place) == Some(&true)),
        };
        match is_there {
            Ok(true) => Judged::There,
            Ok(false) | Err(Failure::Refused(_)) => Judged::Refused(error),
            Err(Failure::Away(error)) => Judged::Later(error),
        }
    }

    /// Where one insert finds itself, those behind it will: a write whose answer was lost is looked for as
    /// a whole. What is not found here is looked for by itself: an answer holds no more than 16 MiB.
    async fn find_all(&self, run: &[usize], reply: &Reply) -> HashMap<usize, bool> {
        let first = reply.errors.iter().find(|error| error.code == DUPLICATE_KEY);
        let from = first.map_or(run.len(), |error| error.index);
        let behind: Vec<usize> =
            run[from..].iter().copied().filter(|&at| self.is_insert(at)).collect();
        if behind.len() < 2 {
            return HashMap::new();
        }
        self.find(&behind).await.unwrap_or_default()
    }

    fn is_insert(&self, place: usize) -> bool {
        self.writes[place].as_ref().is_some_and(|write| write.kind == Kind::Insert)
    }

    /// Which of these documents are there, by `_id`; and whether as they were sent: what a write whose
    /// answer was lost leaves behind. One whose `_id` was made for it needs no more than its `_id`,
    /// another must be the same byte for byte.
    async fn find(&self, places: &[usize]) -> Result<HashMap<usize, bool>, Failure> {
        let refused = |error: Error| Failure::Refused(SinkError::new("Bson", error.to_string()));
        let writes: Vec<(usize, &Write)> =
            places.iter().filter_map(|&at| Some((at, self.writes[at].as_ref()?))).collect();
        let Some((_, Write { collection, .. })) = writes.first() else {
            return Ok(HashMap::new());
        };
        let mut by_id = HashMap::new();
        let mut ids = Vec::new();
        for (place, write) in &writes {
            let Some(id) = id_of(&write.body).map_err(refused)? else { continue };
            by_id.insert(bytes_of(&id).map_err(refused)?, (*place, *write));
            ids.push(id);
        }
        let many = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let find = doc! {
            "find": collection, "filter": {"_id": {"$in": ids}}, "batchSize": many, "singleBatch": true,
        };
        let reply = self.ask(RawDocumentBuf::try_from(&find).map_err(refused)?).await?;
        let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let mut found = HashMap::new();
        for stored in batch.into_iter().flatten().filter_map(Bson::as_document) {
            let stored = RawDocumentBuf::try_from(stored).map_err(refused)?;
            let Some(id) = id_of(&stored).map_err(refused)? else { continue };
            if let Some((place, write)) = by_id.get(&bytes_of(&id).map_err(refused)?) {
                found.insert(*place, write.generated_id || stored == write.body);
            }
        }
        Ok(found)
    }
}

fn id_of(document: &RawDocument) -> Result<Option<Bson>, Error> {
    document.get("_id")?.map(Bson::try_from).transpose()
}

fn bytes_of(id: &Bson) -> Result<Vec<u8>, Error> {
    Ok(RawDocumentBuf::try_from(&doc! {"_id": id})?.into_bytes())
}

/// What a write that was refused came to.
enum Judged {
    /// It was written before.
    There,
    /// It will never be.
    Refused(SinkError),
    /// It is to be sent once more, now.
    Again,
    /// It may be written later.
    Later(SinkError),
}

/// What the server says about one write.
struct WriteError {
    /// Its place in the command.
    index: usize,
    code: i32,
    message: String,
}

/// What the server says about a command that it carried out.
struct Reply {
    /// By place; with `ordered` there is at most one.
    errors: Vec<WriteError>,
    /// What was written may be undone: too few members have it yet.
    unsafe_yet: Option<SinkError>,
}

impl Reply {
    fn read(reply: &Document, sent: usize) -> Result<Self, SinkError> {
        let mut errors = Vec::new();
        for error in reply.get_array("writeErrors").into_iter().flatten() {
            let read = error.as_document().and_then(|error| write_error(error, sent));
            let wrong = || SinkError::new("wrong_answer", format!("a write error: {error}"));
            errors.push(read.ok_or_else(wrong)?);
        }
        errors.sort_by_key(|error| error.index);
        let unsafe_yet = reply.get_document("writeConcernError").ok().map(|error| {
            verdict::error(
                number(error, "code").unwrap_or(64),
                error.get_str("errmsg").unwrap_or(""),
            )
        });
        Ok(Self { errors, unsafe_yet })
    }
}

fn write_error(error: &Document, sent: usize) -> Option<WriteError> {
    let index = usize::try_from(number(error, "index")?).ok().filter(|index| *index < sent)?;
    let message = error.get_str("errmsg").unwrap_or_default().to_owned();
    Some(WriteError { index, code: number(error, "code")?, message })
}

/// Servers are not of one mind about the type of a number.
#[allow(clippy::cast_possible_truncation, reason = "codes and places are small")]
fn number(document: &Document, key: &str) -> Option<i32> {
    match document.get(key)? {
        Bson::Int32(number) => Some(*number),
        Bson::Int64(number) => i32::try_from(*number).ok(),
        Bson::Double(number) => Some(*number as i32),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
