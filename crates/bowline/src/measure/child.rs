//! A process of its own, started for a measurement, that says how far it is.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    time::Instant,
};

use crate::error::Error;

/// This program again, with one part of a measurement to do. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    lines: BufReader<ChildStdout>,
    began: Instant,
}

/// Says something to the process that measures.
pub(crate) fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    // With nobody to hear it there is nothing left to do.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Child {
    /// Starts it.
    pub(crate) fn start(dir: &Path, part: &str, argument: &str) -> Result<Self, Error> {
        let failed =
            |error: std::io::Error| Error::failure("process_failed", error.to_string(), "");
        let program = std::env::current_exe().map_err(failed)?;
        let began = Instant::now();
        let mut process = Command::new(program)
            .args(["bench", "--dir"])
            .arg(dir)
            .args(["child", part, argument])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = process.stdout.take();
        let out = out.ok_or_else(|| failed(std::io::Error::other("it has no output")))?;
        Ok(Self {
            process,
            lines: BufReader::new(out),
            began,
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// When it was started.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Waits until it says this.
    pub(crate) async fn until(self, line: &'static str) -> Result<Self, Error> {
        let (child, _) = self.said(line).await?;
        Ok(child)
    }

    /// Waits for a line that begins so, and returns the rest of it.
    pub(crate) async fn said(mut self, start: &'static str) -> Result<(Self, String), Error> {
        let wait = move || {
            let mut line = String::new();
            while self.lines.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if let Some(rest) = line.trim_end().strip_prefix(start) {
                    return Ok((self, rest.trim().to_owned()));
                }
                line.clear();
            }
            let what = format!("the measured process ended before it said \"{start}\"");
            Err(Error::failure(
                "process_failed",
                what,
                "run it again with -v",
            ))
        };
        let waited = tokio::task::spawn_blocking(wait).await;
        waited.unwrap_or_else(|error| Err(Error::failure("process_failed", error.to_string(), "")))
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        let end = move || {
            self.process
                .kill()
                .and_then(|()| self.process.wait().map(drop))
        };
        let ended = tokio::task::spawn_blocking(end).await;
        let ended = ended.map_err(std::io::Error::other).and_then(|ended| ended);
        ended.map_err(|error| Error::failure("process_failed", error.to_string(), ""))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
