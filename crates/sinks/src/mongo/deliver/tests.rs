//! What a batch comes to, against a server that answers what it is told to: elections, members that
//! lag and lost answers, which the server of the integration tests does not have.

use std::{collections::VecDeque, sync::Mutex};

use mongodb::bson::oid::ObjectId;

use super::*;

type Answer = Result<Document, Failure>;

/// Answers in order, then confirms everything; writes down what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Document>>,
}

impl Server for Scripted {
    async fn run(&self, command: RawDocumentBuf) -> Answer {
        self.asked.lock().unwrap().push(Document::try_from(&*command).unwrap());
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Ok(doc! {"ok": 1}))
    }
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    /// The `n` of the writes of each command.
    fn sent(&self) -> Vec<Vec<i32>> {
        let numbers = |command: &Document| {
            let array = ["documents", "updates"].iter().find_map(|of| command.get_array(of).ok());
            let of = |write: &Bson| {
                let write = write.as_document().unwrap();
                let own = write.get_document("q").unwrap_or(write);
                own.get_i32("n").unwrap()
            };
            array.map(|writes| writes.iter().map(of).collect()).unwrap_or_default()
        };
        self.asked.lock().unwrap().iter().map(numbers).collect()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a batch has payloads that are none")]
fn insert(n: i32) -> Result<Write, SinkError> {
    let body = RawDocumentBuf::try_from(&doc! {"_id": ObjectId::new(), "n": n}).unwrap();
    let collection = "c".to_owned();
    Ok(Write { collection, kind: Kind::Insert, body, generated_id: false, upsert: false })
}

fn upsert(n: i32) -> Result<Write, SinkError> {
    Write::update("c".to_owned(), doc! {"n": n}, doc! {"$set": {"a": 1}}.into(), true, false)
}

fn write_errors(errors: &[(i32, i32)]) -> Document {
    let error = |&(index, code): &(i32, i32)| doc! {"index": index, "code": code, "errmsg": "no"};
    doc! {"ok": 1, "writeErrors": errors.iter().map(error).collect::<Vec<_>>()}
}

fn away() -> Answer {
    Err(Failure::Away(SinkError::new("Io", "reset")))
}

/// `+` confirmed, `~` for now, `-` for good.
async fn deliver_to(
    server: &Scripted,
    ordered: bool,
    batch: Vec<Result<Write, SinkError>>,
) -> String {
    let how = How::new(ordered, doc! {"w": "majority"});
    let sign = |outcome| match outcome {
        Delivery::Confirmed => '+',
        Delivery::Transient(_) => '~',
        Delivery::Permanent(_) => '-',
    };
    deliver(server, &how, &Most::default(), batch).await.into_iter().map(sign).collect()
}

#[tokio::test]
async fn in_order_what_stands_behind_a_refused_write_is_sent_and_nothing_twice() {
    let server = Scripted::new([Ok(write_errors(&[(1, 121)])), Ok(write_errors(&[(0, 121)]))]);
    let batch = (0..5).map(insert).collect();
    assert_eq!(deliver_to(&server, true, batch).await, "+--++");
    assert_eq!(server.sent(), [vec![0, 1, 2, 3, 4], vec![2, 3, 4], vec![3, 4]]);
}

#[tokio::test]
async fn without_order_one_command_says_it_all() {
    let server = Scripted::new([Ok(write_errors(&[(1, 121), (3, 121)]))]);
    let batch = (0..5).map(insert).collect();
    assert_eq!(deliver_to(&server, false, batch).await, "+-+-+");
    assert_eq!(server.sent().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_its_neighbours_are_written() {
    let server = Scripted::default();
    let bad = Err(SinkError::new("invalid_document", "no"));
    assert_eq!(deliver_to(&server, true, vec![insert(0), bad, insert(2)]).await, "+-+");
    assert_eq!(server.sent(), [vec![0, 2]]);
}

#[tokio::test]
async fn when_the_server_goes_away_nothing_more_is_sent_and_the_rest_is_held() {
    let server = Scripted::new([Ok(doc! {"ok": 1}), away()]);
    let batch = vec![insert(0), upsert(1), insert(2)];
    assert_eq!(deliver_to(&server, true, batch).await, "+~~");
    assert_eq!(server.sent(), [vec![0], vec![1]]);
}

#[tokio::test]
async fn a_write_that_may_succeed_later_holds_those_behind_it() {
    let server = Scripted::new([Ok(write_errors(&[(1, 10_107)]))]);
    assert_eq!(deliver_to(&server, true, (0..4).map(insert).collect()).await, "+~~~");
    let server = Scripted::new([Ok(write_errors(&[(1, 112)]))]);
    assert_eq!(deliver_to(&server, false, (0..4).map(insert).collect()).await, "+~++");
}

/// A guard against a full disk (`UserWritesBlocked`) refuses every write of everybody.
#[tokio::test]
async fn a_write_that_is_refused_for_a_reason_nobody_thought_of_is_held() {
    for code in [371, 987] {
        let server = Scripted::new([Ok(write_errors(&[(0, code)]))]);
        assert_eq!(deliver_to(&server, true, (0..2).map(insert).collect()).await, "~~");
    }
}

#[tokio::test]
async fn what_a_majority_does_not_have_yet_is_not_confirmed() {
    let mut reply = write_errors(&[(1, 121)]);
    reply.insert("writeConcernError", doc! {"code": 64, "errmsg": "waiting timed out"});
    let server = Scripted::new([Ok(reply)]);
    assert_eq!(deliver_to(&server, true, (0..3).map(insert).collect()).await, "~-~");
    assert_eq!(server.sent().len(), 1, "nothing more is sent");
}

#[tokio::test]
async fn an_insert_that_finds_itself_is_confirmed() {
    let mine = insert(0);
    let generated = mine.clone().map(|write| Write { generated_id: true, ..write });
    let stored = Document::try_from(&*mine.as_ref().unwrap().body).unwrap();
    let found = |document: Document| Ok(doc! {"ok": 1, "cursor": {"firstBatch": [document]}});
    let nothing = || Ok(doc! {"ok": 1, "cursor": {"firstBatch": []}});
    let duplicate = || Ok(write_errors(&[(0, DUPLICATE_KEY)]));
    let changed = doc! {"_id": stored.get_object_id("_id").unwrap(), "n": 9};

    for (write, answer, expected) in [
        (mine.clone(), found(stored), "+"),
        (mine.clone(), found(changed.clone()), "-"),
        (mine, nothing(), "-"),
        (generated.clone(), found(changed), "+"),
        (generated.clone(), nothing(), "-"),
        (generated, away(), "~"),
    ] {
        let server = Scripted::new([duplicate(), answer]);
        assert_eq!(deliver_to(&server, true, vec![write]).await, expected);
    }
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_found_by_one_question() {
    let batch: Vec<_> = (0..5).map(insert).collect();
    let stored = |n: usize| Document::try_from(&*batch[n].as_ref().unwrap().body).unwrap();
    let found = doc! {"ok": 1, "cursor": {"firstBatch": [stored(2), stored(0), stored(1)]}};
    let server = Scripted::new([Ok(write_errors(&[(0, DUPLICATE_KEY)])), Ok(found)]);
    assert_eq!(deliver_to(&server, true, batch.clone()).await, "+++++");
    assert_eq!(server.sent(), [vec![0, 1, 2, 3, 4], vec![], vec![3, 4]]);
}

/// Takes its time: for a command, and for each write of it.
struct Slow {
    server: Scripted,
    command: Duration,
    write: Duration,
}

impl Slow {
    fn new(answers: impl IntoIterator<Item = Answer>, command: u64, write: u64) -> Self {
        let [command, write] = [command, write].map(Duration::from_secs);
        Self { server: Scripted::new(answers), command, write }
    }
}

impl Server for Slow {
    async fn run(&self, command: RawDocumentBuf) -> Answer {
        let writes = command.get_array("documents").map_or(1, |all| all.into_iter().count());
        tokio::time::sleep(self.command + self.write * u32::try_from(writes).unwrap()).await;
        self.server.run(command).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_answered_before_the_lane_stops_waiting() {
    let slow = Slow::new((0..9).map(|_| Ok(write_errors(&[(0, 121)]))), 2, 0);
    let how = How::new(true, doc! {});
    let outcomes = deliver(&slow, &how, &Most::default(), (0..9).map(insert).collect()).await;
    let known = outcomes.iter().filter(|outcome| matches!(outcome, Delivery::Permanent(_)));
    assert_eq!(known.count(), 3);
    assert!(matches!(&outcomes[3], Delivery::Transient(error) if error.class == "slow"));
}

/// Writes `batch` as a lane does that stops waiting after 5 s; how many times it had to.
async fn by_and_by(slow: &Slow, mut batch: Vec<Result<Write, SinkError>>) -> usize {
    let limit = Duration::from_secs(5);
    let (mut how, most) = (How::new(true, doc! {}), Most::default());
    how.dropped_after(limit);
    for times in 0..20 {
        if batch.is_empty() {
            return times;
        }
        let delivered = deliver(slow, &how, &most, batch.clone());
        let Ok(outcomes) = tokio::time::timeout(limit, delivered).await else { continue };
        let is_confirmed = |outcome: &Delivery| matches!(outcome, Delivery::Confirmed);
        let both = batch.into_iter().zip(&outcomes);
        batch = both.filter(|(_, of)| !is_confirmed(of)).map(|(write, _)| write).collect();
    }
    panic!("{} of them are never written", batch.len());
}

#[tokio::test(start_paused = true)]
async fn many_commands_of_a_slow_server_end_although_the_lane_has_little_patience() {
    let batch = (0..9).map(|n| if n % 2 == 0 { insert(n) } else { upsert(n) }).collect();
    let slow = Slow::new([], 2, 0);
    assert_eq!(by_and_by(&slow, batch).await, 9);
    assert_eq!(slow.server.sent().len(), 9, "each was sent once");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_too_long_is_sent_in_smaller_pieces() {
    let slow = Slow::new([], 0, 1);
    by_and_by(&slow, (0..20).map(insert).collect()).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_without_an_answer_costs_no_outcome_of_those_before_it() {
    struct Hangs(Scripted);
    impl Server for Hangs {
        async fn run(&self, command: RawDocumentBuf) -> Answer {
            if self.0.asked.lock().unwrap().len() == 1 {
                std::future::pending::<()>().await;
            }
            self.0.run(command).await
        }
    }
    let hangs = Hangs(Scripted::default());
    let (how, most) = (How::new(true, doc! {}), Most::default());
    let both = deliver(&hangs, &how, &most, vec![insert(0), upsert(1)]);
    let outcomes = tokio::time::timeout(how.limit, both).await.unwrap();
    assert_eq!(outcomes[0], Delivery::Confirmed);
    assert!(matches!(&outcomes[1], Delivery::Transient(error) if error.class == TIMEOUT));
}

#[test]
fn a_server_waits_for_its_members_no_longer_than_the_lane_for_the_server() {
    for (asked, limit, expected) in
        [(10_000_i64, 30, 10_000), (10_000, 6, 2_000), (500, 30, 500), (0, 30, 10_000)]
    {
        let mut how = How::new(true, doc! {"w": "majority", "wtimeout": asked});
        how.dropped_after(Duration::from_secs(limit));
        assert_eq!(how.concern.get_i64("wtimeout").unwrap(), expected);
    }
}

#[tokio::test]
async fn an_upsert_that_met_another_is_sent_once_more() {
    let duplicate = || Ok(write_errors(&[(1, DUPLICATE_KEY)]));
    let server = Scripted::new([duplicate()]);
    assert_eq!(deliver_to(&server, true, (0..3).map(upsert).collect()).await, "+++");
    assert_eq!(server.sent(), [vec![0, 1, 2], vec![1, 2]]);

    let first = || Ok(write_errors(&[(0, DUPLICATE_KEY)]));
    let server = Scripted::new([duplicate(), first()]);
    assert_eq!(deliver_to(&server, true, (0..3).map(upsert).collect()).await, "+-+");
    let server = Scripted::new([duplicate(), first()]);
    assert_eq!(deliver_to(&server, false, (0..3).map(upsert).collect()).await, "+-+");
}

#[tokio::test]
async fn a_command_that_is_refused_as_a_whole_is_halved_until_the_bad_one_is_found() {
    let refused = || Err(Failure::Refused(SinkError::new("BadValue", "no")));
    let fine = || Ok(doc! {"ok": 1});
    let server = Scripted::new([refused(), fine(), refused(), refused(), fine()]);
    assert_eq!(deliver_to(&server, true, (0..4).map(insert).collect()).await, "++-+");
    assert_eq!(server.sent(), [vec![0, 1, 2, 3], vec![0, 1], vec![2, 3], vec![2], vec![3]]);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_confirms_nothing() {
    let server = Scripted::new([Ok(write_errors(&[(7, 121)]))]);
    assert_eq!(deliver_to(&server, true, (0..2).map(insert).collect()).await, "~~");
}
