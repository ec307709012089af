//! `wc` where lines and bytes are counted, in files or a pipe, which needs nothing to be held.

use std::{fmt::Write as _, sync::Arc};

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Result};

use super::{
    commands::{PIPE_CLOSED, read_piece, write},
    filters::Filter,
    fs::{WorkspaceFs, is_ours},
};
use crate::workspace::{EntryKind, Overlay, WorkspaceError, absolute};

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Columns of a count whose size is not known before.
const WIDTH: usize = 7;

pub(super) struct Wc {
    fs: Arc<WorkspaceFs>,
    /// The crate's own, for words and characters and for what goes wrong.
    other: Filter,
}

/// What is counted, and where.
struct Plan<'a> {
    lines: bool,
    bytes: bool,
    files: Vec<&'a str>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    lines: u64,
    bytes: u64,
}

impl Counts {
    fn add(&mut self, bytes: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.bytes += bytes.len() as u64;
    }
}

impl<'a> Plan<'a> {
    /// `None` for all that is not simple.
    fn read(args: &'a [String]) -> Option<Self> {
        let mut plan = Self {
            lines: false,
            bytes: false,
            files: Vec::new(),
        };
        for arg in args {
            match arg.strip_prefix('-') {
                Some("-lines") => plan.lines = true,
                Some("-bytes") => plan.bytes = true,
                Some("") => return None,
                Some(letters) => {
                    for letter in letters.bytes() {
                        match letter {
                            b'l' => plan.lines = true,
                            b'c' => plan.bytes = true,
                            _ => return None,
                        }
                    }
                }
                None => plan.files.push(arg),
            }
        }
        (plan.lines || plan.bytes).then_some(plan)
    }

    fn row(&self, counts: Counts, width: usize, name: Option<&str>, out: &mut String) {
        let both = [(self.lines, counts.lines), (self.bytes, counts.bytes)];
        let asked = both.iter().filter(|(asked, _)| *asked);
        for (at, (_, count)) in asked.enumerate() {
            let space = if at > 0 { " " } else { "" };
            let _ = write!(out, "{space}{count:>width$}");
        }
        if let Some(name) = name {
            out.push(' ');
            out.push_str(name);
        }
        out.push('\n');
    }
}

impl Wc {
    pub(super) fn new(fs: &Arc<WorkspaceFs>, depth: usize) -> Self {
        Self {
            fs: fs.clone(),
            other: Filter::text(fs, "wc", depth),
        }
    }

    /// Counts in a file, none in one that is missing; `None` for what is no file of the workspace.
    async fn file(&self, overlay: &Overlay, path: &str) -> Option<Option<Counts>> {
        let stat = match overlay.stat(path).await {
            Ok(stat) => stat,
            Err(WorkspaceError::NotFound(_)) => return Some(None),
            Err(_) => return None,
        };
        if stat.kind != EntryKind::File {
            return None;
        }
        let mut counts = Counts::default();
        while counts.bytes < stat.size {
            let piece = overlay.read_range(path, counts.bytes, PIECE).await.ok()?;
            if piece.is_empty() {
                break;
            }
            if let Some(meter) = self.fs.meter() {
                meter.moved(piece.len() as u64);
            }
            counts.add(&piece);
            tokio::task::consume_budget().await;
        }
        Some(Some(counts))
    }

    /// What is printed for files, and what is said of those that are missing.
    async fn files(
        &self,
        ctx: &CommandContext<'_>,
        plan: &Plan<'_>,
    ) -> Result<Option<(String, String)>> {
        let overlay = self.fs.overlay()?;
        let mut counted = Vec::with_capacity(plan.files.len());
        let mut missing = String::new();
        for name in &plan.files {
            let path = absolute(name, ctx.cwd.to_str().unwrap_or_default());
            // Others are the interpreter's.
            if !is_ours(&path) {
                return Ok(None);
            }
            match self.file(&overlay, &path).await {
                Some(Some(counts)) => counted.push((*name, counts)),
                Some(None) => {
                    let _ = writeln!(missing, "wc: {name}: No such file or directory");
                }
                None => return Ok(None),
            }
        }
        let mut total = Counts::default();
        for (_, counts) in &counted {
            total.lines += counts.lines;
            total.bytes += counts.bytes;
        }
        let several = plan.files.len() > 1;
        let alone = !several && plan.lines != plan.bytes;
        let width = if alone {
            1
        } else {
            total.bytes.to_string().len()
        };
        let mut out = String::new();
        for (name, counts) in &counted {
            plan.row(*counts, width, Some(name), &mut out);
        }
        if several {
            plan.row(total, width, Some("total"), &mut out);
        }
        Ok(Some((out, missing)))
    }
}

#[async_trait]
impl Command for Wc {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let Some(plan) = Plan::read(ctx.args) else {
            return self.other.execute(ctx).await;
        };
        let (mut out, mut missing) = (String::new(), String::new());
        if plan.files.is_empty() {
            let mut counts = Counts::default();
            while let Some(bytes) = read_piece(&ctx, &self.fs).await? {
                counts.add(&bytes);
            }
            let width = if plan.lines && plan.bytes { WIDTH } else { 1 };
            plan.row(counts, width, None, &mut out);
        } else {
            match self.files(&ctx, &plan).await? {
                Some((rows, said)) => (out, missing) = (rows, said),
                None => return self.other.execute(ctx).await,
            }
        }
        let open = write(&ctx, &self.fs, out.as_bytes()).await?;
        ctx.stderr.write_all(missing.as_bytes()).await?;
        Ok(if open {
            CommandStatus::with_code(i32::from(!missing.is_empty()))
        } else {
            PIPE_CLOSED
        })
    }
}
