//! Which line of a prompt is meant by a position that the engine tells.

use bowline_sandbox::isolate::{Program, Script};

use super::repl::{DRIVER_NAME, NAME};

/// What the engine calls a text that is evaluated.
const EVALUATED: &str = "<input>:";
/// Lines of all scripts together up to which their positions are known.
const MOST: u32 = 1 << 20;

/// Everything that was typed. Each script is evaluated at lines of its own, so that the line alone tells which
/// one it is, also when a function is called long after.
pub(super) struct Lines {
    program: Program,
    scripts: Vec<Typed>,
    /// The line at which the next script is evaluated, from 0.
    next: u32,
}

struct Typed {
    script: Script,
    /// Where it was evaluated, from 0, and where it was typed, from 1.
    evaluated: u32,
    first: u32,
}

impl Lines {
    pub(super) fn new(program: Program) -> Self {
        Self {
            program,
            scripts: Vec::new(),
            next: 0,
        }
    }

    /// Takes a script that was typed at the line `first`, and gives the text to evaluate.
    pub(super) fn add(&mut self, script: Script, first: u32) -> String {
        if self.next >= MOST {
            return script.text().to_owned();
        }
        let lines = usize::try_from(self.next).unwrap_or(0);
        let text = "\n".repeat(lines) + script.text();
        let own = script.text().lines().count();
        self.scripts.push(Typed {
            script,
            evaluated: self.next,
            first,
        });
        self.next = self
            .next
            .saturating_add(u32::try_from(own).unwrap_or(u32::MAX));
        text
    }

    /// The last script left nothing behind.
    pub(super) fn forget_last(&mut self) {
        if let Some(last) = self.scripts.pop() {
            self.next = last.evaluated;
        }
    }

    /// A text with a stack in it, or an error as it is shown, with the lines and columns that were typed; frames
    /// of the prompt's own code are left out.
    pub(super) fn locate(&self, text: &str) -> String {
        let own = format!("({DRIVER_NAME}:");
        let mut out = String::with_capacity(text.len());
        let mut first = true;
        for line in text.split('\n') {
            let frame = line.trim_start().starts_with("at ");
            if frame && (line.contains(&own) || line.contains("(bowline:prelude:")) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push('\n');
            }
            match self.frame(line).filter(|_| frame) {
                Some(located) => out.push_str(&located),
                None if frame => out.push_str(&self.program.locate(line)),
                None => out.push_str(line),
            }
        }
        out
    }

    fn frame(&self, line: &str) -> Option<String> {
        let (before, rest) = line.rsplit_once(EVALUATED)?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != ':')
            .unwrap_or(rest.len());
        let (row, column) = rest[..end].split_once(':')?;
        let (row, column): (u32, u32) = (row.parse().ok()?, column.parse().ok()?);
        let known = self
            .scripts
            .partition_point(|typed| typed.evaluated < row)
            .checked_sub(1)?;
        let typed = self.scripts.get(known)?;
        let (row, column) = typed
            .script
            .author_position(row - typed.evaluated, column)?;
        let row = row.saturating_add(typed.first).saturating_sub(1);
        Some(format!("{before}{NAME}:{row}:{column}{}", &rest[end..]))
    }
}
