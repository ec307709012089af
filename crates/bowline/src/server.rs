//! Agents over HTTP: one listener, the routes of several modules, an end in good order.
//!
//! A tour:
//!
//! - [`Server`]: a listener with its connections; [`Settings`]: how it listens.
//! - `routes`: puts the routes of all modules together and wraps them.
//! - `app`: [`App`], what every route has: the service, the settings, the drain.
//! - `access`: [`Access`], who calls and what they may do.
//! - `keys`: [`Key`], what a caller shows. `guard`: who is let in. `rates`: how often. `tls`: certificates.
//! - `preface`: which version of HTTP a connection speaks. `rest`: how long one may ask for nothing.
//! - `refusal`: [`Refusal`], the one error that goes out.
//! - `conversation`: the conversation protocol, `/agents/{agent}/{id}`.
//! - `stream`: durable streams, `/v1/stream/**`.
//! - `socket`: the WebSocket on the same URL.
//! - `admin`: administration, `/v1/…`, and its description, `/openapi.json`.
//! - `operations`: health. `wire`: forms that several routes share. `parameters`: queries.
//! - `local`: [`Socket`], in the data directory, for the commands of the owner of the data.
//!
//! # To add routes
//!
//! Write a module with `pub(super) fn routes() -> Router<App>` and name it in `routes::all`. A handler
//!
//! - takes `State(app): State<App>` for the service, its store and the settings;
//! - takes `access: Access` and asks [`Access::require`] before it does anything;
//! - returns `Result<impl IntoResponse, Refusal>`; `?` on an [`Error`](crate::Error), a store error or a
//!   runtime error gives the documented envelope, and nothing internal leaves;
//! - that streams or waits ends, in good order, when [`App::draining`] is cancelled.
//!
//! The layers around all routes give each answer an `x-request-id`, bound bodies by
//! [`Settings::max_body`], turn a panic into `internal_error`, and answer unknown paths and methods.

mod access;
mod admin;
mod app;
mod conversation;
mod guard;
mod keys;
mod listen;
pub(crate) mod local;
mod operations;
mod parameters;
mod preface;
mod rates;
mod refusal;
mod rest;
mod routes;
mod settings;
mod socket;
mod stream;
mod tls;
mod wire;

pub use access::{Access, Scope, StreamGrant};
pub use admin::openapi_document;
pub use app::App;
pub use keys::{Key, KeyHash, Keys, MAX_KEYS, fresh as fresh_key};
pub use listen::{Peer, Server};
pub use local::Socket;
pub use rates::Rate;
pub use refusal::{Refusal, Refused};
pub(crate) use routes::embedded;
pub use routes::router;
pub use settings::Settings;
pub use tls::Tls;
