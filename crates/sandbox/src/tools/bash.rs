//! `bash`.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{MAX_BYTES, MAX_LINES, ToolFailure, ToolOutput, refused, truncate};
use crate::{
    host::{HostCommand, HostDir, HostShell},
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
/// that ran out of time is dropped, and its result says so. A timeout in `input` holds before that of `options`.
///
/// # Errors
///
/// A message for the model when the timeout makes no sense.
pub async fn bash(
    overlay: &Overlay,
    shell: &Shell,
    state: ShellState,
    input: BashInput,
    mut options: ShellOptions,
) -> Result<BashRun, ToolFailure> {
    if input.timeout.is_some() {
        options.timeout = timeout(input.timeout)?;
    }
    let writes = overlay.child();
    let outcome = shell.run(&writes, state, &input.command, &options).await;
    let dropped = outcome.timed_out && !writes.is_clean();
    if !outcome.timed_out {
        writes.merge()?;
    }
    let note = if dropped {
        "\nThe files that it wrote are as they were before."
    } else {
        ""
    };
    let text = told(outcome.stdout, &outcome.stderr, note, outcome.exit_code);
    Ok(BashRun {
        output: ToolOutput::text(text),
        state: outcome.state,
        state_changed: outcome.state_changed,
        exit_code: outcome.exit_code,
        timed_out: outcome.timed_out,
    })
}

/// Runs a command as a real process in a host directory. A non-zero exit code is a normal result. What a
/// command wrote that ran out of time stays written, and its result says so.
///
/// # Errors
///
/// A message for the model when the timeout makes no sense, or the process could not be started.
pub async fn host_bash(
    dir: &HostDir,
    shell: &HostShell,
    input: BashInput,
    env: &BTreeMap<String, String>,
) -> Result<ToolOutput, ToolFailure> {
    let command = HostCommand {
        command: input.command,
        timeout: timeout(input.timeout)?,
    };
    let outcome = shell.run(dir, &command, env).await;
    let outcome = outcome.map_err(|error| ToolFailure::Refused(error.to_string()))?;
    let note = if outcome.timed_out {
        "\nWhat it had done until then is done."
    } else {
        ""
    };
    let text = told(outcome.stdout, &outcome.stderr, note, outcome.exit_code);
    Ok(ToolOutput::text(text))
}

fn timeout(asked: Option<f64>) -> Result<Duration, ToolFailure> {
    match asked {
        None => Ok(ShellOptions::default().timeout),
        Some(seconds) if seconds > 0.0 && seconds <= MAX_TIMEOUT => {
            Ok(Duration::from_secs_f64(seconds))
        }
        Some(seconds) => refused(format!(
            "timeout must be more than 0 and at most {MAX_TIMEOUT} seconds, not {seconds}"
        )),
    }
}

/// What the model reads of a command.
fn told(mut all: String, stderr: &str, note: &str, exit_code: i32) -> String {
    if !stderr.is_empty() {
        if !all.is_empty() {
            all.push('\n');
        }
        all.push_str(stderr);
    }
    let mut text = cut(all.trim());
    text.push_str(note);
    if exit_code != 0 {
        text.push_str(&format!("\n\nCommand exited with code {exit_code}"));
    }
    text
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
