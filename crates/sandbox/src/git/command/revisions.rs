//! `branch`, `checkout`, `switch`, `merge`, `tag`, `rev-parse`.

use super::{Call, Done, Output, options, show, usage};
use crate::{
    git::{GitError, ObjectKind, Repository, merge::Merged, refs, refs::Head},
    workspace::absolute,
};

async fn head_or(
    repository: &mut Repository,
    name: Option<&&str>,
) -> Result<crate::git::ObjectId, GitError> {
    match name {
        Some(name) => repository.resolve(name).await,
        None => {
            let head = repository.head_id().await?;
            head.ok_or_else(|| {
                GitError::Unknown(
                    "fatal: not a valid object name: 'HEAD' (there is no commit yet)".into(),
                )
            })
        }
    }
}

pub(super) async fn branch(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "branch",
        args,
        &["-u", "--set-upstream-to"],
        &[
            "-a",
            "--all",
            "-r",
            "--remotes",
            "-v",
            "-d",
            "--delete",
            "-D",
            "-m",
            "--move",
            "-M",
            "-f",
            "--force",
            "--show-current",
            "--list",
            "-l",
            "-u",
            "--set-upstream-to",
            "-q",
            "--no-color"
        ]
    );
    let mut repository = call.open().await?;
    let force = options.any(&["-f", "--force"]);
    if options.has("--show-current") {
        return Ok(match repository.head().await? {
            Head::Branch(name) => Output::ok(format!("{name}\n")),
            Head::Detached(_) => Output::default(),
        });
    }
    if let Some(upstream) = options.value(&["-u", "--set-upstream-to"]) {
        let Head::Branch(current) = repository.head().await? else {
            return Err(GitError::Refused("fatal: HEAD is not on a branch".into()));
        };
        let name = options
            .operands
            .first()
            .map_or(current, |name| (*name).to_owned());
        let Some((remote, theirs)) = upstream.split_once('/') else {
            return Err(GitError::Unknown(format!(
                "fatal: the requested upstream branch '{upstream}' does not exist"
            )));
        };
        repository.track(&name, remote, theirs).await?;
        return Ok(Output::ok(format!(
            "branch '{name}' set up to track '{upstream}'.\n"
        )));
    }
    if options.any(&["-d", "--delete", "-D"]) {
        let mut out = Output::default();
        for name in &options.operands {
            let id = repository
                .delete_branch(name, force || options.has("-D"))
                .await?;
            out.push(&format!("Deleted branch {name} (was {}).\n", id.short()))?;
        }
        return Ok(out);
    }
    if options.any(&["-m", "--move", "-M"]) {
        return rename_branch(
            &mut repository,
            &options.operands,
            force || options.has("-M"),
        )
        .await;
    }
    if let (Some(name), false) = (
        options.operands.first(),
        options.any(&["--list", "-l", "-a", "-r"]),
    ) {
        let at = head_or(&mut repository, options.operands.get(1)).await?;
        repository.create_branch(name, at, force).await?;
        return Ok(Output::default());
    }
    list_branches(&mut repository, &options).await
}

async fn rename_branch(repository: &mut Repository, names: &[&str], force: bool) -> Done {
    let head = repository.head().await?;
    let (from, to) = match (names, &head) {
        ([from, to], _) => ((*from).to_owned(), *to),
        ([to], Head::Branch(current)) => (current.clone(), *to),
        _ => return usage("usage: git branch (-m | -M) [<old-branch>] <new-branch>"),
    };
    let full = format!("refs/heads/{to}");
    if !refs::valid(&full) {
        return Err(GitError::Refused(format!(
            "fatal: '{to}' is not a valid branch name"
        )));
    }
    let on_it = head == Head::Branch(from.clone());
    match repository
        .resolve_ref(&format!("refs/heads/{from}"))
        .await?
    {
        Some(id) => {
            if from != to {
                repository.create_branch(to, id, force).await?;
                repository.delete_ref(&format!("refs/heads/{from}")).await?;
            }
        }
        // A branch without commits is only a name.
        None if on_it => {}
        None => {
            return Err(GitError::Unknown(format!(
                "fatal: no branch named '{from}'"
            )));
        }
    }
    if on_it {
        repository.set_head(&Head::Branch(to.to_owned())).await?;
    }
    let mut config = repository.config().await?;
    for key in ["remote", "merge"] {
        if let Some(value) = config
            .get(&format!("branch.{from}.{key}"))
            .map(str::to_owned)
        {
            config.set(&format!("branch.{to}.{key}"), &value)?;
        }
    }
    if from != to {
        config.remove_section(&format!("branch.{from}"));
    }
    repository.set_config(&config).await?;
    Ok(Output::default())
}

async fn list_branches(repository: &mut Repository, options: &super::Options<'_>) -> Done {
    let mut out = Output::default();
    let head = repository.head().await?;
    if let Head::Detached(id) = head {
        out.push(&format!("* (HEAD detached at {})\n", id.short()))?;
    }
    let mut all = Vec::new();
    if !options.any(&["-r", "--remotes"]) {
        for (name, id) in repository.branches().await? {
            let mark = if head == Head::Branch(name.clone()) {
                "* "
            } else {
                "  "
            };
            all.push((mark, name, id));
        }
    }
    if options.any(&["-a", "--all", "-r", "--remotes"]) {
        for (full, id) in repository.refs("refs/remotes/").await? {
            let cut = if options.any(&["-r", "--remotes"]) {
                "refs/remotes/"
            } else {
                "refs/"
            };
            all.push(("  ", full.strip_prefix(cut).unwrap_or(&full).to_owned(), id));
        }
    }
    let width = all.iter().map(|(_, name, _)| name.len()).max().unwrap_or(0);
    for (mark, name, id) in all {
        if options.has("-v") {
            let (_, commit) = repository.commit_at(id).await?;
            out.push(&format!(
                "{mark}{name:width$} {} {}\n",
                id.short(),
                commit.subject()
            ))?;
        } else {
            out.push(&format!("{mark}{name}\n"))?;
        }
    }
    Ok(out)
}

pub(super) async fn checkout(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "checkout",
        args,
        &["-b", "-B"],
        &[
            "-b", "-B", "-q", "--quiet", "-f", "--force", "--detach", "--track", "-t"
        ]
    );
    let mut repository = call.open().await?;
    if options.any(&["-f", "--force"]) && options.operands.is_empty() {
        let head = repository.head_id().await?;
        repository.reset_hard(head).await?;
        return Ok(Output::default());
    }
    if let Some(name) = options.value(&["-b", "-B"]) {
        return new_branch(
            &mut repository,
            name,
            options.operands.first(),
            options.has("-B"),
        )
        .await;
    }
    let paths = match options.dashes {
        Some(dashes) => {
            let (commits, paths) = options.operands.split_at(dashes);
            return take_files(call, &mut repository, commits.first().copied(), paths).await;
        }
        None => &options.operands[..],
    };
    let Some((target, rest)) = paths.split_first() else {
        return usage("usage: git checkout [-b] <branch>, or git checkout [<commit>] -- <file>...");
    };
    if !rest.is_empty() {
        return match repository.resolve(target).await {
            Ok(_) => take_files(call, &mut repository, Some(target), rest).await,
            Err(_) => take_files(call, &mut repository, None, paths).await,
        };
    }
    go(call, &mut repository, target, options.has("--detach"), true).await
}

pub(super) async fn switch(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "switch",
        args,
        &["-c", "-C", "--create"],
        &["-c", "-C", "--create", "-q", "--quiet", "-d", "--detach"]
    );
    let mut repository = call.open().await?;
    if let Some(name) = options.value(&["-c", "-C", "--create"]) {
        return new_branch(
            &mut repository,
            name,
            options.operands.first(),
            options.has("-C"),
        )
        .await;
    }
    let [target] = options.operands[..] else {
        return usage("usage: git switch [-c] <branch>");
    };
    go(
        call,
        &mut repository,
        target,
        options.any(&["-d", "--detach"]),
        false,
    )
    .await
}

async fn new_branch(
    repository: &mut Repository,
    name: &str,
    at: Option<&&str>,
    force: bool,
) -> Done {
    if at.is_none() && repository.head_id().await?.is_none() {
        if !refs::valid(&format!("refs/heads/{name}")) {
            return Err(GitError::Refused(format!(
                "fatal: '{name}' is not a valid branch name"
            )));
        }
        repository.set_head(&Head::Branch(name.to_owned())).await?;
    } else {
        let id = head_or(repository, at).await?;
        let before = repository
            .resolve_ref(&format!("refs/heads/{name}"))
            .await?;
        repository.create_branch(name, id, force).await?;
        if let Err(error) = repository.checkout(name).await {
            match before {
                Some(id) => {
                    repository
                        .set_ref(&format!("refs/heads/{name}"), id)
                        .await?
                }
                None => repository.delete_ref(&format!("refs/heads/{name}")).await?,
            }
            return Err(error);
        }
        if let Some((remote, theirs)) = at.and_then(|at| at.split_once('/'))
            && repository
                .resolve_ref(&format!("refs/remotes/{remote}/{theirs}"))
                .await?
                .is_some()
        {
            repository.track(name, remote, theirs).await?;
        }
    }
    Ok(Output {
        err: format!("Switched to a new branch '{name}'\n"),
        ..Output::default()
    })
}

async fn go(
    call: &Call<'_>,
    repository: &mut Repository,
    target: &str,
    detach: bool,
    files: bool,
) -> Done {
    if target == "-" {
        return Err(GitError::Unsupported(
            "git checkout - (there is no reflog)".into(),
        ));
    }
    let branch = repository
        .resolve_ref(&format!("refs/heads/{target}"))
        .await
        .ok()
        .flatten();
    if repository.head().await? == Head::Branch(target.to_owned()) {
        return Ok(Output {
            err: format!("Already on '{target}'\n"),
            ..Output::default()
        });
    }
    if branch.is_none() && !detach {
        // A branch of the one remote that has it becomes one here.
        let there = repository
            .resolve_ref(&format!("refs/remotes/origin/{target}"))
            .await
            .ok()
            .flatten();
        if there.is_some() {
            let from = format!("origin/{target}");
            let mut done = new_branch(repository, target, Some(&from.as_str()), false).await?;
            done.out = format!("branch '{target}' set up to track '{from}'.\n");
            return Ok(done);
        }
        if repository.resolve(target).await.is_err() {
            if files
                && call
                    .overlay
                    .lstat(&absolute(target, &call.cwd))
                    .await
                    .is_ok()
            {
                return take_files(call, repository, None, &[target]).await;
            }
            let what = if files { "pathspec" } else { "reference" };
            return Err(GitError::Unknown(match files {
                true => format!("error: {what} '{target}' did not match any file(s) known to git"),
                false => format!("fatal: invalid {what}: {target}"),
            }));
        }
        if !files {
            return Err(GitError::Refused(format!(
                "fatal: a branch is expected, got commit '{target}'\nhint: If you want to detach HEAD at the commit, try again with the --detach option."
            )));
        }
    }
    let name = match (detach, branch) {
        (true, Some(id)) => id.to_string(),
        _ => target.to_owned(),
    };
    let err = match repository.checkout(&name).await? {
        Some(name) => format!("Switched to branch '{name}'\n"),
        None => {
            let id = repository.resolve("HEAD").await?;
            let (_, commit) = repository.commit_at(id).await?;
            format!("HEAD is now at {} {}\n", id.short(), commit.subject())
        }
    };
    Ok(Output {
        err,
        ..Output::default()
    })
}

async fn take_files(
    call: &Call<'_>,
    repository: &mut Repository,
    from: Option<&str>,
    paths: &[&str],
) -> Done {
    let paths = call.all_inside(repository, paths)?;
    let from = match from {
        Some(name) => Some(repository.resolve(name).await?),
        None => None,
    };
    let count = repository.restore(from, &paths).await?;
    let plural = if count == 1 { "" } else { "s" };
    Ok(Output {
        err: format!("Updated {count} path{plural}\n"),
        ..Output::default()
    })
}

pub(super) async fn merge(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "merge",
        args,
        &["-m"],
        &["-m", "--ff-only", "--no-edit", "-q", "--quiet", "--ff"]
    );
    let [target] = options.operands[..] else {
        return usage("usage: git merge [--ff-only] <branch>");
    };
    let mut repository = call.open().await?;
    let id = repository.resolve(target).await?;
    let before = repository.head_id().await?;
    let label = format!("branch '{target}'");
    let merged = repository
        .merge(id, &label, options.has("--ff-only"))
        .await?;
    let text = match (merged, before) {
        (Merged::UpToDate, _) => "Already up to date.\n".into(),
        (Merged::FastForward(_, new), Some(old)) => format!(
            "Updating {}..{}\nFast-forward\n{}",
            old.short(),
            new.short(),
            show::between(&mut repository, old, new).await?
        ),
        (Merged::Commit(new), Some(old)) => format!(
            "Merge made by the 'ort' strategy.\n{}",
            show::between(&mut repository, old, new).await?
        ),
        (Merged::FastForward(..) | Merged::Commit(_), None) => String::new(),
    };
    Ok(Output::ok(text))
}

pub(super) async fn tag(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "tag",
        args,
        &["-m", "--message"],
        &[
            "-a",
            "--annotate",
            "-m",
            "--message",
            "-d",
            "--delete",
            "-l",
            "--list",
            "-f",
            "--force",
            "-n"
        ]
    );
    let mut repository = call.open().await?;
    let mut out = Output::default();
    if options.any(&["-d", "--delete"]) {
        for name in &options.operands {
            let full = format!("refs/tags/{name}");
            let id = if refs::valid(&full) {
                repository.resolve_ref(&full).await?
            } else {
                None
            };
            let id =
                id.ok_or_else(|| GitError::Unknown(format!("error: tag '{name}' not found.")))?;
            repository.delete_ref(&full).await?;
            out.push(&format!("Deleted tag '{name}' (was {})\n", id.short()))?;
        }
        return Ok(out);
    }
    let Some(name) = options
        .operands
        .first()
        .filter(|_| !options.any(&["-l", "--list"]))
    else {
        for full in repository.refs("refs/tags/").await?.keys() {
            out.push(&format!(
                "{}\n",
                full.strip_prefix("refs/tags/").unwrap_or(full)
            ))?;
        }
        return Ok(out);
    };
    let full = format!("refs/tags/{name}");
    if !refs::valid(&full) || name.starts_with('-') {
        return Err(GitError::Refused(format!(
            "fatal: '{name}' is not a valid tag name."
        )));
    }
    if repository.resolve_ref(&full).await?.is_some() && !options.any(&["-f", "--force"]) {
        return Err(GitError::Refused(format!(
            "fatal: tag '{name}' already exists"
        )));
    }
    let mut id = head_or(&mut repository, options.operands.get(1)).await?;
    if let Some(message) = options.value(&["-m", "--message"]) {
        let who = repository.signature(call.author(), None).await?;
        let (kind, _) = repository.object(id).await?;
        let body = format!(
            "object {id}\ntype {}\ntag {name}\ntagger {} <{}> {} {}\n\n{}",
            kind.name(),
            who.name,
            who.email,
            who.seconds,
            who.zone(),
            crate::git::repository::clean(message)
        );
        id = repository.put(ObjectKind::Tag, body.as_bytes()).await?;
    } else if options.any(&["-a", "--annotate"]) {
        return Err(GitError::Refused(
            "fatal: there is no editor in a workspace; give the message with -m".into(),
        ));
    }
    repository.set_ref(&full, id).await?;
    Ok(out)
}

pub(super) async fn rev_parse(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "rev-parse",
        args,
        &[],
        &[
            "--verify",
            "-q",
            "--quiet",
            "--short",
            "--abbrev-ref",
            "--symbolic-full-name",
            "--show-toplevel",
            "--git-dir",
            "--absolute-git-dir",
            "--is-inside-work-tree",
            "--is-inside-git-dir",
            "--is-bare-repository",
            "--show-prefix"
        ]
    );
    let mut repository = call.open().await?;
    let mut out = Output::default();
    for (name, _) in &options.given {
        let line = match *name {
            "--show-toplevel" => repository.root.clone(),
            "--git-dir" if call.cwd == repository.root => ".git".into(),
            "--git-dir" | "--absolute-git-dir" => repository.dir.clone(),
            "--is-inside-work-tree" => "true".into(),
            "--is-inside-git-dir" | "--is-bare-repository" => "false".into(),
            "--show-prefix" => {
                let here = call.inside(&repository, ".")?;
                if here.is_empty() { here } else { here + "/" }
            }
            _ => continue,
        };
        out.push(&format!("{line}\n"))?;
    }
    for name in &options.operands {
        if options.any(&["--abbrev-ref", "--symbolic-full-name"]) && matches!(*name, "HEAD" | "@") {
            let prefix = if options.has("--abbrev-ref") {
                ""
            } else {
                "refs/heads/"
            };
            match repository.head().await? {
                Head::Branch(branch) => out.push(&format!("{prefix}{branch}\n"))?,
                Head::Detached(_) => out.push("HEAD\n")?,
            }
            continue;
        }
        match super::inspect::named(&mut repository, name).await {
            Ok(id) if options.has("--short") => out.push(&format!("{}\n", id.short()))?,
            Ok(id) => out.push(&format!("{id}\n"))?,
            Err(_) if options.any(&["-q", "--quiet"]) => out.code = 1,
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}
