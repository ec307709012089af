//! What a conversation does by itself, and when.

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    routing::get,
};
use bowline_agent::Outgoing;
use bowline_runtime::alarm::{self, Missed, NewSchedule, Overlap, Schedule, When};
use bowline_store::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, Parameters, Refusal, Scope, Target, Whose, there};
use crate::Error;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/agents/{agent}/{id}/schedules", get(list))
        .route(
            "/v1/agents/{agent}/{id}/schedules/{schedule}",
            get(one).put(put).delete(delete),
        )
}

/// A schedule of a conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScheduleInfo {
    /// Its id.
    id: String,
    /// When it is due.
    #[schema(value_type = Due)]
    when: When,
    /// What is sent then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
    /// When it is due next.
    #[schema(format = DateTime)]
    next: String,
    /// The submission of the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last: Option<String>,
    /// When it was registered.
    #[schema(format = DateTime)]
    created_at: String,
}

/// When a schedule is due.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
pub(super) enum Due {
    /// Once, at a time to come.
    At {
        /// The time.
        #[schema(value_type = String, format = DateTime)]
        time: Timestamp,
    },
    /// Once, after a delay.
    After {
        /// In milliseconds, at most ten years.
        #[schema(maximum = 316224000000_u64)]
        millis: u64,
    },
    /// Again and again.
    Every {
        /// In milliseconds: a second to ten years.
        #[schema(minimum = 1000, maximum = 316224000000_u64)]
        millis: u64,
    },
    /// By a cron expression.
    Cron {
        /// Five fields, or six with seconds in front.
        expression: String,
        /// An IANA name such as `Europe/Berlin`.
        zone: String,
    },
}

impl From<Due> for When {
    fn from(due: Due) -> Self {
        match due {
            Due::At { time } => Self::At { time },
            Due::After { millis } => Self::After { millis },
            Due::Every { millis } => Self::Every { millis },
            Due::Cron { expression, zone } => Self::Cron { expression, zone },
        }
    }
}

/// A schedule to register.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Planned {
    /// When it is due.
    when: Due,
    /// What is sent then, as a person's message.
    message: String,
    /// Whether each time that nobody could take is made up for; else one message stands for all of them.
    #[serde(default)]
    #[schema(required = false)]
    catch_up: bool,
    /// Whether it waits for its turn while the last one is still open; else it is left out.
    #[serde(default)]
    #[schema(required = false)]
    queue: bool,
}

/// The schedules of a conversation.
#[derive(Serialize, ToSchema)]
pub(super) struct ScheduleList {
    /// In order of their ids; at most 1,000.
    schedules: Vec<ScheduleInfo>,
}

fn describe(schedule: Schedule) -> ScheduleInfo {
    let message = schedule.payload.get("body").and_then(|body| body.as_str());
    ScheduleInfo {
        message: message.map(str::to_owned),
        next: schedule.next.to_string(),
        created_at: schedule.created_at.to_string(),
        id: schedule.id,
        when: schedule.when,
        last: schedule.last,
    }
}

/// List the schedules of a conversation
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/schedules", tag = "schedules", params(Whose), responses(
    (status = 200, description = "The schedules", body = ScheduleList),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn list(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<ScheduleList>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&[])?;
    there(&app, &target).await?;
    let found = alarm::list(&**app.store(), &target.actor).await?;
    let schedules = found.into_iter().map(describe).collect();
    Ok(Json(ScheduleList { schedules }))
}

fn missing() -> Refusal {
    let what = "the conversation has no such schedule";
    Error::failure("schedule_not_found", what, "list its schedules").into()
}

/// Show a schedule
#[utoipa::path(get, path = "/v1/agents/{agent}/{id}/schedules/{schedule}", tag = "schedules", params(
    Whose,
    ("schedule" = String, Path, description = "Its id"),
), responses(
    (status = 200, description = "The schedule", body = ScheduleInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn one(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<Json<ScheduleInfo>, Refusal> {
    target.require(Scope::Read)?;
    parameters.only(&[])?;
    there(&app, &target).await?;
    let found = alarm::list(&**app.store(), &target.actor).await?;
    let found = found.into_iter().find(|one| one.id == target.last());
    found.map(|one| Json(describe(one))).ok_or_else(missing)
}

/// Register a schedule
///
/// Under this id: the same again changes nothing, another one replaces it.
#[utoipa::path(put, path = "/v1/agents/{agent}/{id}/schedules/{schedule}", tag = "schedules", params(
    Whose,
    ("schedule" = String, Path, description = "Its id, 1 to 256 bytes", min_length = 1, max_length = 64),
), request_body = Planned, responses(
    (status = 200, description = "The schedule", body = ScheduleInfo),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn put(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
    body: Result<Json<Planned>, JsonRejection>,
) -> Result<Json<ScheduleInfo>, Refusal> {
    target.require(Scope::Admin)?;
    parameters.only(&[])?;
    let Json(planned) = body?;
    there(&app, &target).await?;
    let payload = Outgoing::user(planned.message).into_submission().payload;
    let mut new = NewSchedule::new(planned.when.into(), payload).named(target.last());
    if planned.catch_up {
        new.missed = Missed::CatchUp;
    }
    if planned.queue {
        new.overlap = Overlap::Queue;
    }
    let schedule = app.service().runtime().schedule(&target.actor, new).await?;
    Ok(Json(describe(schedule)))
}

/// Cancel a schedule
///
/// What it sent before goes on.
#[utoipa::path(delete, path = "/v1/agents/{agent}/{id}/schedules/{schedule}", tag = "schedules", params(
    Whose,
    ("schedule" = String, Path, description = "Its id"),
), responses(
    (status = 204, description = "It is gone"),
    (status = "default", response = super::openapi::Refused),
))]
pub(super) async fn delete(
    State(app): State<App>,
    target: Target,
    parameters: Parameters,
) -> Result<StatusCode, Refusal> {
    target.require(Scope::Admin)?;
    parameters.only(&[])?;
    there(&app, &target).await?;
    let runtime = app.service().runtime();
    if runtime
        .cancel_schedule(&target.actor, target.last())
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing())
    }
}
