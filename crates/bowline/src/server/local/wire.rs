//! What the two ends of the local socket say.
//!
//! A request is a line of JSON and then the bytes that belong to it, one after the other; an answer is
//! JSON, one object or one a line.

use bowline_agent::{Input, Outgoing, approval::Answered, edit::FileEdit};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    follow::{Begin, Begun, Happened},
};

/// What both ends must be of; told in [`VERSION`].
pub(crate) const SPOKEN: &str = concat!(env!("CARGO_PKG_VERSION"), "/3");
/// The header that tells it.
pub(crate) const VERSION: &str = "x-bowline-local";
/// Largest request, in bytes: a message with its files, or a conversation that is brought in.
pub(crate) const MAX_REQUEST: usize = 320 << 20;
/// Longest line of an answer, in bytes.
pub(crate) const MAX_LINE: usize = 64 << 20;

/// The conversation that is meant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Whose {
    pub(crate) agent: String,
    pub(crate) id: String,
}

/// `POST /local/begin`: takes a submission up and follows it; answered by lines of [`Line`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Beginning {
    #[serde(flatten)]
    pub(crate) whose: Whose,
    pub(crate) begin: How,
}

/// How it is taken up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum How {
    /// It is sent; the bytes behind the line are those of its files.
    Send {
        input: Input,
        key: Option<String>,
        sizes: Vec<usize>,
    },
    GoOn(String),
    Answer(Answered),
}

/// `POST /local/abort`; `POST /local/reply` waits for the settlement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Which {
    #[serde(flatten)]
    pub(crate) whose: Whose,
    pub(crate) submission: String,
}

/// `POST /local/compact`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Compacting {
    #[serde(flatten)]
    pub(crate) whose: Whose,
    pub(crate) instructions: Option<String>,
}

/// `POST /local/edit`: changes the files of a conversation, with the bytes behind the line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Editing {
    #[serde(flatten)]
    pub(crate) whose: Whose,
    pub(crate) edit: FileEdit,
    /// Who is said to have done it.
    pub(crate) origin: String,
}

/// `POST /local/import`: brings in the conversation behind the line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Importing {
    pub(crate) id: Option<String>,
}

/// A line of the answer to [`Beginning`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Line {
    Begun(Begun),
    Happened(Happened),
    /// It cannot be followed any further; the last line.
    Failed(Error),
}

impl Beginning {
    /// The line, and the bytes behind it.
    pub(crate) fn new(agent: &str, id: &str, begin: Begin) -> (Self, Vec<Bytes>) {
        let (how, files) = match begin {
            Begin::Send(outgoing) => {
                let files: Vec<_> = outgoing.files().cloned().collect();
                let how = How::Send {
                    input: outgoing.input().clone(),
                    key: outgoing.idempotency_key().map(str::to_owned),
                    sizes: files.iter().map(Bytes::len).collect(),
                };
                (how, files)
            }
            Begin::GoOn(submission) => (How::GoOn(submission), Vec::new()),
            Begin::Answer(answered) => (How::Answer(answered), Vec::new()),
        };
        let whose = Whose {
            agent: agent.to_owned(),
            id: id.to_owned(),
        };
        (Self { whose, begin: how }, files)
    }
}

impl How {
    /// What is meant, with the bytes behind the line. `None` when they do not fit.
    pub(crate) fn with(self, mut bytes: Bytes) -> Option<Begin> {
        match self {
            Self::Send { input, key, sizes } => {
                let mut files = Vec::new();
                for size in sizes {
                    if size > bytes.len() {
                        return None;
                    }
                    files.push(bytes.split_to(size));
                }
                Outgoing::of_parts(input, key, files).map(Begin::Send)
            }
            Self::GoOn(submission) => Some(Begin::GoOn(submission)),
            Self::Answer(answered) => Some(Begin::Answer(answered)),
        }
    }
}
