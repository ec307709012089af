//! Administration as JSON, `/v1/…`, and its description, `/openapi.json`.
//!
//! - `agents`: what may be talked with. `instances`: their conversations, one by one.
//! - `submissions`, `approvals`, `schedules`: what a conversation has open, and what decides about it.
//! - `files`: the workspace. `code_runs`: what runs of code did. `spend`: what model calls have cost. `fibers`: checkpointed tasks.
//! - `openapi`: the description, made from these modules.
//!
//! Each route says its scope: `read` sees, `send` answers and cancels, `admin` does everything else. A
//! list over all agents leaves out those that the caller may not read.

use axum::Router;
use utoipa::IntoParams;

use super::{
    Access, App, Refusal, Scope, conversation,
    conversation::{Target, Whose},
    parameters::Parameters,
};

mod agents;
mod approvals;
mod code_runs;
mod fibers;
mod files;
mod instances;
mod openapi;
mod ranges;
mod schedules;
mod spend;
mod submissions;

pub use openapi::document as openapi_document;
pub(in crate::server) use openapi::{Content, Refused};

/// Most entries of one page.
const MOST: usize = 1_000;
/// Entries of a page when nobody says how many.
const USUAL: usize = 100;

/// The routes of this module.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(openapi::routes())
        .merge(agents::routes())
        .merge(instances::routes())
        .merge(submissions::routes())
        .merge(approvals::routes())
        .merge(schedules::routes())
        .merge(files::routes())
        .merge(fibers::routes())
        .merge(code_runs::routes())
        .merge(spend::routes())
}

/// A part of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it only describes what `Paging` reads")]
struct Page {
    /// How many, usually 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only what comes after this one: `next` of the page before.
    after: Option<String>,
}

/// Which part of a list is asked for.
struct Paging {
    limit: usize,
    after: Option<String>,
}

impl Paging {
    fn of(parameters: &Parameters) -> Result<Self, Refusal> {
        Ok(Self {
            limit: parameters.number("limit", MOST)?.unwrap_or(USUAL),
            after: parameters.get("after").map(str::to_owned),
        })
    }
}

/// Checks that the conversation has begun.
async fn there(app: &App, target: &Target) -> Result<bowline_agent::feed::Identity, Refusal> {
    let found = bowline_agent::feed::identity(&**app.store(), &target.actor).await?;
    found.ok_or(Refusal::StreamNotFound)
}
