//! What is sent to an agent.

use std::collections::BTreeMap;

use bowline_runtime::{Trace, submission::NewSubmission};
use bowline_store::{Blob, BlobId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{Attachment, Content};

/// A message to an agent, as a submission carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Input {
    /// A person speaks.
    User {
        /// What they say.
        body: String,
        /// Files they add; their bytes are blobs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attachments: Vec<Attachment>,
    },
    /// Something happened elsewhere.
    #[serde(rename_all = "camelCase")]
    Signal {
        /// What kind of thing, for example `github.issue`.
        #[serde(rename = "type")]
        signal_type: String,
        /// What the model is told.
        body: String,
        /// More about it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        attributes: BTreeMap<String, String>,
    },
    /// Nobody speaks: the conversation shall be compacted now. It is not shown to the model.
    Compact {
        /// What the summary should pay attention to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instructions: Option<String>,
    },
    /// Nobody speaks: what the last run of code did outside shall be undone. The model is told of it with the
    /// next message.
    #[serde(rename_all = "camelCase")]
    RollBack {
        /// The run; nothing is done where another one is the last that can be undone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run_id: Option<String>,
    },
}

impl Input {
    /// The text of the message.
    pub fn text(&self) -> &str {
        match self {
            Self::User { body, .. } | Self::Signal { body, .. } => body,
            Self::Compact { instructions } => instructions.as_deref().unwrap_or_default(),
            Self::RollBack { run_id } => run_id.as_deref().unwrap_or_default(),
        }
    }

    /// True for the payload of a submission that asks to undo what a run of code did.
    pub(crate) fn is_roll_back(payload: &serde_json::Value) -> bool {
        payload["kind"] == "rollBack"
    }

    /// True for the payload of a submission that asks to compact the conversation.
    pub(crate) fn is_compact(payload: &serde_json::Value) -> bool {
        payload["kind"] == "compact"
    }

    /// The message as the history keeps it.
    pub fn content(&self) -> Vec<Content> {
        let mut content = vec![Content::Text {
            text: self.text().to_owned(),
        }];
        if let Self::User { attachments, .. } = self {
            let attachment = |one: &Attachment| Content::Attachment {
                attachment: one.clone(),
            };
            content.extend(attachments.iter().map(attachment));
        }
        content
    }
}

/// The key of a submission's payload with the data that a new instance is given.
pub(crate) const INITIAL_DATA: &str = "initialData";

/// A message that is about to be sent: its input, its files, its key.
#[derive(Debug, Clone)]
pub struct Outgoing {
    input: Input,
    key: Option<String>,
    blobs: Vec<Blob>,
    initial_data: Option<Value>,
    trace: Option<Trace>,
}

impl Outgoing {
    /// A person's message.
    pub fn user(body: impl Into<String>) -> Self {
        let input = Input::User {
            body: body.into(),
            attachments: Vec::new(),
        };
        Self {
            input,
            key: None,
            blobs: Vec::new(),
            initial_data: None,
            trace: None,
        }
    }

    /// Something that happened elsewhere.
    pub fn signal(signal_type: impl Into<String>, body: impl Into<String>) -> Self {
        let input = Input::Signal {
            signal_type: signal_type.into(),
            body: body.into(),
            attributes: BTreeMap::new(),
        };
        Self {
            input,
            key: None,
            blobs: Vec::new(),
            initial_data: None,
            trace: None,
        }
    }

    /// A request to compact the conversation now.
    pub fn compact(instructions: Option<String>) -> Self {
        Self {
            input: Input::Compact { instructions },
            key: None,
            blobs: Vec::new(),
            initial_data: None,
            trace: None,
        }
    }

    /// A request to undo what the last run of code did outside, the last first, or nothing where the last run
    /// that can be undone is not this one. A run that has not ended is rolled back by
    /// [`Answer::roll_back`](crate::approval::Answer::roll_back).
    pub fn roll_back(run_id: Option<String>) -> Self {
        Self {
            input: Input::RollBack { run_id },
            key: None,
            blobs: Vec::new(),
            initial_data: None,
            trace: None,
        }
    }

    /// With a key the message is sent at most once, however often this is repeated.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Data for a new instance: the model is told of it before the message. An instance that exists
    /// takes no notice of it.
    #[must_use]
    pub fn initial_data(mut self, data: Value) -> Self {
        self.initial_data = Some(data);
        self
    }

    /// Continues a trace that somebody else began. What is done for the message is told within it.
    #[must_use]
    pub fn trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Says more about something that happened elsewhere; a person's message has no attributes.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        if let Input::Signal { attributes, .. } = &mut self.input {
            attributes.insert(key.into(), value.into());
        }
        self
    }

    /// Adds a file. Its id is derived from its content, so that a repeated message is the same one.
    #[must_use]
    pub fn attach(
        mut self,
        filename: Option<String>,
        mime_type: impl Into<String>,
        bytes: Bytes,
    ) -> Self {
        if let Input::User { attachments, .. } = &mut self.input {
            let digest = BlobId::of(&bytes).to_string();
            attachments.push(Attachment {
                id: format!("file_{}", &digest[..26]),
                mime_type: mime_type.into(),
                size: bytes.len() as u64,
                digest,
                filename,
            });
            self.blobs.push(Blob::new(bytes));
        }
        self
    }

    /// The message itself.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The key, when it has one.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The bytes of its files, in the order of its attachments.
    pub fn files(&self) -> impl Iterator<Item = &Bytes> {
        self.blobs.iter().map(|blob| &blob.bytes)
    }

    /// The same message put together again from its input, its key and the bytes of its files; what the
    /// input says about the files is taken from the bytes. `None` when there are not as many files.
    pub fn of_parts(input: Input, key: Option<String>, files: Vec<Bytes>) -> Option<Self> {
        let outgoing = match input {
            Input::User { body, attachments } if attachments.len() == files.len() => attachments
                .into_iter()
                .zip(files)
                .fold(Self::user(body), |outgoing, (file, bytes)| {
                    outgoing.attach(file.filename, file.mime_type, bytes)
                }),
            Input::User { .. } => return None,
            Input::Signal {
                signal_type,
                body,
                attributes,
            } => attributes
                .into_iter()
                .fold(Self::signal(signal_type, body), |outgoing, (key, value)| {
                    outgoing.attribute(key, value)
                }),
            Input::Compact { instructions } => Self::compact(instructions),
            Input::RollBack { run_id } => Self::roll_back(run_id),
        };
        Some(Self { key, ..outgoing })
    }

    /// As a submission.
    pub fn into_submission(self) -> NewSubmission {
        // An input holds strings and numbers only, which always have a JSON form.
        let mut payload = serde_json::to_value(&self.input).unwrap_or_default();
        if let (Some(data), Value::Object(fields)) = (self.initial_data, &mut payload) {
            fields.insert(INITIAL_DATA.to_owned(), data);
        }
        NewSubmission {
            payload,
            key: self.key,
            blobs: self.blobs,
            trace: self.trace,
        }
    }
}
