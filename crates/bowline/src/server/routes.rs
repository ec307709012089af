//! All routes, and what is around them.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use super::{App, Refusal, admin, conversation, guard, local, operations, refusal, stream};

/// Where the id of a request stands.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes of each module. One line each.
fn all() -> Router<App> {
    Router::new()
        .merge(operations::routes())
        .merge(conversation::routes())
        .merge(stream::routes())
        .merge(admin::routes())
}

/// All routes of a server, ready to be served or merged into another application.
pub fn router(app: App) -> Router {
    wrapped(all(), app)
}

/// The same with what only the owner of the data is served, at the socket in the data directory.
pub(super) fn local_router(app: App) -> Router {
    wrapped(all().merge(local::routes()), app)
}

fn wrapped(routes: Router<App>, app: App) -> Router {
    routes
        .fallback(|| async { Refusal::RouteNotFound })
        .method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed("") })
        .layer(DefaultBodyLimit::max(app.settings().max_body))
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send + 'static>| {
                Refusal::Internal("a request panicked".to_owned()).into_response()
            },
        ))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(middleware::from_fn_with_state(app.clone(), identify))
        .with_state(app)
}

/// Gives each request an id, and logs what went wrong under it.
async fn identify(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = app.sources().id("req_");
    let (method, path) = (request.method(), request.uri().path());
    let span = tracing::info_span!("request", id, %method, path);
    // What nobody logs is not copied.
    let asked =
        tracing::event_enabled!(tracing::Level::INFO).then(|| (method.clone(), path.to_owned()));
    let mut response = next.run(request).instrument(span).await;
    if response.status().is_server_error() {
        response = refusal::log(response, &app.sources().id("err_"), &id);
    }
    if let Some((method, path)) = asked {
        tracing::info!(request = id, %method, path, status = response.status().as_u16(), "answered");
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, value);
    }
    headers
        .entry("x-content-type-options")
        .or_insert(HeaderValue::from_static("nosniff"));
    response
}
