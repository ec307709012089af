//! `bowline init`.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    fault::Fault,
    terminal::{Paint, Terminal},
};
use crate::{config, error::Error};

/// The files of a new project.
const FILES: [(&str, &str); 5] = [
    ("bowline.toml", include_str!("init/bowline.toml")),
    (".gitignore", include_str!("init/gitignore")),
    ("agents/hello/agent.md", include_str!("init/agent.md")),
    ("agents/hello/hello.yaml", include_str!("init/hello.yaml")),
    (
        "agents/hello/workspace/notes.md",
        include_str!("init/notes.md"),
    ),
];

/// Write a small project that runs at once.
///
/// It has one agent, `hello`, whose words come from a script, so that it needs no key and no network.
/// Its tools are real. No file that is there already is changed.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    bowline init my-agent && cd my-agent && bowline run hello\n  \
    bowline init\n      \
        in the current folder")]
pub(super) struct Init {
    /// The folder of the project; it is made when it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
}

pub(super) fn init(args: &Init, terminal: Terminal) -> Result<ExitCode, Error> {
    let dir = &args.dir;
    if dir.join(config::FILE).exists() {
        return Err(Fault::ProjectExists(dir.clone()).into());
    }
    let mut written = Vec::new();
    for (name, text) in FILES {
        if write(&dir.join(name), text)? {
            written.push(name);
        } else {
            terminal.say(format_args!("kept {name}: it was there"));
        }
    }
    if terminal.json {
        terminal.json(&json!({"type": "project-created", "dir": dir, "files": written}))?;
        return Ok(ExitCode::SUCCESS);
    }
    for name in written {
        let path = if dir == Path::new(".") {
            PathBuf::from(name)
        } else {
            dir.join(name)
        };
        terminal.answer(format_args!("{}\n", path.display()))?;
    }
    let go = if dir == Path::new(".") {
        String::new()
    } else {
        format!("cd {} && ", dir.display())
    };
    terminal.say(format_args!(
        "\nNext:  {}",
        terminal
            .err
            .paint(Paint::Strong, format!("{go}bowline run hello"))
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that is not there. `false` when it was.
fn write(path: &Path, text: &str) -> Result<bool, Error> {
    let refuse = |path: &Path, why: std::io::Error| {
        Error::from(Fault::ProjectUnwritable {
            path: path.to_path_buf(),
            why: why.to_string(),
        })
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| refuse(folder, error))?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())
                .map_err(|error| refuse(path, error))?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refuse(path, error)),
    }
}
