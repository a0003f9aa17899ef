//! Refused payloads to the sinks that refused them, without running a task again.
//!
//! Progress never passes a letter of which a payload was not confirmed, unless it was named and the
//! command was told to go on. Nothing is written but what the sinks take.

use std::time::Duration;

use drakkar_core::Payload;

use super::{
    Ended,
    args::Replay,
    connect::{Kafka, configuration},
    letter::Letter,
    pass::{Answer, BATCH, Destination, Fate, Way},
    replay::{Begun, TOO_YOUNG, rows},
};
use desk::Desk;

mod desk; // the sinks of a configuration

/// What becomes of a letter that is meant, where payloads for the sinks `only` are, or all of them.
fn fate(letter: &Letter, only: &[String]) -> Fate<Vec<Payload>> {
    if letter.ours("stage").as_deref() != Some("deliver") {
        return Fate::Unmatched;
    }
    // Which of its sinks the rest is about, a letter does not say.
    let is_carrier = letter.ours("payload-with").is_none() && !letter.payloads().is_empty();
    let named = || letter.ours("sink").is_some_and(|sink| only.iter().any(|one| *one == *sink));
    if !is_carrier && !only.is_empty() && !named() {
        return Fate::Unmatched;
    }
    if letter.ours("payload-with").is_some() {
        return Fate::Elsewhere;
    }
    if let Some(bytes) = letter.ours("payload-omitted") {
        return Fate::Without(format!("the payloads ({bytes} bytes) were left out of it"));
    }
    let payloads: Result<Vec<Payload>, _> =
        letter.payloads().into_iter().map(serde_json::from_slice).collect();
    match payloads {
        Ok(none) if none.is_empty() => Fate::Without("it carries no payload".to_owned()),
        Ok(mut payloads) => {
            payloads
                .retain(|payload| only.is_empty() || only.iter().any(|one| is_for(payload, one)));
            if payloads.is_empty() { Fate::Unmatched } else { Fate::Goes(payloads) }
        }
        Err(error) => Fate::Unreadable(format!("its payload cannot be read: {error}")),
    }
}

/// Whether `payload` is for `sink`. One that names none is for the only one of its kind.
fn is_for(payload: &Payload, sink: &str) -> bool {
    let Some((kind, name)) = sink.split_once('/') else { return false };
    kind == payload.kind().as_str() && payload.sink().is_none_or(|named| named == name)
}

pub(super) fn replay(args: &Replay) -> anyhow::Result<Ended> {
    let config = configuration(&args.place)?;
    let kafka = Kafka::read(&args.place, &config)?;
    let name = args.name.clone().unwrap_or_else(|| format!("{}.to-sink", kafka.topic));
    let begun = Begun::new(args, &kafka, &name)?;
    let desk = if args.pace.dry_run { None } else { Some(Desk::open(config, kafka.timeout)?) };
    let sinks = Sinks { desk, only: &args.choice.sink, at_once: 1 };
    begun.run(args, !args.keep_going, "delivered", sinks, |tally| {
        rows(
            (tally.delivered, format!("{}delivered", args.pace.would())),
            [
                (tally.refused, "refused again, as said above".to_owned()),
                (tally.unreadable, "whose payload cannot be read, as said above".to_owned()),
                (tally.without, "not delivered for want of a payload, as said above".to_owned()),
                (tally.elsewhere, "whose payloads are in the letter of another message".to_owned()),
                (tally.unmatched, "left out by the filters, or not about a delivery".to_owned()),
                (tally.too_young, TOO_YOUNG.to_owned()),
                (tally.parked_before, "left out because they were parked before".to_owned()),
            ],
        )
    })
}

/// The sinks of a worker.
struct Sinks<'a> {
    /// Not there in a dry run.
    desk: Option<Desk>,
    /// The others get nothing; none: all get theirs.
    only: &'a [String],
    /// Letters of the next batch: one to begin with, so that little is delivered behind one that is
    /// refused, and will be delivered again.
    at_once: usize,
}

impl Destination for Sinks<'_> {
    type Parcel = Vec<Payload>;

    const BATCH_TIME: Duration = Duration::from_millis(200);

    fn fate(&mut self, letter: &Letter) -> Fate<Vec<Payload>> {
        fate(letter, self.only)
    }

    fn way(_: &Vec<Payload>) -> Way {
        Way::Delivered
    }

    fn would(payloads: &Vec<Payload>) -> String {
        let sinks: Vec<String> = payloads.iter().map(sink_of).collect();
        format!("delivered to {}", sinks.join(", "))
    }

    fn size(payloads: &Vec<Payload>) -> usize {
        payloads.iter().map(Payload::size).sum()
    }

    fn check(&mut self, _: &mut Vec<Payload>) -> anyhow::Result<()> {
        Ok(()) // A sink that is not there refuses.
    }

    fn begin(&self, _: usize, _: &Vec<Payload>) {} // They are written together.

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn settle(&mut self, batch: Vec<Vec<Payload>>) -> anyhow::Result<Vec<Answer>> {
        self.at_once = (self.at_once * 2).min(BATCH);
        Ok(self.desk.as_ref().map(|desk| desk.deliver(batch)).unwrap_or_default())
    }

    fn close(self) {
        if let Some(desk) = self.desk {
            desk.close();
        }
    }
}

/// The sink that is to take `payload`, for people.
fn sink_of(payload: &Payload) -> String {
    let kind = payload.kind().as_str();
    payload.sink().map_or_else(|| format!("the only {kind} sink"), |name| format!("{kind}/{name}"))
}

#[cfg(test)]
mod tests {
    use drakkar::{Header, KafkaPayload};

    use super::{super::letter::tests::letter, *};

    /// A letter that a worker wrote with these headers behind the others, given up at `stage`.
    fn given_up_at(stage: &str, more: &[(&str, &str)]) -> Letter {
        let mut record = letter(&[]).record;
        record.headers[0] = Header::new("drakkar-stage", stage.to_owned());
        let more = more.iter().map(|(name, value)| Header::new(*name, (*value).to_owned()));
        record.headers.extend(more);
        Letter::new(record)
    }

    #[test]
    fn a_letter_has_the_payloads_that_it_carries_in_their_order() {
        let json = |value: &str| {
            format!(r#"{{"kafka": {{"key": null, "value": "{value}", "headers": []}}}}"#)
        };
        let payloads = [("drakkar-payload", &*json("a")), ("drakkar-payload", &*json("b"))];
        let expected = [KafkaPayload::raw("a").into(), KafkaPayload::raw("b").into()];
        assert_eq!(fate(&given_up_at("deliver", &payloads), &[]), Fate::Goes(expected.to_vec()));
        assert_eq!(fate(&given_up_at("execute", &payloads), &[]), Fate::Unmatched);
    }

    #[test]
    fn a_letter_without_payloads_that_can_be_read_says_why() {
        for (more, expected) in [
            (vec![], "it carries no payload"),
            (vec![("drakkar-payload-omitted", "7")], "(7 bytes) were left out"),
        ] {
            let fate = fate(&given_up_at("deliver", &more), &[]);
            assert!(matches!(&fate, Fate::Without(why) if why.contains(expected)), "{fate:?}");
        }
        for payload in ["{}", r#"{"sink of the future": {}}"#] {
            let fate = fate(&given_up_at("deliver", &[("drakkar-payload", payload)]), &[]);
            assert!(matches!(&fate, Fate::Unreadable(why) if why.contains("cannot be read")));
        }
        let with = given_up_at("deliver", &[("drakkar-payload-with", "orders:3:41")]);
        assert_eq!(fate(&with, &[]), Fate::Elsewhere);
    }
}
