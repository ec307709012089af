//! `cat`, which reads large files piece by piece and counts what it pipes.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Result};

use super::{
    commands::{Left, PIPE_CLOSED, read_piece, write},
    fs::WorkspaceFs,
};
use crate::workspace::{EntryKind, absolute};

/// Bytes read at once.
const PIECE: usize = 256 << 10;

pub(crate) struct Cat(pub(crate) Arc<WorkspaceFs>);

/// What is done to the lines.
#[derive(Default, Clone, Copy)]
struct Shape {
    number: bool,
    number_full: bool,
    squeeze: bool,
    ends: bool,
    tabs: bool,
    shown: bool,
}

/// Where in the output the next byte comes.
struct Place {
    line: u64,
    at_start: bool,
    empty_lines: u32,
}

impl Shape {
    fn plain(self) -> bool {
        !(self.number || self.number_full || self.squeeze || self.ends || self.tabs || self.shown)
    }

    /// Applies an option letter; `None` when there is no such option.
    fn option(&mut self, letter: char) -> Option<()> {
        match letter {
            'A' => (self.shown, self.ends, self.tabs) = (true, true, true),
            'b' => self.number_full = true,
            'e' => (self.shown, self.ends) = (true, true),
            'E' => self.ends = true,
            'n' => self.number = true,
            's' => self.squeeze = true,
            't' => (self.shown, self.tabs) = (true, true),
            'T' => self.tabs = true,
            'u' => {}
            'v' => self.shown = true,
            _ => return None,
        }
        Some(())
    }

    fn long(&mut self, name: &str) -> Option<()> {
        let letter = match name {
            "show-all" => 'A',
            "number-nonblank" => 'b',
            "show-ends" => 'E',
            "number" => 'n',
            "squeeze-blank" => 's',
            "show-tabs" => 'T',
            "show-nonprinting" => 'v',
            _ => return None,
        };
        self.option(letter)
    }

    fn apply(self, bytes: &[u8], place: &mut Place) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        for byte in bytes {
            if place.at_start {
                if *byte == b'\n' {
                    place.empty_lines += 1;
                    if self.squeeze && place.empty_lines > 1 {
                        continue;
                    }
                } else {
                    place.empty_lines = 0;
                }
                if (self.number_full && *byte != b'\n') || (self.number && !self.number_full) {
                    place.line += 1;
                    out.extend_from_slice(format!("{:6}\t", place.line).as_bytes());
                }
            }
            place.at_start = *byte == b'\n';
            match *byte {
                b'\n' if self.ends => out.extend_from_slice(b"$\n"),
                b'\t' if self.tabs => out.extend_from_slice(b"^I"),
                b'\n' | b'\t' => out.push(*byte),
                other if self.shown => show(other, &mut out),
                other => out.push(other),
            }
        }
        out
    }
}

/// A byte as `-v` shows it.
fn show(byte: u8, out: &mut Vec<u8>) {
    let low = byte & 0x7f;
    if byte >= 0x80 {
        out.extend_from_slice(b"M-");
    }
    match low {
        0x7f => out.extend_from_slice(b"^?"),
        0..0x20 => out.extend_from_slice(&[b'^', low + 0x40]),
        _ => out.push(low),
    }
}

fn options(args: &[String]) -> std::result::Result<(Shape, Vec<&str>), String> {
    let (mut shape, mut files) = (Shape::default(), Vec::new());
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if arg == "--" {
            files.extend(args.by_ref());
        } else if let Some(name) = arg.strip_prefix("--") {
            shape
                .long(name)
                .ok_or(format!("cat: unrecognized option '{arg}'\n"))?;
        } else if let Some(letters) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            for letter in letters.chars() {
                shape
                    .option(letter)
                    .ok_or(format!("cat: invalid option -- '{letter}'\n"))?;
            }
        } else {
            files.push(arg);
        }
    }
    if files.is_empty() {
        files.push("-");
    }
    Ok((shape, files))
}

impl Cat {
    /// Passes bytes on; `false` when the reader is gone.
    async fn pass(
        &self,
        ctx: &CommandContext<'_>,
        shape: Shape,
        place: &mut Place,
        bytes: &[u8],
    ) -> Result<bool> {
        if shape.plain() {
            return write(ctx, &self.0, bytes).await;
        }
        write(ctx, &self.0, &shape.apply(bytes, place)).await
    }

    /// One operand; `Err` holds what the user is told.
    async fn file(
        &self,
        ctx: &CommandContext<'_>,
        name: &str,
        shape: Shape,
        place: &mut Place,
    ) -> Result<std::result::Result<bool, String>> {
        if name == "-" {
            while let Some(bytes) = read_piece(ctx, &self.0).await? {
                if !self.pass(ctx, shape, place, &bytes).await? {
                    return Ok(Ok(false));
                }
            }
            return Ok(Ok(true));
        }
        let path = absolute(name, ctx.cwd.to_str().unwrap_or_default());
        // Devices and the ends of process substitutions are the interpreter's.
        if path.starts_with("/dev/") || path.starts_with("/proc/") {
            return match ctx.fs.read_file(Path::new(&path)).await {
                Ok(bytes) => Ok(Ok(self.pass(ctx, shape, place, &bytes).await?)),
                Err(_) => Ok(Err("No such file or directory".into())),
            };
        }
        let overlay = self.0.overlay()?;
        let size = match overlay.stat(&path).await {
            Ok(stat) if stat.kind == EntryKind::Directory => {
                return Ok(Err("Is a directory".into()));
            }
            Ok(stat) => stat.size,
            Err(error) => return Ok(Err(error.strerror())),
        };
        let mut at = 0;
        while at < size {
            let bytes = match overlay.read_range(&path, at, PIECE).await {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error.strerror())),
            };
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
            if !self.pass(ctx, shape, place, &bytes).await? {
                return Ok(Ok(false));
            }
        }
        Ok(Ok(true))
    }
}

#[async_trait]
impl Command for Cat {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let (shape, files) = match options(ctx.args) {
            Ok(given) => given,
            Err(message) => {
                ctx.stderr.write_all(message.as_bytes()).await?;
                return Ok(CommandStatus::with_code(1));
            }
        };
        let lost = Left::new(&self.0, !files.contains(&"-"));
        let mut place = Place {
            line: 0,
            at_start: true,
            empty_lines: 0,
        };
        let mut code = 0;
        for name in files {
            match self.file(&ctx, name, shape, &mut place).await? {
                Ok(true) => {}
                Ok(false) => return Ok(PIPE_CLOSED),
                Err(why) => {
                    let message = format!("cat: {name}: {why}\n");
                    ctx.stderr.write_all(message.as_bytes()).await?;
                    code = 1;
                }
            }
        }
        lost.tell(&ctx).await?;
        Ok(CommandStatus::with_code(code))
    }
}
