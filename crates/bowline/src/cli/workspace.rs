//! `bowline workspace`: the files of a conversation.

use std::process::ExitCode;

use bowline_sandbox::{
    search::{self, Case, GrepQuery, SearchError},
    workspace::{ChangeKind, EntryKind, Overlay, Workspace, WorkspaceError},
};
use bowline_store::ActorId;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Global, place::Place, terminal::Terminal};
use crate::error::Error;

mod change;
mod transfer;

/// Look at the files of a conversation, and change them.
///
/// Paths are relative to /workspace. While the conversation is being answered, its files cannot be changed
/// from outside.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline workspace ls triage t1\n  \
    bowline workspace put triage t1 notes.md < notes.md\n  \
    bowline workspace snapshot triage t1 before-fix\n  \
    bowline workspace diff triage t1 before-fix\n  \
    bowline workspace export triage t1 > files.tar")]
pub(super) struct WorkspaceArgs {
    #[command(subcommand)]
    what: What,
}

/// Whose files.
#[derive(Debug, Clone, Args)]
struct Whose {
    /// The agent
    agent: String,
    /// The conversation
    id: String,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List a folder
    Ls {
        #[command(flatten)]
        whose: Whose,
        /// The folder, or a file
        #[arg(default_value = ".")]
        path: String,
        /// What lies below as well
        #[arg(short, long)]
        recursive: bool,
    },
    /// Print a file
    Cat {
        #[command(flatten)]
        whose: Whose,
        /// The file
        path: String,
    },
    /// Write a file: from a file of this machine, or from standard input
    Put {
        #[command(flatten)]
        whose: Whose,
        /// Where to; its folders are made
        path: String,
        /// Where from [default: standard input]
        file: Option<std::path::PathBuf>,
    },
    /// Copy a file or a folder to this machine
    Get {
        #[command(flatten)]
        whose: Whose,
        /// What to copy
        path: String,
        /// Where to, which must not be there yet [default: its name]
        destination: Option<std::path::PathBuf>,
    },
    /// Remove a file, or a folder with --recursive
    Rm {
        #[command(flatten)]
        whose: Whose,
        /// What to remove
        path: String,
        /// A folder with all that is in it
        #[arg(short, long)]
        recursive: bool,
    },
    /// Print the lines that match a regular expression
    Grep {
        #[command(flatten)]
        whose: Whose,
        /// The regular expression
        pattern: String,
        /// File or folder
        #[arg(default_value = ".")]
        path: String,
        /// Upper and lower case are the same
        #[arg(short, long)]
        ignore_case: bool,
        /// Plain text, not a regular expression
        #[arg(short = 'F', long)]
        fixed: bool,
    },
    /// Say what changed since a snapshot, or between two
    Diff {
        #[command(flatten)]
        whose: Whose,
        /// The older snapshot
        from: String,
        /// The newer one [default: the files as they are]
        to: Option<String>,
    },
    /// Say who changed what, commit by commit; the last 10,000 are kept
    Log {
        #[command(flatten)]
        whose: Whose,
        /// Only what came after this offset, the number at the beginning of a line
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Take a snapshot; without a name, list them
    Snapshot {
        #[command(flatten)]
        whose: Whose,
        /// Its name
        name: Option<String>,
        /// Remove the snapshot of that name instead
        #[arg(long, requires = "name")]
        remove: bool,
    },
    /// Make the files what they were in a snapshot
    Restore {
        #[command(flatten)]
        whose: Whose,
        /// The snapshot
        name: String,
    },
    /// Write a folder as a tar stream to standard output
    Export {
        #[command(flatten)]
        whose: Whose,
        /// The folder
        #[arg(default_value = ".")]
        path: String,
    },
    /// Unpack a tar stream from standard input into a folder
    Import {
        #[command(flatten)]
        whose: Whose,
        /// The folder
        #[arg(default_value = ".")]
        path: String,
    },
}

impl From<WorkspaceError> for Error {
    fn from(error: WorkspaceError) -> Self {
        Self::failure(error.code(), error.to_string(), error.hint())
    }
}

impl From<SearchError> for Error {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Workspace(error) => error.into(),
            error @ SearchError::Pattern(_) => Self::usage(
                "usage_arguments",
                error.to_string(),
                "see `bowline help workspace`",
            ),
        }
    }
}

pub(super) async fn workspace(
    args: &WorkspaceArgs,
    global: &Global,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let place = Place::find(global)?;
    match &args.what {
        What::Ls {
            whose,
            path,
            recursive,
        } => ls(&read(&place, whose).await?, path, *recursive, terminal).await?,
        What::Cat { whose, path } => {
            transfer::cat(&read(&place, whose).await?, path, terminal).await?;
        }
        What::Get {
            whose,
            path,
            destination,
        } => {
            let files = read(&place, whose).await?;
            transfer::get(&files, path, destination.as_deref(), terminal).await?;
        }
        What::Export { whose, path } => {
            transfer::export(&read(&place, whose).await?, path, terminal).await?;
        }
        What::Grep {
            whose,
            pattern,
            path,
            ignore_case,
            fixed,
        } => {
            let query = GrepQuery {
                pattern: pattern.clone(),
                literal: *fixed,
                case: if *ignore_case {
                    Case::Insensitive
                } else {
                    Case::Sensitive
                },
                ..GrepQuery::default()
            };
            return grep(&read(&place, whose).await?, &query, path, terminal).await;
        }
        What::Diff { whose, from, to } => {
            let files = read(&place, whose).await?;
            diff(&files, from, to.as_deref(), terminal).await?;
        }
        What::Log { whose, after } => log(&read(&place, whose).await?, *after, terminal).await?,
        What::Snapshot {
            whose, name: None, ..
        } => snapshots(&read(&place, whose).await?, terminal).await?,
        What::Snapshot {
            whose,
            name: Some(name),
            remove,
        } => {
            let write = change::Write::open(&place, whose, terminal).await?;
            write.snapshot(name, *remove).await?;
        }
        What::Restore { whose, name } => {
            let write = change::Write::open(&place, whose, terminal).await?;
            write.restore(name).await?;
        }
        What::Rm {
            whose,
            path,
            recursive,
        } => {
            let write = change::Write::open(&place, whose, terminal).await?;
            write.remove(path, *recursive).await?;
        }
        What::Put { whose, path, file } => {
            let content = transfer::input(file.as_deref())?;
            let mode = file.as_deref().and_then(transfer::mode);
            let write = change::Write::open(&place, whose, terminal).await?;
            write.put(path, content, mode).await?;
        }
        What::Import { whose, path } => {
            let content = transfer::input(None)?;
            let write = change::Write::open(&place, whose, terminal).await?;
            write.import(path, content).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of a conversation, to look at beside a process that may be using them.
async fn read(place: &Place, whose: &Whose) -> Result<Workspace, Error> {
    let reading = place.conversation(&whose.agent, &whose.id).await?;
    Ok(Workspace::open(reading.store, reading.actor))
}

async fn begin(files: &Workspace) -> Result<Overlay, Error> {
    let now = bowline_runtime::Sources::system().now();
    Ok(files.begin(now).await?)
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
    }
}

async fn ls(
    files: &Workspace,
    path: &str,
    recursive: bool,
    terminal: Terminal,
) -> Result<(), Error> {
    let overlay = begin(files).await?;
    let root = overlay.real_path(path).await?;
    let mut pending = Vec::new();
    if overlay.stat(&root).await?.kind == EntryKind::Directory {
        pending.push((root, String::new()));
    } else {
        let stat = overlay.stat(&root).await?;
        return line(path, &stat, terminal);
    }
    while let Some((at, shown)) = pending.pop() {
        let mut below = Vec::new();
        for entry in overlay.list(&at).await? {
            let name = format!("{shown}{}", entry.name);
            line(&name, &entry.stat, terminal)?;
            if recursive && entry.stat.kind == EntryKind::Directory {
                let path = format!("{}/{}", at.trim_end_matches('/'), entry.name);
                below.push((path, format!("{name}/")));
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

fn line(
    name: &str,
    stat: &bowline_sandbox::workspace::Stat,
    terminal: Terminal,
) -> Result<(), Error> {
    if terminal.json {
        return terminal.json(&json!({
            "type": "entry", "path": name, "kind": kind(stat.kind), "size": stat.size,
            "mode": format!("{:o}", stat.mode), "modified": stat.modified,
        }));
    }
    let mark = match stat.kind {
        EntryKind::File => "",
        EntryKind::Directory => "/",
        EntryKind::Symlink => "@",
    };
    let name = super::terminal::clean(name).replace('\n', "?");
    terminal.answer(format_args!("{:>10} {name}{mark}\n", stat.size))
}

/// Like `grep`: exit code 1 when nothing matches.
async fn grep(
    files: &Workspace,
    query: &GrepQuery,
    path: &str,
    terminal: Terminal,
) -> Result<ExitCode, Error> {
    let overlay = begin(files).await?;
    let mut failed = Ok(());
    let summary = search::grep(&overlay, query, path, |line| {
        let (path, text) = (&*line.path, super::terminal::clean(&line.text));
        let shown = path.strip_prefix("/workspace/").unwrap_or(path);
        failed = if terminal.json {
            terminal.json(&json!({
                "type": "match", "path": path, "line": line.line, "text": line.text,
            }))
        } else {
            terminal.answer(format_args!("{shown}:{}:{text}\n", line.line))
        };
        failed.is_ok()
    })
    .await?;
    failed?;
    for (count, why) in [(summary.binary, "binary"), (summary.large, "too large")] {
        if count > 0 {
            terminal.say(format_args!("{count} files were not searched: {why}"));
        }
    }
    Ok(ExitCode::from(u8::from(summary.matches == 0)))
}

async fn diff(
    files: &Workspace,
    from: &str,
    to: Option<&str>,
    terminal: Terminal,
) -> Result<(), Error> {
    for change in files.diff(from, to).await? {
        if terminal.json {
            terminal.json(&json!({
                "type": "change", "change": change.change, "path": change.path,
                "kind": kind(change.kind),
            }))?;
            continue;
        }
        terminal.answer(format_args!(
            "{} {}\n",
            mark(change.change),
            super::terminal::one_line(&change.path)
        ))?;
    }
    Ok(())
}

async fn log(files: &Workspace, after: u64, terminal: Terminal) -> Result<(), Error> {
    let mut after = after;
    loop {
        let feed = files.feed(after, 1000).await?;
        if feed.gap {
            terminal.say("older commits are not kept any more");
        }
        if feed.entries.is_empty() {
            return Ok(());
        }
        for entry in &feed.entries {
            if terminal.json {
                let changes: Vec<_> = entry
                    .paths
                    .iter()
                    .map(|change| json!({"change": change.change, "path": change.path, "kind": kind(change.kind)}))
                    .collect();
                terminal.json(&json!({
                    "type": "commit", "offset": entry.offset, "time": entry.time(),
                    "origin": entry.origin, "event": entry.event, "changes": changes,
                    "omitted": entry.omitted,
                }))?;
                continue;
            }
            let (offset, time) = (entry.offset, entry.time());
            let event = entry.event.as_deref().unwrap_or_default();
            let about = super::terminal::one_line(&format!("{} {event}", entry.origin));
            terminal.answer(format_args!("{offset} {time} {about}\n"))?;
            for change in &entry.paths {
                let path = super::terminal::one_line(&change.path);
                terminal.answer(format_args!("  {} {path}\n", mark(change.change)))?;
            }
            if entry.omitted > 0 {
                terminal.answer(format_args!("  and {} more\n", entry.omitted))?;
            }
        }
        after = feed.next;
    }
}

fn mark(change: ChangeKind) -> char {
    match change {
        ChangeKind::Create => '+',
        ChangeKind::Update => '~',
        ChangeKind::Delete => '-',
    }
}

async fn snapshots(files: &Workspace, terminal: Terminal) -> Result<(), Error> {
    for snapshot in files.snapshots().await? {
        if terminal.json {
            terminal.json(&json!({
                "type": "snapshot", "name": snapshot.name, "taken": snapshot.taken,
                "bytes": snapshot.bytes, "entries": snapshot.entries,
            }))?;
            continue;
        }
        terminal.answer(format_args!(
            "{} {} ({}, {} bytes)\n",
            snapshot.taken,
            super::terminal::one_line(&snapshot.name),
            super::terminal::count(snapshot.entries, "path"),
            snapshot.bytes
        ))?;
    }
    Ok(())
}
