//! Records of a topic, confirmed by the broker, beside a producer loop with the same settings.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use drakkar::{Config, KafkaPayload, Payload, PayloadError, sections::KafkaSinkConfig};
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use tokio::runtime::Runtime;

use super::{Far, Feed, Row};

const PARTITIONS: i32 = 4;

/// Of both producers.
const LINGER: Duration = Duration::from_millis(5);

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A cluster with a topic per lap.
pub(super) struct Topics {
    brokers: String,
    /// Laps of an earlier run have left their topics.
    run: u32,
}

impl Topics {
    pub(super) fn at_hand() -> anyhow::Result<Self> {
        Ok(Self { brokers: super::server("DRAKKAR_TEST_KAFKA")?, run: std::process::id() })
    }

    fn topic(&self, lap: &str) -> String {
        format!("bench-{}-{lap}", self.run)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }
}

impl Far for Topics {
    const NAME: &'static str = "Kafka";
    const GOAL: f64 = 0.6;

    fn prepare(&self, runtime: &Runtime, lap: &str) -> anyhow::Result<()> {
        let name = self.topic(lap);
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(-1));
        let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
        for one in made {
            one.map_err(|(name, code)| anyhow!("{name}: {code}"))?;
        }
        Ok(())
    }

    fn configure(&self, lap: &str, config: &mut Config) -> anyhow::Result<()> {
        let sink = KafkaSinkConfig {
            topic: self.topic(lap),
            brokers: self.brokers.clone(),
            linger: LINGER,
            ..KafkaSinkConfig::default()
        };
        config.sinks.kafka.insert("rows".to_owned(), sink);
        Ok(())
    }

    fn payload(_: &str, row: Row<'_>) -> Result<Payload, PayloadError> {
        Ok(KafkaPayload::json(&row)?.into())
    }

    fn by_hand(&self, _: &Runtime, lap: &str, rows: &mut Feed<'_>) -> anyhow::Result<()> {
        let producer: BaseProducer<Confirmed> = self
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", LINGER.as_millis().to_string())
            .create_with_context(Confirmed)?;
        let topic = self.topic(lap);
        loop {
            let some = rows.next()?;
            if some.is_empty() {
                break;
            }
            for row in &*some {
                let value = serde_json::to_vec(row)?;
                let mut record = BaseRecord::<(), _>::to(&topic).payload(&value);
                while let Err((error, again)) = producer.send(record) {
                    let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                    ensure!(error == full, error);
                    producer.poll(LINGER);
                    record = again;
                }
                producer.poll(Duration::ZERO);
            }
        }
        Ok(producer.flush(ANSWER_WITHIN)?)
    }

    fn count(&self, _: &Runtime, lap: &str) -> anyhow::Result<usize> {
        let observer: BaseConsumer = self.client().set("group.id", "bench-observer").create()?;
        let topic = self.topic(lap);
        let mut found = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = observer.fetch_watermarks(&topic, partition, ANSWER_WITHIN)?;
            found += usize::try_from(high - low)?;
        }
        Ok(found)
    }
}

/// Hears of every record, as who needs to know must; what is missing is seen when rows are counted.
struct Confirmed;

impl ClientContext for Confirmed {}

impl ProducerContext for Confirmed {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
