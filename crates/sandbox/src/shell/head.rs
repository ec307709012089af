//! `head`, which passes on what it is asked for and then leaves its pipe.

use std::sync::Arc;

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Result};

use super::{
    commands::{PIPE_CLOSED, read_piece, write},
    filters::Filter,
    fs::WorkspaceFs,
};

pub(super) struct Head {
    fs: Arc<WorkspaceFs>,
    /// The crate's own, for files and for what counts from the end.
    other: Filter,
}

/// What is passed on.
#[derive(Clone, Copy)]
enum Part {
    Lines(u64),
    Bytes(u64),
}

impl Head {
    pub(super) fn new(fs: &Arc<WorkspaceFs>, depth: usize) -> Self {
        Self {
            fs: fs.clone(),
            other: Filter::text(fs, "head", depth),
        }
    }
}

/// A count with its unit.
fn count(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "" => 1,
        "b" => 512,
        "kB" => 1000,
        "K" | "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// What is asked for of the standard input; `None` for all that is not simple.
fn part(args: &[String]) -> Option<Part> {
    let mut part = Part::Lines(10);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        part = match arg {
            "-" | "-q" | "--quiet" | "--silent" => part,
            "-n" | "--lines" => Part::Lines(count(args.next()?)?),
            "-c" | "--bytes" => Part::Bytes(count(args.next()?)?),
            _ => {
                let lines = arg.strip_prefix("--lines=").or(arg.strip_prefix("-n"));
                let bytes = arg.strip_prefix("--bytes=").or(arg.strip_prefix("-c"));
                match (lines, bytes) {
                    (Some(lines), _) => Part::Lines(count(lines)?),
                    (None, Some(bytes)) => Part::Bytes(count(bytes)?),
                    (None, None) => {
                        let short = arg.strip_prefix('-')?;
                        let digits = short.bytes().all(|byte| byte.is_ascii_digit());
                        Part::Lines(count(short).filter(|_| digits)?)
                    }
                }
            }
        };
    }
    Some(part)
}

#[async_trait]
impl Command for Head {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let Some(mut part) = part(ctx.args) else {
            return self.other.execute(ctx).await;
        };
        let left = |part: Part| match part {
            Part::Lines(left) | Part::Bytes(left) => left,
        };
        while left(part) > 0 {
            let Some(bytes) = read_piece(&ctx, &self.fs).await? else {
                break;
            };
            let wanted = match &mut part {
                Part::Bytes(left) => {
                    let wanted = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    *left -= wanted as u64;
                    wanted
                }
                Part::Lines(left) => {
                    let mut wanted = bytes.len();
                    for at in memchr::memchr_iter(b'\n', &bytes) {
                        *left -= 1;
                        if *left == 0 {
                            wanted = at + 1;
                            break;
                        }
                    }
                    wanted
                }
            };
            if !write(&ctx, &self.fs, &bytes[..wanted]).await? {
                return Ok(PIPE_CLOSED);
            }
        }
        Ok(CommandStatus::success())
    }
}
