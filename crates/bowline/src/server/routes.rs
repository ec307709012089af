//! All routes, and what is around them.

use std::time::Instant;

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use bowline_runtime::Trace;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use super::{App, Refusal, admin, conversation, guard, local, operations, refusal, stream};

/// Where the id of a request stands.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The routes of each module that tell of agents and their data. One line each.
fn agents() -> Router<App> {
    Router::new()
        .merge(conversation::routes())
        .merge(stream::routes())
        .merge(admin::routes())
}

/// The routes of a server of its own, which has health and figures as well, and answers at every path.
fn all() -> Router<App> {
    agents()
        .merge(operations::routes())
        .fallback(|| async { Refusal::RouteNotFound })
}

/// All routes of a server.
pub fn router(app: App) -> Router {
    wrapped(all(), Reach::EveryPath, app)
}

/// The routes below `/agents`, `/v1` and `/openapi.json`, for [`Bowline::router`](crate::Bowline::router).
pub(crate) fn embedded(app: App) -> Router {
    wrapped(agents(), Reach::OwnRoutes, app)
}

/// The same with what only the owner of the data is served, at the socket in the data directory.
pub(super) fn local_router(app: App) -> Router {
    wrapped(all().merge(local::routes()), Reach::EveryPath, app)
}

/// Puts around the routes what all have; around what is at no route as well, where that is ours to answer.
fn wrapped(routes: Router<App>, reach: Reach, app: App) -> Router {
    let layers = (
        middleware::from_fn_with_state(app.clone(), identify),
        middleware::from_fn_with_state(app.clone(), guard::guard),
        CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send + 'static>| {
            Refusal::Internal("a request panicked".to_owned()).into_response()
        }),
        DefaultBodyLimit::max(app.settings().max_body),
    );
    let routes = routes.method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed("") });
    let routes = match reach {
        Reach::EveryPath => routes.layer(layers),
        Reach::OwnRoutes => routes.route_layer(layers),
    };
    routes.with_state(app)
}

/// What a router answers.
#[derive(Debug, Clone, Copy)]
enum Reach {
    /// All that is asked for.
    EveryPath,
    /// Its routes; the rest is for the application that it was merged into.
    OwnRoutes,
}

/// The request's span: within the trace of whoever asks, else within a new one.
fn traced(headers: &HeaderMap, id: &str) -> Trace {
    let header = headers.get("traceparent");
    let given = header.and_then(|value| Trace::parse(value.to_str().ok()?));
    given.unwrap_or_else(|| Trace::of(id)).child(id)
}

/// Gives each request an id, and logs what went wrong under it.
async fn identify(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = app.sources().id("req_");
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let trace = traced(request.headers(), &id);
    let span = tracing::info_span!(
        "request",
        request = id,
        %method,
        path,
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
    );
    if !span.is_disabled() {
        span.record("trace_id", trace.trace_id());
        span.record("span_id", trace.span_id());
    }
    request.extensions_mut().insert(trace);
    let mut response = next.run(request).instrument(span.clone()).await;
    if response.status().is_server_error() {
        response = refusal::log(response, &app.sources().id("err_"), &id);
    }
    let (status, took) = (response.status().as_u16(), began.elapsed());
    if status >= 400 {
        let reason = response.extensions_mut().remove::<refusal::Reason>();
        let reason = reason.map(|reason| reason.0);
        if let Some(error) = reason.as_ref().filter(|error| error.code == "store_full") {
            // It is no fault of the server, but somebody has to do something.
            app.was_full();
            span.in_scope(|| tracing::error!(code = error.code, "{error}"));
        }
        app.tell_refused(method.as_str(), &path, status, reason);
    }
    let route = route.as_ref().map(MatchedPath::as_str);
    app.telemetry()
        .answered(route, method.as_str(), status, took);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::info!(status, took_us, "answered"));
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, value);
    }
    headers
        .entry("x-content-type-options")
        .or_insert(HeaderValue::from_static("nosniff"));
    response
}
