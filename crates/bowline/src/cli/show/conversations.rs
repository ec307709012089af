//! The conversations that there are, the newest first.

use std::process::ExitCode;

use bowline_agent::{
    KIND,
    approval::{self, Approval},
    record::Fact,
    view,
};
use bowline_runtime::submission::{self, State, Submission};
use bowline_store::{ActorId, Store, StoreError, Timestamp};
use serde_json::json;

use crate::{
    cli::{
        place::Place,
        terminal::{Paint, Terminal, count, one_line, shorten},
    },
    error::Error,
};

/// Conversations that are looked at, at most.
const MOST: usize = 100_000;
/// Conversations that are read at once.
const PAGE: usize = 500;
/// Records at the beginning of a conversation among which its first message is.
const BEGINNING: usize = 8;
/// Characters of a message that are shown.
const EXCERPT: usize = 60;

/// One line of the list.
struct Row {
    actor: ActorId,
    last: Timestamp,
    doing: &'static str,
    open: usize,
    /// What its first message says.
    message: String,
}

/// Lists the conversations, of one agent or of all.
pub(super) async fn list(
    place: &Place,
    agent: Option<&str>,
    limit: usize,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    if let Some(agent) = agent
        && !place.has_data()
    {
        place.project.definition(agent)?;
    }
    let mut found = Vec::new();
    let mut rows = Vec::new();
    if let Some(store) = place.read()? {
        found = all(&*store, agent).await?;
        if let (Some(agent), true) = (agent, found.is_empty()) {
            place.project.definition(agent)?;
        }
        let owned = store.is_owned()?;
        for (actor, last) in found.iter().take(limit) {
            rows.push(row(&*store, actor, *last, owned).await?);
        }
    }
    let more = found.len() - rows.len();
    if terminal.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let line = json!({"type": "conversations", "conversations": rows, "more": more});
        terminal.json(&line)?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        let who = agent.unwrap_or("AGENT");
        terminal.say(format_args!(
            "there are no conversations yet: begin one with `bowline run {who}`"
        ));
    }
    let name = |row: &Row| one_line(&format!("{} {}", row.actor.name(), row.actor.key()));
    let names = rows.iter().map(|row| name(row).chars().count()).max();
    let names = names.unwrap_or(0);
    for row in &rows {
        let last = row.last.to_string();
        // Days and minutes, as a list needs them.
        let last = last.get(..16).unwrap_or(&last).replace('T', " ");
        let paint = if row.open == 0 {
            Paint::Dim
        } else {
            Paint::Odd
        };
        terminal.answer(format_args!(
            "{}  {last}  {}  {}\n",
            terminal
                .out
                .paint(Paint::Strong, format!("{:names$}", name(row))),
            terminal.out.paint(paint, format!("{:11}", row.doing)),
            shorten(&one_line(&row.message), EXCERPT)
        ))?;
    }
    if more > 0 {
        terminal.say(format_args!(
            "{} more: `--limit {}` shows them",
            count(more as u64, "conversation"),
            found.len()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// All that there are with the time of their last record, the newest first.
async fn all(
    store: &dyn Store,
    agent: Option<&str>,
) -> Result<Vec<(ActorId, Timestamp)>, StoreError> {
    let mut found = Vec::new();
    let mut after: Option<ActorId> = None;
    loop {
        let page = store.actors(KIND, agent, after.as_ref(), PAGE).await?;
        let last = page.len() < PAGE;
        after = page.last().cloned();
        for actor in page {
            // One that was deleted is still known by its fence.
            let head = store.head(&actor).await?.map_or(0, |head| head.seq);
            let Some(before) = head.checked_sub(1) else {
                continue;
            };
            if let Some(newest) = store.read(&actor, before, 1).await?.first() {
                found.push((actor, newest.record.time));
            }
        }
        if last || found.len() >= MOST {
            break;
        }
    }
    found.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
    Ok(found)
}

async fn row(
    store: &dyn Store,
    actor: &ActorId,
    last: Timestamp,
    owned: bool,
) -> Result<Row, Error> {
    let open = submission::open(store, actor).await?;
    let approvals = if open.is_empty() {
        Vec::new()
    } else {
        approval::of(store, actor).await?
    };
    let mut message = String::new();
    for stored in store.read(actor, 0, BEGINNING).await? {
        if let Fact::UserMessage(said) = Fact::of(&stored)? {
            message = view::text(&said.content);
            break;
        }
    }
    Ok(Row {
        actor: actor.clone(),
        last,
        doing: doing(&open, &approvals, owned),
        open: open.len(),
        message,
    })
}

/// What a conversation does, in a word or two.
fn doing(open: &[Submission], approvals: &[Approval], owned: bool) -> &'static str {
    let Some(first) = open.first() else {
        return "idle";
    };
    match first.state {
        State::Parked { .. } if approvals.iter().any(|one| one.answer.is_none()) => "waits",
        State::Parked { .. } => "parked",
        State::Queued | State::Running | State::Joined { .. } if owned => "running",
        State::Queued | State::Running | State::Joined { .. } => "interrupted",
    }
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "agent": self.actor.name(), "id": self.actor.key(), "state": self.doing,
            "open": self.open, "lastAt": self.last, "message": self.message,
        })
    }
}
