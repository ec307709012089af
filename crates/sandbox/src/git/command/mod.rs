//! The `git` command of the shell: options in, git's own words out.

mod files;
mod inspect;
mod remotes;
mod revisions;
mod show;

use std::collections::HashMap;

use super::{CommitOptions, GitError, Repository};
use crate::{
    egress::Outside,
    workspace::{Overlay, absolute},
};

/// Bytes that one command prints.
const PRINTED: usize = 8 << 20;

/// What a call has around it.
pub(crate) struct Call<'a> {
    pub(crate) overlay: Overlay,
    pub(crate) cwd: String,
    pub(crate) env: &'a HashMap<String, String>,
    /// The network, when the agent may use any.
    pub(crate) outside: Option<&'a dyn Outside>,
    /// What `-F -` reads.
    pub(crate) input: String,
    /// Of `-c KEY=VALUE`.
    settings: HashMap<String, String>,
}

/// What a command printed, and its exit code.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Output {
    fn ok(out: impl Into<String>) -> Self {
        Self {
            out: out.into(),
            ..Self::default()
        }
    }

    /// Adds text; an error when it is too much.
    fn push(&mut self, text: &str) -> Result<(), GitError> {
        self.out.push_str(text);
        if self.out.len() > PRINTED {
            return Err(GitError::Limit {
                what: "the output is too long".into(),
                limit: PRINTED as u64,
            });
        }
        Ok(())
    }
}

type Done = Result<Output, GitError>;

/// A wrong use: git exits with 129.
fn usage(text: impl Into<String>) -> Done {
    Ok(Output {
        err: text.into() + "\n",
        code: 129,
        ..Output::default()
    })
}

fn unknown_option(command: &str, option: &str) -> Done {
    usage(format!(
        "error: unknown option '{option}' for git {command} in a workspace (SH-26 in docs/limits.md lists what there is)"
    ))
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        overlay: Overlay,
        cwd: String,
        env: &'a HashMap<String, String>,
        outside: Option<&'a dyn Outside>,
    ) -> Self {
        Self {
            overlay,
            cwd,
            env,
            outside,
            input: String::new(),
            settings: HashMap::new(),
        }
    }

    async fn open(&self) -> Result<Repository, GitError> {
        Repository::open(&self.overlay, &self.cwd).await
    }

    /// A path of the command line, inside the repository.
    fn inside(&self, repository: &Repository, path: &str) -> Result<String, GitError> {
        repository.relative(path, &self.cwd)
    }

    fn all_inside(&self, repository: &Repository, paths: &[&str]) -> Result<Vec<String>, GitError> {
        paths
            .iter()
            .map(|path| self.inside(repository, path))
            .collect()
    }

    /// A path of the repository as it is shown from where the command runs.
    fn shown(&self, repository: &Repository, path: &str) -> String {
        let here = repository.relative(".", &self.cwd).unwrap_or_default();
        if here.is_empty() {
            return path.to_owned();
        }
        let mut up = String::new();
        let mut at = here.as_str();
        loop {
            if let Some(rest) = path
                .strip_prefix(at)
                .and_then(|rest| rest.strip_prefix('/'))
            {
                return if rest.is_empty() {
                    up + "./"
                } else {
                    up + rest
                };
            }
            up.push_str("../");
            match at.rsplit_once('/') {
                Some((parent, _)) => at = parent,
                None => return up + path,
            }
        }
    }

    /// Name and address that the environment or `-c` gives.
    fn author(&self) -> Option<(String, String)> {
        let value = |variable: &str, setting: &str| {
            let value = self
                .env
                .get(variable)
                .or_else(|| self.settings.get(setting));
            value.cloned()
        };
        let name = value("GIT_AUTHOR_NAME", "user.name");
        let email = value("GIT_AUTHOR_EMAIL", "user.email");
        match (name, email) {
            (None, None) => None,
            (name, email) => Some((
                name.unwrap_or_else(|| "agent".into()),
                email.unwrap_or_else(|| "agent@bowline.invalid".into()),
            )),
        }
    }

    fn network(&self) -> Result<&'a dyn Outside, GitError> {
        self.outside.ok_or_else(|| {
            GitError::Remote(
                "fatal: this agent has no network; list the host under `egress` in its agent.md to allow it".into(),
            )
        })
    }
}

/// Runs one command line (without `git`).
pub(crate) async fn run(mut call: Call<'_>, args: &[String]) -> Output {
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    while let Some(first) = args.first().copied() {
        match (first, args.get(1).copied()) {
            ("-C", Some(dir)) => {
                call.cwd = absolute(dir, &call.cwd);
                args.drain(..2);
            }
            ("-c", Some(setting)) => {
                let (key, value) = setting.split_once('=').unwrap_or((setting, "true"));
                call.settings
                    .insert(key.to_ascii_lowercase(), value.to_owned());
                args.drain(..2);
            }
            ("--no-pager" | "-P" | "--no-optional-locks", _) => {
                args.remove(0);
            }
            _ => break,
        }
    }
    let Some((command, rest)) = args.split_first() else {
        return Output {
            err: "usage: git [-C <path>] [-c <name>=<value>] <command> [<args>]\n".into(),
            code: 1,
            ..Output::default()
        };
    };
    match dispatch(&call, command, rest).await {
        Ok(output) => output,
        Err(error) => {
            let mut text = error.to_string();
            if !["fatal:", "error:", "CONFLICT", "hint:", "To "]
                .iter()
                .any(|start| text.starts_with(start))
            {
                text = format!("fatal: {text}");
            }
            let code = if text.starts_with("fatal:") { 128 } else { 1 };
            Output {
                err: text + "\n",
                code,
                ..Output::default()
            }
        }
    }
}

async fn dispatch(call: &Call<'_>, command: &str, args: &[&str]) -> Done {
    match command {
        "version" | "--version" => Ok(Output::ok(concat!(
            "git version 2.47.0.bowline.",
            env!("CARGO_PKG_VERSION"),
            "\n"
        ))),
        "init" => files::init(call, args).await,
        "status" => inspect::status(call, args).await,
        "add" | "stage" => files::add(call, args).await,
        "rm" => files::rm(call, args).await,
        "mv" => files::mv(call, args).await,
        "commit" => files::commit(call, args).await,
        "restore" => files::restore(call, args).await,
        "reset" => files::reset(call, args).await,
        "log" => show::log(call, args).await,
        "show" => show::show(call, args).await,
        "diff" => inspect::diff(call, args).await,
        "branch" => revisions::branch(call, args).await,
        "checkout" => revisions::checkout(call, args).await,
        "switch" => revisions::switch(call, args).await,
        "merge" => revisions::merge(call, args).await,
        "tag" => revisions::tag(call, args).await,
        "rev-parse" => revisions::rev_parse(call, args).await,
        "ls-files" => inspect::ls_files(call, args).await,
        "cat-file" => inspect::cat_file(call, args).await,
        "config" => remotes::config(call, args).await,
        "remote" => remotes::remote(call, args).await,
        "clone" => remotes::clone(call, args).await,
        "fetch" => remotes::fetch(call, args).await,
        "pull" => remotes::pull(call, args).await,
        "push" => remotes::push(call, args).await,
        other => Ok(Output {
            err: format!(
                "git: '{other}' is not a git command in a workspace (SH-26 in docs/limits.md lists what there is)\n"
            ),
            code: 1,
            ..Output::default()
        }),
    }
}

/// Options and operands of a command line: `-abc` is taken apart, `--name=value` and `-nvalue` too.
struct Options<'a> {
    given: Vec<(&'a str, Option<&'a str>)>,
    operands: Vec<&'a str>,
    /// Where `--` stood in the operands.
    dashes: Option<usize>,
}

impl<'a> Options<'a> {
    /// `with_value` names the options that take one.
    fn read(args: &[&'a str], with_value: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            given: Vec::new(),
            operands: Vec::new(),
            dashes: None,
        };
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.dashes = Some(options.operands.len());
                options.operands.extend(args);
                break;
            }
            if let Some(long) = arg.strip_prefix("--") {
                let at = long.find('=').map(|at| at + 2);
                let name = &arg[..at.unwrap_or(arg.len())];
                let mut value = at.map(|at| &arg[at + 1..]);
                if with_value.contains(&name) && value.is_none() {
                    value = Some(
                        args.next()
                            .ok_or(format!("error: option `{name}' requires a value"))?,
                    );
                }
                options.given.push((name, value));
            } else if arg.len() > 1 && arg.starts_with('-') && arg.as_bytes()[1].is_ascii_digit() {
                options.given.push(("-n", Some(&arg[1..])));
            } else if arg.len() > 1 && arg.starts_with('-') {
                let mut rest = &arg[1..];
                while let Some(letter) = rest.chars().next() {
                    let name = letter_name(letter);
                    rest = &rest[letter.len_utf8()..];
                    if with_value.contains(&name) {
                        let value = if rest.is_empty() {
                            args.next()
                        } else {
                            Some(rest)
                        };
                        let value =
                            value.ok_or(format!("error: switch `{letter}' requires a value"))?;
                        options.given.push((name, Some(value)));
                        break;
                    }
                    options.given.push((name, None));
                }
            } else {
                options.operands.push(arg);
            }
        }
        Ok(options)
    }

    fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    /// The last value of any of these options.
    fn value(&self, names: &[&str]) -> Option<&'a str> {
        self.given
            .iter()
            .rev()
            .find(|(given, _)| names.contains(given))
            .and_then(|(_, value)| *value)
    }

    /// The first option that is not among these.
    fn unknown(&self, names: &[&str]) -> Option<&'a str> {
        self.given
            .iter()
            .map(|(given, _)| *given)
            .find(|given| !names.contains(given))
    }
}

/// `-x` as text that lives long enough.
fn letter_name(letter: char) -> &'static str {
    const NAMES: [&str; 52] = [
        "-a", "-b", "-c", "-d", "-e", "-f", "-g", "-h", "-i", "-j", "-k", "-l", "-m", "-n", "-o",
        "-p", "-q", "-r", "-s", "-t", "-u", "-v", "-w", "-x", "-y", "-z", "-A", "-B", "-C", "-D",
        "-E", "-F", "-G", "-H", "-I", "-J", "-K", "-L", "-M", "-N", "-O", "-P", "-Q", "-R", "-S",
        "-T", "-U", "-V", "-W", "-X", "-Y", "-Z",
    ];
    let at = match letter {
        'a'..='z' => letter as usize - 'a' as usize,
        'A'..='Z' => 26 + letter as usize - 'A' as usize,
        _ => return "-?",
    };
    NAMES.get(at).copied().unwrap_or("-?")
}

/// Reads options or gives the usage error.
macro_rules! options {
    ($command:literal, $args:expr, $with_value:expr, $all:expr) => {{
        let options = match crate::git::command::Options::read($args, $with_value) {
            Ok(options) => options,
            Err(message) => return crate::git::command::usage(message),
        };
        if let Some(unknown) = options.unknown($all) {
            return crate::git::command::unknown_option($command, unknown);
        }
        options
    }};
}
use options;

/// The options of a commit that come from around the command.
fn commit_options(call: &Call<'_>, message: String) -> CommitOptions {
    CommitOptions {
        message,
        author: call.author(),
        ..CommitOptions::default()
    }
}
