//! `status`, `diff`, `ls-files`, `cat-file`.

use super::{Call, Done, Output, files, options, show};
use crate::{
    git::{DiffSide, FileState, GitError, Repository, Status, object::parse_tree, refs::Head},
    workspace::absolute,
};

pub(super) async fn status(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "status",
        args,
        &[],
        &[
            "-s",
            "--short",
            "--porcelain",
            "-b",
            "--branch",
            "-u",
            "--untracked-files",
            "--long",
            "-z"
        ]
    );
    let mut repository = call.open().await?;
    let path = match options.operands.first() {
        Some(path) => call.inside(&repository, path)?,
        None => String::new(),
    };
    let mut status = repository.status(&path).await?;
    if options.value(&["--untracked-files"]) == Some("no") {
        status
            .entries
            .retain(|entry| entry.staged != FileState::Untracked);
    }
    let porcelain = options.has("--porcelain");
    if porcelain || options.any(&["-s", "--short"]) {
        let mut out = Output::default();
        if options.any(&["-b", "--branch"]) {
            let name = status.branch.as_deref().unwrap_or("HEAD (no branch)");
            let head = if status.head.is_none() {
                "No commits yet on "
            } else {
                ""
            };
            out.push(&format!("## {head}{name}\n"))?;
        }
        for entry in &status.entries {
            let path = if porcelain {
                entry.path.clone()
            } else {
                call.shown(&repository, &entry.path)
            };
            let (one, other) = (entry.staged.letter(), entry.unstaged.letter());
            let end = if options.has("-z") { '\0' } else { '\n' };
            let path = if options.has("-z") {
                path
            } else {
                quoted(&path)
            };
            out.push(&format!("{one}{other} {path}{end}"))?;
        }
        return Ok(out);
    }
    long_status(call, &mut repository, &status).await
}

/// A path as git prints it: in quotes when it has special characters.
fn quoted(path: &str) -> String {
    let plain = |c: char| !c.is_control() && c != '"' && c != '\\' && c.is_ascii() && c != ' ';
    if path.chars().all(plain) {
        return path.to_owned();
    }
    let mut out = String::from("\"");
    for byte in path.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            byte if byte.is_ascii_graphic() || byte == b' ' => out.push(char::from(byte)),
            byte => out.push_str(&format!("\\{byte:03o}")),
        }
    }
    out + "\""
}

async fn long_status(call: &Call<'_>, repository: &mut Repository, status: &Status) -> Done {
    let mut out = Output::default();
    match (&status.branch, status.head) {
        (Some(name), _) => out.push(&format!("On branch {name}\n"))?,
        (None, Some(id)) => out.push(&format!("HEAD detached at {}\n", id.short()))?,
        (None, None) => {}
    }
    if let Some(name) = &status.branch {
        out.push(&tracking(repository, name).await?)?;
    }
    if status.head.is_none() {
        out.push("\nNo commits yet\n")?;
    }
    let word = |state: FileState| match state {
        FileState::Added => "new file:   ",
        FileState::Modified => "modified:   ",
        FileState::Deleted => "deleted:    ",
        FileState::Conflict => "both modified:   ",
        FileState::Same | FileState::Untracked => "",
    };
    let mut section =
        |title: &str, hint: &str, side: &dyn Fn(&crate::git::StatusEntry) -> FileState| {
            let lines: String = status
                .entries
                .iter()
                .filter(|entry| !matches!(side(entry), FileState::Same | FileState::Untracked))
                .map(|entry| {
                    format!(
                        "\t{}{}\n",
                        word(side(entry)),
                        call.shown(repository, &entry.path)
                    )
                })
                .collect();
            if lines.is_empty() {
                return Ok(false);
            }
            out.push(&format!("{title}:\n{hint}{lines}\n"))
                .map(|()| true)
        };
    let unstage = if status.head.is_some() {
        "git restore --staged <file>..."
    } else {
        "git rm --cached <file>..."
    };
    let plain = |state: FileState| {
        if state == FileState::Conflict {
            FileState::Same
        } else {
            state
        }
    };
    let staged = section(
        "Changes to be committed",
        &format!("  (use \"{unstage}\" to unstage)\n"),
        &|entry| plain(entry.staged),
    )?;
    section(
        "Unmerged paths",
        "  (use \"git add <file>...\" to mark resolution)\n",
        &|entry| {
            if entry.staged == FileState::Conflict {
                FileState::Conflict
            } else {
                FileState::Same
            }
        },
    )?;
    let changed = section(
        "Changes not staged for commit",
        "  (use \"git add <file>...\" to update what will be committed)\n  (use \"git restore <file>...\" to discard changes in working directory)\n",
        &|entry| plain(entry.unstaged),
    )?;
    let unknown: String = status
        .entries
        .iter()
        .filter(|entry| entry.staged == FileState::Untracked)
        .map(|entry| format!("\t{}\n", call.shown(repository, &entry.path)))
        .collect();
    let untracked = !unknown.is_empty();
    if untracked {
        out.push(&format!(
            "Untracked files:\n  (use \"git add <file>...\" to include in what will be committed)\n{unknown}\n"
        ))?;
    }
    if !staged {
        out.push(match (changed, untracked, status.head) {
            (true, _, _) => {
                "no changes added to commit (use \"git add\" and/or \"git commit -a\")\n"
            }
            (_, true, _) => {
                "nothing added to commit but untracked files present (use \"git add\" to track)\n"
            }
            (_, _, None) => "nothing to commit (create/copy files and use \"git add\" to track)\n",
            (_, _, Some(_)) => "nothing to commit, working tree clean\n",
        })?;
    }
    Ok(out)
}

/// How the branch stands to the one it follows.
async fn tracking(repository: &mut Repository, branch: &str) -> Result<String, GitError> {
    let config = repository.config().await?;
    let remote = config
        .get(&format!("branch.{branch}.remote"))
        .unwrap_or_default();
    let theirs = config
        .get(&format!("branch.{branch}.merge"))
        .and_then(|full| full.strip_prefix("refs/heads/"));
    let Some(theirs) = theirs else {
        return Ok(String::new());
    };
    let name = format!("{remote}/{theirs}");
    let there = repository
        .resolve_ref(&format!("refs/remotes/{name}"))
        .await?;
    let (Some(here), Some(there)) = (repository.head_id().await?, there) else {
        return Ok(String::new());
    };
    let ahead = repository.log(&[here], &[there], usize::MAX).await?.len();
    let behind = repository.log(&[there], &[here], usize::MAX).await?.len();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    Ok(match (ahead, behind) {
        (0, 0) => format!("Your branch is up to date with '{name}'.\n\n"),
        (ahead, 0) => format!(
            "Your branch is ahead of '{name}' by {ahead} commit{}.\n  (use \"git push\" to publish your local commits)\n\n",
            plural(ahead)
        ),
        (0, behind) => format!(
            "Your branch is behind '{name}' by {behind} commit{}, and can be fast-forwarded.\n  (use \"git pull\" to update your local branch)\n\n",
            plural(behind)
        ),
        (ahead, behind) => format!(
            "Your branch and '{name}' have diverged,\nand have {ahead} and {behind} different commits each, respectively.\n\n"
        ),
    })
}

pub(super) async fn diff(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "diff",
        args,
        &[],
        &[
            "--cached",
            "--staged",
            "--stat",
            "--name-only",
            "--name-status",
            "--numstat",
            "--shortstat",
            "-p",
            "--patch",
            "--exit-code",
            "--quiet",
            "--no-color",
            "--color",
            "--no-ext-diff"
        ]
    );
    let mut repository = call.open().await?;
    let mut operands = options.operands.clone();
    let mut commits = Vec::new();
    while let Some(first) = operands.first().copied() {
        if options.dashes == Some(commits.len()) || commits.len() == 2 {
            break;
        }
        if let Some((from, to)) = first.split_once("..") {
            let to = to.strip_prefix('.').unwrap_or(to);
            let (one, other) = (
                repository.resolve(from).await?,
                repository.resolve(to).await?,
            );
            let one = match first.contains("...") {
                true => repository.merge_base(one, other).await?.unwrap_or(one),
                false => one,
            };
            commits.extend([one, other]);
            operands.remove(0);
            break;
        }
        match repository.resolve(first).await {
            Ok(id) => commits.push(id),
            Err(_)
                if call
                    .overlay
                    .lstat(&absolute(first, &call.cwd))
                    .await
                    .is_ok() =>
            {
                break;
            }
            Err(error) if options.dashes.is_none() => return Err(error),
            Err(_) => break,
        }
        operands.remove(0);
    }
    let paths = call.all_inside(&repository, &operands)?;
    let cached = options.any(&["--cached", "--staged"]);
    let (old, new) = match (&commits[..], cached) {
        ([], false) => (DiffSide::Index, DiffSide::WorkTree),
        ([], true) => match repository.head_id().await? {
            Some(id) => (DiffSide::Commit(id), DiffSide::Index),
            None => (DiffSide::Empty, DiffSide::Index),
        },
        ([one, ..], true) => (DiffSide::Commit(*one), DiffSide::Index),
        ([one], false) => (DiffSide::Commit(*one), DiffSide::WorkTree),
        ([one, other, ..], false) => (DiffSide::Commit(*one), DiffSide::Commit(*other)),
    };
    let changes = repository.changes(old, new, &paths).await?;
    let mut out = Output::default();
    if !options.has("--quiet") {
        let live = new == DiffSide::WorkTree;
        let form = options
            .given
            .iter()
            .map(|(name, _)| *name)
            .find_map(show::Form::of);
        show::changes(
            &mut repository,
            &changes,
            form.unwrap_or(show::Form::Patch),
            live,
            &mut out,
        )
        .await?;
    }
    if options.any(&["--exit-code", "--quiet"]) && !changes.is_empty() {
        out.code = 1;
    }
    Ok(out)
}

pub(super) async fn ls_files(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "ls-files",
        args,
        &[],
        &[
            "-c",
            "--cached",
            "-s",
            "--stage",
            "-o",
            "--others",
            "--exclude-standard",
            "-m",
            "--modified",
            "-z"
        ]
    );
    let repository = call.open().await?;
    let paths = call.all_inside(&repository, &options.operands)?;
    let wanted = |path: &str| crate::git::changes::wanted(path, &paths);
    let end = if options.has("-z") { '\0' } else { '\n' };
    let mut out = Output::default();
    let index = repository.index().await?;
    if options.any(&["-o", "--others"]) {
        let force = !options.has("--exclude-standard");
        for path in repository.walk("", &index, force).await?.keys() {
            if index.get(path).is_none() && wanted(path) {
                out.push(&format!("{}{end}", call.shown(&repository, path)))?;
            }
        }
        return Ok(out);
    }
    let only_changed = options.any(&["-m", "--modified"]);
    for entry in index.entries.iter().filter(|entry| wanted(&entry.path)) {
        if only_changed && repository.compare(&index, entry).await? == FileState::Same {
            continue;
        }
        let path = call.shown(&repository, &entry.path);
        let head = match options.any(&["-s", "--stage"]) {
            true => format!("{:06o} {} {}\t", entry.mode.bits(), entry.id, entry.stage),
            false => String::new(),
        };
        out.push(&format!("{head}{path}{end}"))?;
    }
    Ok(out)
}

pub(super) async fn cat_file(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!("cat-file", args, &[], &["-p", "-t", "-s", "-e"]);
    let mut repository = call.open().await?;
    let (form, name) = match (&options.given[..], &options.operands[..]) {
        ([(form, _)], [name]) => (*form, *name),
        ([], [_, name]) => ("-p", *name),
        _ => return super::usage("usage: git cat-file (-p | -t | -s | -e) <object>"),
    };
    let id = named(&mut repository, name).await?;
    let (kind, body) = repository.object(id).await?;
    let mut out = Output::default();
    match form {
        "-t" => out.push(&format!("{}\n", files::kind_name(kind)))?,
        "-s" => out.push(&format!("{}\n", body.len()))?,
        "-e" => {}
        _ if kind == crate::git::ObjectKind::Tree => {
            for entry in parse_tree(&body)? {
                let kind = files::mode_kind(entry.mode);
                out.push(&format!(
                    "{:06o} {kind} {}\t{}\n",
                    entry.mode.bits(),
                    entry.id,
                    entry.name
                ))?;
            }
        }
        _ => out.push(&String::from_utf8_lossy(&body))?,
    }
    Ok(out)
}

/// An object by name, also as `COMMIT:PATH`.
pub(super) async fn named(
    repository: &mut Repository,
    name: &str,
) -> Result<crate::git::ObjectId, GitError> {
    if let Some(base) = name.strip_suffix("^{tree}") {
        let id = repository.resolve(base).await?;
        return Ok(repository.commit_at(id).await?.1.tree);
    }
    let Some((commit, path)) = name.split_once(':') else {
        return repository.resolve(name).await;
    };
    let path = path
        .strip_prefix("./")
        .unwrap_or(path)
        .trim_end_matches('/');
    if commit.is_empty() {
        let index = repository.index().await?;
        let entry = index.get(path).map(|entry| entry.id);
        return entry
            .ok_or_else(|| GitError::Unknown(format!("fatal: path '{path}' is not in the index")));
    }
    let id = repository.resolve(commit).await?;
    let mut at = repository.commit_at(id).await?.1.tree;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let entries = repository.tree(at).await?;
        let entry = entries.iter().find(|entry| entry.name == part);
        at = entry
            .ok_or_else(|| {
                GitError::Unknown(format!("fatal: path '{path}' does not exist in '{commit}'"))
            })?
            .id;
    }
    Ok(at)
}

/// The branch that `HEAD` is on, as decorations show it.
pub(super) async fn head_name(repository: &Repository) -> Result<Option<String>, GitError> {
    Ok(match repository.head().await? {
        Head::Branch(name) => Some(name),
        Head::Detached(_) => None,
    })
}
