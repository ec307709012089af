//! `bash`.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{MAX_BYTES, MAX_LINES, ToolFailure, ToolOutput, refused, truncate};
use crate::{
    shell::{Shell, ShellOptions, ShellState},
    workspace::Overlay,
};

/// Longest time a model may ask for, in seconds.
const MAX_TIMEOUT: f64 = 3600.0;

/// Runs a command.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BashInput {
    /// The bash command to run
    pub command: String,
    /// Seconds after which the command is stopped
    #[serde(default)]
    pub timeout: Option<f64>,
}

/// A command that ran.
#[derive(Debug, Clone)]
pub struct BashRun {
    /// For the model.
    pub output: ToolOutput,
    /// What the next command starts from.
    pub state: ShellState,
    /// Whether `state` is another one than before, so that its row must be written.
    pub state_changed: bool,
    /// The exit code.
    pub exit_code: i32,
    /// The time was up; nothing that the command wrote is in the overlay.
    pub timed_out: bool,
}

/// Runs a command on the workspace. A non-zero exit code is a normal result. What a command wrote
/// that ran out of time is dropped, and its result says so.
///
/// # Errors
///
/// A message for the model when the timeout makes no sense.
pub async fn bash(
    overlay: &Overlay,
    shell: &Shell,
    state: ShellState,
    input: BashInput,
    env: &BTreeMap<String, String>,
) -> Result<BashRun, ToolFailure> {
    let mut options = ShellOptions {
        env: env.clone(),
        ..ShellOptions::default()
    };
    if let Some(seconds) = input.timeout {
        if !(seconds > 0.0 && seconds <= MAX_TIMEOUT) {
            return refused(format!(
                "timeout must be more than 0 and at most {MAX_TIMEOUT} seconds, not {seconds}"
            ));
        }
        options.timeout = Duration::from_secs_f64(seconds);
    }
    let writes = overlay.child();
    let outcome = shell.run(&writes, state, &input.command, &options).await;
    let dropped = outcome.timed_out && !writes.is_clean();
    if !outcome.timed_out {
        writes.merge()?;
    }
    let mut all = outcome.stdout;
    if !outcome.stderr.is_empty() {
        if !all.is_empty() {
            all.push('\n');
        }
        all.push_str(&outcome.stderr);
    }
    let mut text = cut(all.trim());
    if dropped {
        text.push_str("\nThe files that it wrote are as they were before.");
    }
    if outcome.exit_code != 0 {
        text.push_str(&format!(
            "\n\nCommand exited with code {}",
            outcome.exit_code
        ));
    }
    Ok(BashRun {
        output: ToolOutput::text(text),
        state: outcome.state,
        state_changed: outcome.state_changed,
        exit_code: outcome.exit_code,
        timed_out: outcome.timed_out,
    })
}

/// The end of the output, with a note when the beginning is left out.
fn cut(all: &str) -> String {
    if all.is_empty() {
        return "(no output)".into();
    }
    let tail = truncate::tail(all, MAX_LINES, MAX_BYTES);
    if tail.text.len() == all.len() {
        return all.to_owned();
    }
    let (first, lines) = (tail.first, tail.lines);
    let note = if tail.partial {
        format!("[Showing the last 50.0KB of line {lines}.")
    } else {
        format!("[Showing lines {first}-{lines} of {lines}.")
    };
    format!(
        "{}\n\n{note} Send the output to a file to read all of it.]",
        tail.text
    )
}
