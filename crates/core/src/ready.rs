//! What a worker has connected, for the hook that is called before the first message.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::Arc,
};

use crate::SinkName;

/// What a worker has connected; see [`Handler::on_ready`](crate::Handler::on_ready).
///
/// A typed map, because this crate knows neither databases nor metrics: ask for what you need by its
/// type. A worker gives its metrics registry (`prometheus::Registry`: what a handler registers there is
/// served with the worker's own series), and every sink that has a handle gives it under its name.
///
/// ```
/// use drakkar_core::{Ready, SinkKind, SinkName};
///
/// let mut ready = Ready::default();
/// ready.offer(SinkName::new(SinkKind::Kafka, "results"), String::from("a connection"));
/// assert_eq!(ready.sink::<String>("results").unwrap(), "a connection");
/// assert_eq!(ready.get::<u32>(), None);
/// ```
#[derive(Default)]
pub struct Ready {
    shared: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    handles: HashMap<(TypeId, Arc<str>), Box<dyn Any + Send + Sync>>,
    sinks: Vec<SinkName>,
}

impl Ready {
    /// Gives something that exists once per worker.
    pub fn provide<T: Send + Sync + 'static>(&mut self, value: T) {
        self.shared.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// Says that `sink` is connected.
    pub fn connected(&mut self, sink: SinkName) {
        self.sinks.push(sink);
    }

    /// Says that `sink` is connected and may be used by way of `handle`.
    pub fn offer<T: Send + Sync + 'static>(&mut self, sink: SinkName, handle: T) {
        let key = (TypeId::of::<T>(), Arc::clone(&sink.instance));
        self.handles.insert(key, Box::new(handle));
        self.connected(sink);
    }

    /// What exists once per worker and is of this type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.shared.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The connection of the sink that the configuration calls `name`, if it has one of this type.
    #[must_use]
    pub fn sink<T: Send + Sync + 'static>(&self, name: &str) -> Option<&T> {
        self.handles.get(&(TypeId::of::<T>(), name.into()))?.downcast_ref()
    }

    /// The sinks that are connected.
    #[must_use]
    pub fn sinks(&self) -> &[SinkName] {
        &self.sinks
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}
