//! `bowline tail`.

use std::{collections::HashMap, path::Path, process::ExitCode, time::Duration};

use bowline_agent::{
    Chunk, ChunkBody,
    conversation::EntryBody,
    live::{DeltaKind, Position},
    record::{AssistantToolCall, Fact, ToolOutcome},
    view,
};
use bowline_runtime::submission;
use bowline_store::{Store as _, StoreError, StoredRecord};
use clap::Args;
use futures::{StreamExt as _, stream::BoxStream};

use super::{
    Global,
    fault::Fault,
    place::{Place, Reading},
    screen::{Screen, Shown},
    signals::Signals,
    terminal::Terminal,
};
use crate::error::Error;

/// Records read at once.
const PAGE: usize = 500;
/// Some file systems, those of a network above all, do not say when a file changes: there it takes
/// this long until something new is seen.
const UNTOLD: Duration = Duration::from_secs(2);

/// Follow a conversation that another process runs.
///
/// Shows what becomes durable from now on: messages, tool calls, outcomes. Text comes as whole
/// messages, since it is read from the data. Ctrl-C ends it; nothing that it does disturbs the run.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline tail triage t1\n  \
    bowline tail triage t1 --all --exit\n      \
        from the first message, until nothing is open\n  \
    bowline tail triage t1 --json | jq -r 'select(.type == \"tool-input\").toolName'")]
pub(super) struct Tail {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
    /// Begin with the first message instead of now
    #[arg(long)]
    all: bool,
    /// End when nothing is open
    #[arg(long)]
    exit: bool,
}

pub(super) async fn tail(
    args: &Tail,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let mut reading = place.conversation(&args.agent, &args.id).await?;
    let mut signals = Signals::new()?;
    let mut changes = watch(&place.data)?;
    let mut screen = Screen::new(terminal, Shown::Everything);
    let mut retold = Retold::default();
    if args.all {
        reading.conversation = bowline_agent::Conversation::default();
    }
    loop {
        news(&mut reading, &mut retold, &mut screen).await?;
        if args.exit
            && submission::open(&*reading.store, &reading.actor)
                .await?
                .is_empty()
        {
            // What settled it may have come between the two.
            news(&mut reading, &mut retold, &mut screen).await?;
            screen.pause()?;
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            biased;
            stop = signals.next() => {
                screen.pause()?;
                return Ok(stop.exit_code());
            }
            Some(()) = changes.next() => {}
            () = tokio::time::sleep(UNTOLD) => {}
        }
    }
}

/// Tells when a file of the data changes. Many changes in a row are told once.
#[cfg(target_os = "linux")]
fn watch(data: &Path) -> Result<BoxStream<'static, ()>, Error> {
    use inotify::{Inotify, WatchMask};
    let failed = |error: std::io::Error| {
        Error::from(Fault::Watch {
            path: data.to_path_buf(),
            why: error.to_string(),
        })
    };
    let inotify = Inotify::init().map_err(failed)?;
    let changes = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    inotify.watches().add(data, changes).map_err(failed)?;
    let events = inotify.into_event_stream([0; 4_096]).map_err(failed)?;
    Ok(events.ready_chunks(256).map(|_| ()).boxed())
}

/// Elsewhere nobody tells; [`UNTOLD`] is how long something new may take.
#[cfg(not(target_os = "linux"))]
fn watch(_data: &Path) -> Result<BoxStream<'static, ()>, Error> {
    Ok(futures::stream::pending().boxed())
}

/// Shows the records that are new.
async fn news(
    reading: &mut Reading,
    retold: &mut Retold,
    screen: &mut Screen,
) -> Result<(), Error> {
    loop {
        let records = reading
            .store
            .read(&reading.actor, reading.conversation.seq, PAGE)
            .await?;
        for stored in &records {
            for chunk in retold.chunks(reading, stored)? {
                screen.chunk(&chunk)?;
            }
        }
        if records.len() < PAGE {
            return Ok(());
        }
    }
}

/// Records as the chunks that somebody in the same process would have seen.
#[derive(Debug, Default)]
struct Retold {
    /// The response to each open submission: the id of its first message.
    responses: HashMap<String, String>,
}

impl Retold {
    fn chunks(
        &mut self,
        reading: &mut Reading,
        stored: &StoredRecord,
    ) -> Result<Vec<Chunk>, StoreError> {
        let fact = Fact::of(stored)?;
        let conversation = &mut reading.conversation;
        conversation.apply(std::slice::from_ref(stored))?;
        let submission = stored.record.submission.clone().unwrap_or_default();
        let bodies = match fact {
            Fact::UserMessage(_) | Fact::Signal(_) => {
                let message = conversation
                    .entries
                    .last()
                    .and_then(|entry| match &entry.body {
                        EntryBody::User(content) => Some(view::user(entry, content)),
                        EntryBody::Signal(signal) => Some(view::signal(entry, signal)),
                        EntryBody::Assistant { .. } | EntryBody::ToolResults(_) => None,
                    });
                message
                    .map(|message| ChunkBody::MessageAppended { message })
                    .into_iter()
                    .collect()
            }
            Fact::AssistantStarted(started) if !self.responses.contains_key(&submission) => {
                let (message_id, timestamp) = (started.message_id, stored.record.time);
                self.responses
                    .insert(submission.clone(), message_id.clone());
                vec![ChunkBody::MessageStarted {
                    message_id,
                    submission_id: submission,
                    timestamp,
                }]
            }
            Fact::AssistantText(text) => {
                vec![self.delta(&submission, text.message_id, DeltaKind::Text, text.text)]
            }
            Fact::AssistantReasoning(thought) => {
                vec![self.delta(
                    &submission,
                    thought.message_id,
                    DeltaKind::Reasoning,
                    thought.text,
                )]
            }
            Fact::AssistantToolCall(AssistantToolCall {
                message_id, call, ..
            }) => vec![ChunkBody::ToolInput {
                message_id: self.response(&submission, message_id),
                tool_call_id: call.id,
                tool_name: call.name,
                input: call.arguments,
            }],
            Fact::ToolOutcome(outcome) => vec![ended(&outcome)],
            Fact::AssistantCompleted(done) => {
                vec![ChunkBody::Usage {
                    usage: done.usage,
                    cost_micro_usd: done.cost_micro_usd,
                }]
            }
            Fact::SubmissionSettled(settled) => {
                let completed = self.responses.remove(&settled.submission_id);
                let completed =
                    completed.map(|message_id| ChunkBody::MessageCompleted { message_id });
                let settled = ChunkBody::SubmissionSettled {
                    submission_id: settled.submission_id,
                    outcome: settled.outcome,
                    error: settled.error,
                    answered_by_submission_id: settled.answered_by_submission_id,
                };
                completed.into_iter().chain([settled]).collect()
            }
            Fact::ApprovalRequested(approval) => vec![ChunkBody::ApprovalRequested { approval }],
            Fact::ApprovalAnswered(answered) => vec![ChunkBody::ApprovalAnswered { answered }],
            Fact::Created(_)
            | Fact::AssistantStarted(_)
            | Fact::ToolResultsCommitted(_)
            | Fact::ResourceSnapshot(_)
            | Fact::CompactionRequested(_)
            | Fact::Compaction(_)
            | Fact::AttemptStarted(_)
            | Fact::Runtime => Vec::new(),
        };
        let conversation_id = conversation.id.clone();
        let chunk = |(index, body)| {
            let position = Position {
                batch: stored.seq,
                index,
            };
            Chunk {
                body,
                conversation_id: conversation_id.clone(),
                position,
            }
        };
        Ok((0u32..).zip(bodies).map(chunk).collect())
    }

    fn delta(
        &self,
        submission: &str,
        message_id: String,
        kind: DeltaKind,
        delta: String,
    ) -> ChunkBody {
        ChunkBody::MessageDelta {
            message_id: self.response(submission, message_id),
            kind,
            delta,
        }
    }

    fn response(&self, submission: &str, message_id: String) -> String {
        self.responses
            .get(submission)
            .cloned()
            .unwrap_or(message_id)
    }
}

fn ended(outcome: &ToolOutcome) -> ChunkBody {
    let (tool_call_id, duration_ms) = (outcome.tool_call_id.clone(), outcome.duration_ms);
    if outcome.is_error {
        ChunkBody::ToolOutputError {
            tool_call_id,
            error_text: view::text(&outcome.content),
            duration_ms,
        }
    } else {
        ChunkBody::ToolOutput {
            tool_call_id,
            output: view::output(outcome),
            duration_ms,
        }
    }
}
