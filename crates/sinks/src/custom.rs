//! A sink that somebody else wrote: values of its own type, found behind a payload of any type.
//!
//! A value of another type is refused for good, and says which type was expected.

use drakkar_core::{CustomPayload, Delivery, Sink, SinkError, contain::Each};

/// A sink that takes `S::Payload`.
pub(crate) struct Custom<S> {
    sink: S,
}

impl<S> Custom<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink }
    }
}

impl<S: Sink<Payload: Clone>> Sink for Custom<S> {
    type Payload = CustomPayload;

    async fn deliver(&self, batch: &[CustomPayload]) -> Vec<Delivery> {
        let value = |payload: &CustomPayload| payload.value::<S::Payload>().cloned();
        let known = Each::from(batch.iter().filter_map(value).collect::<Vec<S::Payload>>());
        let mut answers =
            if known.is_empty() { Vec::new() } else { self.sink.deliver(&known).await };
        if answers.len() != known.len() {
            // The lane sees it by their number and says what is wrong, so the others count as well:
            // an answer too many must not stand for a payload the sink was never given.
            let others = batch.iter().filter(|payload| payload.value::<S::Payload>().is_none());
            answers.extend(others.map(other_type::<S::Payload>));
            return answers;
        }
        let mut answers = answers.into_iter();
        let answer = |payload: &CustomPayload| match payload.value::<S::Payload>() {
            Some(_) => answers.next(),
            None => Some(other_type::<S::Payload>(payload)),
        };
        batch.iter().filter_map(answer).collect()
    }

    async fn probe(&self) -> Result<(), SinkError> {
        self.sink.probe().await
    }

    async fn close(&self) {
        self.sink.close().await;
    }
}

fn other_type<P>(payload: &CustomPayload) -> Delivery {
    let (expected, given) = (std::any::type_name::<P>(), payload.type_name());
    let text = format!("the sink takes {expected}, the payload is a {given}");
    Delivery::Permanent(SinkError::new("wrong_type", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Even;

    impl Sink for Even {
        type Payload = u32;

        async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
            let odd = || Delivery::Permanent(SinkError::new("odd", "no odd numbers"));
            batch.iter().map(|n| if n % 2 == 0 { Delivery::Confirmed } else { odd() }).collect()
        }
    }

    fn class(delivery: &Delivery) -> &str {
        match delivery {
            Delivery::Confirmed => "confirmed",
            Delivery::Transient(error) | Delivery::Permanent(error) => &error.class,
        }
    }

    #[tokio::test]
    async fn a_value_of_another_type_is_refused_alone() {
        let batch = [
            CustomPayload::new("even", 2_u32, 4),
            CustomPayload::new("even", "two", 3),
            CustomPayload::new("even", 3_u32, 4),
        ];
        let answers = Custom::new(Even).deliver(&batch).await;
        let classes: Vec<&str> = answers.iter().map(class).collect();
        assert_eq!(classes, ["confirmed", "wrong_type", "odd"]);
    }

    /// Answers twice for each payload.
    struct Stutters;

    impl Sink for Stutters {
        type Payload = u32;

        async fn deliver(&self, batch: &[u32]) -> Vec<Delivery> {
            vec![Delivery::Confirmed; batch.len() * 2]
        }
    }

    #[tokio::test]
    async fn a_wrong_number_of_answers_stays_wrong_beside_values_of_another_type() {
        let batch = [CustomPayload::new("even", 2_u32, 4), CustomPayload::new("even", "two", 3)];
        let answers = Custom::new(Stutters).deliver(&batch).await;
        assert_ne!(answers.len(), batch.len(), "the lane must see that it is wrong");
    }
}
