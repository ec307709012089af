//! `bowline spend`.

use std::{collections::BTreeMap, process::ExitCode};

use bowline_agent::{
    conversation::EntryBody,
    record::{AssistantCompleted, Compaction, Fact, Timing},
    spend::{self, Totals},
};
use bowline_model::{Usage, format_usd};
use bowline_store::{Store as _, Timestamp};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Global,
    place::Place,
    terminal::{Paint, Terminal},
};
use crate::error::Error;

/// Records that are read of a conversation at once.
const PAGE: usize = 1_000;

/// Show what model calls have cost.
///
/// Amounts are in US dollars, as far as prices are known; calls without a known price are counted beside
/// them. What a call cost that broke off is estimated, and shown as wasted. What is reserved for calls
/// that are under way is shown apart.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline spend\n  \
    bowline spend --by day --since 2026-11-01\n  \
    bowline spend --calls triage t1\n  \
    bowline spend --by model --json | jq '.rows[] | {name, costUsd}'")]
pub(super) struct Spend {
    /// What is added up together
    #[arg(long, value_enum, default_value_t = By::Agent)]
    by: By,
    /// Only from this day on, UTC
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
    since: Option<String>,
    /// List each model call of one conversation instead
    #[arg(long, num_args = 2, value_names = ["AGENT", "ID"], conflicts_with_all = ["by", "since"])]
    calls: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Agent,
    Instance,
    Model,
    Day,
}

fn day(text: &str) -> Result<String, String> {
    let whole = bowline_store::Timestamp::parse(&format!("{text}T00:00:00Z"));
    match whole.filter(|_| text.len() == 10) {
        Some(_) => Ok(text.to_owned()),
        None => Err("a day is written 2026-11-22".to_owned()),
    }
}

pub(super) async fn spend(
    args: &Spend,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    if let Some([agent, id]) = args.calls.as_deref() {
        return calls(&place, agent, id, terminal).await;
    }
    let (lines, open) = match place.read()? {
        Some(store) => spend::lines(&*store, args.since.as_deref()).await?,
        None => (Vec::new(), Vec::new()),
    };
    let mut rows: BTreeMap<String, Totals> = BTreeMap::new();
    let mut sum = Totals::default();
    for line in &lines {
        let name = match args.by {
            By::Agent => line.actor.name().to_owned(),
            By::Instance => format!("{}/{}", line.actor.name(), line.actor.key().escape_debug()),
            By::Model => format!("{}/{}", line.provider, line.model),
            By::Day => line.day.clone(),
        };
        rows.entry(name).or_default().add(&line.totals);
        sum.add(&line.totals);
    }
    let reserved: u64 = open.iter().map(|open| open.micro_usd).sum();
    if terminal.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, row)| totals(Some(name), row))
            .collect();
        let sum = totals(None, &sum);
        terminal.json(&json!({
            "type": "spend", "rows": rows, "total": sum, "reservedUsd": format_usd(reserved),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        terminal.say(match &args.since {
            Some(day) => format!("no model was called since {day}"),
            None => "no model was called yet".to_owned(),
        });
        held(reserved, open.len(), terminal);
        return Ok(ExitCode::SUCCESS);
    }
    let names = rows.keys().map(|name| name.chars().count()).max();
    let names = names.unwrap_or(0).max(5);
    let head = format!(
        "{:names$}  {:>12}  {:>12}  {:>7}  {:>5}  {:>8}  {:>12}  {:>10}",
        "", "cost $", "wasted $", "calls", "cut", "unpriced", "input", "output"
    );
    terminal.answer(format!("{}\n", terminal.out.paint(Paint::Strong, head)))?;
    rows.insert("total".to_owned(), sum);
    let total = rows.remove_entry("total");
    for (name, row) in rows.into_iter().chain(total) {
        terminal.answer(format_args!(
            "{name:names$}  {:>12}  {:>12}  {:>7}  {:>5}  {:>8}  {:>12}  {:>10}\n",
            known(&row, row.cost_micro_usd),
            known(&row, row.wasted_micro_usd),
            row.calls,
            row.cut,
            row.unpriced,
            row.usage.context(),
            row.usage.output,
        ))?;
    }
    held(reserved, open.len(), terminal);
    Ok(ExitCode::SUCCESS)
}

fn held(reserved: u64, calls: usize, terminal: Terminal) {
    if reserved > 0 {
        let amount = format_usd(reserved);
        let plural = if calls == 1 { "" } else { "s" };
        terminal.say(format!("${amount} is reserved for {calls} call{plural}"));
    }
}

/// An amount; unknown where the price of no call is known.
fn known(row: &Totals, micro_usd: u64) -> String {
    let calls = row.calls + row.cut;
    if micro_usd == 0 && calls > 0 && row.unpriced == calls {
        "-".to_owned()
    } else {
        format_usd(micro_usd)
    }
}

fn totals(name: Option<&str>, totals: &Totals) -> Value {
    let mut row = json!({
        "costUsd": format_usd(totals.cost_micro_usd),
        "wastedUsd": format_usd(totals.wasted_micro_usd),
        "calls": totals.calls, "cut": totals.cut, "unpriced": totals.unpriced,
        "usage": totals.usage,
    });
    if let Some(name) = name {
        row["name"] = json!(name);
    }
    row
}

/// The request log of a conversation.
async fn calls(
    place: &Place,
    agent: &str,
    id: &str,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let reading = place.conversation(agent, id).await?;
    let models: BTreeMap<&str, String> = reading
        .conversation
        .entries
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::Assistant { message, .. } => {
                let model = &message.model;
                Some((&*entry.id, format!("{}/{}", model.provider, model.model)))
            }
            EntryBody::User(_) | EntryBody::Signal(_) | EntryBody::ToolResults(_) => None,
        })
        .collect();
    let mut after = 0;
    loop {
        let records = reading.store.read(&reading.actor, after, PAGE).await?;
        for stored in &records {
            let fact = Fact::of(stored)?;
            let call = if let Fact::AssistantCompleted(done) = &fact {
                Some(Call::answer(done, &models))
            } else if let Fact::Compaction(made) = &fact {
                Call::summary(made)
            } else {
                None
            };
            if let Some(call) = call {
                call.print(stored.record.time, terminal)?;
            }
        }
        match records.last() {
            Some(last) if records.len() == PAGE => after = last.seq,
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// One request to a model.
struct Call {
    model: String,
    outcome: String,
    usage: Usage,
    cost_micro_usd: Option<u64>,
    timing: Option<Timing>,
}

impl Call {
    fn answer(done: &AssistantCompleted, models: &BTreeMap<&str, String>) -> Self {
        let model = models.get(&*done.message_id);
        Self {
            model: model.map_or("-", String::as_str).to_owned(),
            outcome: match (&done.error, done.interrupted) {
                (Some(error), _) => error.code.clone(),
                (None, true) => "interrupted".to_owned(),
                (None, false) => "answered".to_owned(),
            },
            usage: done.usage,
            cost_micro_usd: done.cost_micro_usd,
            timing: done.timing,
        }
    }

    /// What a summary took, its tries together; none when no model wrote it.
    fn summary(made: &Compaction) -> Option<Self> {
        let model = made.model.as_ref()?;
        Some(Self {
            model: format!("{}/{}", model.provider, model.model),
            outcome: "summarised".to_owned(),
            usage: made.usage,
            cost_micro_usd: made.cost_micro_usd,
            timing: None,
        })
    }

    fn print(&self, time: Timestamp, terminal: Terminal) -> Result<(), Error> {
        let (model, outcome, usage) = (&self.model, &self.outcome, &self.usage);
        let cost = self.cost_micro_usd.map(format_usd);
        if terminal.json {
            return terminal.json(&json!({
                "type": "call", "time": time, "model": model, "outcome": outcome,
                "usage": usage, "costUsd": cost, "timing": self.timing,
            }));
        }
        let millis = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        terminal.answer(format_args!(
            "{time}  {model}  {outcome}  in {} out {}  ${}  {} (first {})\n",
            usage.context(),
            usage.output,
            cost.as_deref().unwrap_or("-"),
            millis(self.timing.map(|timing| timing.duration_ms)),
            millis(self.timing.and_then(|timing| timing.first_token_ms)),
        ))
    }
}
