//! The description of the administration and of the conversation protocol, made from their code.

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi, ToResponse, ToSchema,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::{
    Access, App, Parameters, Refusal, agents, approvals, code_runs, fibers, files, instances,
    schedules, spend, submissions,
};
use crate::server::{conversation::Described, operations};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(show))
}

/// Why a request was not answered as asked.
#[derive(ToSchema, ToResponse, Serialize)]
#[response(
    description = "Why it was not done; `type` is stable and has a page in the documentation"
)]
pub(in crate::server) struct Refused {
    error: Reason,
}

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "it only describes bodies")]
pub(in crate::server) struct Content(Vec<u8>);

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
        description = "Agents, conversations with them, and their administration. The WebSocket and streams are in the reference. Health and figures are those of a server of its own, not of routes in another application.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        show,
        agents::list, agents::one,
        instances::list, instances::one, instances::delete, instances::export, instances::fork, instances::why,
        submissions::list, submissions::one, submissions::cancel,
        approvals::list, approvals::of_instance, approvals::one, approvals::answer,
        schedules::list, schedules::one, schedules::put, schedules::delete,
        files::list, files::read, files::write, files::remove,
        fibers::list, fibers::one, fibers::cancel, fibers::resolve, fibers::delete,
        code_runs::list, code_runs::one,
        spend::all, spend::of_instance,
        operations::healthz, operations::readyz, operations::metrics,
    ),
    components(schemas(instances::Waits, code_runs::RunInfo, code_runs::CallInfo, Reason), responses(Refused)),
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
    let mut description = Description::openapi();
    description.merge(Described::openapi());
    let mut all = serde_json::to_value(description).unwrap_or_default();
    let paths = all["paths"].as_object_mut().into_iter();
    let items = paths.flat_map(|paths| paths.values_mut());
    let operations = items.filter_map(Value::as_object_mut);
    for operation in operations.flat_map(|item| item.values_mut()) {
        name(operation);
    }
    // One of the two at most.
    all["components"]["schemas"]["Fork"]["not"] = json!({"required": ["before", "through"]});
    // An empty file has no body.
    let put = &mut all["paths"]["/v1/agents/{agent}/{id}/files/{path}"]["put"];
    put["requestBody"]["required"] = Value::Bool(false);
    // Its fields are those of the kind that it is.
    for of in ["Due", "Decided"] {
        let kinds = all["components"]["schemas"][of]["oneOf"].as_array_mut();
        for kind in kinds.into_iter().flatten() {
            kind["additionalProperties"] = Value::Bool(false);
        }
    }
    let mut text = serde_json::to_string_pretty(&all).unwrap_or_default();
    text.push('\n');
    text
}

/// Functions of several modules have one name, and a parameter that may be left out is not null.
fn name(operation: &mut Value) {
    let of = operation["tags"][0].as_str().unwrap_or_default().to_owned();
    let does = operation["operationId"].as_str().unwrap_or_default();
    operation["operationId"] = Value::String(format!("{of}_{does}"));
    let parameters = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let types = parameter["schema"]["type"].as_array();
        let only = types.and_then(|all| all.iter().find(|one| *one != "null"));
        if let Some(only) = only.cloned() {
            parameter["schema"]["type"] = only;
        }
    }
}

/// Describe all this
///
/// The description of conversations and their administration in the form of OpenAPI 3.1: this document.
#[utoipa::path(get, path = "/openapi.json", tag = "description", responses(
    (status = 200, description = "This document", body = Object),
    (status = "default", response = Refused),
))]
async fn show(_: State<App>, _: Access, parameters: Parameters) -> Result<Response, Refusal> {
    parameters.only(&[])?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, document()).into_response())
}
