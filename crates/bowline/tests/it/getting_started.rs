//! The first guide, typed as it stands: each of its commands is run, each of its files is saved.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{clients, npm, world::World};

const GUIDE: &str = include_str!("../../../../docs/guide/getting-started.md");
/// Where the guide says that things are; a test takes what is free.
const SERVER: &str = "127.0.0.1:8787";
const SITE: &str = "127.0.0.1:5173";
/// Most lines that a program may print before the one that is waited for.
const LINES: usize = 500;

/// What a reader is asked to do.
#[derive(Debug)]
enum Step {
    Type(String),
    Save { name: String, text: String },
}

fn steps() -> std::vec::IntoIter<Step> {
    let (mut steps, mut name) = (Vec::new(), None);
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        if let Some((_, rest)) = line.split_once("Save this as `") {
            name = rest.split('`').next().map(str::to_owned);
        }
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let block = lines.by_ref().take_while(|line| *line != "```");
        let text: String = block.map(|line| format!("{line}\n")).collect();
        steps.push(match name.take() {
            Some(name) => Step::Save { name, text },
            None => {
                assert_eq!(language, "sh", "what is to be done with this? {text}");
                Step::Type(text)
            }
        });
    }
    steps.into_iter()
}

/// Somebody who follows the guide.
struct Stranger {
    world: World,
    folder: PathBuf,
    server: String,
    steps: std::vec::IntoIter<Step>,
}

impl Stranger {
    fn new() -> Self {
        let world = World::empty();
        Self {
            folder: world.path().to_path_buf(),
            world,
            server: SERVER.to_owned(),
            steps: steps(),
        }
    }

    /// The next commands of the guide, which begin like this.
    fn read(&mut self, begin: &str) -> String {
        match self.steps.next() {
            Some(Step::Type(text)) if text.starts_with(begin) => text.replace(SERVER, &self.server),
            other => panic!("`{begin}` comes next, but the guide has {other:?}"),
        }
    }

    /// Saves the next file of the guide.
    fn save(&mut self, wanted: &str) {
        match self.steps.next() {
            Some(Step::Save { name, text }) if name == wanted => {
                let path = self.folder.join(name);
                assert!(path.parent().unwrap().is_dir(), "{}", path.display());
                fs::write(path, text.replace(SERVER, &self.server)).unwrap();
            }
            other => panic!("`{wanted}` comes next, but the guide has {other:?}"),
        }
    }

    /// A shell in the current folder, without a key of any provider.
    fn shell(&self, line: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_bowline")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", line])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", format!("{}:{path}", binary.display()))
            .env("HOME", self.world.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs commands that end, and stays in the folder where they end. What they print.
    fn run(&mut self, text: &str) -> String {
        let place = self.world.path().join(".place");
        let line = format!("{text}pwd > '{}'\n", place.display());
        let output = self.shell(&line).output().unwrap();
        let ran = self.world.ran(output);
        assert_eq!(ran.status, 0, "{text}{}", ran.all());
        self.folder = fs::read_to_string(place).unwrap().trim_end().into();
        ran.stdout
    }

    /// Starts a command that goes on until it is stopped, as in a terminal of its own.
    fn start(&self, text: &str) -> Terminal {
        let mut command = self.shell(&format!("{text} 2>&1"));
        // Some end with their standard input, which a terminal keeps open.
        command.stdin(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Terminal { child, lines }
    }
}

/// A command that goes on until it is stopped.
struct Terminal {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Terminal {
    /// Reads until a line has this in it.
    fn line(&mut self, with: &str) -> String {
        let mut all = String::new();
        for _ in 0..LINES {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "no `{with}`: {all}");
            if line.contains(with) {
                return line;
            }
            all.push_str(&line);
        }
        panic!("no `{with}`: {all}")
    }

    /// The address of the URL in such a line.
    fn addr(&mut self, with: &str) -> String {
        let line = self.line(with);
        let (_, rest) = line.split_once("http://").unwrap();
        let end = rest.find(|it: char| !it.is_ascii_digit() && !".:".contains(it));
        rest[..end.unwrap_or(rest.len())]
            .trim_end_matches('.')
            .to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // All that the shell started.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// The text of the last message of a conversation.
fn last_text(history: &Value) -> &str {
    let message = history["messages"].as_array().unwrap().last().unwrap();
    let part = message["parts"].as_array().unwrap().last().unwrap();
    part["text"].as_str().unwrap()
}

#[test]
fn a_stranger_who_types_the_first_guide_has_an_agent_in_a_page() {
    let mut reader = Stranger::new();
    let begin = reader.read("bowline init");
    let said = reader.run(&begin);
    assert!(said.contains("Hello! My workspace has a file"), "{said}");
    assert!(reader.folder.ends_with("my-agent"));

    let dev = reader.read("bowline dev").replace('\n', "");
    let mut dev = reader.start(&format!("{dev} --addr 127.0.0.1:0"));
    reader.server = dev.addr("Serving ");

    let post = reader.read("curl");
    let receipt: Value = serde_json::from_str(&reader.run(&post)).unwrap();
    let submission = receipt["submissionId"].as_str().unwrap().to_owned();
    let follow = reader.read("curl -N");
    let mut following = reader.start(follow.trim_end());
    let settled = following.line("submission-settled");
    assert!(settled.contains(&submission), "{settled}");
    drop(following);

    let whole = reader.read("curl");
    let history: Value = serde_json::from_str(&reader.run(&whole)).unwrap();
    assert!(last_text(&history).starts_with("Hello! My workspace"));
    let file = reader.read("curl");
    assert!(reader.run(&file).starts_with("# Notes"));
    let show = reader.read("bowline show");
    let shown = reader.run(&show);
    assert!(shown.contains("What do you have?") && shown.contains("Hello! My workspace"));

    reader.save("agents/hello/hello.yaml");
    dev.line("reloaded");
    a_page(reader);
}

/// The second half of the guide, where there is what it needs.
fn a_page(mut reader: Stranger) {
    let Some(packages) = npm::packages(npm::CLIENTS) else {
        return;
    };
    let mut install = reader.read("mkdir page");
    // What the guide installs lies in the cache of the tests already, in the same versions.
    let at = install.find("npm install ").unwrap();
    let wanted = install.split_off(at);
    let pinned = fs::read(npm::source(npm::CLIENTS).join("package.json")).unwrap();
    let pinned: Value = serde_json::from_slice(&pinned).unwrap();
    for package in wanted.split_whitespace().skip(2) {
        let (name, version) = package.rsplit_once('@').unwrap();
        assert_eq!(pinned["dependencies"][name], version, "{name}");
    }
    reader.run(&install);
    let modules = packages.join("node_modules");
    symlink(modules, reader.folder.join("node_modules")).unwrap();
    reader.save("index.html");
    reader.save("chat.jsx");
    let build = reader.read("npx esbuild");
    assert!(build.contains(SITE) && GUIDE.contains(&format!("Open <http://{SITE}/>")));
    let mut site = reader.start(build.replace(SITE, "127.0.0.1:0").trim_end());
    let page = format!("http://{}/", site.addr("Local:"));
    assert!(reader.steps.next().is_none(), "the guide has more to do");
    if clients::has_browser() {
        clients::run("guide.test.mjs", &[("PAGE", &page)]);
    }
}
