//! `bowline agents`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    Global,
    place::Place,
    terminal::{Paint, Terminal, one_line, shorten},
};
use crate::error::Error;

/// Columns of a description, at most.
const DESCRIPTION: usize = 60;

/// List the agents of the project, and what is wrong with them.
///
/// An agent is a folder below `agents/` with an `agent.md`. One that cannot run is in the list too, with the
/// reason: a mistake in its files, a service or a model that is not there, a key that is not set.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline agents\n  \
    bowline agents --project examples/triage\n  \
    bowline agents --json | jq -r '.agents[] | select(.problem) | .name'")]
pub(super) struct Agents {}

/// One line of the list.
struct Row {
    name: String,
    model: String,
    description: String,
    problem: Option<Error>,
}

pub(super) fn agents(global: &Global, terminal: Terminal) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let rows: Vec<_> = place
        .project
        .agents()?
        .into_iter()
        .map(|agent| {
            let problem = place.ready(&agent.name, None).err();
            Row {
                problem: problem.or_else(|| agent.problem.map(Error::from)),
                name: agent.name,
                model: agent.model.unwrap_or_default(),
                description: agent.description.unwrap_or_default(),
            }
        })
        .collect();
    if terminal.json {
        let rows: Vec<_> = rows.iter().map(|row| {
            let problem = row.problem.as_ref();
            let problem = problem.map(|error| json!({"type": error.code, "message": error.message, "details": error.hint}));
            json!({"name": row.name, "model": row.model, "description": row.description, "problem": problem})
        }).collect();
        terminal.json(&json!({"type": "agents", "agents": rows}))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        terminal.say("there are no agents: write agents/NAME/agent.md");
    }
    let width = |text: fn(&Row) -> &str| {
        rows.iter()
            .map(|row| text(row).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (names, models) = (width(|row| &row.name), width(|row| &row.model));
    for row in &rows {
        let description = shorten(&one_line(&row.description), DESCRIPTION);
        let name = terminal
            .out
            .paint(Paint::Strong, format!("{:names$}", row.name));
        let line = format!("{name}  {:models$}  {description}", one_line(&row.model));
        terminal.answer(format_args!("{}\n", line.trim_end()))?;
        if let Some(error) = &row.problem {
            let mark = terminal.out.paint(Paint::Bad, "✗");
            terminal.answer(format_args!("  {mark} {}\n", one_line(&error.message)))?;
            terminal.answer(format_args!("    {}\n", one_line(&error.hint)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
