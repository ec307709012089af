//! `bowline show`.

mod conversations;

use std::{process::ExitCode, time::Duration};

use bowline_agent::{
    Conversation, Input,
    approval::{self, Approval},
    code::runs::{self, CodeRun},
    view::{self, Display, Role, ToolState, UiMessage, UiPart},
};
use bowline_runtime::{
    Settled, Submission,
    submission::{self, Outcome as Ending, State},
};
use clap::Args;
use serde_json::{Value, json};

use super::{
    Global,
    markdown::Markdown,
    place::Place,
    run::{asked, places},
    screen::{self, Outcome},
    terminal::{Paint, Terminal, clean, one_line, shorten},
};
use crate::{
    error::Error,
    standing::{self, Cause, Waiting},
};

/// Characters of an open message that are shown.
const EXCERPT: usize = 60;

/// Print a conversation, or list those that there are.
///
/// Without an id it lists the conversations, the newest first: what each is doing, and what it began with.
/// With one it prints that conversation: what was said and done, how each message ended, what is still open, and why it is not moving: what
/// it waits for, since when, and what would move it. It reads what is durable, also while another
/// process is at it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline show\n  \
    bowline show triage\n      \
        the conversations with one agent\n  \
    bowline show triage t1\n  \
    bowline show triage t1 | less -R\n  \
    bowline show triage t1 --json | jq '.messages[-1].parts'\n  \
    bowline show triage t1 --json | jq -r '.waits[].moves'")]
pub(super) struct Show {
    /// The agent [default: all of them]
    agent: Option<String>,
    /// The conversation [default: list them]
    id: Option<String>,
    /// List so many at most
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 50,
        conflicts_with = "id"
    )]
    limit: usize,
}

pub(super) async fn show(
    args: &Show,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let (Some(agent), Some(id)) = (&args.agent, &args.id) else {
        return conversations::list(&place, args.agent.as_deref(), args.limit, terminal).await;
    };
    let reading = place.conversation(agent, id).await?;
    let open = submission::open(&*reading.store, &reading.actor).await?;
    let conversation = &reading.conversation;
    let owned = reading.store.is_owned()?;
    let (store, places) = (&*reading.store, places(global));
    let waits = standing::of(store, &reading.actor, conversation, owned, &places).await?;
    let approvals = approval::of(&*reading.store, &reading.actor).await?;
    let approvals: Vec<_> = approvals
        .into_iter()
        .filter(|one| one.answer.is_none())
        .collect();
    let runs = runs::of(&*reading.store, &reading.actor).await?;
    if terminal.json {
        terminal.json(&history(conversation, &open, &approvals, &waits, &runs))?;
        return Ok(ExitCode::SUCCESS);
    }
    let markdown = Markdown::new(terminal.out.color);
    for message in view::messages(conversation) {
        if message.display == Display::Visible || message.settlement.is_some() {
            terminal.answer(written(&message, &markdown, &runs, terminal))?;
        }
    }
    for settled in &conversation.settlements {
        if let Some(line) = unhappy(settled) {
            terminal.answer(format_args!("{}\n", terminal.out.paint(Paint::Bad, line)))?;
        }
    }
    for compacted in &conversation.compactions {
        let line = format!(
            "compacted at {}: {} tokens to about {}",
            compacted.time, compacted.record.tokens_before, compacted.record.tokens_after
        );
        terminal.answer(format_args!("{}\n", terminal.out.paint(Paint::Dim, line)))?;
    }
    for submission in &open {
        let text = text_of(submission);
        let line = format!(
            "open: {} ({}), {}",
            submission.id,
            state(submission),
            shorten(&one_line(&text), EXCERPT)
        );
        terminal.answer(format_args!("{}\n", terminal.out.paint(Paint::Odd, line)))?;
    }
    for waiting in &waits {
        let finished = waiting.cause == Cause::Finished;
        let paint = if finished { Paint::Dim } else { Paint::Odd };
        let line = one_line(&waiting.to_string());
        terminal.answer(format_args!("{}\n", terminal.out.paint(paint, line)))?;
        // In full, so that whoever decides knows what about.
        let (Cause::Approval { approval_id, .. } | Cause::Question { approval_id }) =
            &waiting.cause
        else {
            continue;
        };
        if let Some(approval) = approvals.iter().find(|one| one.approval_id == *approval_id) {
            terminal.answer(format_args!("{}\n", subject(approval)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person has to decide about.
fn subject(approval: &Approval) -> String {
    match &approval.question {
        Some(question) => asked(question),
        None => clean(&serde_json::to_string_pretty(&approval.arguments).unwrap_or_default()),
    }
}

/// The conversation as a program sees it.
fn history(
    conversation: &Conversation,
    open: &[Submission],
    approvals: &[Approval],
    waits: &[Waiting],
    runs: &[CodeRun],
) -> Value {
    let settlements: Vec<_> = conversation
        .settlements
        .iter()
        .map(|settled| {
            let mut value =
                json!({"submissionId": settled.submission_id, "outcome": settled.outcome});
            if let (Some(error), Some(fields)) = (&settled.error, value.as_object_mut()) {
                fields.insert("error".to_owned(), json!(error));
            }
            if let (Some(host), Some(fields)) =
                (&settled.answered_by_submission_id, value.as_object_mut())
            {
                fields.insert("answeredBySubmissionId".to_owned(), json!(host));
            }
            value
        })
        .collect();
    let open: Vec<_> = open
        .iter()
        .map(|submission| {
            json!({
                "submissionId": submission.id,
                "state": state(submission),
                "text": text_of(submission),
                "acceptedAt": submission.accepted_at,
                "attempts": submission.attempts,
                "abortRequested": submission.abort_requested_at.is_some(),
            })
        })
        .collect();
    json!({
        "conversationId": conversation.id,
        "offset": format!("{}_0", conversation.seq),
        "incarnation": conversation.uid,
        "messages": view::messages(conversation),
        "settlements": settlements,
        "compactions": conversation.compactions.iter().map(|one| &one.record).collect::<Vec<_>>(),
        "submissions": open,
        "approvals": approvals,
        "waits": waits,
        "codeRuns": runs,
    })
}

fn written(
    message: &UiMessage,
    markdown: &Markdown,
    runs: &[CodeRun],
    terminal: Terminal,
) -> String {
    let mut text = match message.role {
        Role::User => heading(terminal, "user"),
        Role::Assistant => heading(terminal, "assistant"),
        Role::System => String::new(),
    };
    let mut tools = false;
    for part in &message.parts {
        let tool = matches!(part, UiPart::DynamicTool { .. });
        if tools && !tool {
            text.push('\n');
        }
        tools = tool;
        match part {
            UiPart::Text { text: said, .. } if message.role == Role::System => {
                text.push_str(&terminal.out.paint(Paint::Dim, one_line(said)));
                text.push_str("\n\n");
            }
            UiPart::Text { text: said, .. } if terminal.out.terminal => {
                text.push_str(&markdown.render(said))
            }
            UiPart::Text { text: said, .. } => {
                text.push_str(&format!("{}\n\n", clean(said).trim_end()))
            }
            UiPart::Reasoning { .. } => {}
            UiPart::File {
                media_type,
                size,
                filename,
                ..
            } => {
                let name = one_line(filename.as_deref().unwrap_or("a file"));
                text.push_str(&format!("[{name}, {media_type}, {size} bytes]\n\n"));
            }
            UiPart::DynamicTool {
                tool_name,
                input,
                state,
                tool_call_id,
            } => {
                text.push_str(&tool_line(terminal, tool_name, input, state));
                text.push('\n');
                let run = runs.iter().find(|run| run.tool_call_id == *tool_call_id);
                for line in run.map_or_else(Vec::new, |run| {
                    screen::code_calls(on_output(terminal), &run.calls, 0)
                }) {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
    }
    if tools {
        text.push('\n');
    }
    text
}

fn heading(terminal: Terminal, who: &str) -> String {
    format!(
        "{}\n\n",
        terminal.out.paint(Paint::Strong, format!("── {who} ──"))
    )
}

fn tool_line(terminal: Terminal, name: &str, input: &Value, state: &ToolState) -> String {
    let (outcome, time) = match state {
        ToolState::InputAvailable => (Outcome::Open, 0),
        ToolState::OutputAvailable {
            output,
            duration_ms,
        } => (screen::outcome(output), *duration_ms),
        ToolState::OutputError {
            error_text,
            duration_ms,
        } => (Outcome::Failed(error_text.clone()), *duration_ms),
    };
    let name = one_line(name);
    screen::tool_line(
        on_output(terminal),
        &name,
        &screen::label(&name, input),
        &outcome,
        Duration::from_millis(time),
    )
}

/// Here a tool call is part of the answer, on standard output.
fn on_output(terminal: Terminal) -> Terminal {
    Terminal {
        err: terminal.out,
        ..terminal
    }
}

fn unhappy(settled: &Settled) -> Option<String> {
    let word = match settled.outcome {
        Ending::Completed => return None,
        Ending::Failed => "failed",
        Ending::Aborted => "aborted",
    };
    let why = settled
        .error
        .as_ref()
        .map(|error| format!(": {}", one_line(&error.message)));
    Some(format!(
        "{word}: {}{}",
        settled.submission_id,
        why.unwrap_or_default()
    ))
}

fn text_of(submission: &Submission) -> String {
    let input = serde_json::from_value::<Input>(submission.payload.clone());
    input
        .map(|input| input.text().to_owned())
        .unwrap_or_default()
}

fn state(submission: &Submission) -> &'static str {
    match submission.state {
        State::Queued => "queued",
        State::Running => "running",
        State::Parked { .. } => "parked",
        State::Joined { .. } => "joined",
    }
}
