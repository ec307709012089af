//! Commands that replace the crate's own where those stop early: `seq` and `yes` there end after a
//! fixed number of lines, and at the head of a pipeline nobody sees it; `sleep` ends after a minute as
//! if it were over. These go on until the reader leaves, the output limit is reached or the time is up,
//! or they have written [`PIPED`]: most readers of a pipe keep all that they have read.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bashkit::{Command, CommandContext, CommandStatus, Error, Result};

use super::fs::WorkspaceFs;

/// Bytes handed to the pipe at once.
const BLOCK: usize = 16 << 10;
/// Bytes that one command writes in all; what is more ends it with an error.
const PIPED: u64 = 10 << 20;

pub(crate) struct Sleep;
pub(crate) struct Yes(pub(crate) Arc<WorkspaceFs>);
pub(crate) struct Seq(pub(crate) Arc<WorkspaceFs>);

/// Writes; `false` when the reader is gone.
pub(crate) async fn write(
    ctx: &CommandContext<'_>,
    fs: &WorkspaceFs,
    bytes: &[u8],
) -> Result<bool> {
    if let Some(meter) = fs.meter() {
        meter.piped(bytes);
    }
    match ctx.stdout.write_all(bytes).await {
        Ok(()) => Ok(true),
        Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a command leaves in the pipe of a loop. The interpreter drops it, for `cat` and `grep` always:
/// better to stop than to go on as if the loop had come to its end.
pub(crate) struct Left(Option<Arc<super::memory::Meter>>);

impl Left {
    /// To be made when the command starts; `unread` when it will not read its standard input.
    pub(crate) fn new(fs: &WorkspaceFs, unread: bool) -> Self {
        Self(fs.meter().filter(|meter| unread && meter.loses_pipe()))
    }

    /// Stops the call when there is something.
    pub(crate) async fn tell(&self, ctx: &CommandContext<'_>) -> Result<()> {
        if let Some(meter) = &self.0
            && ctx.stdin.read_chunk().await?.is_some()
        {
            let name = ctx.name;
            meter.stop_with(format!(
                "bash: stopped: {name} in a loop takes the pipe that the loop reads from, and the rest of it would be lost; write {name} … < /dev/null"
            ));
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

/// Reads a piece of the standard input; `None` at its end.
pub(crate) async fn read_piece(
    ctx: &CommandContext<'_>,
    fs: &WorkspaceFs,
) -> Result<Option<Vec<u8>>> {
    let bytes = ctx.stdin.read_chunk().await?;
    if let (Some(bytes), Some(meter)) = (&bytes, fs.meter()) {
        meter.taken(bytes.len());
    }
    Ok(bytes)
}

async fn too_much(ctx: &CommandContext<'_>) -> Result<CommandStatus> {
    let message = format!(
        "{}: output limit ({PIPED} bytes) exceeded; output truncated\n",
        ctx.name
    );
    ctx.stderr.write_all(message.as_bytes()).await?;
    Ok(CommandStatus::with_code(1))
}

/// Status of a command whose reader is gone (SIGPIPE).
pub(crate) const PIPE_CLOSED: CommandStatus = CommandStatus::with_code(141);

#[async_trait]
impl Command for Sleep {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let refused = match ctx.args.iter().find(|arg| duration(arg).is_none()) {
            Some(wrong) => format!("sleep: invalid time interval '{wrong}'\n"),
            None if ctx.args.is_empty() => "sleep: missing operand\n".into(),
            None => {
                tokio::time::sleep(ctx.args.iter().filter_map(|arg| duration(arg)).sum()).await;
                return Ok(CommandStatus::success());
            }
        };
        ctx.stderr.write_all(refused.as_bytes()).await?;
        Ok(CommandStatus::with_code(1))
    }
}

/// Seconds, or with `m`, `h`, `d` minutes, hours, days; at most a hundred days.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.char_indices().last()? {
        (_, 's') => (text.strip_suffix('s')?, 1.0),
        (_, 'm') => (text.strip_suffix('m')?, 60.0),
        (_, 'h') => (text.strip_suffix('h')?, 3600.0),
        (_, 'd') => (text.strip_suffix('d')?, 86_400.0),
        _ => (text, 1.0),
    };
    let seconds = number
        .parse::<f64>()
        .ok()
        .filter(|seconds| *seconds >= 0.0)?
        * unit;
    Duration::try_from_secs_f64(seconds.min(8_640_000.0)).ok()
}

#[async_trait]
impl Command for Yes {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let line = if ctx.args.is_empty() {
            "y".to_owned()
        } else {
            ctx.args.join(" ")
        } + "\n";
        let block = line.repeat((BLOCK / line.len()).max(1));
        for _ in 0..PIPED / block.len() as u64 {
            if !write(&ctx, &self.0, block.as_bytes()).await? {
                return Ok(PIPE_CLOSED);
            }
        }
        too_much(&ctx).await
    }
}

#[async_trait]
impl Command for Seq {
    async fn execute(&self, ctx: CommandContext<'_>) -> Result<CommandStatus> {
        let plan = match Plan::read(ctx.args) {
            Ok(plan) => plan,
            Err(message) => {
                ctx.stderr
                    .write_all(format!("seq: {message}\n").as_bytes())
                    .await?;
                return Ok(CommandStatus::with_code(1));
            }
        };
        let mut out = String::with_capacity(BLOCK + 64);
        let (mut index, mut written) = (0u64, 0u64);
        while let Some(number) = plan.at(index) {
            if index > 0 {
                out.push_str(&plan.separator);
            }
            plan.render(number, &mut out);
            index += 1;
            if out.len() >= BLOCK {
                if !write(&ctx, &self.0, out.as_bytes()).await? {
                    return Ok(PIPE_CLOSED);
                }
                written += out.len() as u64;
                if written > PIPED {
                    return too_much(&ctx).await;
                }
                out.clear();
            }
        }
        if index > 0 {
            out.push('\n');
        }
        let open = write(&ctx, &self.0, out.as_bytes()).await?;
        Ok(if open {
            CommandStatus::success()
        } else {
            PIPE_CLOSED
        })
    }
}

/// A parsed `seq` command line; numbers are counted in units of 10^-decimals.
struct Plan {
    first: i128,
    step: i128,
    last: i128,
    decimals: usize,
    separator: String,
    width: usize,
    format: Option<Format>,
}

/// `-f`: text, conversion, text.
struct Format {
    before: String,
    after: String,
    width: usize,
    zero: bool,
    decimals: Option<usize>,
    /// `%g` drops trailing zeros.
    general: bool,
}

impl Plan {
    fn read(args: &[String]) -> std::result::Result<Self, String> {
        let (mut separator, mut equal_width, mut format) = ("\n".to_owned(), false, None);
        let mut numbers: Vec<&str> = Vec::new();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            let mut value = |name: &str| {
                args.next()
                    .map(str::to_owned)
                    .ok_or(format!("option requires an argument -- '{name}'"))
            };
            match arg {
                "-w" | "--equal-width" => equal_width = true,
                "-s" | "--separator" => separator = value("s")?,
                "-f" | "--format" => format = Some(Format::read(&value("f")?)?),
                "--" => numbers.extend(args.by_ref()),
                _ if arg.starts_with("--separator=") => {
                    separator = arg["--separator=".len()..].to_owned()
                }
                _ if arg.starts_with("--format=") => {
                    format = Some(Format::read(&arg["--format=".len()..])?)
                }
                _ if arg.starts_with("-s") => separator = arg[2..].to_owned(),
                _ if arg.starts_with("-f") => format = Some(Format::read(&arg[2..])?),
                _ if arg.starts_with('-')
                    && arg[1..].starts_with(|c: char| !c.is_ascii_digit() && c != '.') =>
                {
                    return Err(format!("invalid option -- '{}'", &arg[1..]));
                }
                number => numbers.push(number),
            }
        }
        let (first, step, last) = match numbers[..] {
            [last] => ("1", "1", last),
            [first, last] => (first, "1", last),
            [first, step, last] => (first, step, last),
            [] => return Err("missing operand".into()),
            [_, _, _, extra, ..] => return Err(format!("extra operand '{extra}'")),
        };
        let decimals = places(first)?.max(places(step)?);
        let scale = decimals.max(places(last)?);
        let read = |text| scaled(text, scale);
        let (first, step, last) = (read(first)?, read(step)?, read(last)?);
        if step == 0 {
            return Err("invalid Zero increment value: '0'".into());
        }
        // A last number finer than the steps only bounds them.
        let unit = 10i128.pow(u32::try_from(scale - decimals).unwrap_or(0));
        let last = if step > 0 {
            last.div_euclid(unit)
        } else {
            -(-last).div_euclid(unit)
        };
        let (first, step) = (first / unit, step / unit);
        let mut plan = Self {
            first,
            step,
            last,
            decimals,
            separator,
            width: 0,
            format,
        };
        if equal_width {
            let mut ends = String::new();
            plan.render(first, &mut ends);
            let one = std::mem::take(&mut ends).len();
            let steps = if (step > 0) == (last >= first) {
                (last - first) / step
            } else {
                0
            };
            plan.render(first + steps * step, &mut ends);
            plan.width = one.max(ends.len());
        }
        Ok(plan)
    }

    fn at(&self, index: u64) -> Option<i128> {
        let number = self
            .first
            .checked_add(self.step.checked_mul(i128::from(index))?)?;
        let inside = if self.step > 0 {
            number <= self.last
        } else {
            number >= self.last
        };
        inside.then_some(number)
    }

    fn render(&self, number: i128, out: &mut String) {
        match &self.format {
            None => out.push_str(&fixed(
                number,
                self.decimals,
                self.decimals,
                self.width,
                true,
            )),
            Some(format) => {
                let decimals =
                    format
                        .decimals
                        .unwrap_or(if format.general { self.decimals } else { 6 });
                let mut text = fixed(number, self.decimals, decimals, 0, false);
                if format.general && text.contains('.') {
                    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
                }
                let padding = format.width.saturating_sub(text.len());
                let fill = if format.zero { "0" } else { " " };
                out.push_str(&format.before);
                match text.strip_prefix('-').filter(|_| format.zero) {
                    Some(digits) => {
                        out.push('-');
                        out.push_str(&fill.repeat(padding));
                        out.push_str(digits);
                    }
                    None => {
                        out.push_str(&fill.repeat(padding));
                        out.push_str(&text);
                    }
                }
                out.push_str(&format.after);
            }
        }
    }
}

impl Format {
    fn read(text: &str) -> std::result::Result<Self, String> {
        let invalid = || {
            format!(
                "format '{text}' has no single % directive that is supported here (%g, %f, with width)"
            )
        };
        let text_of = |part: &str| part.replace("%%", "%");
        let at = text
            .match_indices('%')
            .map(|(at, _)| at)
            .find(|at| !text[*at..].starts_with("%%") && !text[..*at].ends_with('%'));
        let at = at.ok_or_else(invalid)?;
        let rest = &text[at + 1..];
        let end = rest
            .find(|c: char| c.is_ascii_alphabetic())
            .ok_or_else(invalid)?;
        let (flags, conversion, after) = (&rest[..end], &rest[end..=end], &rest[end + 1..]);
        let (width, decimals) = flags
            .split_once('.')
            .map_or((flags, None), |(width, decimals)| (width, Some(decimals)));
        let number = |digits: &str| {
            if digits.is_empty() {
                Ok(0)
            } else {
                digits.parse::<usize>().map_err(|_| invalid())
            }
        };
        let size = number(width.trim_start_matches('0'))?;
        if !matches!(conversion, "g" | "f") || size > 10_000 {
            return Err(invalid());
        }
        Ok(Self {
            before: text_of(&text[..at]),
            after: text_of(after),
            width: size,
            zero: width.starts_with('0'),
            decimals: decimals
                .filter(|_| conversion == "f")
                .map(number)
                .transpose()?
                .map(|decimals| decimals.min(30)),
            general: conversion == "g",
        })
    }
}

/// Digits after the point.
fn places(number: &str) -> std::result::Result<usize, String> {
    let digits = number.split_once('.').map_or(0, |(_, digits)| digits.len());
    if digits > 15 {
        Err(format!("'{number}' has too many digits"))
    } else {
        Ok(digits)
    }
}

/// A decimal number in units of 10^-scale.
fn scaled(text: &str, scale: usize) -> std::result::Result<i128, String> {
    let invalid = || format!("invalid floating point argument: '{text}'");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !plain(whole) || !plain(part) || whole.len() > 18 {
        return Err(invalid());
    }
    let number: i128 = format!("{whole}{part:0<scale$}")
        .parse()
        .map_err(|_| invalid())?;
    Ok(if negative { -number } else { number })
}

/// A number in units of 10^-scale with so many decimals.
fn fixed(number: i128, scale: usize, decimals: usize, width: usize, zeros: bool) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let digits = format!("{:0>1$}", number.unsigned_abs(), scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let body = if decimals == 0 {
        whole.to_owned()
    } else {
        format!("{whole}.{part:0<decimals$}")
    };
    let padding = if zeros {
        width.saturating_sub(sign.len() + body.len())
    } else {
        0
    };
    format!("{sign}{}{body}", "0".repeat(padding))
}
