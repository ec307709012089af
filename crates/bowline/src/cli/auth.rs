//! `bowline auth`.

use std::process::ExitCode;

use bowline_runtime::Sources;
use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal::Terminal;
use crate::{
    error::Error,
    server::{KeyHash, Scope, fresh_key},
};

/// Make keys for the server.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline auth new web\n  \
    bowline auth new ops --scope admin")]
pub(super) struct Auth {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
}

/// Make a key, and the line of bowline.toml that lets it in.
///
/// The key is printed once and kept nowhere; bowline.toml holds only its hash. Clients send it as
/// `Authorization: Bearer KEY`. Without `--scope` it may read and send.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline auth new web\n  \
    bowline auth new ops --scope admin\n  \
    bowline auth new tail --agents 'support-*' --scope read\n  \
    bowline auth new sensor --stream logs/sensors --write")]
struct New {
    /// A name for it, as logs show it
    name: String,
    /// Which agents: a name, or a beginning followed by `*`; may be given again [default: all]
    #[arg(long, value_name = "AGENTS")]
    agents: Vec<String>,
    /// What it may do: read, send, admin; may be given again [default: read and send]
    #[arg(long, value_name = "SCOPE", value_parser = ["read", "send", "admin"])]
    scope: Vec<String>,
    /// Streams at this path and below; may be given again. Without `--scope` it is for these alone
    #[arg(long, value_name = "PATH")]
    stream: Vec<String>,
    /// Those streams may be written, too
    #[arg(long, requires = "stream")]
    write: bool,
}

pub(super) fn auth(args: &Auth, terminal: Terminal) -> Result<ExitCode, Error> {
    let Command::New(new) = &args.command;
    if new.name.is_empty() || new.name.chars().any(char::is_control) {
        return Err(
            super::fault::Fault::Arguments("a key needs a name of one line".to_owned()).into(),
        );
    }
    let key = fresh_key(&Sources::system());
    let hash = KeyHash::of(&key).to_string();
    let scopes = scopes(new);
    let entry = json!({
        "name": new.name,
        "hash": hash,
        "agents": if new.agents.is_empty() { vec!["*".to_owned()] } else { new.agents.clone() },
        "scopes": scopes,
        "streams": new.stream.iter().map(|prefix| json!({"prefix": prefix, "write": new.write}))
            .collect::<Vec<_>>(),
    });
    if terminal.json {
        terminal.json(&json!({"type": "key", "key": key, "entry": entry}))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.answer(format_args!("{key}\n"))?;
    terminal.say(format_args!(
        "\nThat is the key; it is not kept anywhere. Let it in with this in bowline.toml:\n\n{}",
        lines(&entry)
    ));
    Ok(ExitCode::SUCCESS)
}

fn scopes(new: &New) -> Vec<&str> {
    if !new.scope.is_empty() {
        new.scope.iter().map(String::as_str).collect()
    } else if new.stream.is_empty() {
        vec![Scope::Read.word(), Scope::Send.word()]
    } else {
        Vec::new()
    }
}

/// The entry as TOML. JSON's texts, lists and booleans are TOML's as well.
fn lines(entry: &serde_json::Value) -> String {
    let mut lines = "[[auth.keys]]".to_owned();
    for name in ["name", "hash", "agents", "scopes"] {
        lines.push_str(&format!("\n{name} = {}", entry[name]));
    }
    let streams = entry["streams"].as_array().map_or(&[][..], Vec::as_slice);
    if !streams.is_empty() {
        let streams = streams.iter().map(|stream| {
            format!(
                "{{prefix = {}, write = {}}}",
                stream["prefix"], stream["write"]
            )
        });
        lines.push_str(&format!(
            "\nstreams = [{}]",
            streams.collect::<Vec<_>>().join(", ")
        ));
    }
    lines
}
