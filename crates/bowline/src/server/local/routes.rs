//! What the local socket answers besides the routes of every server.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bowline_agent::{
    actor,
    approval::{self, Answered},
};
use bowline_runtime::RuntimeError;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::wire::{
    Beginning, Compacting, Editing, Importing, Line, MAX_REQUEST, SPOKEN, VERSION, Which, Whose,
};
use crate::{
    archive,
    error::{Error, Kind},
    follow::{Following, Happened},
    server::App,
};

/// The routes of this module.
pub(in crate::server) fn routes() -> Router<App> {
    Router::new()
        .route("/local", get(hello))
        .route("/local/begin", post(begin))
        .route("/local/reply", post(reply))
        .route("/local/abort", post(abort))
        .route("/local/answer", post(answer))
        .route("/local/compact", post(compact))
        .route("/local/delete", post(delete))
        .route("/local/edit", post(edit))
        .route("/local/import", post(import))
        .layer(middleware::from_fn(same))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
}

/// An error with all that the owner of the data may know.
struct Refused(Error);

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        // Not a failure of the server: whoever asked prints it.
        let status = match self.0.kind {
            Kind::Usage => StatusCode::BAD_REQUEST,
            Kind::Failure => StatusCode::CONFLICT,
        };
        (status, Json(json!({"error": self.0}))).into_response()
    }
}

fn unreadable(why: &str) -> Refused {
    Refused(Error::usage("invalid_request", why, ""))
}

/// Lets in who speaks the same; what both ends exchange is not kept stable between versions.
async fn same(request: Request, next: Next) -> Response {
    let spoken = request.headers().get(VERSION);
    if spoken.is_some_and(|spoken| spoken.as_bytes() == SPOKEN.as_bytes()) {
        return next.run(request).await;
    }
    let what = format!(
        "the process that has the data is bowline {}, this one is another version",
        env!("CARGO_PKG_VERSION")
    );
    let hint = "use the same version, or stop that process first";
    Refused(Error::failure("local_version", what, hint)).into_response()
}

/// The line of a request, and the bytes behind it.
fn head<T: DeserializeOwned>(mut body: Bytes) -> Result<(T, Bytes), Refused> {
    let end = body.iter().position(|byte| *byte == b'\n');
    let line = body.split_to(end.unwrap_or(body.len()));
    let rest = body.slice(body.len().min(1)..);
    match serde_json::from_slice(&line) {
        Ok(head) => Ok((head, rest)),
        Err(error) => Err(unreadable(&error.to_string())),
    }
}

async fn hello(State(app): State<App>) -> Json<serde_json::Value> {
    let agents: Vec<_> = app.service().agents().collect();
    Json(json!({"pid": std::process::id(), "agents": agents, "lends": app.lends()}))
}

/// Takes a submission up, and tells what happens to it until it settles or nobody reads any more.
async fn begin(State(app): State<App>, body: Bytes) -> Result<Response, Refused> {
    let (Beginning { whose, begin }, files) = head(body)?;
    app.look_up(&whose.agent)?;
    let begin = begin
        .with(files)
        .ok_or_else(|| unreadable("a file of the message is not there"))?;
    let (begun, following) =
        Following::begin(app.service(), &whose.agent, &whose.id, begin).await?;
    let state = Telling {
        app,
        following,
        first: Some(Line::Begun(begun)),
        over: false,
        stopping: false,
    };
    let lines = futures::stream::unfold(state, |mut state| async move {
        let line = state.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), state))
    });
    Ok((
        [("content-type", "application/x-ndjson")],
        Body::from_stream(lines),
    )
        .into_response())
}

/// Tells what happens to a submission.
struct Telling {
    app: App,
    following: Following,
    first: Option<Line>,
    over: bool,
    /// Whether the server was seen to stop.
    stopping: bool,
}

impl Telling {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let line = match self.first.take() {
            Some(first) => first,
            None => match self.happened().await {
                Ok(happened) => Line::Happened(happened),
                Err(error) => Line::Failed(error),
            },
        };
        self.over = match &line {
            Line::Begun(_) => false,
            Line::Failed(_) => true,
            Line::Happened(happened) => matches!(happened, Happened::Settled(_)),
        };
        // Texts, numbers and JSON always have a form.
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Some(bytes.into())
    }
}

impl Telling {
    /// What happens next. While the server stops, what runs is followed to its end, or until it is cut;
    /// what does not run will not end here.
    async fn happened(&mut self) -> Result<Happened, Error> {
        if !self.stopping {
            tokio::select! {
                biased;
                happened = self.following.next() => return happened,
                () = self.app.draining().cancelled() => self.stopping = true,
            }
            // One that passes the data on does not wait either: what runs goes on with whoever has it next.
            if self.app.lends() || !self.following.is_running().await? {
                return Err(RuntimeError::Stopped.into());
            }
        }
        self.following.next().await
    }
}

fn json<T: Serialize>(value: T) -> Result<Json<T>, Refused> {
    Ok(Json(value))
}

async fn reply(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (Which { whose, submission }, _) = head(body)?;
    let reply = app.service().reply(&whose.agent, &whose.id, &submission);
    tokio::select! {
        reply = reply => json(reply?),
        () = app.draining().cancelled() => Err(RuntimeError::Stopped.into()),
    }
}

async fn abort(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (Which { whose, submission }, _) = head(body)?;
    let (agent, id) = (&whose.agent, &whose.id);
    app.look_up(agent)?;
    json(app.service().abort(agent, id, Some(&submission)).await?)
}

async fn answer(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (answered, _): (Answered, _) = head(body)?;
    if let Some((actor, _)) = approval::find(&**app.store(), &answered.approval_id).await? {
        app.look_up(actor.name())?;
    }
    let (actor, submission) = app.service().answer(answered).await?;
    app.service().wake(actor.name(), actor.key()).await?;
    json(submission)
}

async fn compact(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (asked, _): (Compacting, _) = head(body)?;
    let (agent, id) = (&asked.whose.agent, &asked.whose.id);
    app.look_up(agent)?;
    let compacting = app.service().compact(agent, id, asked.instructions);
    tokio::select! {
        made = compacting => json(made?),
        () = app.draining().cancelled() => Err(RuntimeError::Stopped.into()),
    }
}

async fn delete(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (whose, _): (Whose, _) = head(body)?;
    json(app.service().delete(&whose.agent, &whose.id).await?)
}

async fn edit(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (asked, content): (Editing, _) = head(body)?;
    let (agent, id) = (&asked.whose.agent, &asked.whose.id);
    app.look_up(agent)?;
    let edit = asked.edit.signed(asked.origin, content);
    json(
        app.service()
            .runtime()
            .edit(&actor(agent, id), edit)
            .await?,
    )
}

async fn import(State(app): State<App>, body: Bytes) -> Result<impl IntoResponse, Refused> {
    let (Importing { id }, file) = head(body)?;
    let imported = archive::import(&**app.store(), &*file, id).await?;
    let (agent, id) = (&imported.agent, &imported.id);
    // What it has open goes on here; of an agent that is not here nothing can.
    if app.look_up(agent).is_ok() && app.service().definition(agent).is_some() {
        app.service().wake(agent, id).await?;
    }
    json(imported)
}
