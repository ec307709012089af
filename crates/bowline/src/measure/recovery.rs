//! How soon everything goes on after a kill: the figures of `bowline bench recovery`.
//!
//! A process of its own works on many conversations at once. When each has made a tool call and waits
//! for the model, it is killed with SIGKILL, and another one started on the same data.

use std::{collections::HashMap, fmt, path::Path, time::Duration};

use bowline_agent::{ChunkBody, Conversation, KIND, actor, load, record::Fact};
use bowline_runtime::Outcome;
use bowline_store::{SqliteOptions, SqliteStore, Store, Timestamp};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::child::{Child, say};
use crate::{Agent, Bowline, Outgoing, Render, error::Error};

/// The name of the agent.
const AGENT: &str = "bench";
/// Its script, within the folder of the run.
const SCRIPT: &str = "script.yaml";
/// In the first process the second answer takes an hour.
const STUCK: &str = "turns:\n  - tools: [{name: bash, input: {command: echo one >> log.txt}}]\n  - text: never\n    stream: {chars: 1, delay_ms: 3600000}\n";
/// In the second one it comes, and calls another tool.
const GOES_ON: &str = "turns:\n  - tools: [{name: bash, input: {command: echo one >> log.txt}}]\n  - text: Going on.\n    tools: [{name: bash, input: {command: echo two >> log.txt}}]\n  - text: Done.\n";

/// What was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Conversations that were in flight when the process was killed.
    pub conversations: usize,
    /// From the start of the second process until the last one had gone on, in milliseconds: its new
    /// attempt was durable.
    pub resumed_ms: f64,
    /// Until the last one had settled.
    pub settled_ms: f64,
    /// Conversations that were not answered.
    pub lost: usize,
    /// Results of tools that were produced twice.
    pub doubled: usize,
    /// Submissions with more than one outcome.
    pub settled_twice: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "conversations in flight at the kill   {:>10}",
            self.conversations
        )?;
        writeln!(
            f,
            "start to the last one resumed         {:>10.0} ms",
            self.resumed_ms
        )?;
        writeln!(
            f,
            "start to the last one settled         {:>10.0} ms",
            self.settled_ms
        )?;
        writeln!(f, "not answered                          {:>10}", self.lost)?;
        writeln!(
            f,
            "tool results produced twice           {:>10}",
            self.doubled
        )?;
        writeln!(
            f,
            "settled twice                         {:>10}",
            self.settled_twice
        )
    }
}

/// Kills a process with so many conversations in flight, and starts another one.
///
/// # Errors
///
/// When a process cannot be started or ends too early, or the data cannot be read.
pub async fn run(dir: &Path, conversations: usize) -> Result<Report, Error> {
    let unwritable = |error: std::io::Error| Error::failure("output_failed", error.to_string(), "");
    let many = conversations.to_string();
    std::fs::write(dir.join(SCRIPT), STUCK).map_err(unwritable)?;
    let mut first = Child::start(dir, "recovery-begin", &many)?;
    first = first.until("in flight").await?;
    first.kill().await?;

    std::fs::write(dir.join(SCRIPT), GOES_ON).map_err(unwritable)?;
    let second = Child::start(dir, "recovery-resume", &many)?;
    let began = second.began();
    let second = second.until("resumed").await?;
    let resumed_ms = began.elapsed().as_secs_f64() * 1e3;
    let second = second.until("settled").await?;
    let settled_ms = began.elapsed().as_secs_f64() * 1e3;
    second.kill().await?;

    let options = SqliteOptions {
        read_only: true,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(&dir.join("data"), options)?;
    let mut report = Report {
        conversations,
        resumed_ms,
        settled_ms,
        lost: 0,
        doubled: 0,
        settled_twice: 0,
    };
    for id in 0..conversations {
        count(&*store, &id.to_string(), &mut report).await?;
    }
    store.close().await;
    Ok(report)
}

async fn count(store: &dyn Store, id: &str, report: &mut Report) -> Result<(), Error> {
    let actor = actor(AGENT, id);
    let mut outcomes: HashMap<String, usize> = HashMap::new();
    for stored in store.read(&actor, 0, usize::MAX).await? {
        if let Fact::ToolOutcome(outcome) = Fact::of(&stored)? {
            *outcomes.entry(outcome.tool_call_id).or_default() += 1;
        }
    }
    let conversation: Conversation = load(store, &actor).await?;
    let settled = &conversation.settlements;
    report.doubled += outcomes.values().map(|count| count - 1).sum::<usize>();
    report.settled_twice += usize::from(settled.len() > 1);
    let answered = settled
        .first()
        .is_some_and(|end| end.outcome == Outcome::Completed);
    report.lost += usize::from(!answered || outcomes.len() != 2);
    Ok(())
}

fn bowline(dir: &Path) -> Result<Bowline, Error> {
    let folder = dir.to_path_buf();
    let agent = Agent::new(AGENT, move |cx: &mut Render| {
        cx.model(format!("scripted/{SCRIPT}"));
        cx.definition().dir = Some(folder.clone());
        "Answer."
    });
    let agent = agent.map_err(|error| Error::failure("internal_error", error.to_string(), ""))?;
    Ok(Bowline::open(dir.join("data"))?.agent(agent))
}

/// The first process: sends the messages, says so when each conversation has made its first tool call,
/// and waits to be killed.
pub(crate) async fn begin(dir: &Path, conversations: usize) -> Result<(), Error> {
    let service = bowline(dir)?.start();
    let one = |id: usize| {
        let service = service.clone();
        async move {
            let id = id.to_string();
            let mut chunks = service.observe(AGENT, &id);
            service.send(AGENT, &id, Outgoing::user("Go.")).await?;
            while let Ok(chunk) = chunks.recv().await {
                if let ChunkBody::ToolOutput { .. } = chunk.body {
                    break;
                }
            }
            Ok::<(), Error>(())
        }
    };
    stream::iter(0..conversations)
        .map(one)
        .buffer_unordered(256)
        .try_collect::<()>()
        .await?;
    say("in flight");
    std::future::pending().await
}

/// The second process: says when the last conversation has gone on, and when the last has settled.
pub(crate) async fn resume(dir: &Path, conversations: usize) -> Result<(), Error> {
    let bowline = bowline(dir)?;
    let store = bowline.store().clone();
    let due = store
        .due(Timestamp::from_millis(i64::MAX), conversations)
        .await?;
    let mut tails = Vec::with_capacity(due.len());
    for (actor, _) in due {
        let seq = store.head(&actor).await?.map_or(0, |head| head.seq);
        tails.push((store.tail(&actor), seq));
    }
    let service = bowline.start();
    futures::future::join_all(tails.iter_mut().map(|(tail, seq)| tail.beyond(*seq))).await;
    say("resumed");
    loop {
        // Who has nothing open has no wake.
        if store.next_wake().await?.is_none() {
            break;
        }
        let due = store
            .due(Timestamp::from_millis(i64::MAX), conversations)
            .await?;
        let one = |actor: bowline_store::ActorId| {
            let service = service.clone();
            async move {
                debug_assert_eq!(actor.kind(), KIND);
                let open = service.open_submissions(actor.name(), actor.key()).await?;
                for submission in open {
                    service
                        .reply(actor.name(), actor.key(), &submission.id)
                        .await?;
                }
                Ok::<(), Error>(())
            }
        };
        stream::iter(due)
            .map(|(actor, _)| one(actor))
            .buffer_unordered(64)
            .try_collect::<()>()
            .await?;
    }
    say("settled");
    service.stop(Duration::from_secs(10)).await;
    std::future::pending().await
}
