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
/// Which handles there are depends on the sinks: a database sink gives its pool. The metrics registry
/// is always there; what a handler registers is served with the worker's own series.
///
/// ```
/// use drakkar_core::{Ready, SinkKind, SinkName};
///
/// let mut ready = Ready::default();
/// ready.offer(SinkName::new(SinkKind::Kafka, "results"), String::from("a connection"));
/// assert_eq!(ready.sink::<String>("results").unwrap(), "a connection");
/// ```
#[derive(Default)]
pub struct Ready {
    handles: HashMap<(TypeId, Arc<str>), Box<dyn Any + Send + Sync>>,
    sinks: Vec<SinkName>,
    registry: prometheus::Registry,
}

impl Ready {
    /// Nothing connected, and `registry` for the metrics of the handler.
    #[must_use]
    pub fn new(registry: prometheus::Registry) -> Self {
        Self { handles: HashMap::new(), sinks: Vec::new(), registry }
    }

    /// Says that `sink` is connected and may be used by way of `handle`.
    pub fn offer<T: Send + Sync + 'static>(&mut self, sink: SinkName, handle: T) {
        let key = (TypeId::of::<T>(), Arc::clone(&sink.instance));
        self.handles.insert(key, Box::new(handle));
        self.connected(sink);
    }

    /// Says that `sink` is connected.
    pub fn connected(&mut self, sink: SinkName) {
        self.sinks.push(sink);
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

    /// Where the worker's metrics live; register your own beside them.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.registry
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}
