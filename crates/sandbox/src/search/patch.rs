//! Applying unified diffs.

use bytes::Bytes;

use super::{SearchError, diff::text};
use crate::workspace::{Overlay, WorkspaceError, WriteOptions, absolute};

/// Lines of context, at each end of a hunk, that may differ.
const FUZZ: usize = 2;

/// One file of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch {
    /// The path before; `None` for a file that is made.
    pub old: Option<String>,
    /// The path after; `None` for a file that is removed.
    pub new: Option<String>,
    hunks: Vec<Hunk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hunk {
    header: String,
    /// First line in the old file, from 0.
    start: usize,
    lines: Vec<(Sign, String)>,
    /// The old, the new file ends without a newline here.
    open_old: bool,
    open_new: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Keep,
    Remove,
    Add,
}

/// A hunk that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The file.
    pub path: String,
    /// The line of the patch that begins the hunk, or what is wrong with the file.
    pub hunk: String,
    /// Why.
    pub reason: String,
}

/// Why a patch was not applied; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PatchError {
    /// The text is not a unified diff.
    #[error("not a unified diff: line {line}: {reason}")]
    Malformed {
        /// Line of the patch, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Some hunks do not fit.
    #[error("the patch does not apply: {}", list(.0))]
    Rejected(Vec<Reject>),
    /// The files could not be read or written.
    #[error(transparent)]
    Search(#[from] SearchError),
}

impl From<WorkspaceError> for PatchError {
    fn from(error: WorkspaceError) -> Self {
        Self::Search(error.into())
    }
}

fn list(rejects: &[Reject]) -> String {
    let one = |reject: &Reject| format!("{}: {}: {}", reject.path, reject.hunk, reject.reason);
    rejects.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// The path, absolute.
    pub path: String,
    /// Hunks that were applied.
    pub hunks: usize,
    /// Largest distance, in lines, between where a hunk was said to be and where it fitted.
    pub offset: usize,
    /// Most lines of context that did not fit.
    pub fuzz: usize,
}

/// Applies a unified diff to the files below `base`: all of it or nothing. A hunk that is not where
/// it is said to be is looked for nearby, with up to two lines of context at each end left out.
///
/// # Errors
///
/// [`PatchError`].
pub async fn patch(overlay: &Overlay, diff: &str, base: &str) -> Result<Vec<Patched>, PatchError> {
    let writes = overlay.child();
    let (mut done, mut rejects) = (Vec::new(), Vec::new());
    for file in parse(diff)? {
        match patch_file(&writes, &file, base).await {
            Ok(patched) => done.push(patched),
            Err(PatchError::Rejected(more)) => rejects.extend(more),
            Err(error) => return Err(error),
        }
    }
    if !rejects.is_empty() {
        return Err(PatchError::Rejected(rejects));
    }
    writes.merge()?;
    Ok(done)
}

async fn patch_file(
    overlay: &Overlay,
    file: &FilePatch,
    base: &str,
) -> Result<Patched, PatchError> {
    let place = |path: &String| absolute(path, base);
    let (old, new) = (file.old.as_ref().map(place), file.new.as_ref().map(place));
    let path = new.clone().or_else(|| old.clone()).unwrap_or_default();
    let reject = |hunk: &str, reason: String| {
        PatchError::Rejected(vec![Reject {
            path: path.clone(),
            hunk: hunk.to_owned(),
            reason,
        }])
    };
    let before = match &old {
        Some(old) if !overlay.exists(old).await? => {
            return Err(reject("---", "there is no such file".into()));
        }
        Some(old) => text(overlay, old).await?,
        None if overlay.exists(&path).await? => {
            return Err(reject("+++", "the file exists already".into()));
        }
        None => String::new(),
    };
    let (after, offset, fuzz) =
        apply(&before, file).map_err(|(hunk, reason)| reject(&hunk, reason))?;
    match (&old, &new) {
        (Some(old), None) if after.is_empty() => overlay.remove(old, false, false).await?,
        (Some(_), None) => {
            return Err(reject(
                "+++",
                "the file is to be removed, but more is in it".into(),
            ));
        }
        _ => {
            overlay
                .write(&path, Bytes::from(after), &WriteOptions::with_parents())
                .await?
        }
    }
    if let (Some(old), Some(new)) = (&old, &new)
        && old != new
    {
        overlay.remove(old, false, false).await?;
    }
    Ok(Patched {
        path,
        hunks: file.hunks.len(),
        offset,
        fuzz,
    })
}

/// Applies the hunks of one file to a text; gives the text, the largest offset and the most fuzz, or
/// the hunk that does not fit and why.
///
/// # Errors
///
/// The header of the hunk, and the reason.
pub fn apply(text: &str, file: &FilePatch) -> Result<(String, usize, usize), (String, String)> {
    let ending = if text.find('\n').is_some_and(|at| text[..at].ends_with('\r')) {
        "\r\n"
    } else {
        "\n"
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out = String::with_capacity(text.len());
    let (mut done, mut shift, mut offset, mut fuzz) = (0usize, 0isize, 0, 0);
    for hunk in &file.hunks {
        let expected = hunk.start.saturating_add_signed(shift);
        let Some((at, cut)) = find(&lines, hunk, expected, done) else {
            return Err((hunk.header.clone(), "its lines are not in the file".into()));
        };
        let kept = context_cut(hunk, cut);
        let expected = expected + kept.start;
        offset = offset.max(at.abs_diff(expected));
        fuzz = fuzz.max(cut);
        shift += isize::try_from(at).unwrap_or(0) - isize::try_from(expected).unwrap_or(0);
        out.extend(lines.get(done..at).unwrap_or_default().iter().copied());
        done = at;
        for (sign, line) in hunk.lines.get(kept).unwrap_or_default() {
            match sign {
                Sign::Keep => {
                    out.push_str(lines.get(done).copied().unwrap_or_default());
                    done += 1;
                }
                Sign::Remove => done += 1,
                Sign::Add => {
                    if !out.is_empty() && !out.ends_with('\n') {
                        out.push_str(ending);
                    }
                    out.push_str(line);
                    out.push_str(ending);
                }
            }
        }
        if hunk.open_new && done == lines.len() {
            let closed = out.strip_suffix(ending).unwrap_or(&out).len();
            out.truncate(closed);
        } else if hunk.open_old && done == lines.len() && !out.is_empty() && !out.ends_with('\n') {
            out.push_str(ending);
        }
    }
    out.extend(lines.get(done..).unwrap_or_default().iter().copied());
    Ok((out, offset, fuzz))
}

/// Where a hunk fits, nearest to where it is expected, and with how much context left out.
fn find(lines: &[&str], hunk: &Hunk, expected: usize, from: usize) -> Option<(usize, usize)> {
    for cut in 0..=FUZZ {
        let kept = context_cut(hunk, cut);
        let skipped = hunk.lines.get(..kept.start).unwrap_or_default().len();
        let old: Vec<&str> = hunk
            .lines
            .get(kept)?
            .iter()
            .filter(|(sign, _)| *sign != Sign::Add)
            .map(|(_, line)| line.as_str())
            .collect();
        let expected = expected + skipped;
        let last = lines.len().saturating_sub(old.len());
        let fits = |at: usize| {
            at >= from
                && at + old.len() <= lines.len()
                && old
                    .iter()
                    .zip(lines.get(at..).unwrap_or_default())
                    .all(|(wanted, line)| *wanted == line.trim_end_matches(['\n', '\r']))
        };
        // Text without any old line goes exactly where it is said to, or to the end.
        if old.is_empty() {
            return Some((expected.min(lines.len()).max(from), cut));
        }
        for distance in 0..=lines.len() {
            let below = expected.checked_sub(distance).filter(|at| fits(*at));
            let above = expected
                .checked_add(distance)
                .filter(|at| *at <= last && fits(*at));
            if let Some(at) = below.or(above) {
                return Some((at, cut));
            }
        }
        if cut == 0 && !hunk.lines.iter().any(|(sign, _)| *sign == Sign::Keep) {
            return None;
        }
    }
    None
}

/// The lines of a hunk without so much context at each end.
fn context_cut(hunk: &Hunk, cut: usize) -> std::ops::Range<usize> {
    let keeps = |line: &&(Sign, String)| line.0 == Sign::Keep;
    let head = hunk.lines.iter().take_while(keeps).count().min(cut);
    let tail = hunk.lines.iter().rev().take_while(keeps).count().min(cut);
    head..hunk.lines.len().saturating_sub(tail).max(head)
}

/// Reads a unified diff.
///
/// # Errors
///
/// [`PatchError::Malformed`].
pub fn parse(diff: &str) -> Result<Vec<FilePatch>, PatchError> {
    let mut files: Vec<FilePatch> = Vec::new();
    let mut lines = diff.lines().enumerate().peekable();
    let malformed = |line: usize, reason: &str| PatchError::Malformed {
        line: line + 1,
        reason: reason.into(),
    };
    while let Some((number, line)) = lines.next() {
        if let Some(old) = line.strip_prefix("--- ") {
            let Some((_, new)) = lines.next_if(|(_, line)| line.starts_with("+++ ")) else {
                return Err(malformed(
                    number + 1,
                    "a +++ line should follow the --- line",
                ));
            };
            let (old, new) = (path_of(old), path_of(new.get(4..).unwrap_or_default()));
            if old.is_none() && new.is_none() {
                return Err(malformed(number, "both names are /dev/null"));
            }
            files.push(FilePatch {
                old,
                new,
                hunks: Vec::new(),
            });
        } else if line.starts_with("@@ ") {
            let file = files
                .last_mut()
                .ok_or_else(|| malformed(number, "a hunk stands before the name of its file"))?;
            let (start, old, new) =
                ranges(line).ok_or_else(|| malformed(number, "the @@ line cannot be read"))?;
            let mut hunk = Hunk {
                header: line.to_owned(),
                start,
                lines: Vec::new(),
                open_old: false,
                open_new: false,
            };
            let (mut old, mut new) = (old, new);
            while old > 0 || new > 0 || lines.peek().is_some_and(|(_, line)| line.starts_with('\\'))
            {
                let Some((number, line)) = lines.next() else {
                    return Err(malformed(
                        number,
                        "the hunk is shorter than its @@ line says",
                    ));
                };
                let (sign, content) = match line.as_bytes().first() {
                    Some(b'+') => (Sign::Add, &line[1..]),
                    Some(b'-') => (Sign::Remove, &line[1..]),
                    Some(b' ') => (Sign::Keep, &line[1..]),
                    None => (Sign::Keep, ""),
                    Some(b'\\') => {
                        let last = hunk.lines.last().map(|(sign, _)| *sign);
                        hunk.open_old |= last != Some(Sign::Add);
                        hunk.open_new |= last != Some(Sign::Remove);
                        continue;
                    }
                    Some(_) => {
                        return Err(malformed(
                            number,
                            "a line of a hunk begins with +, - or a space",
                        ));
                    }
                };
                let short = || malformed(number, "the hunk is longer than its @@ line says");
                if sign != Sign::Add {
                    old = old.checked_sub(1).ok_or_else(short)?;
                }
                if sign != Sign::Remove {
                    new = new.checked_sub(1).ok_or_else(short)?;
                }
                hunk.lines
                    .push((sign, content.trim_end_matches('\r').to_owned()));
            }
            file.hunks.push(hunk);
        }
    }
    if files.is_empty() {
        return Err(malformed(0, "there is no --- line"));
    }
    Ok(files)
}

/// The path of a `---` or `+++` line; `None` for `/dev/null`.
fn path_of(text: &str) -> Option<String> {
    let path = text.split('\t').next().unwrap_or_default().trim_end();
    if path == "/dev/null" {
        return None;
    }
    let path = path
        .strip_prefix("a/")
        .or_else(|| path.strip_prefix("b/"))
        .unwrap_or(path);
    Some(path.to_owned())
}

/// Start (from 0) and length before, and length after, of a `@@` line.
fn ranges(line: &str) -> Option<(usize, usize, usize)> {
    let mut parts = line.strip_prefix("@@ ")?.split(' ');
    let mut range = |sign: char| {
        let text = parts.next()?.strip_prefix(sign)?;
        let (start, length) = text.split_once(',').unwrap_or((text, "1"));
        Some((start.parse::<usize>().ok()?, length.parse::<usize>().ok()?))
    };
    let ((start, old), (_, new)) = (range('-')?, range('+')?);
    // A range without lines names the line before it.
    Some((
        if old == 0 {
            start
        } else {
            start.saturating_sub(1)
        },
        old,
        new,
    ))
}
