//! `init`, `add`, `rm`, `mv`, `commit`, `restore`, `reset`.

use super::{Call, Done, Output, commit_options, options, show, usage};
use crate::{
    git::{GitError, ObjectKind, Repository, object::Mode, repository::below},
    workspace::absolute,
};

pub(super) async fn init(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "init",
        args,
        &["-b", "--initial-branch"],
        &["-b", "--initial-branch", "-q", "--quiet"]
    );
    let path = absolute(options.operands.first().unwrap_or(&"."), &call.cwd);
    let setting = call
        .settings
        .get("init.defaultbranch")
        .map_or("main", String::as_str);
    let branch = options
        .value(&["-b", "--initial-branch"])
        .unwrap_or(setting);
    let (repository, made) = Repository::init(&call.overlay, &path, branch).await?;
    if options.any(&["-q", "--quiet"]) {
        return Ok(Output::default());
    }
    let what = if made {
        "Initialized empty"
    } else {
        "Reinitialized existing"
    };
    Ok(Output::ok(format!(
        "{what} Git repository in {}/\n",
        repository.dir
    )))
}

pub(super) async fn add(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "add",
        args,
        &[],
        &[
            "-A",
            "--all",
            "-u",
            "--update",
            "-f",
            "--force",
            "-v",
            "--verbose",
            "-q"
        ]
    );
    let mut repository = call.open().await?;
    let mut paths = call.all_inside(&repository, &options.operands)?;
    if options.any(&["-u", "--update"]) {
        if paths.is_empty() {
            paths.push(String::new());
        }
        for path in &paths {
            repository.add_known(path).await?;
        }
        return Ok(Output::default());
    }
    if paths.is_empty() {
        if !options.any(&["-A", "--all"]) {
            return Ok(Output {
                err: "Nothing specified, nothing added.\nhint: Maybe you wanted to say 'git add .'?\n".into(),
                ..Output::default()
            });
        }
        paths.push(String::new());
    }
    // An empty tree has nothing that `.` could match, which is fine.
    repository
        .add(&paths, options.any(&["-f", "--force"]))
        .await?;
    Ok(Output::default())
}

pub(super) async fn rm(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "rm",
        args,
        &[],
        &[
            "-r",
            "--cached",
            "-f",
            "--force",
            "-q",
            "--quiet",
            "--ignore-unmatch"
        ]
    );
    let mut repository = call.open().await?;
    let mut index = repository.index().await?;
    let head = repository.head_id().await?;
    let committed = repository.commit_files(head).await?;
    let mut out = Output::default();
    for (path, given) in call
        .all_inside(&repository, &options.operands)?
        .iter()
        .zip(&options.operands)
    {
        let known: Vec<_> = index
            .entries
            .iter()
            .filter(|entry| below(&entry.path, path))
            .cloned()
            .collect();
        if known.is_empty() && !options.has("--ignore-unmatch") {
            return Err(GitError::Unknown(format!(
                "fatal: pathspec '{given}' did not match any files"
            )));
        }
        if known.iter().any(|entry| entry.path != *path) && !options.has("-r") {
            return Err(GitError::Refused(format!(
                "fatal: not removing '{given}' recursively without -r"
            )));
        }
        for entry in known {
            let changed = repository.compare(&index, &entry).await?
                == crate::git::FileState::Modified
                || committed.get(&entry.path) != Some(&(entry.mode, entry.id));
            if changed && !options.any(&["-f", "--force", "--cached"]) {
                return Err(GitError::Refused(format!(
                    "error: the following file has local modifications:\n    {}\n(use --cached to keep the file, or -f to force removal)",
                    entry.path
                )));
            }
            if !options.has("--cached") {
                repository.remove_file(&entry.path).await?;
            }
            index.remove(&entry.path);
            if !options.any(&["-q", "--quiet"]) {
                out.push(&format!("rm '{}'\n", entry.path))?;
            }
        }
    }
    repository.set_index(&index).await?;
    Ok(out)
}

pub(super) async fn mv(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!("mv", args, &[], &["-f", "--force", "-v"]);
    let [sources @ .., target] = &options.operands[..] else {
        return usage("usage: git mv <source>... <destination>");
    };
    if sources.is_empty() {
        return usage("usage: git mv <source>... <destination>");
    }
    let repository = call.open().await?;
    let mut index = repository.index().await?;
    let into = call
        .overlay
        .directory(&absolute(target, &call.cwd))
        .await
        .is_ok();
    for source in sources {
        let from = call.inside(&repository, source)?;
        let to = if into {
            format!("{target}/{}", from.rsplit('/').next().unwrap_or_default())
        } else {
            (*target).to_owned()
        };
        let to = call.inside(&repository, &to)?;
        let moved: Vec<_> = index
            .entries
            .iter()
            .filter(|entry| below(&entry.path, &from))
            .cloned()
            .collect();
        if moved.is_empty() || from.is_empty() {
            return Err(GitError::Refused(format!(
                "fatal: not under version control, source={source}, destination={target}"
            )));
        }
        if call.overlay.exists(&repository.place(&to)).await? && !options.any(&["-f", "--force"]) {
            return Err(GitError::Refused(format!(
                "fatal: destination exists, source={source}, destination={to}"
            )));
        }
        call.overlay
            .rename(&repository.place(&from), &repository.place(&to))
            .await?;
        for mut entry in moved {
            index.remove(&entry.path);
            entry.path = format!("{to}{}", &entry.path[from.len()..]);
            index.put(entry);
        }
    }
    repository.set_index(&index).await?;
    Ok(Output::default())
}

/// The options of `git commit`.
const COMMIT: &[&str] = &[
    "-m",
    "--message",
    "-F",
    "--file",
    "--author",
    "--date",
    "-a",
    "--all",
    "--amend",
    "--no-edit",
    "--allow-empty",
    "-q",
    "--quiet",
    "-n",
    "--no-verify",
    "--no-gpg-sign",
    "-v",
];

pub(super) async fn commit(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "commit",
        args,
        &["-m", "--message", "-F", "--file", "--author", "--date"],
        COMMIT
    );
    let mut repository = call.open().await?;
    let given: Vec<&str> = options
        .given
        .iter()
        .filter(|(name, _)| matches!(*name, "-m" | "--message"))
        .filter_map(|(_, value)| *value)
        .collect();
    let mut message = given.join("\n\n");
    match options.value(&["-F", "--file"]) {
        Some("-") => message.clone_from(&call.input),
        Some(file) => {
            let text = call.overlay.read_held(&absolute(file, &call.cwd)).await?;
            message = String::from_utf8_lossy(&text).into_owned();
        }
        None => {}
    }
    let amend = options.has("--amend");
    if message.is_empty() {
        message = kept_message(&mut repository, amend).await?;
    }
    let mut commit = commit_options(call, message);
    if let Some(author) = options.value(&["--author"]) {
        let parts = author
            .strip_suffix('>')
            .and_then(|author| author.split_once('<'));
        let Some((name, email)) = parts else {
            return Err(GitError::Refused(format!(
                "fatal: --author '{author}' is not 'Name <email>'"
            )));
        };
        commit.author = Some((name.trim().to_owned(), email.to_owned()));
    } else if amend {
        commit.author = None;
    }
    commit.all = options.any(&["-a", "--all"]);
    commit.allow_empty = options.has("--allow-empty");
    commit.amend = amend;
    if !options.operands.is_empty() {
        let paths = call.all_inside(&repository, &options.operands)?;
        for path in &paths {
            repository.add(std::slice::from_ref(path), false).await?;
        }
    }
    let done = match repository.commit(&commit).await {
        Err(GitError::Refused(why)) if why == "nothing to commit" => {
            let mut status = super::inspect::status(call, &[]).await?;
            status.code = 1;
            return Ok(status);
        }
        done => done?,
    };
    if options.any(&["-q", "--quiet"]) {
        return Ok(Output::default());
    }
    let (_, made) = repository.commit_at(done.id).await?;
    let branch = done.branch.as_deref().unwrap_or("detached HEAD");
    let first = if done.root { " (root-commit)" } else { "" };
    let mut out = Output::ok(format!(
        "[{branch}{first} {}] {}\n",
        done.id.short(),
        made.subject()
    ));
    out.push(&show::summary(&mut repository, &done.changes).await?)?;
    for change in &done.changes {
        let line = match (&change.old, &change.new) {
            (None, Some((mode, _))) => {
                format!(" create mode {:06o} {}\n", mode.bits(), change.path)
            }
            (Some((mode, _)), None) => {
                format!(" delete mode {:06o} {}\n", mode.bits(), change.path)
            }
            _ => continue,
        };
        out.push(&line)?;
    }
    Ok(out)
}

/// The message that is there already: of a merge, or of the commit that is amended.
async fn kept_message(repository: &mut Repository, amend: bool) -> Result<String, GitError> {
    if let (true, Some(head)) = (amend, repository.head_id().await?) {
        return Ok(repository.commit_at(head).await?.1.message);
    }
    match repository
        .overlay
        .read_held(&format!("{}/MERGE_MSG", repository.dir))
        .await
    {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(_) => Err(GitError::Refused(
            "error: there is no editor in a workspace; give the message with -m".into(),
        )),
    }
}

pub(super) async fn restore(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "restore",
        args,
        &["-s", "--source"],
        &[
            "-s",
            "--source",
            "-S",
            "--staged",
            "-W",
            "--worktree",
            "-q",
            "--quiet"
        ]
    );
    let mut repository = call.open().await?;
    let paths = call.all_inside(&repository, &options.operands)?;
    if paths.is_empty() {
        return Err(GitError::Refused(
            "fatal: you must specify path(s) to restore".into(),
        ));
    }
    let source = match options.value(&["-s", "--source"]) {
        Some(name) => Some(repository.resolve(name).await?),
        None => None,
    };
    let staged = options.any(&["-S", "--staged"]);
    if staged {
        let from = match source {
            Some(id) => Some(id),
            None => repository.head_id().await?,
        };
        repository.unstage(from, &paths).await?;
    }
    if !staged || options.any(&["-W", "--worktree"]) {
        repository.restore(source, &paths).await?;
    }
    Ok(Output::default())
}

pub(super) async fn reset(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "reset",
        args,
        &[],
        &["--soft", "--mixed", "--hard", "-q", "--quiet"]
    );
    let mut repository = call.open().await?;
    let mut operands = &options.operands[..];
    let mut target = repository.head_id().await?;
    let mut named = false;
    if let Some((first, rest)) = operands.split_first()
        && options.dashes != Some(0)
    {
        let is_path = call.overlay.exists(&absolute(first, &call.cwd)).await?;
        match repository.resolve(first).await {
            Ok(id) => {
                target = Some(repository.commit_at(id).await?.0);
                operands = rest;
                named = true;
            }
            Err(error) if !is_path => return Err(error),
            Err(_) => {}
        }
    }
    if !operands.is_empty() {
        if options.any(&["--soft", "--hard"]) {
            return Err(GitError::Refused(
                "fatal: Cannot do soft or hard reset with paths.".into(),
            ));
        }
        let paths = call.all_inside(&repository, operands)?;
        repository.unstage(target, &paths).await?;
        return Ok(Output::default());
    }
    if options.has("--hard") {
        repository.reset_hard(target).await?;
    } else if !options.has("--soft") {
        repository.unstage(target, &[]).await?;
    }
    if let (true, Some(id)) = (named, target) {
        repository.move_head(id).await?;
    }
    let mut out = Output::default();
    if let (true, false, Some(id)) = (
        options.has("--hard"),
        options.any(&["-q", "--quiet"]),
        target,
    ) {
        let (_, commit) = repository.commit_at(id).await?;
        out.push(&format!(
            "HEAD is now at {} {}\n",
            id.short(),
            commit.subject()
        ))?;
    }
    Ok(out)
}

/// What `cat-file -t` says.
pub(super) fn kind_name(kind: ObjectKind) -> &'static str {
    kind.name()
}

/// What stands for a mode in a listing.
pub(super) fn mode_kind(mode: Mode) -> &'static str {
    match mode {
        Mode::Tree => "tree",
        Mode::Module => "commit",
        Mode::File | Mode::Executable | Mode::Link => "blob",
    }
}
