//! The description of the administration, made from its code.

use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    Modify, OpenApi, ToResponse, ToSchema,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::{
    Access, App, Parameters, Refusal, agents, approvals, fibers, files, instances, schedules,
    spend, submissions,
};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(show))
}

/// Why a request was not answered as asked.
#[derive(ToSchema, ToResponse, Serialize)]
#[response(
    description = "Why it was not done; `type` is stable and has a page in the documentation"
)]
pub(super) struct Refused {
    error: Reason,
}

/// The error.
#[derive(ToSchema, Serialize)]
struct Reason {
    /// Stable name.
    r#type: String,
    /// One line: what happened, and what to do next.
    message: String,
    /// More about it: a text, or an object.
    #[schema(value_type = Value)]
    details: Value,
    /// Under which the log has more; only of errors of the server itself.
    #[schema(nullable = false)]
    r#ref: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bowline",
        version = "1",
        description = "Administration of agents and their conversations. The conversation protocol itself, the WebSocket and streams are in the reference.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        agents::list, agents::one,
        instances::list, instances::one, instances::delete, instances::export, instances::fork, instances::why,
        submissions::list, submissions::one, submissions::cancel,
        approvals::list, approvals::of_instance, approvals::one, approvals::answer,
        schedules::list, schedules::one, schedules::put, schedules::delete,
        files::list, files::read, files::write, files::remove,
        fibers::list, fibers::one,
        spend::all, spend::of_instance,
    ),
    components(schemas(instances::Waits), responses(Refused)),
    modifiers(&Keys),
)]
struct Description;

/// How a caller shows who it is.
struct Keys;

impl Modify for Keys {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A key of `[auth]`; none is needed where there are none",
            ))
            .build();
        if let Some(components) = &mut description.components {
            components.add_security_scheme("key", SecurityScheme::Http(bearer));
        }
        let none: [&str; 0] = [];
        description.security = Some(vec![SecurityRequirement::new("key", none)]);
    }
}

/// The description as JSON, as it is served and checked in.
pub fn document() -> String {
    // Made of texts, lists and maps with texts as keys, which always have a JSON form.
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

async fn show(
    State(_): State<App>,
    _: Access,
    parameters: Parameters,
) -> Result<Json<utoipa::openapi::OpenApi>, Refusal> {
    parameters.only(&[])?;
    Ok(Json(Description::openapi()))
}
