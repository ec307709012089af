//! A folder of its own for each test, and the binary run in it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use bowline_testkit::canary::{Folder, holds_key};
use regex::Regex;
use serde_json::Value;

/// A folder with a project, or without.
pub(crate) struct World {
    dir: Folder,
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    dir: PathBuf,
}

impl World {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        Self {
            dir: Folder::new().unwrap(),
        }
    }

    /// A project with one agent, `demo`, on this script.
    pub(crate) fn with_script(script: &str) -> Self {
        let world = Self::empty();
        world.write("bowline.toml", "[project]\nname = \"test\"\n");
        world.write(
            "agents/demo/agent.md",
            "---\nmodel: scripted/demo.yaml\n---\nAnswer.\n",
        );
        world.write("agents/demo/demo.yaml", script);
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The binary in this folder, with nothing of the environment of whoever runs the tests.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(args).current_dir(self.path()).env_clear();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.ran(self.command(args).output().unwrap())
    }

    pub(crate) fn ran(&self, output: Output) -> Ran {
        let said = [&output.stdout, &output.stderr];
        assert!(
            !said.into_iter().any(|text| holds_key(text)),
            "a key was printed"
        );
        Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            dir: self.path().to_path_buf(),
        }
    }

    /// Every file of the folder with its content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    files.insert(path.clone(), Vec::new());
                    folders.push(path);
                } else {
                    files.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        files
    }
}

impl Ran {
    /// All of it, with what differs from run to run replaced.
    pub(crate) fn all(&self) -> String {
        let text = format!(
            "status: {}\n--- stdout\n{}--- stderr\n{}",
            self.status, self.stdout, self.stderr
        );
        masked(&text.replace(&self.dir.display().to_string(), "[DIR]"))
    }

    /// The lines of `--json`.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// The text with what differs from run to run replaced.
pub(crate) fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, name) in [
        (
            r"(inst|conv|sub|attempt|turn|msg|call|eff|file|appr)_[0-9A-HJKMNP-TV-Z]{26}",
            "${1}_[ID]",
        ),
        (r"sub_ik_[0-9a-f]{32}", "sub_ik_[ID]"),
        (r"--id [0-9a-z]{10}\b", "--id [NEW]"),
        (r#""id":"[0-9a-z]{10}""#, r#""id":"[NEW]""#),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[WHEN]"),
        (r"<?\d+(\.\d+)? m?s\b", "[TIME]"),
        // How the disk of this machine is doing.
        (r"(?m)^\w+ +(flush|space) .*\n( +→.*\n)?", ""),
        (r#""(durationMs|firstTokenMs)":\d+"#, r#""${1}":0"#),
    ] {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, name)
            .into_owned();
    }
    text
}
