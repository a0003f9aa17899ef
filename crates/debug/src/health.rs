//! What the probes answer, and the body that names the reason.
//!
//! Whoever knows the worker implements [`Health`]; this crate only translates. Alive fails for what
//! a restart cures, ready for what makes the worker useless for now.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Knows how the worker is.
pub trait Health: Send + Sync + 'static {
    /// How it is now. Must return at once: a probe waits for it.
    fn snapshot(&self) -> HealthSnapshot;
}

/// How a worker is.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthSnapshot {
    /// `Err` names what a restart would cure.
    pub alive: Result<(), String>,
    /// `Err` names what the worker waits for before it is of use.
    pub ready: Result<(), String>,
    /// Anything that helps to understand the state; shown with both probes, so no secrets.
    pub details: Value,
}

pub(crate) fn answer(verdict: Result<(), String>, details: &Value) -> Response {
    let (status, body) = match verdict {
        Ok(()) => (StatusCode::OK, json!({ "status": "ok", "details": details })),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "status": "failing", "reason": reason, "details": details }),
        ),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
