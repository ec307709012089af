//! Health, and figures.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderName, header},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Access, App, Refusal, Scope, admin::Refused};
use crate::telemetry;

/// The routes of this module.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// How the process does.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

/// Say that the process is alive
///
/// It needs no key.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses(
    (status = 200, description = "It is alive", body = Health),
    (status = "default", response = Refused),
))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Say that the process takes messages
///
/// Its store answers and had room lately, and it is not stopping. It needs no key.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()), responses(
    (status = 200, description = "It takes messages", body = Health),
    (status = "default", response = Refused),
))]
pub(super) async fn readyz(State(app): State<App>) -> Result<Json<Health>, Refusal> {
    app.may_wait()?;
    app.has_room()?;
    app.store().next_wake().await?;
    Ok(Json(Health { status: "ready" }))
}

/// Tell figures to Prometheus
///
/// They tell of every agent, so that only who may read them all gets them.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "Figures in the text format of Prometheus", body = String,
        content_type = "application/openmetrics-text"),
    (status = "default", response = Refused),
))]
pub(super) async fn metrics(
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
