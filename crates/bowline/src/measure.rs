//! What a turn costs: the figures of `bowline bench turn`. Beside it, those of `bench recovery` and
//! `bench idle`.
//!
//! The agent is scripted and the disk is real. CPU time and bytes are those of this process, read
//! from `/proc`; where that is missing they are zero.

pub mod agents;
pub(crate) mod child;
pub mod idle;
pub mod isolate;
mod native;
pub mod recovery;
pub mod workspace;

use std::{fmt, path::Path, time::Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use bowline_agent::{
    Conversation,
    context::{Shape, View},
    conversation::MessageFacts,
    record::{Content, Fact, Scope, ToolOutcome, ToolResultsCommitted, UserMessage},
};
use bowline_model::{AssistantMessage, AssistantPart, ModelRef, StopReason, ToolCall, Usage};
use bowline_store::{MemoryStore, StoredRecord, Timestamp};

use crate::{Agent, Bowline, Outgoing, Render, Service, error::Error};

pub mod http;
pub mod model;
pub mod soak;
pub mod streams;
mod usage;
mod wire;

/// One way to use an agent.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Turns that were measured.
    pub turns: u64,
    /// CPU time of a turn, in milliseconds.
    pub cpu_ms: f64,
    /// Wall-clock time of a turn when all of them are taken together, in milliseconds.
    pub wall_ms: f64,
    /// Flushes of a turn.
    pub flushes: f64,
    /// Bytes written for a turn, in KiB.
    pub written_kib: f64,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// One for each way.
    pub rows: Vec<Row>,
    /// What building the context costs.
    pub context: Vec<ContextRow>,
}

/// What building the context costs at one length.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextRow {
    /// Entries of the conversation: a message, an answer with a call, its result, in turn.
    pub entries: usize,
    /// CPU time to build it from nothing, in milliseconds.
    pub anew_ms: f64,
    /// CPU time to take in one more turn, in microseconds.
    pub next_us: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<44} {:>6} {:>9} {:>9} {:>8} {:>9}",
            "", "turns", "CPU ms", "wall ms", "flushes", "KiB"
        )?;
        for row in &self.rows {
            let Row {
                what,
                turns,
                cpu_ms,
                wall_ms,
                flushes,
                written_kib,
            } = row;
            writeln!(
                f,
                "{what:<44} {turns:>6} {cpu_ms:>9.3} {wall_ms:>9.3} {flushes:>8.2} {written_kib:>9.1}"
            )?;
        }
        writeln!(
            f,
            "\n{:<44} {:>9} {:>9}",
            "the context", "anew ms", "next µs"
        )?;
        for row in &self.context {
            let (anew, next) = (row.anew_ms, row.next_us);
            let what = format!("{} entries", row.entries);
            writeln!(f, "{what:<44} {anew:>9.3} {next:>9.2}")?;
        }
        Ok(())
    }
}

/// Measures in `dir`, which must be on the disk that matters. Takes some seconds for each 1,000
/// turns.
///
/// # Errors
///
/// Whatever the store reports.
pub async fn turns(dir: &Path, turns: u64) -> Result<Report, Error> {
    let mut report = Report::default();
    for (conversations, tools) in [(1, 0), (1, 1), (1, 5), (64, 0), (64, 5)] {
        let service = service(&dir.join(format!("c{conversations}-t{tools}")), tools)?;
        burst(&service, conversations, conversations * 4).await?;
        let what = format!("{conversations} conversations at once, {tools} tool steps");
        report
            .rows
            .push(measured(&service, what, conversations, turns).await?);
        service.stop(std::time::Duration::from_secs(10)).await;
    }
    let service = service(&dir.join("long"), 0)?;
    let window = 50;
    burst(&service, 1, 10).await?;
    let early = "one conversation, from turn 10 on".to_owned();
    report
        .rows
        .push(measured(&service, early, 1, window).await?);
    burst(&service, 1, 1_000 - 10 - window).await?;
    let late = "one conversation, from turn 1,000 on".to_owned();
    report.rows.push(measured(&service, late, 1, window).await?);
    service.stop(std::time::Duration::from_secs(10)).await;
    for entries in [10, 100, 1_000, 10_000] {
        report.context.push(context(entries).await?);
    }
    Ok(report)
}

/// What building the context costs when the conversation has so many entries.
///
/// # Errors
///
/// Whatever the store reports.
pub async fn context(entries: usize) -> Result<ContextRow, Error> {
    const TURNS: u32 = 64;
    let store = MemoryStore::new();
    let mut conversation = Conversation::default();
    let mut records = Talk::default();
    while conversation.entries.len() < entries {
        conversation.apply(&records.turn())?;
    }
    let shape = Shape::of(None, true);
    let mut view = View::default();
    let began = Instant::now();
    view.update(&conversation, shape, &store).await?;
    let anew_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut next = 0.0;
    for _ in 0..TURNS {
        conversation.apply(&records.turn())?;
        let began = Instant::now();
        view.update(&conversation, shape, &store).await?;
        // As a request holds it.
        let sent = view.messages().clone();
        next += began.elapsed().as_secs_f64() * 1e6;
        drop(sent);
    }
    Ok(ContextRow {
        entries,
        anew_ms,
        next_us: next / f64::from(TURNS),
    })
}

/// Records of a conversation of which nobody has heard.
#[derive(Default)]
struct Talk {
    seq: u64,
}

impl Talk {
    /// A message, a call, its result.
    fn turn(&mut self) -> Vec<StoredRecord> {
        let id = format!("msg_{}", self.seq);
        let call = format!("call_{}", self.seq);
        let text = |words: &str| {
            vec![Content::Text {
                text: words.repeat(40),
            }]
        };
        let message = AssistantMessage {
            model: ModelRef {
                api: "bench".to_owned(),
                provider: "bench".to_owned(),
                model: "bench".to_owned(),
            },
            parts: vec![AssistantPart::ToolCall(ToolCall::from_text(
                call.clone(),
                "bash".to_owned(),
                "{\"command\":\"echo hi\"}",
            ))],
            stop: StopReason::ToolUse,
            usage: Usage::default(),
            response_id: None,
        };
        let mut facts = vec![Fact::UserMessage(UserMessage {
            message_id: format!("{id}_u"),
            parent_id: None,
            content: text("What is it? "),
        })];
        let answer = MessageFacts {
            message_id: &id,
            parent_id: None,
            started: false,
            message: &message,
            cost_micro_usd: None,
            timing: None,
            error: None,
            interrupted: false,
            continues: false,
        };
        facts.extend(answer.facts());
        facts.push(Fact::ToolOutcome(ToolOutcome {
            assistant_message_id: id.clone(),
            tool_call_id: call.clone(),
            tool_name: "bash".to_owned(),
            is_error: false,
            content: text("So it is. "),
            whole: None,
            output: None,
            duration_ms: 1,
        }));
        facts.push(Fact::ToolResultsCommitted(ToolResultsCommitted {
            message_id: format!("{id}_r"),
            assistant_message_id: id,
            outcome_ids: vec![call],
        }));
        let scope = Scope::default();
        let stored = facts.iter().map(|fact| {
            self.seq += 1;
            StoredRecord {
                seq: self.seq,
                epoch: 1,
                record: fact.record(Timestamp::default(), &scope),
            }
        });
        stored.collect()
    }
}

/// An agent that makes so many tool steps and then answers.
fn service(dir: &Path, tools: u64) -> Result<Service, Error> {
    let unwritable = |error: std::io::Error| Error::failure("output_failed", error.to_string(), "");
    std::fs::create_dir_all(dir).map_err(unwritable)?;
    // What it used is said, so that the script does not count the whole conversation for it.
    let usage = "    usage: {input: 100, output: 10}\n";
    let step = format!("  - tools: [{{name: bash, input: {{command: echo hi}}}}]\n{usage}");
    let steps = step.repeat(usize::try_from(tools).unwrap_or_default());
    std::fs::write(
        dir.join("script.yaml"),
        format!("turns:\n{steps}  - text: Done.\n{usage}"),
    )
    .map_err(unwritable)?;
    let folder = dir.to_path_buf();
    let agent = Agent::new("bench", move |cx: &mut Render| {
        cx.model("scripted/script.yaml");
        cx.definition().dir = Some(folder.clone());
        "Answer."
    });
    let agent = agent.map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    Ok(Bowline::open(dir.join("data"))?.agent(agent).start_alone())
}

/// Takes so many turns, spread over so many conversations.
async fn burst(service: &Service, conversations: u64, turns: u64) -> Result<(), Error> {
    let width = usize::try_from(conversations).unwrap_or(usize::MAX);
    let one = |id: u64| async move {
        let id = id.to_string();
        for _ in 0..turns / conversations {
            service.ask("bench", &id, Outgoing::user("Go.")).await?;
        }
        Ok::<(), Error>(())
    };
    stream::iter(0..conversations)
        .map(one)
        .buffer_unordered(width)
        .try_collect::<()>()
        .await
}

async fn measured(
    service: &Service,
    what: String,
    conversations: u64,
    turns: u64,
) -> Result<Row, Error> {
    let turns = (turns / conversations).max(1) * conversations;
    let flushes = service.store().metrics().flushes;
    let (cpu, written, began) = (cpu_ms(), written_kib(), Instant::now());
    burst(service, conversations, turns).await?;
    let each = 1.0 / turns as f64;
    Ok(Row {
        what,
        turns,
        cpu_ms: (cpu_ms() - cpu) * each,
        wall_ms: began.elapsed().as_secs_f64() * 1_000.0 * each,
        flushes: (service.store().metrics().flushes - flushes) as f64 * each,
        written_kib: (written_kib() - written) * each,
    })
}

/// CPU time of this process so far, to 10 ms.
fn cpu_ms() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return 0.0;
    };
    // The name of the program may hold spaces; the numbers follow its closing bracket. Fields 14 and
    // 15 of proc(5) are user and system time in ticks of 10 ms.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) * 10.0
}

fn written_kib() -> f64 {
    let Ok(io) = std::fs::read_to_string("/proc/self/io") else {
        return 0.0;
    };
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}
