//! The conversation protocol: `/agents/{agent}/{id}` and what is below it.
//!
//! - `send` takes messages; `view` gives the history, and the updates from an offset on, at once, as
//!   they come, or as a stream of events; `attachment` gives files.
//! - `submission` tells how one message stands, waits for its answer, and cancels it.
//! - `manage` lists, deletes and exports; `fork` forks.
//! - `described` is what `/openapi.json` says of all this.
//! - `feed` lets the readers of one conversation share what it costs to follow it; `wire` is what they
//!   are sent.

use axum::{
    Router,
    extract::{FromRequestParts, Path},
    http::{HeaderValue, header, request::Parts},
    response::Response,
    routing::{get, post},
};
use bowline_agent::actor;
use bowline_store::ActorId;

use super::{Access, App, Refusal, Scope, parameters::Parameters};
use crate::service::check_instance;

mod attachment;
mod described;
pub(super) mod feed;
mod fork;
pub(super) mod histories;
mod manage;
mod send;
mod submission;
mod updates;
mod view;
mod wire;

pub(super) use described::{Described, Whose};
pub(super) use fork::{Fork, Forked, fork};
pub(super) use manage::{delete, export};
pub(super) use send::{deliver, parse, whole};
pub(super) use submission::{Aborted, Standing, abort_one, ended, read as submission, stands};
pub(super) use updates::stream;
pub(super) use view::history;

/// The routes of this module.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/agents/{agent}", get(manage::list))
        .route(
            "/agents/{agent}/{id}",
            get(view::read)
                .head(view::head)
                .post(send::send)
                .delete(manage::delete),
        )
        .route("/agents/{agent}/{id}/export", get(manage::export))
        .route("/agents/{agent}/{id}/fork", post(fork::fork))
        .route("/agents/{agent}/{id}/abort", post(submission::abort_all))
        .route(
            "/agents/{agent}/{id}/attachments/{attachment}",
            get(attachment::read),
        )
        .route(
            "/agents/{agent}/{id}/submissions/{submission}",
            get(submission::read),
        )
        .route(
            "/agents/{agent}/{id}/submissions/{submission}/abort",
            post(submission::abort_one),
        )
        .layer(axum::middleware::map_response(readable_elsewhere))
}

/// Pages of other origins may show what they were given leave to read.
async fn readable_elsewhere(mut response: Response) -> Response {
    response
        .headers_mut()
        .entry("cross-origin-resource-policy")
        .or_insert(HeaderValue::from_static("cross-origin"));
    response
}

/// The conversation that a path names, with who asks for it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) agent: String,
    pub(super) id: String,
    pub(super) actor: ActorId,
    pub(super) access: Access,
    /// Further segments of the path, in order.
    rest: Vec<String>,
}

impl Target {
    /// Checks that the caller may do this here.
    pub(super) fn require(&self, scope: Scope) -> Result<(), Refusal> {
        self.access.require(scope, &self.agent)
    }

    /// The last segment of the path.
    pub(super) fn last(&self) -> &str {
        self.rest.last().map_or("", String::as_str)
    }
}

impl FromRequestParts<App> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let access = Access::from_request_parts(parts, app).await?;
        let Path(segments) = Path::<Vec<(String, String)>>::from_request_parts(parts, app).await?;
        let mut segments = segments.into_iter().map(|(_, segment)| segment);
        let (Some(agent), Some(id)) = (segments.next(), segments.next()) else {
            return Err(Refusal::RouteNotFound);
        };
        known(app, &access, &agent)?;
        check_instance(&id)?;
        Ok(Self {
            actor: actor(&agent, &id),
            agent,
            id,
            access,
            rest: segments.collect(),
        })
    }
}

/// Checks that there is such an agent.
pub(super) fn known(app: &App, access: &Access, agent: &str) -> Result<(), Refusal> {
    let agents: Vec<_> = app.service().agents().collect();
    if agents.iter().any(|name| name == agent) {
        return Ok(());
    }
    // Who may not see an agent is not told its name either.
    let seen = agents
        .iter()
        .map(String::as_str)
        .filter(|name| access.require(Scope::Read, name).is_ok());
    let hint = match bowline_agent::definition::closest(agent, seen) {
        Some(close) => format!("did you mean `{close}`? `GET /v1/agents` lists them"),
        None => "`GET /v1/agents` lists them".to_owned(),
    };
    Err(Refusal::NoAgent {
        name: agent.to_owned(),
        hint,
    })
}

/// Takes `no-store` for what changes.
fn no_store(response: &mut Response) {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
