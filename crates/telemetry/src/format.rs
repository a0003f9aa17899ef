//! What a JSON line looks like: ECS field names, and the context fields of the Python original.
//!
//! `@timestamp`, `log.level` and `message` come first, as ECS logging asks. Fields of the event
//! follow under their own names; `error` becomes `error.message` and `error_class` becomes
//! `error.type`, because `error` is an object in ECS. Fields of open spans are added where the
//! event has none of that name.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::LookupSpan,
};

use crate::LogIdentity;

/// Longest text of a field, in bytes: queued lines are bounded in number, this bounds their size.
const MAX_TEXT: usize = 8 * 1024;

/// Version of ECS whose names are used.
const ECS_VERSION: &str = "1.6.0";

/// Writes events as ECS lines on behalf of one worker.
pub(crate) struct Ecs {
    identity: LogIdentity,
    now: fn() -> SystemTime,
}

impl Ecs {
    pub(crate) fn new(identity: &LogIdentity) -> Self {
        Self { identity: identity.clone(), now: SystemTime::now }
    }

    fn line(
        &self,
        level: Level,
        target: &str,
        fields: &Fields,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = Vec::with_capacity(512);
        let mut json = serde_json::Serializer::new(&mut line);
        let mut map = json.serialize_map(None)?;
        let at = humantime::format_rfc3339_millis((self.now)()).to_string();
        map.serialize_entry("@timestamp", &at)?;
        map.serialize_entry("log.level", level_name(level))?;
        map.serialize_entry("message", &fields.message)?;
        map.serialize_entry("ecs.version", ECS_VERSION)?;
        map.serialize_entry("log.logger", target)?;
        map.serialize_entry("service.name", self.identity.service_name)?;
        map.serialize_entry("service.version", &self.identity.version)?;
        map.serialize_entry("service_name", self.identity.service_name)?;
        map.serialize_entry("service_version", &self.identity.version)?;
        map.serialize_entry("worker_id", &self.identity.worker_id)?;
        map.serialize_entry("consumer_group", &self.identity.consumer_group)?;
        if !self.identity.cluster_name.is_empty() {
            map.serialize_entry("cluster_name", &self.identity.cluster_name)?;
        }
        let category = fields.category.as_deref().unwrap_or("worker");
        map.serialize_entry("category", category)?;
        for (name, value) in &fields.others {
            map.serialize_entry(name, value)?;
        }
        map.end()?;
        line.push(b'\n');
        Ok(line)
    }
}

impl<S> FormatEvent<S, JsonFields> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(recorded) = span.extensions().get::<FormattedFields<JsonFields>>() {
                fields.inherit(recorded);
            }
        }
        let metadata = event.metadata();
        let line =
            self.line(*metadata.level(), metadata.target(), &fields).map_err(|_| fmt::Error)?;
        writer.write_str(std::str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    message: String,
    category: Option<String>,
    others: BTreeMap<String, Value>,
}

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        match name {
            "message" => self.message = plain(value),
            "category" => self.category = Some(plain(value)),
            // A line that stands for itself alone need not say so.
            "suppressed" if value == 0 => {}
            _ => {
                self.others.insert(renamed(name), value);
            }
        }
    }

    /// Takes over what an open span recorded and the event does not say itself.
    fn inherit(&mut self, recorded: &str) {
        let Ok(Value::Object(map)) = serde_json::from_str(recorded) else {
            return;
        };
        for (name, value) in map {
            match name.as_str() {
                "category" => {
                    self.category.get_or_insert_with(|| plain(value));
                }
                _ => {
                    self.others.entry(renamed(&name)).or_insert(value);
                }
            }
        }
    }
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// At most [`MAX_TEXT`] bytes of `text`, cut between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// The name under which a field appears: none that would overwrite one of ours.
fn renamed(name: &str) -> String {
    match name {
        "error" => "error.message".to_owned(),
        "error_class" => "error.type".to_owned(),
        "worker_id" | "consumer_group" | "cluster_name" | "service_name" | "service_version" => {
            format!("field.{name}")
        }
        _ => name.trim_start_matches("r#").to_owned(),
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), cut(value).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), cut(&format!("{value:?}")).into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
        time::{Duration, UNIX_EPOCH},
    };

    use tracing::{info_span, warn};
    use tracing_subscriber::{fmt::MakeWriter, prelude::*};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let ecs = Ecs {
            identity: LogIdentity {
                service_name: "drakkar",
                worker_id: "worker-1".to_owned(),
                consumer_group: "group".to_owned(),
                cluster_name: String::new(),
                version: "0.1.0".to_owned(),
            },
            now: || UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        };
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(ecs)
            .with_writer(lines.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_ecs_json_with_the_context_of_the_worker() {
        let line = logged(|| {
            warn!(
                target: "drakkar::test",
                category = "executor",
                task = %"task-1",
                error = "exit code 3",
                error_class = "exit_code",
                attempt = 2_u32,
                suppressed = 0_u64,
                "task \"failed\""
            );
        });
        assert_eq!(
            line,
            concat!(
                r#"{"@timestamp":"2023-11-14T22:13:20.123Z","log.level":"warning","#,
                r#""message":"task \"failed\"","ecs.version":"1.6.0","log.logger":"drakkar::test","#,
                r#""service.name":"drakkar","service.version":"0.1.0","#,
                r#""service_name":"drakkar","service_version":"0.1.0","worker_id":"worker-1","#,
                r#""consumer_group":"group","category":"executor","#,
                r#""attempt":2,"error.message":"exit code 3","error.type":"exit_code","#,
                r#""task":"task-1"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_event_inherits_from_its_spans_and_wins_over_them() {
        let line = logged(|| {
            let _outer = info_span!("outer", partition = "orders:1", task = "outer").entered();
            let _inner = info_span!("inner", task = "inner").entered();
            warn!(offset = 7, "here");
        });
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["partition"], "orders:1");
        assert_eq!(read["task"], "inner");
        assert_eq!(read["offset"], 7);
        assert_eq!(read["category"], "worker");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let line = logged(|| warn!(error = "ä".repeat(MAX_TEXT), "long"));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["error.message"].as_str().unwrap().len(), MAX_TEXT);
    }

    #[test]
    fn a_line_break_in_a_field_does_not_break_the_line() {
        let line = logged(|| warn!(text = "one\ntwo", "three\nfour"));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
