//! What the model reads of a run: its outcome as a value, cut to a size where it has to be.

use bowline_sandbox::isolate::{LogLevel, LogLine, Program, Value};
use serde_json::{Map, Value as Json, json};

use super::{registry::Spaces, snippet::FILE};
use crate::{binding::Web, definition::closest};

/// Bytes of a result that the model reads, as JSON.
pub(crate) const RESULT: usize = 24_000;
/// Bytes of the log that the model reads.
const LOG: usize = 8_000;
/// Bytes of an argument list, and of a result, in the record of a call.
pub(crate) const RECORDED: usize = 4_096;
/// What stands where something was left out.
const CUT: &str = "--- TRUNCATED ---";

/// How a run ended.
pub(crate) enum Ending {
    /// With a value.
    Completed(Value),
    /// With an error: its type where it is one of ours, and what it says.
    Error {
        code: Option<&'static str>,
        message: String,
    },
    /// A person had it undone.
    RolledBack {
        why: String,
        /// The calls that were undone, in that order.
        undone: Vec<String>,
        /// Those that could not be.
        kept: Vec<String>,
    },
}

impl Ending {
    /// The word of the records.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Error { .. } => "error",
            Self::RolledBack { .. } => "rolled_back",
        }
    }
}

/// Something that is cut to a size, with its structure kept: what is largest is cut first.
pub(crate) fn shape(value: Json, most: usize) -> Json {
    if size(&value) <= most {
        return value;
    }
    match value {
        Json::String(text) => {
            let room = most.saturating_sub(CUT.len() + 8);
            let mut end = text.floor_char_boundary(room.min(text.len()));
            // Escapes take more than one byte.
            while end > 0 && size(&Json::from(&text[..end])) > room + 2 {
                end = text.floor_char_boundary(end - (end / 8).max(1));
            }
            Json::String(format!("{} {CUT}", &text[..end]))
        }
        Json::Array(items) => {
            let sizes: Vec<usize> = items.iter().map(size).collect();
            let room = most.saturating_sub(64);
            let (kept, shares) = shares(&sizes, room);
            let left_out = items.len() - kept;
            let mut out: Vec<Json> = items
                .into_iter()
                .zip(shares)
                .map(|(item, share)| shape(item, share))
                .collect();
            if left_out > 0 {
                out.push(Json::String(format!("{CUT} {left_out} more")));
            }
            Json::Array(out)
        }
        Json::Object(object) => {
            let sizes: Vec<usize> = object
                .iter()
                .map(|(key, value)| key.len() + 4 + size(value))
                .collect();
            let (kept, shares) = shares(&sizes, most.saturating_sub(64));
            let left_out = object.len() - kept;
            let mut out = Map::new();
            for ((key, value), share) in object.into_iter().zip(shares) {
                let share = share.saturating_sub(key.len() + 4);
                out.insert(key, shape(value, share));
            }
            if left_out > 0 {
                out.insert(CUT.to_owned(), json!(format!("{left_out} more")));
            }
            Json::Object(out)
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value,
    }
}

/// A text with at most so many bytes.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push_str(CUT);
    }
    text
}

fn size(value: &Json) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting does not fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// How many of the first items are kept, and how much room each of them has: small ones all that they
/// need, the large ones an equal part of the rest.
fn shares(sizes: &[usize], room: usize) -> (usize, Vec<usize>) {
    /// Less than this says nothing of an item.
    const LEAST: usize = 48;
    let most = (room / LEAST).max(1);
    // Items of which the first fill the room are kept as they are; otherwise all are shortened.
    let mut kept = sizes.len();
    let small = sizes.iter().take(most).all(|size| *size <= room / 8);
    if small || sizes.len() > most {
        let mut sum = 0;
        kept = sizes
            .iter()
            .take_while(|size| {
                sum += (**size).min(room / 4) + 1;
                sum <= room
            })
            .count()
            .max(1)
            .min(sizes.len());
    }
    let mut left = room.saturating_sub(kept);
    let mut order: Vec<usize> = (0..kept).collect();
    order.sort_by_key(|at| sizes[*at]);
    let mut shares = vec![0; kept];
    for (done, at) in order.into_iter().enumerate() {
        let share = sizes[at].min(left / (kept - done));
        shares[at] = share;
        left -= share;
    }
    (kept, shares)
}

/// The log as lines, marked as the levels are; the beginning and the end where it is long.
pub(crate) fn log(lines: &[LogLine]) -> Vec<String> {
    let mut out = Vec::new();
    let (mut left, mut missing) = (LOG, 0);
    for line in lines {
        let mark = match line.level {
            LogLevel::Debug | LogLevel::Info => "",
            LogLevel::Warn => "[warn] ",
            LogLevel::Error => "[error] ",
        };
        let text = format!("{mark}{}", line.text);
        if text.len() > left {
            missing += 1;
            if missing == 1 && left > 200 {
                let cut = text.floor_char_boundary(left);
                out.push(format!("{} {CUT}", &text[..cut]));
            }
            left = 0;
            continue;
        }
        left -= text.len();
        out.push(text);
    }
    if missing > 1 {
        out.push(format!("{CUT} {} more lines", missing - 1));
    }
    out
}

/// What a program threw and nobody caught, with positions of the author's and what helps.
pub(crate) fn thrown(value: &Value, program: &Program, source: &str, spaces: &Spaces) -> String {
    let Value::Error(error) = value else {
        return format!("the code threw {}", shape(value.to_json(), 1_000));
    };
    let mut text = error.to_string();
    let stack = program.locate(&error.stack);
    if !stack.is_empty() {
        text.push('\n');
        text.push_str(stack.trim_end());
    }
    if error.name == "ReferenceError" {
        let (fetch, names): (Vec<_>, Vec<_>) = spaces
            .iter()
            .map(|(name, _)| name.as_str())
            .partition(|name| *name == Web::NAME);
        let (has, lacks) = if fetch.is_empty() {
            ("", "fetch, ")
        } else {
            (", fetch", "")
        };
        text.push_str(&format!(
            "\nThe globals here are: {}{has}, and those of JavaScript; there is no {lacks}require, process or file system.",
            names.join(", ")
        ));
    }
    if error.name == "TypeError"
        && error.message == "not a function"
        && let Some(hint) = missing(&stack, source, spaces)
    {
        text.push('\n');
        text.push_str(&hint);
    }
    text
}

/// What was called that a namespace does not have: the engine says where, not what.
fn missing(stack: &str, source: &str, spaces: &Spaces) -> Option<String> {
    let first = stack.lines().next()?;
    let (_, place) = first.rsplit_once(&format!("{FILE}:"))?;
    let mut numbers = place.trim_end_matches(')').split(':');
    let line: usize = numbers.next()?.parse().ok()?;
    let column: usize = numbers.next()?.parse().ok()?;
    let line: Vec<char> = source.lines().nth(line.checked_sub(1)?)?.chars().collect();
    let at = column.checked_sub(1)?.min(line.len());
    let part = |c: &&char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
    let before = line[..at].iter().rev().take_while(part).count();
    let after = line[at..].iter().take_while(part).count();
    let called: String = line[at - before..at + after].iter().collect();
    let (space, name) = called.split_once('.')?;
    let (_, methods) = spaces.iter().find(|(known, _)| known == space)?;
    if name.is_empty() || name.contains('.') || methods.iter().any(|known| known == name) {
        return None;
    }
    let hint = match closest(name, methods.iter().map(String::as_str)) {
        Some(known) => format!("did you mean {space}.{known}?"),
        None => format!(
            "codemode.search finds what there is, codemode.describe({space:?}) declares all of it."
        ),
    };
    Some(format!("{space} has no function {name}; {hint}"))
}

/// The outcome as the model reads it.
pub(crate) fn told(ending: &Ending, log: Vec<String>, unawaited: &[String]) -> Json {
    let mut told = match ending {
        Ending::Completed(Value::Undefined) => json!({"status": "completed"}),
        Ending::Completed(value) => {
            json!({"status": "completed", "result": shape(value.to_json(), RESULT)})
        }
        Ending::Error { code, message } => {
            let mut error = json!({"status": "error", "error": shape(json!(message), RESULT)});
            if let Some(code) = code {
                error["type"] = json!(code);
            }
            error
        }
        Ending::RolledBack { why, undone, kept } => {
            let mut back = json!({"status": "rolled_back", "error": cut(why.clone(), LOG)});
            back["undone"] = shape(json!(undone), LOG);
            if !kept.is_empty() {
                back["notUndone"] = shape(json!(kept), LOG);
            }
            back
        }
    };
    if !log.is_empty() {
        told["logs"] = json!(log);
    }
    if !unawaited.is_empty() {
        let text = format!(
            "the code ended before these calls were answered: {}. Await every call",
            unawaited.join(", ")
        );
        told["warning"] = json!(text);
    }
    told
}
