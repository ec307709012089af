//! `bowline code promote`, `snippets` and `remove`: people decide which code an agent may run again.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bowline_agent::{
    Conversation,
    code::{
        Snippet,
        runs::{self, CodeRun, RunState},
    },
    conversation::EntryBody,
};
use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Global,
        fault::Fault,
        place::Place,
        terminal::{Paint, Terminal, one_line},
    },
    error::Error,
};

/// The folder of an agent with its snippets.
const FOLDER: &str = "snippets";

#[derive(Debug, Args)]
pub(super) struct Promote {
    /// The agent
    agent: String,
    /// The conversation in which the code ran
    id: String,
    /// The name that `codemode.run` finds it by: small letters and digits, with `-` or `_` between words
    name: String,
    /// This run [default: the last one that completed]; `bowline show AGENT ID --json` lists them
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// What it is for; the model finds it by these words
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Replace the snippet that has this name
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(super) struct Snippets {
    /// The agent
    agent: String,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The agent
    agent: String,
    /// The snippet
    name: String,
}

/// Writes the code of a run into the agent's folder.
pub(super) async fn promote(
    args: &Promote,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let dir = folder(&place, &args.agent)?;
    let reading = place.conversation(&args.agent, &args.id).await?;
    let runs = runs::of(&*reading.store, &reading.actor).await?;
    let (run, source) = chosen(&runs, args.run.as_deref(), &reading.conversation)?;
    let text = written(&source, args.description.as_deref());
    let invalid = |error: bowline_agent::code::snippet::SnippetError| {
        Error::usage(
            error.code(),
            error.to_string(),
            "correct it and promote again",
        )
    };
    let snippet = Snippet::new(&args.name, text).map_err(invalid)?;
    let file = dir.join(format!("{}.ts", snippet.name));
    if file.exists() && !args.replace {
        return Err(Fault::SnippetExists(snippet.name).into());
    }
    let unwritable = |why: std::io::Error| Fault::ProjectUnwritable {
        path: file.clone(),
        why: why.to_string(),
    };
    std::fs::create_dir_all(&dir).map_err(unwritable)?;
    std::fs::write(&file, &snippet.source).map_err(unwritable)?;
    if terminal.json {
        terminal.json(&json!({
            "type": "snippet", "agent": args.agent, "name": snippet.name, "run": run.run_id,
            "description": snippet.description, "file": file,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.answer(format_args!("{}\n", file.display()))?;
    terminal.say(format_args!(
        "the agent runs it with: await codemode.run({:?}, input)",
        snippet.name
    ));
    Ok(ExitCode::SUCCESS)
}

/// Lists the snippets of an agent.
pub(super) fn list(
    args: &Snippets,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let snippets = place.project.definition(&args.agent)?.snippets;
    if terminal.json {
        let list: Vec<_> = snippets
            .iter()
            .map(|one| {
                json!({"name": one.name, "description": one.description, "bytes": one.source.len()})
            })
            .collect();
        terminal.json(&json!({"type": "snippets", "agent": args.agent, "snippets": list}))?;
        return Ok(ExitCode::SUCCESS);
    }
    if snippets.is_empty() {
        terminal.say("this agent has no snippets");
    }
    for one in &snippets {
        let name = terminal.out.paint(Paint::Strong, &one.name);
        let line = format!("{name}  {}", one_line(&one.description));
        terminal.answer(format_args!("{}\n", line.trim_end()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes a snippet; a run that has begun keeps it.
pub(super) fn remove(
    args: &Remove,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    let dir = folder(&place, &args.agent)?;
    // The name is looked for among the files, so that it cannot lead elsewhere.
    let wanted = format!("{}.ts", args.name);
    let found = std::fs::read_dir(&dir).ok().and_then(|entries| {
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.find(|name| name.to_str() == Some(wanted.as_str()))
    });
    let Some(file) = found.map(|name| dir.join(name)) else {
        return Err(Fault::NoSnippet(args.name.clone()).into());
    };
    std::fs::remove_file(&file).map_err(|why| Fault::ProjectUnwritable {
        path: file.clone(),
        why: why.to_string(),
    })?;
    if terminal.json {
        terminal
            .json(&json!({"type": "snippet-removed", "agent": args.agent, "name": args.name}))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.answer(format_args!("removed {}\n", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder of an agent's snippets; the agent may have a mistake in one of them.
fn folder(place: &Place, agent: &str) -> Result<PathBuf, Error> {
    let known = place.project.agents()?;
    if !known.iter().any(|one| one.name == agent) {
        // It says which agents there are.
        place.project.definition(agent)?;
    }
    Ok(Path::new(&place.project.dir)
        .join("agents")
        .join(agent)
        .join(FOLDER))
}

/// The run, and its code. A durable tool runs code too, which is a file already.
fn chosen<'a>(
    runs: &'a [CodeRun],
    wanted: Option<&str>,
    conversation: &Conversation,
) -> Result<(&'a CodeRun, String), Error> {
    let fits = |run: &&CodeRun| match wanted {
        Some(id) => run.run_id == id,
        None => run.state == RunState::Completed,
    };
    let coded =
        |run: &'a CodeRun| source(conversation, &run.tool_call_id).map(|source| (run, source));
    let mut found = runs.iter().rev().filter(fits).filter_map(coded);
    found.next().ok_or_else(|| {
        let what = wanted.unwrap_or("that completed");
        Fault::NoCodeRun(what.to_owned()).into()
    })
}

/// The code of a call, as the model wrote it.
fn source(conversation: &Conversation, call: &str) -> Option<String> {
    conversation.entries.iter().rev().find_map(|entry| {
        let EntryBody::Assistant { message, .. } = &entry.body else {
            return None;
        };
        let call = message.tool_calls().find(|one| one.id == call)?;
        Some(call.arguments["code"].as_str()?.to_owned())
    })
}

/// The code without the fence around it, below what it is for.
fn written(source: &str, description: Option<&str>) -> String {
    let mut code = source.trim();
    if let Some(inside) = code
        .strip_prefix("```")
        .and_then(|code| code.strip_suffix("```"))
    {
        code = inside
            .split_once('\n')
            .map_or(inside, |(_, code)| code)
            .trim();
    }
    match description.map(|text| one_line(text).replace("*/", "* /")) {
        Some(text) => format!("/** {text} */\n{code}\n"),
        None => format!("{code}\n"),
    }
}
