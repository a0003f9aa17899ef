//! What programs that stay say on standard error. It listens to the log of the whole process, so it is alone.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test a panic is the report.

mod support;

use std::sync::{Arc, Mutex};

use drakkar_executor::Protocol;
use support::{
    finished,
    persistent::{Stage, stdout, task},
    run, until,
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn listen() -> Self {
        let log = Self::default();
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        log
    }

    fn lines(&self, text: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{}={value:?}", field.name()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Self::default();
        event.record(&mut line);
        let fields = line.0.lock().unwrap().join(" ");
        self.0.lock().unwrap().push(fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn standard_error_is_logged_with_the_task_and_a_flood_of_it_is_counted() {
    let log = Log::listen();
    let stage = Stage::new(Protocol::JsonLines);
    let pool = stage.pool();
    let pid = stdout(run(&pool, task("pid")).await);
    finished(run(&pool, task("say").stdin("careful now").with_id("the-task")).await);
    until("it is logged", || !log.lines("careful now").is_empty()).await;
    for part in ["program=\"stay\"", "task=\"the-task\"", &format!("pid={pid}")] {
        let line = &log.lines("careful now")[0];
        assert!(line.contains(part), "{line}");
    }
    finished(run(&pool, task("say").stdin("more\n".repeat(1_000))).await);
    let logged = || u64::try_from(log.lines("more").len()).unwrap();
    let left_out = || pool.programs()["stay"].stderr_suppressed;
    until("every line is logged or counted", || logged() + left_out() == 1_000).await;
    assert!(logged() <= 100, "{}: 50 in 10 seconds, which may begin anew", logged());
}
