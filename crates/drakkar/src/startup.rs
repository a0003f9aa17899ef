//! `on_startup`: the handler's word on its configuration, before anything is built from it.
//!
//! The hook is registered on the worker and not part of the trait, because the crate of the trait does
//! not know the configuration. What it changed is checked again.

use std::pin::Pin;

use drakkar_core::{Handler, HookResult};
use drakkar_pipeline::{apart, contained};

use crate::{Config, ConfigError, Loaded, Origin, RunError, config::Problem};

/// What hooks return that are registered on the worker: [`Worker::on_startup`](crate::Worker::on_startup)
/// and [`Worker::periodic`](crate::Worker::periodic).
pub type HookFuture<'a> = Pin<Box<dyn Future<Output = HookResult<()>> + Send + 'a>>;

pub(crate) type OnStartup<H> =
    Box<dyn for<'a> FnOnce(&'a mut H, &'a mut Config) -> HookFuture<'a> + Send>;

/// Asks `hook`; what comes back is to be built.
pub(crate) async fn ask<H: Handler>(
    hook: OnStartup<H>,
    mut handler: H,
    mut loaded: Loaded,
) -> Result<(H, Loaded), RunError> {
    let limit = loaded.config.executor.hook_timeout_seconds;
    let asked = async move {
        let call = async { hook(&mut handler, &mut loaded.config).await };
        contained(limit, call).await.map(|()| (handler, loaded))
    };
    let (handler, loaded) =
        apart(limit, asked).await.map_err(|failure| RunError::hook("on_startup", failure))?;
    loaded.config.validate().map_err(by_the_hook)?;
    Ok((handler, loaded))
}

/// The configuration was right before.
fn by_the_hook(error: ConfigError) -> ConfigError {
    let ConfigError::Wrong(problems) = error else { return error };
    let changed = |problem| Problem { origin: Origin::Startup, ..problem };
    ConfigError::Wrong(problems.into_iter().map(changed).collect())
}
