//! What readers are sent.

use std::fmt::Write as _;

use bowline_agent::{Chunk, ChunkBody, feed::Offset};
use serde_json::json;

/// What the answers of an offset's generation begin with: the incarnation that they belong to.
pub(super) fn checkpoint(incarnation: &str) -> String {
    json!({"type": "stream-checkpoint", "incarnation": incarnation}).to_string()
}

/// Chunks as JSON with commas between them; empty when none of them is for readers.
pub(super) fn chunks(chunks: &[Chunk]) -> String {
    let mut text = String::new();
    for chunk in chunks.iter().filter(|chunk| is_public(&chunk.body)) {
        // A chunk holds strings, numbers and maps with string keys, which always have a JSON form.
        let Ok(chunk) = serde_json::to_string(chunk) else {
            continue;
        };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&chunk);
    }
    text
}

/// The published clients refuse what they do not know.
fn is_public(body: &ChunkBody) -> bool {
    match body {
        ChunkBody::ConversationReset { .. }
        | ChunkBody::MessageMetadata { .. }
        | ChunkBody::MessageAppended { .. }
        | ChunkBody::MessageStarted { .. }
        | ChunkBody::MessageDelta { .. }
        | ChunkBody::ToolInput { .. }
        | ChunkBody::ToolOutput { .. }
        | ChunkBody::ToolOutputError { .. }
        | ChunkBody::MessageCompleted { .. }
        | ChunkBody::SubmissionSettled { .. } => true,
        ChunkBody::ModelRetry { .. }
        | ChunkBody::ApprovalRequested { .. }
        | ChunkBody::ApprovalAnswered { .. }
        | ChunkBody::Compacted { .. }
        | ChunkBody::CodeCalls { .. }
        | ChunkBody::Usage { .. } => false,
    }
}

/// An event with chunks, or nothing for none.
pub(super) fn data(frame: &mut String, chunks: &str) {
    if !chunks.is_empty() {
        let _ = write!(frame, "event: data\ndata:[{chunks}]\n\n");
    }
}

/// The event behind data: where reading goes on.
pub(super) fn control(frame: &mut String, offset: Offset, up_to_date: bool) {
    let head = if up_to_date { ",\"upToDate\":true" } else { "" };
    let _ = write!(
        frame,
        "event: control\ndata:{{\"streamNextOffset\":\"{offset}\"{head}}}\n\n"
    );
}
