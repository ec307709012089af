//! `config`, `remote`, `clone`, `fetch`, `pull`, `push`.

use super::{Call, Done, Output, options, show, usage};
use crate::{
    git::{CloneOptions, Fetched, GitError, Moved, PushOptions, Repository, remote::address},
    workspace::absolute,
};

pub(super) async fn config(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "config",
        args,
        &["--get", "--unset"],
        &[
            "--get",
            "--unset",
            "-l",
            "--list",
            "--local",
            "--global",
            "--system",
            "--add",
            "--replace-all"
        ]
    );
    let repository = match call.open().await {
        // What is global elsewhere belongs to the one repository that is worked in.
        Err(GitError::NotARepository) if options.any(&["--global", "--system"]) => {
            return Err(GitError::Refused(
                "fatal: there are no settings outside of a repository in a workspace; run git init first".into(),
            ));
        }
        opened => opened?,
    };
    let mut config = repository.config().await?;
    if options.any(&["-l", "--list"]) {
        let lines = config.all().map(|(key, value)| format!("{key}={value}\n"));
        return Ok(Output::ok(lines.collect::<String>()));
    }
    if let Some(key) = options.value(&["--unset"]) {
        let code = if config.unset(key) { 0 } else { 5 };
        repository.set_config(&config).await?;
        return Ok(Output {
            code,
            ..Output::default()
        });
    }
    match (options.value(&["--get"]), options.operands.as_slice()) {
        (Some(key), _) | (None, &[key]) => Ok(match config.get(key) {
            Some(value) => Output::ok(format!("{value}\n")),
            None => Output {
                code: 1,
                ..Output::default()
            },
        }),
        (None, &[key, value]) => {
            let lower = key.to_ascii_lowercase();
            if lower.starts_with("credential.")
                || lower.contains("extraheader")
                || lower.contains("insteadof")
            {
                return Err(GitError::Refused(
                    "fatal: credentials are set outside of the workspace, by the host; see docs/guide/workspace.md".into(),
                ));
            }
            if lower.starts_with("remote.")
                && (lower.ends_with(".url") || lower.ends_with(".pushurl"))
            {
                address(value)?;
            }
            config.set(key, value)?;
            repository.set_config(&config).await?;
            Ok(Output::default())
        }
        _ => usage("usage: git config [--get | --unset | --list] [<name> [<value>]]"),
    }
}

pub(super) async fn remote(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!("remote", args, &[], &["-v", "--verbose"]);
    let repository = call.open().await?;
    let mut config = repository.config().await?;
    match &options.operands[..] {
        [] => {
            let mut out = Output::default();
            for name in config.subsections("remote") {
                if options.any(&["-v", "--verbose"]) {
                    let url = config
                        .get(&format!("remote.{name}.url"))
                        .unwrap_or_default();
                    out.push(&format!("{name}\t{url} (fetch)\n{name}\t{url} (push)\n"))?;
                } else {
                    out.push(&format!("{name}\n"))?;
                }
            }
            return Ok(out);
        }
        ["get-url", name] => {
            let url = config.get(&format!("remote.{name}.url"));
            return match url {
                Some(url) => Ok(Output::ok(format!("{url}\n"))),
                None => Err(GitError::Unknown(format!("error: No such remote '{name}'"))),
            };
        }
        ["add", name, url] => {
            if config.get(&format!("remote.{name}.url")).is_some() {
                return Err(GitError::Refused(format!(
                    "error: remote {name} already exists."
                )));
            }
            if !crate::git::refs::valid(&format!("refs/remotes/{name}/HEAD")) {
                return Err(GitError::Refused(format!(
                    "fatal: '{name}' is not a valid remote name"
                )));
            }
            config.set(&format!("remote.{name}.url"), &address(url)?)?;
            config.set(
                &format!("remote.{name}.fetch"),
                &format!("+refs/heads/*:refs/remotes/{name}/*"),
            )?;
        }
        ["set-url", name, url] => {
            if config.get(&format!("remote.{name}.url")).is_none() {
                return Err(GitError::Unknown(format!("error: No such remote '{name}'")));
            }
            config.set(&format!("remote.{name}.url"), &address(url)?)?;
        }
        ["remove" | "rm", name] => {
            if config.get(&format!("remote.{name}.url")).is_none() {
                return Err(GitError::Unknown(format!(
                    "error: No such remote: '{name}'"
                )));
            }
            config.remove_section(&format!("remote.{name}"));
            for full in repository
                .refs(&format!("refs/remotes/{name}/"))
                .await?
                .keys()
            {
                repository.delete_ref(full).await?;
            }
        }
        _ => {
            return usage(
                "usage: git remote [-v] | add <name> <url> | remove <name> | set-url <name> <url> | get-url <name>",
            );
        }
    }
    repository.set_config(&config).await?;
    Ok(Output::default())
}

fn depth(text: Option<&str>) -> Result<Option<u32>, GitError> {
    let number = |text: &str| match text.parse() {
        Ok(depth) if depth > 0 => Ok(depth),
        _ => Err(GitError::Refused(format!(
            "fatal: depth {text} is not a positive number"
        ))),
    };
    text.map(number).transpose()
}

pub(super) async fn clone(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "clone",
        args,
        &["-b", "--branch", "--depth"],
        &[
            "-b",
            "--branch",
            "--depth",
            "-q",
            "--quiet",
            "--single-branch",
            "--no-single-branch",
            "--no-tags"
        ]
    );
    let Some(url) = options.operands.first() else {
        return usage("fatal: You must specify a repository to clone.");
    };
    let url = address(url)?;
    let last = url.rsplit('/').next().unwrap_or_default();
    let name = options
        .operands
        .get(1)
        .copied()
        .unwrap_or(last.strip_suffix(".git").unwrap_or(last));
    if options.operands.len() < 2 && !crate::git::object::safe_name(name) {
        return Err(GitError::Refused(
            "fatal: the URL has no name for a directory; give one".into(),
        ));
    }
    let settings = CloneOptions {
        branch: options.value(&["-b", "--branch"]).map(str::to_owned),
        depth: depth(options.value(&["--depth"]))?,
    };
    let outside = call.network()?;
    // On an overlay of its own, so that a clone that fails leaves nothing.
    let child = call.overlay.child();
    let path = absolute(name, &call.cwd);
    let (repository, fetched) = Repository::clone(&child, outside, &url, &path, &settings).await?;
    let empty = fetched.moved.is_empty();
    drop(repository);
    child.merge()?;
    let mut err = format!("Cloning into '{name}'...\n");
    if empty {
        err.push_str("warning: You appear to have cloned an empty repository.\n");
    }
    if options.any(&["-q", "--quiet"]) {
        err.clear();
    }
    Ok(Output {
        err,
        ..Output::default()
    })
}

/// What a fetch moved, as git tells it.
fn told(fetched: &Fetched) -> String {
    if fetched.moved.is_empty() {
        return String::new();
    }
    let mut text = format!("From {}\n", fetched.url);
    for moved in &fetched.moved {
        text.push_str(&line(moved, false));
    }
    text
}

fn line((name, old, new): &Moved, push: bool) -> String {
    let short = name
        .strip_prefix("refs/heads/")
        .or_else(|| name.strip_prefix("refs/tags/"))
        .unwrap_or(name);
    let (here, there) = match name
        .strip_prefix("refs/remotes/")
        .and_then(|name| Some((name, name.split_once('/')?.1)))
    {
        Some((full, branch)) => (branch, full),
        None => (short, short),
    };
    let kind = match (name.starts_with("refs/tags/"), old, new) {
        (_, _, None) if push => " - [deleted]        ".to_owned(),
        (_, _, None) => " - [deleted]         (none)     ".to_owned(),
        (true, None, _) => " * [new tag]         ".to_owned(),
        (false, None, _) => " * [new branch]      ".to_owned(),
        (_, Some(old), Some(new)) => format!("   {}..{}  ", old.short(), new.short()),
    };
    format!("{kind}{here} -> {there}\n")
}

pub(super) async fn fetch(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "fetch",
        args,
        &["--depth"],
        &[
            "--depth", "-p", "--prune", "-q", "--quiet", "--all", "-t", "--tags", "-v"
        ]
    );
    let mut repository = call.open().await?;
    let outside = call.network()?;
    let mut names: Vec<String> = options
        .operands
        .first()
        .map(|name| (*name).to_owned())
        .into_iter()
        .collect();
    if options.has("--all") {
        names = repository.config().await?.subsections("remote");
    } else if names.is_empty() {
        names.push("origin".into());
    }
    let mut out = Output::default();
    for name in names {
        let prune = options.any(&["-p", "--prune"]);
        let fetched = repository
            .fetch(outside, &name, depth(options.value(&["--depth"]))?, prune)
            .await?;
        if !options.any(&["-q", "--quiet"]) {
            out.err.push_str(&told(&fetched));
        }
    }
    Ok(out)
}

pub(super) async fn pull(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "pull",
        args,
        &[],
        &[
            "--ff-only",
            "--ff",
            "--no-rebase",
            "--no-edit",
            "-q",
            "--quiet",
            "-r",
            "--rebase"
        ]
    );
    if options.any(&["-r", "--rebase"]) {
        return Err(GitError::Unsupported(
            "git pull --rebase (merge, or fetch and reset)".into(),
        ));
    }
    let mut repository = call.open().await?;
    let outside = call.network()?;
    let (remote, branch) = (
        options.operands.first().copied(),
        options.operands.get(1).copied(),
    );
    let done = repository
        .pull(outside, remote, branch, options.has("--ff-only"))
        .await?;
    let mut out = Output {
        err: told(&done.fetched),
        ..Output::default()
    };
    match done.before {
        Some(before) if before == done.after => out.push("Already up to date.\n")?,
        Some(before) => {
            if done.merged {
                out.push("Merge made by the 'ort' strategy.\n")?;
            } else {
                out.push(&format!(
                    "Updating {}..{}\nFast-forward\n",
                    before.short(),
                    done.after.short()
                ))?;
            }
            let text = show::between(&mut repository, before, done.after).await?;
            out.push(&text)?;
        }
        None => {}
    }
    Ok(out)
}

pub(super) async fn push(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "push",
        args,
        &[],
        &[
            "-u",
            "--set-upstream",
            "-f",
            "--force",
            "-d",
            "--delete",
            "-q",
            "--quiet",
            "--tags",
            "--all",
            "--force-with-lease"
        ]
    );
    let mut repository = call.open().await?;
    let config = repository.config().await?;
    let current = super::inspect::head_name(&repository).await?;
    let mut operands = options.operands.iter().copied();
    let configured = current
        .as_ref()
        .and_then(|name| config.get(&format!("branch.{name}.remote")));
    let remote = operands
        .next()
        .or(configured)
        .unwrap_or("origin")
        .to_owned();
    let mut specs: Vec<String> = operands.map(str::to_owned).collect();
    if options.has("--all") {
        specs.extend(repository.branches().await?.into_keys());
    }
    if options.has("--tags") {
        let tags = repository.refs("refs/tags/").await?;
        specs.extend(tags.keys().map(|full| format!("{full}:{full}")));
        if specs.is_empty() {
            return Ok(Output {
                err: "Everything up-to-date\n".into(),
                ..Output::default()
            });
        }
    }
    let settings = PushOptions {
        force: options.any(&["-f", "--force"]),
        set_upstream: options.any(&["-u", "--set-upstream"]),
        delete: options.any(&["-d", "--delete"]),
    };
    if options.has("--force-with-lease") {
        return Err(GitError::Unsupported(
            "git push --force-with-lease (use --force)".into(),
        ));
    }
    let outside = call.network()?;
    let done = repository.push(outside, &remote, &specs, &settings).await?;
    let mut out = Output::default();
    if done.moved.is_empty() && done.refused.is_empty() {
        out.err = "Everything up-to-date\n".into();
    } else {
        out.err = format!("To {}\n", done.url);
        for moved in &done.moved {
            out.err.push_str(&line(moved, true));
        }
        for (name, why) in &done.refused {
            out.err
                .push_str(&format!(" ! [remote rejected] {name} ({why})\n"));
        }
    }
    if !done.refused.is_empty() {
        out.err.push_str(&format!(
            "error: failed to push some refs to '{}'\n",
            done.url
        ));
        out.code = 1;
    }
    if options.any(&["-q", "--quiet"]) && out.code == 0 {
        out.err.clear();
    }
    Ok(out)
}
