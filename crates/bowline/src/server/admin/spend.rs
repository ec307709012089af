//! What model calls have cost.

use std::collections::BTreeMap;

use axum::{Json, Router, extract::State, routing::get};
use bowline_agent::spend::{self, Line, Reserved, Totals};
use bowline_model::format_usd;
use bowline_store::{ActorId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Access, App, Parameters, Refusal, Scope, Target, Whose, there};
use crate::server::wire::Tokens;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/spend", get(all))
        .route("/v1/agents/{agent}/{id}/spend", get(of_instance))
}

/// What some calls came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sum {
    /// What was added up: an agent, a conversation, a model or a day; empty for the total.
    name: String,
    /// US dollars, as far as prices are known.
    cost_usd: String,
    /// The part of it that calls cost which broke off, estimated.
    wasted_usd: String,
    /// Calls that were answered.
    calls: u64,
    /// Calls that broke off.
    cut: u64,
    /// Calls whose price is not known; they are in no amount.
    unpriced: u64,
    /// The tokens of the calls that were answered.
    usage: Tokens,
}

/// What model calls have cost.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spent {
    /// In order of their names.
    rows: Vec<Sum>,
    /// All of them.
    total: Sum,
    /// What is reserved for calls that are under way, in US dollars.
    reserved_usd: String,
}

/// What is added up together.
#[derive(Clone, Copy)]
enum By {
    Agent,
    Instance,
    Model,
    Day,
}

fn by(parameters: &Parameters, usual: By) -> Result<By, Refusal> {
    match parameters.get("by") {
        None => Ok(usual),
        Some("agent") => Ok(By::Agent),
        Some("instance") => Ok(By::Instance),
        Some("model") => Ok(By::Model),
        Some("day") => Ok(By::Day),
        Some(_) => Err(Refusal::InvalidRequest(
            "`by` is `agent`, `instance`, `model` or `day`".to_owned(),
        )),
    }
}

fn since(parameters: &Parameters) -> Result<Option<&str>, Refusal> {
    let Some(text) = parameters.get("since") else {
        return Ok(None);
    };
    match Timestamp::parse(&format!("{text}T00:00:00Z")).filter(|_| text.len() == 10) {
        Some(_) => Ok(Some(text)),
        None => Err(Refusal::InvalidRequest(
            "`since` is a day such as 2026-11-22".to_owned(),
        )),
    }
}

fn add_up(lines: &[Line], reserved: &[Reserved], by: By, fits: impl Fn(&ActorId) -> bool) -> Spent {
    let mut rows: BTreeMap<String, Totals> = BTreeMap::new();
    let mut total = Totals::default();
    for line in lines.iter().filter(|line| fits(&line.actor)) {
        let name = match by {
            By::Agent => line.actor.name().to_owned(),
            By::Instance => format!("{}/{}", line.actor.name(), line.actor.key()),
            By::Model => format!("{}/{}", line.provider, line.model),
            By::Day => line.day.clone(),
        };
        rows.entry(name).or_default().add(&line.totals);
        total.add(&line.totals);
    }
    let reserved = reserved.iter().filter(|one| fits(&one.actor));
    Spent {
        rows: rows
            .into_iter()
            .map(|(name, row)| sum(name, &row))
            .collect(),
        total: sum(String::new(), &total),
        reserved_usd: format_usd(reserved.map(|one| one.micro_usd).sum()),
    }
}

fn sum(name: String, totals: &Totals) -> Sum {
    Sum {
        name,
        cost_usd: format_usd(totals.cost_micro_usd),
        wasted_usd: format_usd(totals.wasted_micro_usd),
        calls: totals.calls,
        cut: totals.cut,
        unpriced: totals.unpriced,
        usage: totals.usage.into(),
    }
}

/// Show what model calls have cost
///
/// Of all agents that the caller may read.
#[utoipa::path(get, path = "/v1/spend", tag = "spend", params(
    ("by" = Option<String>, Query, description = "What is added up together, usually `agent`",
        pattern = "^(agent|instance|model|day)$"),
    ("since" = Option<String>, Query, description = "Only from this day on, UTC", format = Date),
), responses(
    (status = 200, description = "What they have cost", body = Spent),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn all(
    State(app): State<App>,
    access: Access,
    parameters: Parameters,
) -> Result<Json<Spent>, Refusal> {
    parameters.only(&["by", "since"])?;
    let (by, since) = (by(&parameters, By::Agent)?, since(&parameters)?);
    let (lines, reserved) = spend::lines(&**app.store(), since).await?;
    let readable = |actor: &ActorId| access.require(Scope::Read, actor.name()).is_ok();
    Ok(Json(add_up(&lines, &reserved, by, readable)))
}

/// Show what the model calls of a conversation have cost
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/spend", tag = "spend", params(
    Whose,
    ("by" = Option<String>, Query, description = "What is added up together, usually `model`",
        pattern = "^(agent|instance|model|day)$"),
    ("since" = Option<String>, Query, description = "Only from this day on, UTC", format = Date),
), responses(
    (status = 200, description = "What they have cost", body = Spent),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn of_instance(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<Spent>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&["by", "since"])?;
    let (by, since) = (by(&parameters, By::Model)?, since(&parameters)?);
    there(&app, &target).await?;
    let read = spend::lines_of(&**app.store(), &target.actor, since).await?;
    Ok(Json(add_up(&read.0, &read.1, by, |_| true)))
}
