//! A payload for a sink of your own.

use std::{any::Any, fmt, sync::Arc};

use crate::contain::let_go;

/// One value for a sink that the worker was given by name.
///
/// The sink says which type it takes; a value of another type is refused for good.
///
/// ```
/// use drakkar_core::CustomPayload;
///
/// let payload = CustomPayload::new("audit", String::from("done"), 4);
/// assert_eq!(payload.value::<String>().unwrap(), "done");
/// assert_eq!(payload.value::<u32>(), None);
/// ```
#[derive(Clone)]
pub struct CustomPayload {
    /// The name the worker knows the sink by; `None` where there is exactly one.
    pub sink: Option<String>,
    value: Arc<dyn Any + Send + Sync>,
    size: usize,
    type_name: &'static str,
}

/// It is dropped wherever the last copy of its payload is: what that does must not matter there.
struct Value<T>(Option<T>);

impl<T> Drop for Value<T> {
    fn drop(&mut self) {
        let_go(self.0.take());
    }
}

impl CustomPayload {
    /// `value` for the sink that the worker knows as `sink`. `size` is how many bytes it occupies,
    /// about: batches and queues are bounded by it.
    #[must_use]
    pub fn new<T: Send + Sync + 'static>(sink: impl Into<String>, value: T, size: usize) -> Self {
        let type_name = std::any::type_name::<T>();
        Self { sink: Some(sink.into()), value: Arc::new(Value(Some(value))), size, type_name }
    }

    /// The value, if it is of this type.
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.value.downcast_ref::<Value<T>>()?.0.as_ref()
    }

    /// The name of its type, for people.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Bytes it occupies, as it was made.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl fmt::Debug for CustomPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomPayload")
            .field("sink", &self.sink)
            .field("type", &self.type_name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The same value, not an equal one.
impl PartialEq for CustomPayload {
    fn eq(&self, other: &Self) -> bool {
        self.sink == other.sink && Arc::ptr_eq(&self.value, &other.value)
    }
}

impl Eq for CustomPayload {}
