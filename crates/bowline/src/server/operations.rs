//! Health.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::{App, Refusal};

/// The routes of this module.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// The process is alive.
async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The process takes messages: its store answers, and it is not stopping.
async fn readyz(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    if app.draining().is_cancelled() {
        return Err(bowline_runtime::RuntimeError::Stopped.into());
    }
    app.store().next_wake().await?;
    Ok(Json(json!({"status": "ready"})))
}
