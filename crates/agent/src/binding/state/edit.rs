//! Changes of text: replacing, plans, batches, patches. A batch is made whole or not at all.

use bowline_sandbox::{
    edits::hash_file,
    isolate::{Thrown, Value},
    search::{self, MAX_DIFF},
    workspace::{EntryKind, Overlay, WORKING_DIRECTORY, WorkspaceError, WriteOptions},
};
use bytes::Bytes;
use regex::{NoExpand, Regex};
use serde_json::{Value as Json, json};

use super::{Outcome, failed, json::pretty, methods, search::regex};
use crate::binding::{CallError, arguments::Arguments};

/// Instructions of one batch.
const MAX_INSTRUCTIONS: usize = 10_000;

/// The text of a file that can be compared and changed.
pub(super) async fn file_text(files: &Overlay, path: &str) -> Result<String, CallError> {
    if files.stat(path).await?.size > MAX_DIFF {
        let (path, limit) = (path.to_owned(), MAX_DIFF);
        return Err(WorkspaceError::TooLarge { path, limit }.into());
    }
    let bytes = files.read(path).await?.to_vec();
    String::from_utf8(bytes).map_err(|_| failed("EINVAL", format!("{path} is not UTF-8 text")))
}

/// What to replace and by what.
struct Replacing {
    regex: Regex,
    replacement: String,
}

impl Replacing {
    fn of(with: &mut Arguments, options: &mut Arguments) -> Result<Self, CallError> {
        let (search, replacement) = (with.text("search")?, with.text("replacement")?);
        let (sensitive, word) = (
            options.flag("caseSensitive", true)?,
            options.flag("wholeWord", false)?,
        );
        let regex = regex(&search, options.flag("regex", false)?, sensitive, word)?;
        Ok(Self { regex, replacement })
    }

    /// The text afterwards, and how often.
    fn in_text(&self, text: &str) -> (String, usize) {
        let count = self.regex.find_iter(text).count();
        let after = self.regex.replace_all(text, NoExpand(&self.replacement));
        (after.into_owned(), count)
    }

    async fn in_file(&self, files: &Overlay, path: &str, before: &str) -> Result<Json, CallError> {
        let (after, replaced) = self.in_text(before);
        let diff = search::unified_diff(before, &after, path, path);
        if after != before {
            files
                .write(path, Bytes::from(after), &WriteOptions::default())
                .await?;
        }
        Ok(json!({"path": path, "replaced": replaced, "diff": diff}))
    }
}

pub(super) async fn replace(files: &Overlay, mut with: Arguments) -> Outcome {
    let path = with.text("path")?;
    let mut options = with.table("options", methods::REPLACE)?;
    let replacing = Replacing::of(&mut with, &mut options)?;
    let before = file_text(files, &path).await?;
    Ok(Value::from(replacing.in_file(files, &path, &before).await?))
}

pub(super) async fn replace_all(files: &Overlay, mut with: Arguments) -> Outcome {
    let pattern = with.text("pattern")?;
    let mut options = with.table("options", methods::REPLACE_ALL)?;
    let replacing = Replacing::of(&mut with, &mut options)?;
    let dry_run = batch_options(&mut options)?;
    let writes = files.child();
    let done = replaced(&writes, &pattern, &replacing).await;
    let (changed, total) = done.map_err(|error| batch_failed("replaceInFiles", error))?;
    if !dry_run {
        writes.merge()?;
    }
    Ok(Value::from(json!({
        "dryRun": dry_run,
        "totalFiles": changed.len(),
        "totalReplacements": total,
        "files": changed,
    })))
}

async fn replaced(
    files: &Overlay,
    pattern: &str,
    replacing: &Replacing,
) -> Result<(Vec<Json>, u64), CallError> {
    let (mut changed, mut total) = (Vec::new(), 0);
    for found in search::glob(files, pattern, WORKING_DIRECTORY).await? {
        if found.kind != EntryKind::File {
            continue;
        }
        let bytes = files.read(&found.path).await?;
        let Ok(before) = std::str::from_utf8(&bytes) else {
            continue;
        };
        if bytes.len() as u64 > MAX_DIFF || !replacing.regex.is_match(before) {
            continue;
        }
        let result = replacing.in_file(files, &found.path, before).await?;
        total += result["replaced"].as_u64().unwrap_or(0);
        changed.push(result);
    }
    Ok((changed, total))
}

/// Whether it is a dry run. A batch always rolls back, so `rollbackOnError` makes no difference.
fn batch_options(options: &mut Arguments) -> Result<bool, CallError> {
    options.flag("rollbackOnError", true)?;
    options.flag("dryRun", false)
}

/// An error of a batch, nothing of which was done.
fn batch_failed(operation: &str, error: CallError) -> CallError {
    match error {
        CallError::Store(error) => CallError::Store(error),
        CallError::Thrown(thrown) => {
            let mut batch = Thrown::new("StateBatchOperationError", thrown.message.clone())
                .with("operation", Value::from(operation))
                .with("rolledBack", Value::Bool(true));
            batch.properties.extend(thrown.properties);
            CallError::Thrown(Box::new(batch))
        }
    }
}

/// One change that is planned; no content when the file goes.
struct Planned {
    instruction: Value,
    path: String,
    base: String,
    content: Option<String>,
    diff: String,
    changed: bool,
}

/// Plans instructions on an overlay of their own, each on the result of those before.
async fn planned(files: &Overlay, instructions: Vec<Value>) -> Result<Vec<Planned>, CallError> {
    if instructions.len() > MAX_INSTRUCTIONS {
        let message = format!("more than {MAX_INSTRUCTIONS} instructions; make several batches");
        return Err(CallError::new("RangeError", message));
    }
    let writes = files.child();
    let mut plan = Vec::with_capacity(instructions.len());
    for instruction in instructions {
        let keys = &[
            "kind",
            "path",
            "content",
            "search",
            "replacement",
            "value",
            "options",
        ];
        let mut with = Arguments::fields("an instruction", instruction.clone(), keys)?;
        let (kind, path) = (with.text("kind")?, with.text("path")?);
        let before = match file_text(&writes, &path).await {
            Ok(text) => Some(text),
            Err(CallError::Store(error)) => return Err(error.into()),
            Err(error) => match writes.exists(&path).await? {
                true => return Err(error),
                false => None,
            },
        };
        let after = instructed(&kind, &path, &mut with, before.as_deref())?;
        match &after {
            Some(text) => {
                let content = Bytes::from(text.clone());
                writes
                    .write(&path, content, &WriteOptions::with_parents())
                    .await?;
            }
            None => writes.remove(&path, false, false).await?,
        }
        let names = (
            before.as_ref().map_or("/dev/null", |_| path.as_str()),
            after.as_ref().map_or("/dev/null", |_| path.as_str()),
        );
        let (old, new) = (
            before.as_deref().unwrap_or(""),
            after.as_deref().unwrap_or(""),
        );
        plan.push(Planned {
            instruction,
            base: base(files, &path).await?,
            changed: before != after,
            diff: search::unified_diff(old, new, names.0, names.1),
            content: after,
            path,
        });
    }
    Ok(plan)
}

/// What a file is before the batch: its hash, or nothing when there is none.
async fn base(files: &Overlay, path: &str) -> Result<String, CallError> {
    match hash_file(files, path).await {
        Err(WorkspaceError::NotFound(_)) => Ok(String::new()),
        hash => Ok(hash?),
    }
}

/// The text of a file after an instruction.
fn instructed(
    kind: &str,
    path: &str,
    with: &mut Arguments,
    before: Option<&str>,
) -> Result<Option<String>, CallError> {
    let there = || before.ok_or_else(|| WorkspaceError::NotFound(path.to_owned()));
    match kind {
        "write" => Ok(Some(with.text("content")?)),
        "replace" => {
            let mut options = with.table("options", methods::REPLACE)?;
            let replacing = Replacing::of(with, &mut options)?;
            let (after, count) = replacing.in_text(there()?);
            if count == 0 {
                return Err(failed(
                    "EINVAL",
                    format!("the text to replace is not in {path}"),
                ));
            }
            Ok(Some(after))
        }
        "writeJson" => {
            let spaces = with.table("options", &["spaces"])?.count("spaces")?;
            let value = with.take_any("value").unwrap_or_default();
            let text = pretty(&value, spaces).and_then(|text| String::from_utf8(text).ok());
            text.map(Some)
                .ok_or_else(|| with.wrong("value has no JSON form"))
        }
        "remove" => there().map(|_| None).map_err(CallError::from),
        _ => Err(with.wrong("kind must be write, replace, writeJson or remove")),
    }
}

pub(super) async fn plan(files: &Overlay, mut with: Arguments) -> Outcome {
    let plan = planned(files, with.list("instructions")?).await?;
    let (total, changed) = (plan.len(), plan.iter().filter(|edit| edit.changed).count());
    let edits = plan.into_iter().map(|edit| {
        Value::Object(vec![
            ("instruction".to_owned(), edit.instruction),
            ("path".to_owned(), Value::String(edit.path)),
            ("changed".to_owned(), Value::Bool(edit.changed)),
            (
                "content".to_owned(),
                edit.content.map_or(Value::Null, Value::String),
            ),
            ("diff".to_owned(), Value::String(edit.diff)),
            ("base".to_owned(), Value::String(edit.base)),
        ])
    });
    Ok(Value::Object(vec![
        ("edits".to_owned(), Value::Array(edits.collect())),
        ("totalChanged".to_owned(), Value::Number(changed as f64)),
        ("totalInstructions".to_owned(), Value::Number(total as f64)),
    ]))
}

pub(super) async fn apply(files: &Overlay, mut with: Arguments) -> Outcome {
    let instructions = with.list("edits")?;
    let dry_run = batch_options(&mut with.table("options", methods::BATCH)?)?;
    let done = async {
        let plan = planned(files, instructions).await?;
        made(files, plan, dry_run).await
    };
    done.await
        .map_err(|error| batch_failed("applyEdits", error))
}

pub(super) async fn apply_plan(files: &Overlay, mut with: Arguments) -> Outcome {
    let plan = with.need("plan")?;
    let dry_run = batch_options(&mut with.table("options", methods::BATCH)?)?;
    let keys = &["edits", "totalChanged", "totalInstructions"];
    let edits = Arguments::fields("state.applyEditPlan: plan", plan, keys)?.list("edits")?;
    let done = async {
        let mut plan = Vec::with_capacity(edits.len());
        for edit in edits {
            plan.push(restored(files, edit).await?);
        }
        made(files, plan, dry_run).await
    };
    done.await
        .map_err(|error| batch_failed("applyEditPlan", error))
}

/// An edit of a plan that came back from the program; fails when its file is another one meanwhile.
async fn restored(files: &Overlay, edit: Value) -> Result<Planned, CallError> {
    let keys = &["instruction", "path", "changed", "content", "diff", "base"];
    let mut with = Arguments::fields("state.applyEditPlan: an edit", edit, keys)?;
    let path = with.text("path")?;
    let now = base(files, &path).await?;
    if with.text_or_none("base")?.is_some_and(|base| base != now) {
        return Err(WorkspaceError::Conflict(path).into());
    }
    Ok(Planned {
        instruction: with.take("instruction").unwrap_or_default(),
        content: with.text_or_none("content")?,
        diff: with.text_or_none("diff")?.unwrap_or_default(),
        changed: with.flag("changed", true)?,
        base: now,
        path,
    })
}

async fn made(files: &Overlay, plan: Vec<Planned>, dry_run: bool) -> Outcome {
    let writes = files.child();
    for edit in plan.iter().filter(|edit| edit.changed) {
        match &edit.content {
            Some(text) => {
                let content = Bytes::from(text.clone());
                writes
                    .write(&edit.path, content, &WriteOptions::with_parents())
                    .await?;
            }
            None => writes.remove(&edit.path, false, false).await?,
        }
    }
    if !dry_run {
        writes.merge()?;
    }
    let edits: Vec<Json> = plan
        .iter()
        .map(|edit| json!({"path": edit.path, "changed": edit.changed, "diff": edit.diff}))
        .collect();
    Ok(Value::from(json!({
        "dryRun": dry_run,
        "totalChanged": plan.iter().filter(|edit| edit.changed).count(),
        "totalEdits": plan.len(),
        "edits": edits,
    })))
}

pub(super) async fn patch(files: &Overlay, mut with: Arguments) -> Outcome {
    let diff = with.text("diff")?;
    let base = with.table("options", &["cwd"])?.text_or_none("cwd")?;
    let base = base.as_deref().unwrap_or(WORKING_DIRECTORY);
    let patched = search::patch(files, &diff, base).await?;
    let shown = patched.into_iter().map(|file| {
        Value::from(json!({
            "path": file.path,
            "hunks": file.hunks,
            "offset": file.offset,
            "fuzz": file.fuzz,
        }))
    });
    Ok(Value::Array(shown.collect()))
}
