//! `state`: the files of the workspace.
//!
//! Methods take their arguments by position, or as one object with the names of the parameters. A
//! failure is thrown with the POSIX name as its `code`, and changes nothing. What a call writes is part
//! of the step that it belongs to, so no call has an effect outside.

mod edit;
mod files;
mod json;
mod methods;
mod search;

use async_trait::async_trait;
use bowline_sandbox::{
    archive::ArchiveError,
    edits::EditError,
    isolate::{Thrown, Value},
    json::JsonError,
    search::{PatchError, SearchError},
    workspace::{EntryKind, Overlay, WorkspaceError},
};

use super::{Binding, CallError, Method, arguments::Arguments};
use crate::tool::ToolContext;

/// The binding `state` over the files of a call's context.
#[derive(Debug)]
pub struct State {
    methods: Vec<Method>,
}

/// What an operation gives.
type Outcome = Result<Value, CallError>;

impl State {
    /// The name of its global.
    pub const NAME: &'static str = "state";

    /// All of it.
    pub fn new() -> Self {
        Self {
            methods: methods::all(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Binding for State {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn description(&self) -> &str {
        "The files of the workspace. Relative paths start in /workspace."
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError> {
        let Some(files) = &context.files else {
            return Err(CallError::new("Error", "there is no workspace"));
        };
        let Some(method) = self.methods.iter().find(|known| known.name == method) else {
            return Err(CallError::new("TypeError", "state has no such method"));
        };
        let arguments = Arguments::of(Self::NAME, method, arguments)?;
        tokio::select! {
            done = run(files, &method.name, arguments) => done,
            () = context.cancel.cancelled() => {
                Err(CallError::new("AbortError", "the call was cancelled"))
            }
        }
    }
}

async fn run(files: &Overlay, method: &str, with: Arguments) -> Outcome {
    match method {
        "getCapabilities" => Ok(methods::capabilities()),
        "readFile" => files::read(files, with).await,
        "readFileBytes" => files::read_bytes(files, with).await,
        "readJson" => json::read(files, with).await,
        "queryJson" => json::query(files, with).await,
        "exists" => files::exists(files, with).await,
        "stat" => files::stat(files, with, true).await,
        "lstat" => files::stat(files, with, false).await,
        "readdir" => files::list(files, with, false).await,
        "readdirWithFileTypes" => files::list(files, with, true).await,
        "readlink" => files::read_link(files, with).await,
        "realpath" => files::real_path(files, with).await,
        "resolvePath" => files::resolve(with),
        "hashFile" => files::hash(files, with).await,
        "detectFile" => files::detect(files, with).await,
        "glob" => search::glob(files, with).await,
        "find" => search::find(files, with).await,
        "walkTree" => search::walk(files, with).await,
        "summarizeTree" => search::summarize(files, with).await,
        "searchText" => search::text(files, with).await,
        "searchFiles" => search::all(files, with).await,
        "diff" => search::diff(files, with).await,
        "diffContent" => search::diff_content(files, with).await,
        "writeFile" | "writeFileBytes" => files::write(files, with).await,
        "appendFile" => files::append(files, with).await,
        "writeJson" => json::write(files, with).await,
        "updateJson" => json::update(files, with).await,
        "replaceInFile" => edit::replace(files, with).await,
        "replaceInFiles" => edit::replace_all(files, with).await,
        "mkdir" => files::mkdir(files, with).await,
        "rm" => files::remove(files, with).await,
        "removeTree" => files::remove_tree(files, with).await,
        "cp" => files::copy(files, with, false).await,
        "copyTree" => files::copy(files, with, true).await,
        "mv" | "moveTree" => files::rename(files, with).await,
        "symlink" => files::symlink(files, with).await,
        "chmod" => files::chmod(files, with).await,
        "utimes" => files::utimes(files, with).await,
        "planEdits" => edit::plan(files, with).await,
        "applyEditPlan" => edit::apply_plan(files, with).await,
        "applyEdits" => edit::apply(files, with).await,
        "patch" => edit::patch(files, with).await,
        "createArchive" => files::pack(files, with).await,
        "extractArchive" => files::unpack(files, with).await,
        "listArchive" => files::list_archive(files, with).await,
        "compressFile" => files::compress(files, with).await,
        "decompressFile" => files::decompress(files, with).await,
        _ => Err(CallError::new("TypeError", "state has no such method")),
    }
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
    }
}

fn kind_of(name: &str) -> Option<EntryKind> {
    match name {
        "file" => Some(EntryKind::File),
        "directory" => Some(EntryKind::Directory),
        "symlink" => Some(EntryKind::Symlink),
        _ => None,
    }
}

/// An error with a POSIX name.
fn failed(code: &str, message: String) -> CallError {
    let thrown = Thrown::new("Error", message).with("code", Value::from(code));
    CallError::Thrown(Box::new(thrown))
}

impl From<WorkspaceError> for CallError {
    fn from(error: WorkspaceError) -> Self {
        match error {
            WorkspaceError::Store(error) => Self::Store(error),
            error => failed(error.posix(), error.to_string()),
        }
    }
}

impl From<SearchError> for CallError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Workspace(error) => error.into(),
            error @ SearchError::Pattern(_) => failed("EINVAL", error.to_string()),
        }
    }
}

impl From<JsonError> for CallError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Workspace(error) => error.into(),
            error @ JsonError::Malformed { .. } => Self::new("SyntaxError", error.to_string()),
            error @ (JsonError::Path { .. } | JsonError::Nothing(_)) => {
                failed("EINVAL", error.to_string())
            }
        }
    }
}

impl From<EditError> for CallError {
    fn from(error: EditError) -> Self {
        match error {
            EditError::Search(error) => error.into(),
            error @ EditError::Text(_) => failed("EINVAL", error.to_string()),
        }
    }
}

impl From<PatchError> for CallError {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Search(error) => error.into(),
            error @ (PatchError::Malformed { .. } | PatchError::Rejected(_)) => {
                failed("EINVAL", error.to_string())
            }
        }
    }
}

impl From<ArchiveError> for CallError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Workspace(error) => error.into(),
            error @ (ArchiveError::Unsafe { .. }
            | ArchiveError::Malformed(_)
            | ArchiveError::Members) => failed("EINVAL", error.to_string()),
        }
    }
}
