//! Forking conversations.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use bowline_agent::{
    actor,
    record::{Created, Fact, Scope as Place},
};
use bowline_runtime::{state::STATE, submission};
use bowline_store::{Dump, DumpError, StoredRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App, Refusal, Scope, Target,
    described::Whose,
    manage::{archive, dump},
};
use crate::{error::Error, service::check_instance};

/// Where a fork finds how submissions ended, what was consented to, and the files of messages: rows that
/// belong to records.
const OF_RECORDS: [&str; 3] = [submission::SETTLED, APPROVAL, ATTACHMENT];
const APPROVAL: &str = "approval";
const ATTACHMENT: &str = "attachment";
/// What a fork takes with it as it is now: files, the shell, the shared state. What is under way, timed or
/// owned stays with the original.
const AS_IT_IS: [&str; 4] = [STATE, "file", "file_feed", "shell"];

/// What to fork.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct Fork {
    /// The id of the new conversation.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = r"^[^/\u0000-\u001f\u007f-\u009f]{1,256}$"
    )]
    id: String,
    /// Leave out this message and what came after it. Its exchange is left out whole.
    #[serde(default)]
    #[schema(nullable = false)]
    before: Option<String>,
    /// Leave out what came after this message. Its exchange is taken whole.
    #[serde(default)]
    #[schema(nullable = false)]
    through: Option<String>,
}

/// A conversation that was forked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::server) struct Forked {
    /// The id that it was given.
    id: String,
    /// Its incarnation, `inst_…`.
    uid: String,
    /// `conv_…`.
    conversation_id: String,
}

/// Fork a conversation
///
/// The same conversation, or the beginning of it, with its files, under another id.
#[utoipa::path(post, path = "/agents/{agent}/{id}/fork", tag = "conversations", operation_id = "fork", params(Whose),
request_body = Fork, responses(
    (status = 201, description = "The fork", body = Forked),
    (status = "default", response = crate::server::admin::Refused),
))]
pub(in crate::server) async fn fork(
    State(app): State<App>,
    target: Target,
    body: Result<Json<Fork>, JsonRejection>,
) -> Result<(StatusCode, Json<Forked>), Refusal> {
    target.require(Scope::Admin)?;
    let Json(asked) = body?;
    check_instance(&asked.id)?;
    let mut dump = dump(&app, &target).await?;
    match (&asked.before, &asked.through) {
        (None, None) => {
            let open = submission::open(&**app.store(), &target.actor).await?;
            if !open.is_empty() {
                return Err(busy());
            }
        }
        (Some(_), Some(_)) => {
            let what = "give `before` or `through`, not both";
            return Err(Refusal::InvalidRequest(what.to_owned()));
        }
        (Some(message), None) => cut(&mut dump, message, false)?,
        (None, Some(message)) => cut(&mut dump, message, true)?,
    }
    let uid = app.sources().id("inst_");
    let place = Place {
        conversation: app.sources().id("conv_"),
        ..Place::default()
    };
    for (seq, record) in (1..).zip(&mut dump.records) {
        if let Fact::Created(created) = Fact::of(&stored(seq, record))? {
            let uid = uid.clone();
            *record = Fact::Created(Created { uid, ..created }).record(record.time, &place);
        } else if !record.conversation.is_empty() {
            record.conversation.clone_from(&place.conversation);
        }
    }
    dump.rows.retain(|row| {
        OF_RECORDS.contains(&row.space.as_str()) || AS_IT_IS.contains(&row.space.as_str())
    });
    // What only the left out part refers to stays behind.
    let needed = dump.references();
    dump.blobs.retain(|blob| needed.contains(&blob.id));
    dump.wake = None;
    let new = actor(&target.agent, &asked.id);
    let put = dump.put(&**app.store(), &new).await;
    put.map_err(|error| match error {
        error @ DumpError::Exists(_) => Refusal::Other(Error::failure(
            error.code(),
            "there is a conversation with this id already",
            "choose another id, or delete that one first",
        )),
        error => archive(error),
    })?;
    let forked = Forked {
        id: asked.id,
        uid,
        conversation_id: place.conversation,
    };
    Ok((StatusCode::CREATED, Json(forked)))
}

/// Shortens a conversation to whole exchanges: those before a message's, or also that one.
fn cut(dump: &mut Dump, message: &str, through: bool) -> Result<(), Refusal> {
    let (mut open, mut settled) = (BTreeSet::new(), BTreeSet::new());
    // The last place before the message, and the first behind it, where nothing is open.
    let (mut before, mut found, mut behind) = (0, false, None);
    for (seq, record) in (1..).zip(&dump.records) {
        let fact = Fact::of(&stored(seq, record))?;
        found |= fact.message_id() == Some(message);
        if let Some(id) = &record.submission
            && !settled.contains(id)
        {
            open.insert(id.clone());
        }
        if let Fact::SubmissionSettled(ended) = &fact {
            open.remove(&ended.submission_id);
            settled.insert(ended.submission_id.clone());
        }
        match (open.is_empty(), found) {
            (true, false) if !settled.is_empty() => before = seq,
            (true, true) => {
                behind = Some(seq);
                break;
            }
            (true | false, _) => {}
        }
    }
    if !found {
        let what = "the conversation has no such message";
        let hint = "the history has the ids of its messages";
        return Err(Error::failure("message_not_found", what, hint).into());
    }
    let keep = if through {
        behind.ok_or_else(busy)?
    } else {
        before
    };
    if keep == 0 {
        let what = "nothing comes before this message";
        return Err(Refusal::InvalidRequest(what.to_owned()));
    }
    dump.records
        .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    let mut known = BTreeSet::new();
    for (seq, record) in (1..).zip(&dump.records) {
        match Fact::of(&stored(seq, record))? {
            Fact::SubmissionSettled(ended) => {
                known.insert((submission::SETTLED, ended.submission_id));
            }
            Fact::ApprovalRequested(approval) => {
                known.insert((APPROVAL, approval.approval_id));
            }
            fact => {
                let files = fact.attachments().into_iter();
                known.extend(files.map(|file| (ATTACHMENT, file.id.clone())));
            }
        }
    }
    dump.rows.retain(|row| {
        let space = OF_RECORDS.iter().find(|space| **space == row.space);
        let key = || String::from_utf8_lossy(&row.key).into_owned();
        space.is_none_or(|space| known.contains(&(*space, key())))
    });
    Ok(())
}

fn stored(seq: u64, record: &bowline_store::Record) -> StoredRecord {
    StoredRecord {
        seq,
        epoch: 1,
        record: record.clone(),
    }
}

fn busy() -> Refusal {
    let what = "the conversation has a message that is not settled";
    let hint = "wait until it is, or abort it";
    Error::failure("conversation_busy", what, hint).into()
}
