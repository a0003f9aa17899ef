//! The payloads that were refused, as their dead letter carries them: so that they can be delivered
//! without running the task again.
//!
//! All of them or none: half of what a hook made must not pass for the whole. Together they are
//! bounded, and they are in one letter only where they were made from several messages.

use bytes::Bytes;

use crate::{Header, Payload, SourceMessage};

/// Most bytes of payloads that a dead letter carries, as JSON.
pub const MAX_PAYLOADS: usize = 512 << 10;

/// What a dead letter says of the payloads that were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// These, each as JSON. None where no payload was refused.
    Payloads(Vec<Bytes>),
    /// The letter of another message carries them: its coordinates.
    Elsewhere(String),
    /// So many bytes were left out: too large, or of a kind that cannot be written.
    LeftOut(usize),
}

impl Default for Carried {
    fn default() -> Self {
        Self::Payloads(Vec::new())
    }
}

impl Carried {
    /// `payload`, if it can be carried.
    #[must_use]
    pub fn of(payload: &Payload) -> Self {
        let size = payload.size();
        if MAX_PAYLOADS < size {
            return Self::LeftOut(size);
        }
        match serde_json::to_vec(payload) {
            Ok(json) if json.len() <= MAX_PAYLOADS => {
                Self::Payloads(vec![json.into_boxed_slice().into()])
            }
            Ok(_) | Err(_) => Self::LeftOut(size),
        }
    }

    /// These and `more`, if all of them can be carried.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        let size = self.size() + more.size();
        match (self, more) {
            (Self::Payloads(mut all), Self::Payloads(more)) if size <= MAX_PAYLOADS => {
                all.extend(more);
                Self::Payloads(all)
            }
            _ => Self::LeftOut(size),
        }
    }

    /// What the letter of another message says, where that of `first` carries these.
    #[must_use]
    pub fn elsewhere(&self, first: &SourceMessage) -> Self {
        match self {
            Self::Payloads(all) if !all.is_empty() => Self::Elsewhere(first.coordinates()),
            other => other.clone(),
        }
    }

    /// The same without the payloads themselves.
    #[must_use]
    pub fn left_out(self) -> Self {
        match self {
            Self::Payloads(all) if !all.is_empty() => Self::LeftOut(Self::Payloads(all).size()),
            other => other,
        }
    }

    /// Bytes that are carried, or were left out.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Payloads(all) => all.iter().map(Bytes::len).sum(),
            Self::Elsewhere(_) => 0,
            Self::LeftOut(bytes) => *bytes,
        }
    }

    /// Bytes that the letter occupies because of it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Payloads(_) => self.size(),
            Self::Elsewhere(_) | Self::LeftOut(_) => 0,
        }
    }

    pub(super) fn headers(&self) -> Vec<Header> {
        match self {
            Self::Payloads(all) => {
                all.iter().map(|json| Header::new("drakkar-payload", json.clone())).collect()
            }
            Self::Elsewhere(message) => {
                vec![Header::new("drakkar-payload-with", message.clone())]
            }
            Self::LeftOut(bytes) => {
                vec![Header::new("drakkar-payload-omitted", bytes.to_string())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CustomPayload, FilePayload, KafkaPayload};

    fn of(payload: impl Into<Payload>) -> Carried {
        Carried::of(&payload.into())
    }

    /// A record whose JSON is a little larger than this.
    fn large(bytes: usize) -> Carried {
        of(KafkaPayload::raw(vec![b'x'; bytes]))
    }

    #[test]
    fn a_payload_comes_back_from_its_letter_byte_for_byte() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let record = KafkaPayload::raw(every_byte.clone()).key(every_byte).sink("results");
        let line = FilePayload::json("a/b.jsonl", &["\u{0}", "grün"]).unwrap();
        for payload in [Payload::from(record), line.into(), KafkaPayload::tombstone("k").into()] {
            let Carried::Payloads(json) = Carried::of(&payload) else { panic!("{payload:?}") };
            assert_eq!(serde_json::from_slice::<Payload>(&json[0]).unwrap(), payload);
        }
    }

    #[test]
    fn the_kind_is_written_as_the_configuration_calls_it() {
        for (payload, kind) in [
            (Payload::from(KafkaPayload::raw("v")), "kafka"),
            (FilePayload::json("f", &1).unwrap().into(), "filesystem"),
        ] {
            let json = serde_json::to_value(&payload).unwrap();
            assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), [kind]);
            assert_eq!(kind, payload.kind().as_str());
        }
    }

    #[test]
    fn what_is_too_large_or_cannot_be_written_is_left_out_and_counted() {
        assert_eq!(large(MAX_PAYLOADS + 1), Carried::LeftOut(MAX_PAYLOADS + 1));
        assert_eq!(large(MAX_PAYLOADS), Carried::LeftOut(MAX_PAYLOADS), "as JSON it is larger");
        assert_eq!(of(CustomPayload::new("audit", 7_u32, 4)), Carried::LeftOut(4));
    }

    #[test]
    fn several_payloads_are_carried_together_or_not_at_all() {
        let both = large(10).and(large(20));
        let Carried::Payloads(all) = &both else { panic!("{both:?}") };
        assert_eq!(all.len(), 2);
        assert!(matches!(
            large(10).and(of(CustomPayload::new("audit", 1, 4))),
            Carried::LeftOut(_)
        ));
        let half = MAX_PAYLOADS / 2;
        assert!(
            matches!(large(half).and(large(half)), Carried::LeftOut(bytes) if 2 * half < bytes)
        );
        assert_eq!(Carried::default().and(large(10)), large(10));
    }
}
