//! Our commands in an interpreter: which of them read from the pipe they stand in.

use std::sync::Arc;

use async_trait::async_trait;
use bashkit::{Builtin, BuiltinContext, BuiltinRegistry, ExecResult, Result};

use super::{
    cat::Cat, curl::Curl, filters, fs::WorkspaceFs, git::Git, grep::Grep, head::Head, wc::Wc,
};

/// A command that reads a pipe piece by piece, as long as nobody else needs what it leaves.
///
/// The interpreter takes the pipe away from the shell for such a command, and what the command has not
/// read is lost. In `find . | sort | while read -r file; do wc -l "$file"; done` that would be all names
/// but the first. So in a call that reads in a loop, commands write to the interpreter, which keeps what
/// a stage of the pipeline wrote for all that the next one runs.
struct Streaming {
    name: &'static str,
    inner: Arc<dyn Builtin>,
    fs: Arc<WorkspaceFs>,
}

#[async_trait]
impl Builtin for Streaming {
    fn streams_io(&self) -> bool {
        !self.fs.meter().is_some_and(|meter| meter.reads())
    }

    async fn execute(&self, ctx: BuiltinContext<'_>) -> Result<ExecResult> {
        if let Some(meter) = self.fs.meter() {
            meter.enter(ctx.stdin.is_none_or(|input| input.is_empty()));
        }
        let result = self.inner.execute(ctx).await?;
        if result.stdout_truncated
            && let Some(meter) = self.fs.meter().filter(|meter| meter.reads())
        {
            meter.stop_with(format!(
                "bash: stopped: in a script that reads in a loop, one command writes at most {} bytes, and {} writes more; write to a file",
                result.stdout.len(),
                self.name
            ));
        }
        Ok(result)
    }
}

/// The commands with their names, in an interpreter at this depth.
pub(super) fn all(fs: &Arc<WorkspaceFs>, depth: usize) -> Vec<(&'static str, Box<dyn Builtin>)> {
    let registry = BuiltinRegistry::new();
    let mut names = vec!["cat", "curl", "egrep", "fgrep", "git", "grep", "head", "wc"];
    registry.insert_command("cat", Cat(fs.clone()));
    registry.insert_command("curl", Curl(fs.clone()));
    registry.insert_command("git", Git(fs.clone()));
    for name in ["egrep", "fgrep", "grep"] {
        registry.insert_command(name, Grep(fs.clone()));
    }
    registry.insert_command("head", Head::new(fs, depth));
    registry.insert_command("wc", Wc::new(fs, depth));
    for (name, filter) in filters::all(fs, depth) {
        if depth > 0 && name == filters::AWK {
            continue;
        }
        registry.insert_command(name, filter);
        names.push(name);
    }
    let streaming = |name: &'static str| {
        let inner = registry.lookup(name)?;
        let fs = fs.clone();
        let command: Box<dyn Builtin> = Box::new(Streaming { name, inner, fs });
        Some((name, command))
    };
    names.into_iter().filter_map(streaming).collect()
}
