//! What a stream is, apart from its bytes.

use bowline_store::Timestamp;
use serde::{Deserialize, Serialize};

use super::offset::Offset;

/// How long a stream lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Forever,
    /// So many seconds after it was last read or written.
    Idle(u64),
    /// Until a point in time, with the text that set it.
    Until(Timestamp, String),
}

/// A stream's settings. They never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Drawn when the stream was created: a stream that is created again at the same path has another.
    pub incarnation: String,
    /// As it was given.
    pub content_type: String,
    /// How long it lives.
    #[serde(default)]
    pub lifetime: Lifetime,
    /// Where it came from, when it is a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
}

/// Where a fork came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Path of the source.
    pub source: String,
    /// The place that was asked for; `None` for the end.
    pub offset: Option<u64>,
    /// Bytes, or messages of JSON, past that place.
    pub sub_offset: u64,
    /// Who holds the bytes before the fork's own, in order; the last one is the source.
    pub inherited: Vec<Segment>,
}

/// A run of bytes that another stream holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Path of that stream.
    pub path: String,
    /// Up to this place; from where the segment before it ends.
    pub until: u64,
}

impl Meta {
    /// True when the stream holds JSON messages.
    pub fn is_json(&self) -> bool {
        media_type(&self.content_type).eq_ignore_ascii_case("application/json")
    }

    /// Where the stream's own bytes begin.
    pub(super) fn base(&self) -> u64 {
        self.inherited().last().map_or(0, |segment| segment.until)
    }

    /// The runs of bytes that others hold.
    pub(super) fn inherited(&self) -> &[Segment] {
        self.fork.as_ref().map_or(&[], |fork| &fork.inherited)
    }

    /// When it expires, if it was last used at `used`.
    pub(super) fn deadline(&self, used: Timestamp) -> Option<Timestamp> {
        match &self.lifetime {
            Lifetime::Forever => None,
            Lifetime::Idle(seconds) => Some(used.after(std::time::Duration::from_secs(*seconds))),
            Lifetime::Until(time, _) => Some(*time),
        }
    }
}

/// The type and subtype of a content type, without its parameters.
pub fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// What anybody may know of a stream at a moment.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its settings.
    pub meta: std::sync::Arc<Meta>,
    /// The end of what is durable.
    pub tail: Offset,
    /// Nothing can be appended any more.
    pub closed: bool,
}
