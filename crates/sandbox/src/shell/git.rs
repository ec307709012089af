//! `git`, over [`crate::git`].

use std::sync::Arc;

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Result};

use super::{
    commands::{PIPE_CLOSED, write},
    fs::WorkspaceFs,
};
use crate::git::command::{Call, run};

/// What `git commit -F -` reads at most, in bytes.
const INPUT: usize = 1 << 20;

pub(crate) struct Git(pub(crate) Arc<WorkspaceFs>);

#[async_trait]
impl Command for Git {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let outside = self.0.outside();
        let cwd = ctx.cwd.to_str().unwrap_or("/").to_owned();
        let mut call = Call::new(self.0.overlay()?, cwd, ctx.env, outside.as_deref());
        if ctx.args.iter().any(|arg| arg == "-") {
            let mut input = Vec::new();
            while let Some(more) = ctx.stdin.read_chunk().await? {
                input.extend_from_slice(&more);
                if input.len() > INPUT {
                    break;
                }
            }
            call.input = String::from_utf8_lossy(&input).into_owned();
        }
        let done = run(call, ctx.args).await;
        if !write(&ctx, &self.0, done.out.as_bytes()).await? {
            return Ok(PIPE_CLOSED);
        }
        ctx.stderr.write_all(done.err.as_bytes()).await?;
        Ok(CommandStatus::with_code(done.code))
    }
}
