//! End to end at a fixed rate: a message is planned to be sent every 5 ms; `cat` repeats it, the result
//! goes to a Kafka topic, and somebody outside reads it there. Both sides are measured from the planned
//! time, so that a sender that is late cannot flatter them, and with the same linger and acks.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use drakkar::{
    Bytes, Collect, Handler, HookResult, KafkaPayload, Message, Pending, Task, TaskResult,
    sections::KafkaSinkConfig,
};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::{io::AsyncWriteExt, runtime::Runtime, sync::Semaphore, time::Instant};

use crate::{
    broker::{Broker, Topic},
    ours::{self, Ours},
    report::Round,
};

const EVERY: Duration = Duration::from_millis(5);

/// Messages before the first that counts: until then the group is joined and every page was touched.
const WARM_UP: usize = 200;

const SLOTS: usize = 4;

/// Of both producers.
const LINGER: Duration = Duration::from_millis(5);

const POLL: Duration = Duration::from_millis(1);

/// How long the last result may take.
const LATE: Duration = Duration::from_secs(30);

struct Cat;

impl Handler for Cat {
    type Input = Bytes;

    async fn arrange(&self, window: &[Message<Bytes>], _: &Pending) -> HookResult<Vec<Task>> {
        let task = |message: &Message<Bytes>| {
            Task::for_message(message).program("/bin/cat").stdin(message.input.clone())
        };
        Ok(window.iter().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskResult) -> HookResult<Collect> {
        Ok(Collect::new().kafka(KafkaPayload::raw(done.output.stdout.clone())))
    }
}

/// One topic to read, one for the results. The group has the name of the topic: a group that somebody left
/// keeps its next member of the mock broker waiting for a session.
struct Pair {
    source: Topic,
    results: Topic,
}

/// Milliseconds at the 99th percentile, ours beside the bare loop.
pub(crate) fn round(
    runtime: &Runtime,
    broker: &Broker,
    count: usize,
    round: usize,
) -> anyhow::Result<Round> {
    let pair = |side: &str| -> anyhow::Result<Pair> {
        Ok(Pair {
            source: broker.empty(format!("bench-{side}-in-{round}").leak())?,
            results: broker.empty(format!("bench-{side}-out-{round}").leak())?,
        })
    };
    let ours = || -> anyhow::Result<f64> {
        let pair = pair("ours")?;
        let mut config = ours::config(&pair.source, pair.source.name, SLOTS);
        let sink = KafkaSinkConfig {
            topic: pair.results.name.into(),
            linger: LINGER,
            ..KafkaSinkConfig::default()
        };
        config.sinks.kafka.insert("results".to_owned(), sink);
        let worker = Ours::start(runtime, Cat, config)?;
        let p99 = measure(&pair, count)?;
        worker.stop(runtime)?;
        Ok(p99)
    };
    let bare = || -> anyhow::Result<f64> {
        let pair = pair("bare")?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| bare_loop(runtime, &pair, &stop));
            let p99 = measure(&pair, count);
            stop.store(true, Ordering::Relaxed);
            running.join().ok().context("the bare loop died")??;
            p99
        })
    };
    if round.is_multiple_of(2) {
        let reference = bare()?;
        return Ok(Round { ours: ours()?, reference });
    }
    Ok(Round { ours: ours()?, reference: bare()? })
}

/// Sends at the planned times and reads the results; milliseconds at the 99th percentile.
fn measure(pair: &Pair, count: usize) -> anyhow::Result<f64> {
    let reader: BaseConsumer = pair.results.consumer("latency-reader").create()?;
    reader.assign(&pair.results.beginning())?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &pair.source.address)
        .set("linger.ms", "0")
        .create()?;
    wait_for_one(pair, &producer, &reader)?;
    let begin = Instant::now() + EVERY;
    let planned = |number: usize| begin + EVERY * u32::try_from(number).unwrap_or(u32::MAX);
    let (mut sent, mut took) = (0, Vec::with_capacity(count));
    let all = WARM_UP + count;
    let mut seen = 0;
    let deadline = planned(all) + LATE;
    while seen < all {
        ensure!(Instant::now() < deadline, "{seen} of {all} results arrived");
        while sent < all && planned(sent) <= Instant::now() {
            send(pair, &producer, sent)?;
            sent += 1;
        }
        producer.poll(Duration::ZERO);
        let Some(result) = reader.poll(POLL) else { continue };
        let now = Instant::now();
        let number: usize = std::str::from_utf8(result?.payload().context("empty")?)?.parse()?;
        if number >= all {
            continue; // One that only woke them up.
        }
        seen += 1;
        if number >= WARM_UP {
            took.push(now.saturating_duration_since(planned(number)));
        }
    }
    took.sort_unstable();
    let p99 = took.get(took.len() * 99 / 100).context("nothing was measured")?;
    Ok(p99.as_secs_f64() * 1e3)
}

/// Until the group is joined nothing can be measured.
fn wait_for_one(pair: &Pair, producer: &BaseProducer, reader: &BaseConsumer) -> anyhow::Result<()> {
    let deadline = Instant::now() + LATE;
    send(pair, producer, usize::MAX)?;
    while reader.poll(POLL).transpose()?.is_none() {
        producer.poll(Duration::ZERO);
        ensure!(Instant::now() < deadline, "no result arrived");
    }
    Ok(())
}

fn send(pair: &Pair, producer: &BaseProducer, number: usize) -> anyhow::Result<()> {
    let value = number.to_string();
    let record = BaseRecord::<(), _>::to(pair.source.name).payload(&value);
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(())
}

/// What a careful user would write: polls, has `cat` repeat each message on one of some tasks, produces
/// what it printed, and commits now and then.
fn bare_loop(runtime: &Runtime, pair: &Pair, stop: &AtomicBool) -> anyhow::Result<()> {
    let consumer: BaseConsumer = pair.source.consumer(pair.source.name).create()?;
    consumer.subscribe(&[pair.source.name])?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &pair.results.address)
        .set("linger.ms", LINGER.as_millis().to_string())
        .set("acks", "all")
        .create()?;
    let producer = Arc::new(producer);
    let slots = Arc::new(Semaphore::new(SLOTS));
    let mut committed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        producer.poll(Duration::ZERO);
        if let Some(message) = consumer.poll(POLL) {
            let value = message?.payload().context("empty")?.to_vec();
            let slot = runtime.block_on(Arc::clone(&slots).acquire_owned())?;
            let (producer, topic) = (Arc::clone(&producer), pair.results.name);
            runtime.spawn(async move {
                let printed = cat(&value).await;
                drop(slot);
                // What fails is missed by whoever measures.
                let Ok(printed) = printed else { return };
                drop(producer.send(BaseRecord::<(), _>::to(topic).payload(&printed)));
            });
        }
        if committed.elapsed() >= Duration::from_millis(500) {
            committed = Instant::now();
            // Before the first message there is nothing to commit.
            drop(consumer.commit_consumer_state(CommitMode::Async));
        }
    }
    Ok(producer.flush(LATE)?)
}

async fn cat(value: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut command = tokio::process::Command::new("/bin/cat");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(value).await?;
    drop(stdin);
    Ok(child.wait_with_output().await?.stdout)
}
