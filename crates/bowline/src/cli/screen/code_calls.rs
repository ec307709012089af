//! What code called, below its tool call.

use std::time::Duration;

use bowline_agent::code::runs::{CallState, CodeCall};

use super::{Outcome, label, tool_line};
use crate::cli::terminal::{Paint, Terminal, one_line};

/// Calls that are shown of one list; the others are counted.
const MOST: usize = 20;

/// A line for each call: what was called, with what, how it ended and how long that took.
pub(in crate::cli) fn code_calls(terminal: Terminal, calls: &[CodeCall], more: u64) -> Vec<String> {
    let mut lines: Vec<String> = chosen(calls)
        .map(|call| format!("  {}", line(terminal, call)))
        .collect();
    let more = more.saturating_add(calls.len().saturating_sub(MOST) as u64);
    if more > 0 {
        let text = format!("  … and {more} more calls");
        lines.push(terminal.err.paint(Paint::Dim, text));
    }
    lines
}

/// The first ones; where there are too many, those first that say more than that something was looked up.
fn chosen(calls: &[CodeCall]) -> impl Iterator<Item = &CodeCall> {
    let tells = |call: &CodeCall| {
        call.state != CallState::Done
            || call.called.effect_id.is_some()
            || call.called.approval.is_some()
    };
    let room = MOST.saturating_sub(calls.iter().filter(|call| tells(call)).count());
    let (mut others, mut shown) = (0, 0);
    calls.iter().filter(move |call| {
        let keep = tells(call) || others < room;
        others += usize::from(!tells(call));
        shown += usize::from(keep);
        keep && shown <= MOST
    })
}

fn line(terminal: Terminal, call: &CodeCall) -> String {
    let called = &call.called;
    let (outcome, after) = match call.state {
        CallState::Waits => (Outcome::Open, "waits for a person"),
        CallState::Done => (Outcome::Fine, ""),
        CallState::Failed => {
            let why = called.error.clone().unwrap_or_default();
            (Outcome::Failed(why), "")
        }
        CallState::Undone => (Outcome::Fine, "undone"),
        CallState::NotUndone => (Outcome::Fine, "could not be undone"),
    };
    let name = one_line(&called.path);
    let about = if called.arguments.is_null() {
        String::new()
    } else {
        label("", &called.arguments)
    };
    let time = Duration::from_millis(called.duration_ms);
    let mut line = tool_line(terminal, &name, &about, &outcome, time);
    for word in [called.approval.as_deref().unwrap_or_default(), after] {
        if !word.is_empty() {
            line = format!("{line} {}", terminal.err.paint(Paint::Odd, word));
        }
    }
    line
}
