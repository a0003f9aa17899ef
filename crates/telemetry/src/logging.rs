//! Where log lines go.
//!
//! A line is formatted where the event happens and written by a thread of its own. Between the two
//! lies a bounded queue: when the reader of standard error is slow or gone, or the disk is full, lines
//! are dropped and counted (`drakkar_log_lines_dropped_total`), and no message waits for them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::format::Ecs;

/// How long a [`LogGuard`] waits for what is queued to be written, at most: `tracing-appender` waits for 1.1 s.
pub const LOG_WITHIN: Duration = Duration::from_secs(2);

/// Lines between the event and the writing thread, before lines are dropped.
const QUEUED_LINES: usize = 16_384;

static DROPS: OnceLock<Drops> = OnceLock::new();

/// The lines of one log that were not written.
#[derive(Debug, Clone)]
struct Drops {
    /// For which the queue had no room.
    queue: ErrorCounter,
    /// Which the file, the pipe or the terminal did not take.
    refused: Arc<AtomicU64>,
}

impl Drops {
    fn lines(&self) -> u64 {
        self.queue.dropped_lines() as u64 + self.refused.load(Ordering::Relaxed)
    }
}

/// Counts the lines that `output` does not take. Each comes with a `write_all` of its own.
struct Counted<W> {
    output: W,
    refused: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.output.write(part)
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.output.write_all(line).inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// Least severe level that is written: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`. The
    /// variable `RUST_LOG` wins and may tell modules apart. Default: `INFO`.
    pub level: LogLevel,
    /// `json` (one object per line with ECS field names) or `console`, for people. Default: `json`.
    pub format: LogFormat,
    /// `stderr`, `stdout`, or a file that is appended to; `{worker_id}` and `{cluster_name}` in its
    /// name are replaced. Default: `stderr`.
    pub output: LogOutput,
}

/// How severe an event must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything of interest while looking for a fault.
    Debug,
    /// What happens in normal operation.
    #[default]
    Info,
    /// What someone should look at.
    Warning,
    /// What failed.
    Error,
    /// As [`LogLevel::Error`]: there is nothing above it here.
    Critical,
}

impl LogLevel {
    const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical];

    fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    /// The directive that [`EnvFilter`] understands.
    fn directive(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error | Self::Critical => "error",
        }
    }
}

impl Serialize for LogLevel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = drakkar_core::lenient::text(deserializer)?;
        let upper = text.to_ascii_uppercase();
        let upper = if upper == "WARN" { "WARNING" } else { &upper };
        Self::ALL.into_iter().find(|level| level.as_str() == upper).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is not a log level; write DEBUG, INFO, WARNING, ERROR or CRITICAL"
            ))
        })
    }
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object with ECS field names.
    #[default]
    Json,
    /// Text for people.
    Console,
}

/// Where lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
    /// A file; placeholders are not yet replaced.
    File(String),
}

impl Serialize for LogOutput {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Stderr => "stderr",
            Self::Stdout => "stdout",
            Self::File(template) => template,
        })
    }
}

impl<'de> Deserialize<'de> for LogOutput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = drakkar_core::lenient::text(deserializer)?;
        Ok(match text.as_str() {
            "stderr" => Self::Stderr,
            "stdout" => Self::Stdout,
            "" => {
                return Err(de::Error::custom("must be stderr, stdout or the name of a file"));
            }
            _ => Self::File(text),
        })
    }
}

/// Who writes the log: repeated in every line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// Name of the service.
    pub service_name: &'static str,
    /// Id of this worker.
    pub worker_id: String,
    /// Its consumer group.
    pub consumer_group: String,
    /// Logical cluster it belongs to; empty for none.
    pub cluster_name: String,
    /// Version of the program.
    pub version: String,
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The file cannot be opened.
    #[error("logging.output: cannot open {path}")]
    Open {
        /// Which file, placeholders replaced.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG: not a log filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The program has set a subscriber of its own.
    #[error("logging was started before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps the log alive; dropping it writes what is queued, as far as that takes no longer than a second.
#[derive(Debug)]
#[must_use = "lines are lost once the guard is dropped"]
pub struct LogGuard {
    _writer: WorkerGuard,
}

/// Starts logging for the whole process.
///
/// # Errors
///
/// When the file cannot be opened, `RUST_LOG` is malformed, or a subscriber was set before.
pub fn init(config: &LoggingConfig, identity: &LogIdentity) -> Result<LogGuard, LoggingError> {
    let filter = filter(config.level, std::env::var(EnvFilter::DEFAULT_ENV).ok().as_deref())?;
    let (writer, guard, drops) = writer(&config.output, identity)?;
    // The first subscriber stays; a second `init` fails below and what it drops is of no interest.
    DROPS.get_or_init(|| drops);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .fmt_fields(fmt::format::JsonFields::new())
                    .event_format(Ecs::new(identity))
                    .with_writer(writer),
            )
            .try_init(),
        LogFormat::Console => {
            registry.with(fmt::layer().with_ansi(false).with_writer(writer)).try_init()
        }
    };
    started.map_err(LoggingError::Twice)?;
    Ok(LogGuard { _writer: guard })
}

/// Lines of this process that are in no log: they came too fast, or were refused.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPS.get().map_or(0, Drops::lines)
}

/// `RUST_LOG` where it is set, else the level.
fn filter(level: LogLevel, rust_log: Option<&str>) -> Result<EnvFilter, LoggingError> {
    match rust_log.filter(|set| !set.is_empty()) {
        Some(set) => EnvFilter::builder().parse(set).map_err(LoggingError::Filter),
        None => Ok(EnvFilter::new(level.directive())),
    }
}

fn writer(
    output: &LogOutput,
    identity: &LogIdentity,
) -> Result<(NonBlocking, WorkerGuard, Drops), LoggingError> {
    Ok(match output {
        LogOutput::Stderr => queue(io::stderr()),
        LogOutput::Stdout => queue(io::stdout()),
        LogOutput::File(template) => {
            let path = log_file(template, identity);
            queue(open(&path).map_err(|source| LoggingError::Open { path, source })?)
        }
    })
}

/// Starts the thread that writes to `output`.
fn queue(output: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard, Drops) {
    let refused = Arc::default();
    let counted = Counted { output, refused: Arc::clone(&refused) };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES)
        .thread_name("drakkar-log")
        .finish(counted);
    let drops = Drops { queue: writer.error_counter(), refused };
    (writer, guard, drops)
}

fn open(path: &Path) -> io::Result<fs::File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// The name of the file; an id cannot lead out of its directory.
fn log_file(template: &str, identity: &LogIdentity) -> PathBuf {
    let plain = |text: &str| text.replace(['/', '\0'], "_");
    template
        .replace("{worker_id}", &plain(&identity.worker_id))
        .replace("{cluster_name}", &plain(&identity.cluster_name))
        .into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn identity(worker: &str) -> LogIdentity {
        LogIdentity {
            service_name: "drakkar",
            worker_id: worker.to_owned(),
            consumer_group: "group".to_owned(),
            cluster_name: "blue".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_file_name_takes_worker_and_cluster_and_stays_in_its_directory() {
        let name = log_file("/logs/{cluster_name}/{worker_id}.log", &identity("../../w"));
        assert_eq!(name, PathBuf::from("/logs/blue/.._.._w.log"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = file.path().join("x.log");
        let output = LogOutput::File(below.to_string_lossy().into_owned());
        let error = writer(&output, &identity("w")).unwrap_err();
        assert_eq!(error.to_string(), format!("logging.output: cannot open {}", below.display()));
    }

    #[test]
    fn lines_that_are_refused_are_counted() {
        let (reader, broken) = io::pipe().unwrap();
        drop(reader);
        let full = open(Path::new("/dev/full")).unwrap();
        for (mut writer, guard, drops) in [queue(broken), queue(full)] {
            for _ in 0..3 {
                writer.write_all(b"line\n").unwrap();
            }
            drop(guard); // Waits for a second at most.
            let deadline = Instant::now() + Duration::from_mins(2);
            while drops.lines() < 3 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            assert_eq!(drops.lines(), 3);
        }
    }

    #[test]
    fn rust_log_wins_over_the_level() {
        let shown = |rust_log| filter(LogLevel::Warning, rust_log).map(|f| f.to_string());
        assert_eq!(shown(None).unwrap(), "warn");
        assert_eq!(shown(Some("")).unwrap(), "warn");
        assert_eq!(shown(Some("rdkafka=debug,info")).unwrap(), "rdkafka=debug,info");
        let error = shown(Some("a=b=c")).unwrap_err();
        assert_eq!(error.to_string(), "RUST_LOG: not a log filter");
    }

    #[test]
    fn levels_are_read_in_any_case_and_refused_with_the_list() {
        let read = |text: &str| serde_json::from_value::<LogLevel>(text.into());
        assert_eq!(read("warning").unwrap(), LogLevel::Warning);
        assert_eq!(read("DEBUG").unwrap(), LogLevel::Debug);
        assert_eq!(
            read("LOUD").unwrap_err().to_string(),
            "\"LOUD\" is not a log level; write DEBUG, INFO, WARNING, ERROR or CRITICAL"
        );
    }
}
