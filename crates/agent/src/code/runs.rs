//! What runs of code did, for whoever looks on: each with its calls, their state and their time.
//!
//! It is read from the records alone, so it is the same for a run that goes on, one that waits for a
//! person and one that ended long ago, and it can be read beside the process that runs it.

use std::collections::HashMap;

use bowline_runtime::{effect::undo::Undone, kind};
use bowline_store::{ActorId, BlobId, Seq, Store, StoreError, StoredRecord, Timestamp};
use serde::{Deserialize, Serialize};

use super::journal::{Boundary, Called};
use crate::record::Fact;

/// Most runs that [`of`] gives; of more, the newest.
pub const MOST_RUNS: usize = 1_000;
/// Records read at once.
const PAGE: usize = 1_000;

/// A run of code: one call of the tool `code`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeRun {
    /// `run_…`.
    pub run_id: String,
    /// The call of the model that asked for it.
    pub tool_call_id: String,
    /// The submission that it belongs to.
    pub submission_id: String,
    /// How far it is.
    pub state: RunState,
    /// When its first boundary was drawn: the first that is known of it.
    pub since: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The CPU time that the code took, in microseconds, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Its calls in the order in which they were answered, and then those that wait for a person.
    pub calls: Vec<CodeCall>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It is worked on, or goes on after the next start.
    Running,
    /// It waits for a person.
    Paused,
    /// It gave a result.
    Completed,
    /// It threw, met a limit, or was stopped.
    Error,
    /// What it did outside was undone.
    RolledBack,
}

/// A call that a run made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeCall {
    /// What is recorded of it. For one that waits there is no result, and `time` is when it was asked for.
    #[serde(flatten)]
    pub called: Called,
    /// How far it is.
    pub state: CallState,
    /// The approval that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<String>,
    /// Why it could not be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_undone: Option<String>,
}

/// How far a call of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// It waits for a person.
    Waits,
    /// It gave a result.
    Done,
    /// It threw.
    Failed,
    /// It was done, and undone when its run was rolled back.
    Undone,
    /// It was done, and could not be undone.
    NotUndone,
}

impl RunState {
    /// The word of the records and of JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl CallState {
    /// The word of the records and of JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::NotUndone => "not_undone",
        }
    }
}

impl From<Called> for CodeCall {
    fn from(called: Called) -> Self {
        let state = if called.error.is_some() {
            CallState::Failed
        } else {
            CallState::Done
        };
        Self {
            called,
            state,
            approval_id: None,
            not_undone: None,
        }
    }
}

/// The runs of an actor, oldest first; the newest [`MOST_RUNS`] where there are more.
///
/// # Errors
///
/// When its records cannot be read.
pub async fn of(store: &dyn Store, actor: &ActorId) -> Result<Vec<CodeRun>, StoreError> {
    let mut runs = Runs::default();
    let mut after: Seq = 0;
    loop {
        let records = store.read(actor, after, PAGE).await?;
        for stored in &records {
            let listed = runs.apply(stored)?;
            if let Some((run, blob)) = listed {
                let bytes = store.blob(blob).await?;
                runs.listed(&run, bytes.as_deref().unwrap_or_default());
            }
        }
        match records.last() {
            Some(last) if records.len() == PAGE => after = last.seq,
            _ => return Ok(runs.runs),
        }
    }
}

/// Runs while records are read.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<CodeRun>,
    /// The call of the model whose code waits, by approval.
    waits: HashMap<String, String>,
}

impl Runs {
    /// Takes in a record; a list of calls that is a blob has to be read, and given to [`Runs::listed`].
    fn apply(&mut self, stored: &StoredRecord) -> Result<Option<(String, BlobId)>, StoreError> {
        if stored.record.kind == kind::EFFECT_UNDONE {
            let undone: Undone = serde_json::from_slice(&stored.record.body).map_err(|error| {
                StoreError::Corrupt(format!("record {} does not decode: {error}", stored.seq))
            })?;
            self.undone(&undone);
            return Ok(None);
        }
        match Fact::of(stored)? {
            Fact::CodeBoundary(boundary) => Ok(self.boundary(stored, *boundary)),
            Fact::ApprovalRequested(approval) => {
                let Some((call, number)) = approval.tool_call_id.rsplit_once('#') else {
                    return Ok(None);
                };
                let Some(run) = self.open(call) else {
                    return Ok(None);
                };
                let (within, number) = match number.split_once('.') {
                    Some((tool, number)) => (tool.parse().ok(), number),
                    None => (None, number),
                };
                run.calls.push(CodeCall {
                    called: Called {
                        id: number.parse().unwrap_or(0),
                        within,
                        path: approval.tool_name,
                        arguments: approval.arguments,
                        result: None,
                        error: None,
                        time: approval.requested_at,
                        duration_ms: 0,
                        approval: None,
                        effect_id: approval.effect_id,
                    },
                    state: CallState::Waits,
                    approval_id: Some(approval.approval_id.clone()),
                    not_undone: None,
                });
                let call = run.tool_call_id.clone();
                self.waits.insert(approval.approval_id, call);
                Ok(None)
            }
            Fact::ApprovalAnswered(answered) => {
                if let Some(call) = self.waits.remove(&answered.approval_id)
                    && let Some(run) = self.open(&call)
                {
                    let id = answered.approval_id;
                    run.calls
                        .retain(|one| one.approval_id.as_ref() != Some(&id));
                    let waits = run.calls.iter().any(|one| one.state == CallState::Waits);
                    if !waits {
                        run.state = RunState::Running;
                    }
                }
                Ok(None)
            }
            // A run that was stopped has a result without an end of its own.
            Fact::ToolOutcome(outcome) => {
                if let Some(run) = self.open(&outcome.tool_call_id) {
                    run.state = RunState::Error;
                    run.ended = Some(stored.record.time);
                    run.calls.retain(|one| one.state != CallState::Waits);
                }
                Ok(None)
            }
            Fact::Created(_)
            | Fact::UserMessage(_)
            | Fact::Signal(_)
            | Fact::AssistantStarted(_)
            | Fact::AssistantText(_)
            | Fact::AssistantReasoning(_)
            | Fact::AssistantToolCall(_)
            | Fact::AssistantCompleted(_)
            | Fact::ToolResultsCommitted(_)
            | Fact::ResourceSnapshot(_)
            | Fact::CompactionRequested(_)
            | Fact::Compaction(_)
            | Fact::AttemptStarted(_)
            | Fact::SubmissionSettled(_)
            | Fact::Runtime => Ok(None),
        }
    }

    /// The run of a call that has not ended.
    fn open(&mut self, tool_call_id: &str) -> Option<&mut CodeRun> {
        let run = self.runs.iter_mut().rev();
        let mut run = run.filter(|run| run.tool_call_id == tool_call_id);
        run.next().filter(|run| run.ended.is_none())
    }

    fn boundary(&mut self, stored: &StoredRecord, boundary: Boundary) -> Option<(String, BlobId)> {
        let known = self
            .runs
            .iter()
            .rposition(|run| run.run_id == boundary.run_id);
        let at = known.unwrap_or_else(|| {
            if self.runs.len() >= MOST_RUNS {
                self.runs.remove(0);
            }
            self.runs.push(CodeRun {
                run_id: boundary.run_id.clone(),
                tool_call_id: boundary.tool_call_id.clone(),
                submission_id: stored.record.submission.clone().unwrap_or_default(),
                state: RunState::Running,
                since: stored.record.time,
                ended: None,
                cpu_us: None,
                calls: Vec::new(),
            });
            self.runs.len() - 1
        });
        let run = self.runs.get_mut(at)?;
        run.state = boundary.state();
        if boundary.ends() {
            run.ended = Some(stored.record.time);
            run.cpu_us = boundary.cpu_us;
            run.calls.retain(|one| one.state != CallState::Waits);
        }
        match boundary.calls_blob.as_deref().and_then(BlobId::parse) {
            Some(blob) => Some((boundary.run_id, blob)),
            None => {
                add(run, boundary.calls);
                None
            }
        }
    }

    /// The calls of a list that was too long for a record.
    fn listed(&mut self, run_id: &str, bytes: &[u8]) {
        let calls: Vec<Called> = serde_json::from_slice(bytes).unwrap_or_default();
        let run = self.runs.iter_mut().rfind(|run| run.run_id == run_id);
        if let Some(run) = run {
            add(run, calls);
        }
    }

    fn undone(&mut self, undone: &Undone) {
        let ours = |one: &&mut CodeCall| one.called.effect_id.as_ref() == Some(&undone.effect_id);
        for run in self.runs.iter_mut().rev() {
            let Some(call) = run.calls.iter_mut().find(ours) else {
                continue;
            };
            call.not_undone = undone.error.as_ref().map(|error| error.message.clone());
            call.state = match call.not_undone {
                Some(_) => CallState::NotUndone,
                None => CallState::Undone,
            };
            // One that is rolled back while it is open says so itself at its end.
            if run.ended.is_some() && call.state == CallState::Undone {
                run.state = RunState::RolledBack;
            }
            return;
        }
    }
}

/// Those that wait stay behind those that were answered.
fn add(run: &mut CodeRun, calls: Vec<Called>) {
    let at = run
        .calls
        .iter()
        .position(|one| one.state == CallState::Waits)
        .unwrap_or(run.calls.len());
    let calls = calls.into_iter().map(CodeCall::from);
    run.calls.splice(at..at, calls);
}
