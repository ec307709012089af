//! Health, and figures.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, header},
    routing::get,
};
use serde_json::{Value, json};

use super::{Access, App, Refusal, Scope};
use crate::telemetry;

/// The routes of this module.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
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

/// Figures for Prometheus. They tell of every agent, so that only who may read them all gets them.
async fn metrics(
    State(app): State<App>,
    access: Access,
) -> Result<([(HeaderName, &'static str); 2], String), Refusal> {
    access.require_all(Scope::Read)?;
    let told = app.telemetry().text();
    let told = told.map_err(|error| Refusal::Internal(error.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, telemetry::CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, told))
}
