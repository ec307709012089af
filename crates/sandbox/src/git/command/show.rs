//! `log` and `show`, and how changes are printed.

use std::{collections::BTreeMap, ops::Range};

use super::{Call, Done, Options, Output, inspect, options};
use crate::{
    git::{
        Commit, DiffSide, FileChange, FileState, GitError, LogEntry, ObjectId, ObjectKind,
        Repository, Signature,
    },
    workspace::absolute,
};

/// How changes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Patch,
    Stat,
    ShortStat,
    NumStat,
    Names,
    NamesAndStates,
}

impl Form {
    pub(super) fn of(option: &str) -> Option<Self> {
        match option {
            "-p" | "--patch" => Some(Self::Patch),
            "--stat" => Some(Self::Stat),
            "--shortstat" => Some(Self::ShortStat),
            "--numstat" => Some(Self::NumStat),
            "--name-only" => Some(Self::Names),
            "--name-status" => Some(Self::NamesAndStates),
            _ => None,
        }
    }
}

/// Prints changes.
pub(super) async fn changes(
    repository: &mut Repository,
    changes: &[FileChange],
    form: Form,
    live: bool,
    out: &mut Output,
) -> Result<(), GitError> {
    match form {
        Form::Patch => {
            for change in changes {
                out.push(&repository.render_change(change, live).await?)?;
            }
        }
        Form::Names | Form::NamesAndStates => {
            for change in changes {
                if form == Form::NamesAndStates {
                    out.push(&format!("{}\t", change.state.letter()))?;
                }
                out.push(&format!("{}\n", change.path))?;
            }
        }
        Form::NumStat => {
            for change in changes {
                let line = match repository.counted(change, live).await? {
                    Some((more, less)) => format!("{more}\t{less}\t{}\n", change.path),
                    None => format!("-\t-\t{}\n", change.path),
                };
                out.push(&line)?;
            }
        }
        Form::Stat | Form::ShortStat => {
            out.push(&stat(repository, changes, form == Form::Stat, live).await?)?
        }
    }
    Ok(())
}

async fn stat(
    repository: &mut Repository,
    changes: &[FileChange],
    each: bool,
    live: bool,
) -> Result<String, GitError> {
    let (mut rows, mut more, mut less) = (Vec::new(), 0, 0);
    for change in changes {
        let counted = repository.counted(change, live).await?;
        let (plus, minus) = counted.unwrap_or((0, 0));
        more += plus;
        less += minus;
        rows.push((change.path.as_str(), counted));
    }
    let mut out = String::new();
    let width = rows
        .iter()
        .map(|(path, _)| path.chars().count())
        .max()
        .unwrap_or(0);
    let most = rows
        .iter()
        .filter_map(|(_, counted)| counted.map(|(plus, minus)| plus + minus))
        .max()
        .unwrap_or(0);
    let digits = most.to_string().len();
    for (path, counted) in rows.iter().filter(|_| each) {
        let pad = " ".repeat(width.saturating_sub(path.chars().count()));
        match counted {
            Some((plus, minus)) => {
                // The bar has at most forty signs.
                let scale = |count: usize| {
                    if most > 40 {
                        (count * 40).div_ceil(most)
                    } else {
                        count
                    }
                };
                let bar = "+".repeat(scale(*plus)) + &"-".repeat(scale(*minus));
                let space = if bar.is_empty() { "" } else { " " };
                out.push_str(&format!(
                    " {path}{pad} | {:>digits$}{space}{bar}\n",
                    plus + minus
                ));
            }
            None => out.push_str(&format!(" {path}{pad} | Bin\n")),
        }
    }
    if changes.is_empty() {
        return Ok(out);
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let files = changes.len();
    out.push_str(&format!(" {files} file{} changed", plural(files)));
    if more > 0 || less == 0 {
        out.push_str(&format!(", {more} insertion{}(+)", plural(more)));
    }
    if less > 0 || more == 0 {
        out.push_str(&format!(", {less} deletion{}(-)", plural(less)));
    }
    Ok(out + "\n")
}

/// The line that sums changes up.
pub(super) async fn summary(
    repository: &mut Repository,
    changes: &[FileChange],
) -> Result<String, GitError> {
    stat(repository, changes, false, false).await
}

/// Names that point to commits.
type Decorations = BTreeMap<ObjectId, Vec<String>>;

async fn decorations(repository: &mut Repository) -> Result<Decorations, GitError> {
    let mut names = Decorations::new();
    let head = inspect::head_name(repository).await?;
    if let Some(id) = repository.head_id().await? {
        let label = head
            .as_ref()
            .map_or("HEAD".into(), |name| format!("HEAD -> {name}"));
        names.entry(id).or_default().push(label);
    }
    let mut all: Vec<_> = repository.refs("refs/").await?.into_iter().collect();
    all.sort_by_key(|(full, _)| !full.starts_with("refs/tags/"));
    for (full, id) in all {
        let label = if let Some(tag) = full.strip_prefix("refs/tags/") {
            format!("tag: {tag}")
        } else if let Some(branch) = full.strip_prefix("refs/heads/") {
            if head.as_deref() == Some(branch) {
                continue;
            }
            branch.to_owned()
        } else if let Some(remote) = full.strip_prefix("refs/remotes/") {
            remote.to_owned()
        } else {
            continue;
        };
        let id = match repository.commit_at(id).await {
            Ok((id, _)) => id,
            Err(_) => continue,
        };
        names.entry(id).or_default().push(label);
    }
    Ok(names)
}

/// The options of `git log`.
const LOG: &[&str] = &[
    "-n",
    "--max-count",
    "--author",
    "--grep",
    "--oneline",
    "--stat",
    "--shortstat",
    "--numstat",
    "--name-only",
    "--name-status",
    "-p",
    "--patch",
    "--format",
    "--pretty",
    "--all",
    "--reverse",
    "--no-color",
    "--color",
    "--decorate",
    "--no-decorate",
    "--graph",
    "--abbrev-commit",
    "--date",
    "--no-merges",
    "--merges",
    "--first-parent",
    "--follow",
    "--skip",
];

pub(super) async fn log(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "log",
        args,
        &["-n", "--max-count", "--author", "--grep"],
        LOG
    );
    if options.any(&["--graph", "--first-parent", "--follow"]) {
        return Err(GitError::Unsupported(
            "git log --graph, --first-parent and --follow".into(),
        ));
    }
    let mut repository = call.open().await?;
    let (mut from, mut without, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for (at, operand) in options.operands.iter().enumerate() {
        if options.dashes.is_some_and(|dashes| at >= dashes) {
            paths.push(*operand);
        } else if let Some((one, other)) = operand.split_once("..") {
            let name = |name: &str| {
                if name.is_empty() {
                    "HEAD".to_owned()
                } else {
                    name.to_owned()
                }
            };
            without.push(repository.resolve(&name(one)).await?);
            from.push(repository.resolve(&name(other)).await?);
        } else if let Some(name) = operand.strip_prefix('^') {
            without.push(repository.resolve(name).await?);
        } else {
            match repository.resolve(operand).await {
                Ok(id) => from.push(id),
                Err(_)
                    if call
                        .overlay
                        .lstat(&absolute(operand, &call.cwd))
                        .await
                        .is_ok() =>
                {
                    paths.push(*operand)
                }
                Err(error) => return Err(error),
            }
        }
    }
    if options.has("--all") {
        from.extend(repository.refs("refs/").await?.into_values());
    }
    if from.is_empty() {
        let Some(head) = repository.head_id().await? else {
            let name = inspect::head_name(&repository).await?.unwrap_or_default();
            return Err(GitError::Unknown(format!(
                "fatal: your current branch '{name}' does not have any commits yet"
            )));
        };
        from.push(head);
    }
    let paths = call.all_inside(&repository, &paths)?;
    let number = |names: &[&str]| match options.value(names) {
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| GitError::Unknown(format!("fatal: '{text}': not an integer"))),
        None => Ok(usize::MAX),
    };
    let max = number(&["-n", "--max-count"])?;
    let skip = match number(&["--skip"])? {
        usize::MAX => 0,
        skip => skip,
    };
    let filtered = !paths.is_empty()
        || options.any(&["--author", "--grep", "--merges", "--no-merges"])
        || skip > 0;
    let limit = if filtered { usize::MAX } else { max };
    let found = repository.log(&from, &without, limit).await?;
    let mut kept = kept(
        &mut repository,
        &options,
        found,
        &paths,
        skip..max.saturating_add(skip),
    )
    .await?;
    if options.has("--reverse") {
        kept.reverse();
    }
    written(&mut repository, &options, &kept, &paths).await
}

/// The commits in the style that the options ask for.
async fn written(
    repository: &mut Repository,
    options: &Options<'_>,
    kept: &[LogEntry],
    paths: &[String],
) -> Done {
    let style = Style::of(options)?;
    let names = match style {
        // As git does where nobody looks at a terminal.
        Style::Medium | Style::OneLine if !options.has("--decorate") => Decorations::new(),
        Style::Medium | Style::OneLine | Style::Custom(_) => decorations(repository).await?,
    };
    let form = options
        .given
        .iter()
        .map(|(name, _)| *name)
        .find_map(Form::of);
    let mut out = Output::default();
    for (at, entry) in kept.iter().enumerate() {
        if at > 0 && style == Style::Medium {
            out.push("\n")?;
        }
        out.push(&style.render(entry, &names))?;
        if let Some(form) = form {
            let found = of_commit(repository, &entry.commit, paths).await?;
            if !found.is_empty() && entry.commit.parents.len() < 2 {
                out.push(if style == Style::OneLine { "" } else { "\n" })?;
                changes(repository, &found, form, false, &mut out).await?;
            }
        }
    }
    Ok(out)
}

/// The commits that the options ask for, by their number among these.
async fn kept(
    repository: &mut Repository,
    options: &Options<'_>,
    found: Vec<LogEntry>,
    paths: &[String],
    numbers: Range<usize>,
) -> Result<Vec<LogEntry>, GitError> {
    let mut kept = Vec::new();
    let mut number = 0;
    for entry in found {
        if number >= numbers.end {
            break;
        }
        let merge = entry.commit.parents.len() > 1;
        let author = &entry.commit.author;
        let author = format!("{} <{}>", author.name, author.email);
        let unlike = |name: &str, text: &str| {
            let wanted = options.value(&[name]);
            wanted.is_some_and(|wanted| !text.contains(wanted))
        };
        let hidden = unlike("--author", &author)
            || unlike("--grep", &entry.commit.message)
            || (options.has("--merges") && !merge)
            || (options.has("--no-merges") && merge);
        if hidden
            || (!paths.is_empty()
                && of_commit(repository, &entry.commit, paths)
                    .await?
                    .is_empty())
        {
            continue;
        }
        if numbers.contains(&number) {
            kept.push(entry);
        }
        number += 1;
    }
    Ok(kept)
}

/// What a commit changed against its first parent.
async fn of_commit(
    repository: &mut Repository,
    commit: &Commit,
    paths: &[String],
) -> Result<Vec<FileChange>, GitError> {
    let new = repository.files(Some(commit.tree)).await?;
    // A merge that took all of these files from one side changed nothing in them.
    for parent in commit.parents.iter().skip(1).filter(|_| !paths.is_empty()) {
        let mut found =
            crate::git::changes::compare(&repository.commit_files(Some(*parent)).await?, &new);
        found.retain(|change| crate::git::changes::wanted(&change.path, paths));
        if found.is_empty() {
            return Ok(found);
        }
    }
    let old = match commit.parents.first() {
        Some(parent) if repository.has(*parent).await? => {
            repository.commit_files(Some(*parent)).await?
        }
        _ => BTreeMap::new(),
    };
    let mut found = crate::git::changes::compare(&old, &new);
    found.retain(|change| crate::git::changes::wanted(&change.path, paths));
    Ok(found)
}

pub(super) async fn show(call: &Call<'_>, args: &[&str]) -> Done {
    let options = options!(
        "show",
        args,
        &[],
        &[
            "--stat",
            "--shortstat",
            "--numstat",
            "--name-only",
            "--name-status",
            "-p",
            "--patch",
            "--oneline",
            "--format",
            "--pretty",
            "-s",
            "--no-patch",
            "--no-color",
            "--date",
            "--abbrev-commit"
        ]
    );
    let mut repository = call.open().await?;
    let style = Style::of(&options)?;
    let names = match style {
        // As git does where nobody looks at a terminal.
        Style::Medium | Style::OneLine if !options.has("--decorate") => Decorations::new(),
        Style::Medium | Style::OneLine | Style::Custom(_) => decorations(&mut repository).await?,
    };
    let mut out = Output::default();
    let objects = if options.operands.is_empty() {
        vec!["HEAD"]
    } else {
        options.operands.clone()
    };
    for name in objects {
        let id = inspect::named(&mut repository, name).await?;
        match repository.object(id).await? {
            (ObjectKind::Blob, body) => out.push(&String::from_utf8_lossy(&body))?,
            (ObjectKind::Tree, body) => {
                out.push(&format!("tree {name}\n\n"))?;
                for entry in crate::git::object::parse_tree(&body)? {
                    let slash = if entry.mode == crate::git::object::Mode::Tree {
                        "/"
                    } else {
                        ""
                    };
                    out.push(&format!("{}{slash}\n", entry.name))?;
                }
            }
            (ObjectKind::Commit | ObjectKind::Tag, _) => {
                let (id, commit) = repository.commit_at(id).await?;
                let found = of_commit(&mut repository, &commit, &[]).await?;
                let merge = commit.parents.len() > 1;
                out.push(&style.render(&LogEntry { id, commit }, &names))?;
                if !options.any(&["-s", "--no-patch"]) && !merge {
                    out.push(if style == Style::OneLine { "" } else { "\n" })?;
                    let form = options
                        .given
                        .iter()
                        .map(|(name, _)| *name)
                        .find_map(Form::of);
                    changes(
                        &mut repository,
                        &found,
                        form.unwrap_or(Form::Patch),
                        false,
                        &mut out,
                    )
                    .await?;
                }
            }
        }
    }
    Ok(out)
}

/// How a commit is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Style {
    Medium,
    OneLine,
    /// A format with placeholders.
    Custom(String),
}

impl Style {
    fn of(options: &super::Options<'_>) -> Result<Self, GitError> {
        if options.has("--oneline") {
            return Ok(Self::OneLine);
        }
        Ok(match options.value(&["--format", "--pretty"]) {
            None | Some("medium") => Self::Medium,
            Some("oneline") => Self::OneLine,
            Some("short" | "full" | "fuller" | "raw" | "email") => {
                return Err(GitError::Unsupported(
                    "this --pretty format (write the placeholders out)".into(),
                ));
            }
            Some(format) => {
                let format = format
                    .strip_prefix("format:")
                    .or_else(|| format.strip_prefix("tformat:"))
                    .unwrap_or(format);
                Self::Custom(format.to_owned())
            }
        })
    }

    fn render(&self, entry: &LogEntry, names: &Decorations) -> String {
        let (id, commit) = (entry.id, &entry.commit);
        let decoration = names
            .get(&id)
            .map(|names| format!(" ({})", names.join(", ")))
            .unwrap_or_default();
        match self {
            Self::OneLine => format!("{}{decoration} {}\n", id.short(), commit.subject()),
            Self::Medium => {
                let mut out = format!("commit {id}{decoration}\n");
                if commit.parents.len() > 1 {
                    let parents: Vec<String> = commit.parents.iter().map(ObjectId::short).collect();
                    out.push_str(&format!("Merge: {}\n", parents.join(" ")));
                }
                let who = &commit.author;
                out.push_str(&format!(
                    "Author: {} <{}>\nDate:   {}\n\n",
                    who.name,
                    who.email,
                    date(who)
                ));
                for line in commit.message.trim_end().lines() {
                    out.push_str(&if line.is_empty() {
                        "\n".into()
                    } else {
                        format!("    {line}\n")
                    });
                }
                out
            }
            Self::Custom(format) => expand(format, entry, &decoration) + "\n",
        }
    }
}

/// Replaces the placeholders of a format; one that is not known stays as it is.
fn expand(format: &str, entry: &LogEntry, decoration: &str) -> String {
    let (id, commit) = (entry.id, &entry.commit);
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let body = || {
            let text = commit.message.trim_start();
            text.split_once('\n')
                .map_or("", |(_, body)| body)
                .trim_start_matches('\n')
                .to_owned()
        };
        let join = |short: bool| {
            let parents = commit
                .parents
                .iter()
                .map(|id| if short { id.short() } else { id.to_string() });
            parents.collect::<Vec<_>>().join(" ")
        };
        let known: [(&str, &dyn Fn() -> String); 25] = [
            ("%H", &|| id.to_string()),
            ("%h", &|| id.short()),
            ("%T", &|| commit.tree.to_string()),
            ("%t", &|| commit.tree.short()),
            ("%P", &|| join(false)),
            ("%p", &|| join(true)),
            ("%an", &|| commit.author.name.clone()),
            ("%ae", &|| commit.author.email.clone()),
            ("%ad", &|| date(&commit.author)),
            ("%at", &|| commit.author.seconds.to_string()),
            ("%ai", &|| iso(&commit.author)),
            ("%aI", &|| iso(&commit.author)),
            ("%as", &|| {
                iso(&commit.author)
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }),
            ("%cn", &|| commit.committer.name.clone()),
            ("%ce", &|| commit.committer.email.clone()),
            ("%cd", &|| date(&commit.committer)),
            ("%ct", &|| commit.committer.seconds.to_string()),
            ("%ci", &|| iso(&commit.committer)),
            ("%s", &|| commit.subject().to_owned()),
            ("%b", &body),
            ("%B", &|| commit.message.clone()),
            ("%d", &|| decoration.to_owned()),
            ("%D", &|| {
                decoration
                    .trim_start_matches(" (")
                    .trim_end_matches(')')
                    .to_owned()
            }),
            ("%n", &|| "\n".into()),
            ("%%", &|| "%".into()),
        ];
        match known.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                out.push_str(&value());
                rest = &rest[name.len()..];
            }
            None => {
                out.push('%');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// Year, month, day, and seconds of the day, of a place's own clock.
fn civil(who: &Signature) -> (i64, usize, i64, i64) {
    let local = who.seconds.saturating_add(i64::from(who.offset) * 60);
    let (days, seconds) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    // Days since the first of March of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), date, seconds)
}

/// `Thu Jan 1 00:00:00 1970 +0000`.
fn date(who: &Signature) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day, seconds) = civil(who);
    let local = who.seconds.saturating_add(i64::from(who.offset) * 60);
    let weekday = usize::try_from(local.div_euclid(86_400).rem_euclid(7)).unwrap_or(0);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{} {} {day} {hour:02}:{minute:02}:{second:02} {year} {}",
        DAYS.get(weekday).copied().unwrap_or_default(),
        MONTHS.get(month - 1).copied().unwrap_or_default(),
        who.zone()
    )
}

/// `1970-01-01 00:00:00 +0000`.
fn iso(who: &Signature) -> String {
    let (year, month, day, seconds) = civil(who);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} {}",
        who.zone()
    )
}

/// The changes between two commits in one line, for `pull` and `merge`.
pub(super) async fn between(
    repository: &mut Repository,
    old: ObjectId,
    new: ObjectId,
) -> Result<String, GitError> {
    let found = repository
        .changes(DiffSide::Commit(old), DiffSide::Commit(new), &[])
        .await?;
    let mut text = stat(repository, &found, true, false).await?;
    for change in found {
        match (change.state, change.old, change.new) {
            (FileState::Added, _, Some((mode, _))) => {
                text.push_str(&format!(
                    " create mode {:06o} {}\n",
                    mode.bits(),
                    change.path
                ));
            }
            (FileState::Deleted, Some((mode, _)), _) => {
                text.push_str(&format!(
                    " delete mode {:06o} {}\n",
                    mode.bits(),
                    change.path
                ));
            }
            _ => {}
        }
    }
    Ok(text)
}
