//! What the description in the form of OpenAPI says of this protocol.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{attachment, fork, manage, send, submission, view};

/// The routes of this protocol, with what they take and give.
#[derive(OpenApi)]
#[openapi(paths(
    manage::list,
    view::read,
    send::send,
    manage::delete,
    manage::export,
    fork::fork,
    submission::abort_all,
    attachment::read,
    submission::read,
    submission::abort_one,
))]
pub(in crate::server) struct Described;

/// The conversation that a path names.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes what `Target` reads")]
pub(in crate::server) struct Whose {
    /// The agent.
    #[param(pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length = 64)]
    agent: String,
    /// The conversation: 1 to 256 characters without `/` and control characters.
    #[param(pattern = r"^[^/\u0000-\u001f\u007f-\u009f]{1,256}$")]
    id: String,
}

/// Which part of a conversation is read, and how.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it only describes what a view reads")]
pub(super) struct Views {
    /// The conversation as it stands, or what came after `offset`. Usually `history`, with an offset `updates`.
    #[param(inline)]
    view: Option<View>,
    /// Of `updates`: `-1` for the beginning, `now` for the end, or an offset that was given out.
    #[param(pattern = r"^(-1|now|[0-9]{1,16}_[0-9]{1,16})$")]
    offset: Option<String>,
    /// Of `updates`: wait up to 30 s for the first that comes, or send all that comes as events.
    #[param(inline)]
    live: Option<Live>,
    /// Of `history`: only so many of the last messages.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Of `history`: only the messages before this one.
    before: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum View {
    History,
    Updates,
}

#[derive(Deserialize, ToSchema)]
enum Live {
    #[serde(rename = "long-poll")]
    LongPoll,
    #[serde(rename = "sse")]
    Sse,
}

/// A message. Fields that are not known are left out.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[allow(dead_code, reason = "it only describes what `parse` reads")]
pub(super) enum Message {
    /// A person speaks.
    User {
        /// The text.
        body: String,
        /// Files with it.
        #[schema(max_items = 32, nullable = false)]
        attachments: Option<Vec<Attached>>,
        /// Sent at most once, however often it is repeated.
        #[schema(min_length = 1, max_length = 256, nullable = false)]
        #[serde(rename = "idempotencyKey")]
        key: Option<String>,
        /// Only to this incarnation; null: only to a new one.
        uid: Option<String>,
        /// Anything, for a new instance.
        #[serde(rename = "initialData")]
        data: Option<Value>,
    },
    /// Something happened elsewhere.
    Signal {
        /// The text.
        body: String,
        /// What kind of thing; some are only the server's.
        #[schema(min_length = 1, max_length = 256)]
        r#type: String,
        /// Texts that say more, at most 64.
        #[schema(nullable = false)]
        attributes: Option<BTreeMap<String, String>>,
        /// A name.
        #[schema(
            max_length = 64,
            pattern = "^[A-Za-z_][A-Za-z0-9_.-]*$",
            nullable = false
        )]
        #[serde(rename = "tagName")]
        tag: Option<String>,
        /// Sent at most once, however often it is repeated.
        #[schema(min_length = 1, max_length = 256, nullable = false)]
        #[serde(rename = "idempotencyKey")]
        key: Option<String>,
        /// Only to this incarnation; null: only to a new one.
        uid: Option<String>,
        /// Anything, for a new instance.
        #[serde(rename = "initialData")]
        data: Option<Value>,
    },
}

/// A file of a message.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes what `file` reads")]
pub(super) struct Attached {
    #[schema(inline)]
    r#type: Kind,
    /// For example `image/png`; of an image it begins with `image/`.
    #[schema(
        pattern = "^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+$",
        max_length = 127
    )]
    mime_type: String,
    /// Base64.
    #[schema(format = Byte, max_length = 14_680_064)]
    data: String,
    /// Its name.
    #[schema(max_length = 1024)]
    filename: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Image,
    File,
}

/// A message that is durable.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct Receipt {
    /// Where the conversation is, as the client sees it.
    stream_url: String,
    /// An offset before all that the message causes.
    offset: String,
    /// `sub_…`.
    submission_id: String,
    /// The incarnation, `inst_…`.
    uid: String,
    /// True when it had been sent before.
    #[schema(nullable = false)]
    deduplicated: Option<bool>,
}

/// What is read: all of it, or what came after an offset.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) enum Told {
    /// `view=history`.
    History(History),
    /// `view=updates`.
    Updates(Vec<Update>),
}

/// A conversation as it stands.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct History {
    /// The version of this form.
    v: u32,
    /// `conv_…`.
    conversation_id: String,
    /// From where it can be followed.
    offset: String,
    /// `inst_…`.
    incarnation: String,
    /// The messages, oldest first.
    messages: Vec<Shown>,
    /// How submissions ended.
    settlements: Vec<Settlement>,
    /// Of a page: whether there are earlier messages.
    #[schema(nullable = false)]
    more: Option<bool>,
}

/// A message of a history.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct Shown {
    /// `msg_…`.
    id: String,
    /// `user`, `assistant` or `system`.
    role: String,
    /// `user`, `assistant`, `dispatch` or `advisory`.
    purpose: String,
    /// `visible` or `diagnostic`.
    display: String,
    /// The submission that it belongs to.
    #[schema(nullable = false)]
    submission_id: Option<String>,
    /// Its pieces: `text`, `reasoning`, `file` and `dynamic-tool`, with their own fields.
    parts: Vec<Piece>,
    /// More about a response: approvals, code, what was interrupted.
    #[schema(value_type = Object, required = false)]
    metadata: Option<Value>,
}

/// A piece of a message; its other fields are those of its type.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct Piece {
    r#type: String,
}

/// How a submission ended.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct Settlement {
    /// Which one.
    submission_id: String,
    /// `completed`, `failed` or `aborted`.
    outcome: String,
}

/// A chunk; its other fields are those of its type. The first of an answer is `stream-checkpoint`.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct Update {
    r#type: String,
}

/// The ids of conversations.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it only describes what is sent")]
pub(super) struct Ids {
    /// In order.
    instances: Vec<String>,
    /// What to give as `after` for the next page; null at the end.
    next: Option<String>,
}
