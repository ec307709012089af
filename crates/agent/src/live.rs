//! What an observer in the same process sees of a conversation, as it happens.
//!
//! The chunks are those of the conversation protocol. Text is seen at once; everything else only
//! after it is durable.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bowline_runtime::submission::{Failure, Outcome};
use bowline_store::{ActorId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::{
    approval::{Answered, Approval},
    code::{
        journal::{Boundary, Why},
        runs::{CodeCall, RunState},
    },
    feed::History,
    record::{Compaction, ToolOutcome, Trigger},
    view::{self, UiMessage},
};

/// Chunks that a slow observer may be behind before it misses some.
const BUFFER: usize = 4_096;

/// One chunk with its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chunk {
    /// What happened.
    #[serde(flatten)]
    pub body: ChunkBody,
    /// The conversation.
    pub conversation_id: String,
    /// Where it stands; it only grows.
    pub position: Position,
}

/// The place of a chunk: the record that was last when it happened, and its number since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// A sequence of the conversation's records.
    pub batch: u64,
    /// 0 for the first; it only grows within a batch.
    pub index: u64,
}

/// For serde.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Which kind of text a delta carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeltaKind {
    /// What is said.
    Text,
    /// What is thought.
    Reasoning,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum ChunkBody {
    /// All that was told before is replaced.
    ConversationReset {
        /// By this.
        snapshot: History,
    },
    /// Something about a response became known.
    MessageMetadata {
        /// Id of the response.
        message_id: String,
        /// Merged into what is known: later values win, objects merge.
        metadata: Value,
    },
    /// A whole message joined the conversation.
    MessageAppended {
        /// The message.
        message: UiMessage,
    },
    /// The response to a submission began.
    MessageStarted {
        /// Id of the response.
        message_id: String,
        /// The submission that it answers.
        submission_id: String,
        /// When.
        timestamp: Timestamp,
    },
    /// Text arrived.
    MessageDelta {
        /// Id of the response.
        message_id: String,
        /// Text or reasoning.
        kind: DeltaKind,
        /// What was added.
        delta: String,
    },
    /// The model asked for a tool.
    ToolInput {
        /// Id of the response.
        message_id: String,
        /// The call.
        tool_call_id: String,
        /// The tool.
        tool_name: String,
        /// Its arguments.
        input: Value,
    },
    /// A tool gave its result, which is durable.
    ToolOutput {
        /// The call.
        tool_call_id: String,
        /// What it gave.
        output: Value,
        /// How long it took.
        duration_ms: u64,
    },
    /// A tool failed, durably.
    ToolOutputError {
        /// The call.
        tool_call_id: String,
        /// What went wrong.
        error_text: String,
        /// How long it took.
        duration_ms: u64,
    },
    /// A model call failed and is tried again.
    ModelRetry {
        /// Stable name of the error.
        error: String,
        /// One line.
        message: String,
        /// The wait before the next try.
        delay_ms: u64,
    },
    /// A call waits for a person.
    ApprovalRequested {
        /// The request.
        approval: Approval,
    },
    /// A person decided, or nobody did in time.
    ApprovalAnswered {
        /// The decision.
        answered: Answered,
    },
    /// Code made calls, which are durable: what it did since the last time.
    CodeCalls {
        /// The call of the tool `code`.
        tool_call_id: String,
        /// `run_…`.
        run_id: String,
        /// How far the run is.
        state: RunState,
        /// The calls that were answered since then, in that order.
        calls: Vec<CodeCall>,
        /// How many more there were; the record of the boundary has them all.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: u64,
    },
    /// The response is complete.
    MessageCompleted {
        /// Id of the response.
        message_id: String,
    },
    /// The model sees a summary in place of the beginning; what was said stays.
    Compacted {
        /// `msg_…`: identifies the compaction.
        entry_id: String,
        /// Why.
        trigger: Trigger,
        /// What the model would have seen without it, in tokens.
        tokens_before: u64,
        /// What it sees now, estimated.
        tokens_after: u64,
        /// False when the summary was put together without a model.
        summarised: bool,
    },
    /// What a model call used.
    Usage {
        /// The tokens.
        usage: bowline_model::Usage,
        /// In micro-dollars, where the price is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        cost_micro_usd: Option<u64>,
    },
    /// The submission reached its outcome.
    SubmissionSettled {
        /// Which.
        submission_id: String,
        /// How.
        outcome: Outcome,
        /// Why, when it was not completed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
        /// The submission whose response answered it, when it joined another.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_submission_id: Option<String>,
    },
}

impl ChunkBody {
    /// What a call came to.
    pub(crate) fn of_outcome(outcome: &ToolOutcome) -> Self {
        let (tool_call_id, duration_ms) = (outcome.tool_call_id.clone(), outcome.duration_ms);
        if outcome.is_error {
            Self::ToolOutputError {
                tool_call_id,
                error_text: view::text(&outcome.content),
                duration_ms,
            }
        } else {
            Self::ToolOutput {
                tool_call_id,
                output: view::output(outcome),
                duration_ms,
            }
        }
    }
}

impl ChunkBody {
    /// Tells what code did; nothing where there is nothing new to tell.
    pub(crate) fn of_boundary(boundary: &Boundary) -> Option<Self> {
        let told = !boundary.calls.is_empty() || matches!(boundary.boundary, Why::Park | Why::End);
        told.then(|| Self::CodeCalls {
            tool_call_id: boundary.tool_call_id.clone(),
            run_id: boundary.run_id.clone(),
            state: boundary.state(),
            calls: boundary.calls.iter().cloned().map(CodeCall::from).collect(),
            more: boundary.more(),
        })
    }

    /// Tells of a compaction.
    pub(crate) fn compacted(compaction: &Compaction) -> Self {
        Self::Compacted {
            entry_id: compaction.entry_id.clone(),
            trigger: compaction.trigger,
            tokens_before: compaction.tokens_before,
            tokens_after: compaction.tokens_after,
            summarised: compaction.model.is_some(),
        }
    }
}

/// The observers of all conversations of a process.
#[derive(Debug, Default)]
pub struct Observers {
    /// A std mutex: it is held for lookups only.
    channels: Mutex<HashMap<ActorId, broadcast::Sender<Arc<Chunk>>>>,
    /// As above.
    followed: Arc<Mutex<HashMap<ActorId, watch::Sender<News>>>>,
    /// For whoever follows all conversations; there once somebody does.
    all: OnceLock<broadcast::Sender<(ActorId, Arc<Chunk>)>>,
}

/// What whoever follows durable text is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    /// Grows with each piece of text that became durable.
    pub pieces: u64,
    /// True once the conversation was deleted.
    pub gone: bool,
}

/// Follows what becomes durable of a conversation. While there is one, text becomes durable more often.
#[derive(Debug)]
pub struct Follower {
    actor: ActorId,
    followed: Arc<Mutex<HashMap<ActorId, watch::Sender<News>>>>,
    news: watch::Receiver<News>,
}

impl Follower {
    /// Waits until there is something new, and returns it. Cancel-safe.
    pub async fn news(&mut self) -> News {
        if self.news.changed().await.is_err() {
            // The sender lives as long as a follower does.
            std::future::pending::<()>().await;
        }
        *self.news.borrow_and_update()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        // This one still counts.
        if followed
            .get(&self.actor)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            followed.remove(&self.actor);
        }
    }
}

impl Observers {
    /// Follows a conversation from now on.
    pub fn observe(&self, actor: &ActorId) -> broadcast::Receiver<Arc<Chunk>> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|_, sender| sender.receiver_count() > 0);
        channels
            .entry(actor.clone())
            .or_insert_with(|| broadcast::channel(BUFFER).0)
            .subscribe()
    }

    /// Follows all conversations from now on.
    pub fn observe_all(&self) -> broadcast::Receiver<(ActorId, Arc<Chunk>)> {
        self.all
            .get_or_init(|| broadcast::channel(BUFFER).0)
            .subscribe()
    }

    /// Tells whoever follows the conversation; nobody may.
    pub fn tell(&self, actor: &ActorId, chunk: impl FnOnce() -> Chunk) {
        let sender = {
            let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.get(actor).cloned()
        };
        let all = self.all.get().filter(|all| all.receiver_count() > 0);
        if sender.is_none() && all.is_none() {
            return;
        }
        let chunk = Arc::new(chunk());
        if let Some(all) = all {
            let _ = all.send((actor.clone(), chunk.clone()));
        }
        if let Some(sender) = sender {
            let _ = sender.send(chunk);
        }
    }

    /// Follows what becomes durable of the text of a conversation. Records are followed at the store.
    pub fn follow(&self, actor: &ActorId) -> Follower {
        let news = self
            .followed()
            .entry(actor.clone())
            .or_insert_with(|| watch::channel(News::default()).0)
            .subscribe();
        Follower {
            actor: actor.clone(),
            followed: self.followed.clone(),
            news,
        }
    }

    /// True while somebody follows what becomes durable.
    pub fn is_followed(&self, actor: &ActorId) -> bool {
        self.followed().contains_key(actor)
    }

    /// Tells that a piece of text became durable.
    pub(crate) fn drafted(&self, actor: &ActorId) {
        if let Some(sender) = self.followed().get(actor) {
            sender.send_modify(|news| news.pieces += 1);
        }
    }

    /// Tells that the conversation was deleted.
    pub fn gone(&self, actor: &ActorId) {
        if let Some(sender) = self.followed().get(actor) {
            sender.send_modify(|news| news.gone = true);
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<ActorId, watch::Sender<News>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
