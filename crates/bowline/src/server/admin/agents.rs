//! The agents that are served.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use bowline_agent::{Definition, definition::SandboxKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Access, App, Parameters, Refusal, Scope};
use crate::server::{conversation, wire::Problem};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/agents", get(list))
        .route("/v1/agents/{agent}", get(one))
}

/// An agent.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentInfo {
    /// Its name.
    name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<String>,
    /// The model that it uses.
    model: String,
    /// The models that stand in for it, in order.
    fallback: Vec<String>,
    /// What it works in: `none`, `workspace`, or another kind of sandbox.
    sandbox: &'static str,
    /// The tools that it is given besides those of its sandbox.
    tools: Vec<String>,
    /// Its skills.
    skills: Vec<String>,
    /// Tools that may need a person's consent.
    approvals: Vec<String>,
    /// Why it cannot answer, when it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// The agents.
#[derive(Serialize, ToSchema)]
pub(super) struct AgentList {
    /// In order of their names.
    agents: Vec<AgentInfo>,
}

fn describe(app: &App, definition: Definition) -> AgentInfo {
    let name = definition.name.to_string();
    let checked = app.service().check(&name);
    AgentInfo {
        problem: checked.err().map(Problem::from),
        description: definition.description,
        model: definition.model,
        fallback: definition.fallback,
        sandbox: match definition.sandbox {
            SandboxKind::None => "none",
            SandboxKind::Workspace => "workspace",
            SandboxKind::Local(_) => "local",
        },
        tools: definition.tools,
        skills: definition.skills.into_iter().map(|one| one.name).collect(),
        approvals: definition.approvals.into_keys().collect(),
        name,
    }
}

/// List the agents
///
/// Those that the caller may read.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", responses(
    (status = 200, description = "The agents", body = AgentList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    parameters: Parameters,
) -> Result<Json<AgentList>, Refusal> {
    parameters.only(&[])?;
    let agents = app.service().agents();
    let readable = agents.filter(|name| access.require(Scope::Read, name).is_ok());
    let known = readable.filter_map(|name| app.service().definition(&name));
    let agents = known.map(|one| describe(&app, one)).collect();
    Ok(Json(AgentList { agents }))
}

/// Show an agent
#[utoipa::path(get, path = "/v1/agents/{agent}", tag = "agents", params(
    ("agent" = String, Path, description = "The agent", pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length = 64),
), responses(
    (status = 200, description = "The agent", body = AgentInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    access: Access,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Json<AgentInfo>, Refusal> {
    access.require(Scope::Read, &name)?;
    parameters.only(&[])?;
    conversation::known(&app, &access, &name)?;
    let definition = app.service().definition(&name);
    let definition = definition.ok_or(Refusal::RouteNotFound)?;
    Ok(Json(describe(&app, definition)))
}
