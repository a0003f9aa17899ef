//! What a scripted sink accepted.

use std::{
    fmt::Debug,
    panic::Location,
    sync::{Arc, Mutex, Weak},
};

use bytes::Bytes;
use drakkar_core::{DeadLetter, FilePayload, KafkaPayload};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    lock,
    patience::{PATIENCE, wait},
    state::State,
};

/// What a scripted sink accepted, in order. Cheap to clone; outlives its world.
#[derive(Debug)]
pub struct Recorded<P> {
    shared: Arc<Shared<P>>,
}

#[derive(Debug)]
struct Shared<P> {
    accepted: Mutex<Vec<P>>,
    count: watch::Sender<usize>,
    world: Mutex<Weak<State>>,
}

impl<P> Clone for Recorded<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P> Recorded<P> {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            accepted: Mutex::default(),
            count: watch::Sender::new(0),
            world: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn extend(&self, payloads: impl IntoIterator<Item = P>) {
        let count = {
            let mut accepted = lock(&self.shared.accepted);
            accepted.extend(payloads);
            accepted.len()
        };
        self.shared.count.send_replace(count);
    }

    /// From now on this world is shown when a wait is in vain.
    pub(crate) fn belongs_to(&self, world: Weak<State>) {
        *lock(&self.shared.world) = world;
    }

    /// How many were accepted so far.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.shared.accepted).len()
    }

    /// Whether none was accepted so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until `count` were accepted.
    ///
    /// # Panics
    ///
    /// When that does not happen in time; the text shows the world.
    #[track_caller]
    pub fn until(&self, count: usize) -> impl Future<Output = ()> + Send + use<P> {
        let at = Location::caller();
        let mut changed = self.shared.count.subscribe();
        let world = lock(&self.shared.world).clone();
        async move {
            let enough = async {
                // Should the sink be gone, nothing more will come: then this never ends.
                if changed.wait_for(|accepted| count <= *accepted).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            wait(format!("{count} payloads in a sink"), &world, PATIENCE, at, enough).await;
        }
    }
}

impl<P: Clone> Recorded<P> {
    /// Everything accepted so far.
    #[must_use]
    pub fn all(&self) -> Vec<P> {
        lock(&self.shared.accepted).clone()
    }
}

impl<P: Clone + Debug> Recorded<P> {
    /// The only one that was accepted.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one; the text shows them, or the world.
    #[must_use]
    #[track_caller]
    pub fn only(&self) -> P {
        let mut all = self.all();
        match all.len() {
            0 => panic!("the sink accepted nothing\n{}", self.world()),
            1 => all.remove(0),
            more => panic!("the sink accepted {more} payloads, not one: {all:#?}"),
        }
    }

    fn world(&self) -> String {
        let world = lock(&self.shared.world).upgrade();
        world.map(|world| world.to_string()).unwrap_or_default()
    }
}

impl Recorded<KafkaPayload> {
    /// The values that were delivered, decoded from JSON, in order.
    ///
    /// # Panics
    ///
    /// When one of them is not such a value; the text shows it.
    #[must_use]
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> Vec<T> {
        self.all().iter().map(|payload| decoded(payload.value.as_ref())).collect()
    }

    /// The same for the records with this key.
    ///
    /// # Panics
    ///
    /// As [`Recorded::json`].
    #[must_use]
    #[track_caller]
    pub fn json_of<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Vec<T> {
        self.of(key).iter().map(|payload| decoded(payload.value.as_ref())).collect()
    }

    /// The records with this key, in order.
    #[must_use]
    pub fn of(&self, key: impl AsRef<[u8]>) -> Vec<KafkaPayload> {
        let mut all = self.all();
        all.retain(|payload| payload.key.as_deref() == Some(key.as_ref()));
        all
    }

    /// The values that were delivered, as text, in order; that of a tombstone is empty.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.all().iter().map(|payload| text(payload.value.as_ref())).collect()
    }
}

impl Recorded<FilePayload> {
    /// The lines that were written, decoded from JSON, in order.
    ///
    /// # Panics
    ///
    /// When one of them is not such a value; the text shows it.
    #[must_use]
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> Vec<T> {
        self.all().iter().map(|payload| decoded(Some(payload.content.bytes()))).collect()
    }
}

impl Recorded<DeadLetter> {
    /// What became of the message at `offset` of `partition`, if it was given up.
    #[must_use]
    pub fn at(&self, partition: i32, offset: i64) -> Option<DeadLetter> {
        self.all().into_iter().find(|letter| {
            letter.message.partition.partition == partition && letter.message.offset.0 == offset
        })
    }
}

#[track_caller]
fn decoded<T: DeserializeOwned>(value: Option<&Bytes>) -> T {
    match serde_json::from_slice(value.map(|value| &**value).unwrap_or_default()) {
        Ok(decoded) => decoded,
        Err(error) => panic!(
            "what was delivered is no JSON of {}: {error}: {:?}",
            std::any::type_name::<T>(),
            value.map_or_else(|| "a tombstone".to_owned(), |value| text(Some(value))),
        ),
    }
}

fn text(value: Option<&Bytes>) -> String {
    String::from_utf8_lossy(value.map(|value| &**value).unwrap_or_default()).into_owned()
}
