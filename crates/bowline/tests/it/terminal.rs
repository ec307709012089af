//! A terminal with the command in it: `script` of util-linux makes it.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::world::World;

pub(crate) const CTRL_C: &str = "\u{3}";
pub(crate) const CTRL_D: &str = "\u{4}";

/// What the shell says before the exit code of the command: `script` has one of its own.
const ENDED: &str = "ended with ";

/// A person at a terminal of 60 columns.
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    seen: String,
}

impl Terminal {
    /// Starts `bowline` with these arguments; says why it cannot where it cannot.
    pub(crate) fn start(world: &World, args: &str) -> Option<Self> {
        let said = Command::new("script").arg("--version").output();
        if !said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("util-linux")) {
            eprintln!(
                "SKIPPED: no `script` of util-linux here, so nothing was typed on a terminal"
            );
            return None;
        }
        let bowline = env!("CARGO_BIN_EXE_bowline");
        // Ctrl-C goes to the shell too, which has to be there to tell the exit code.
        let line = format!("stty cols 60 rows 24; trap : INT; {bowline} {args}; echo {ENDED}$?");
        let mut child = Command::new("script")
            .args(["-qc", &line, "/dev/null"])
            .current_dir(world.path())
            .env_clear()
            .envs([
                ("TERM", "xterm"),
                ("PATH", "/usr/bin:/bin"),
                ("NO_COLOR", "1"),
            ])
            .env("XDG_CACHE_HOME", world.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            keys: child.stdin.take().unwrap(),
            screen: child.stdout.take().unwrap(),
            child,
            seen: String::new(),
        })
    }

    /// Waits for a text, and returns what was shown since the one before.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut bytes = std::mem::take(&mut self.seen).into_bytes();
        loop {
            let all = String::from_utf8_lossy(&bytes);
            if let Some(place) = all.find(text) {
                let end = place + text.len();
                self.seen = all[end..].to_owned();
                return all[..end].to_owned();
            }
            let mut piece = [0; 4096];
            let read = self.screen.read(&mut piece).unwrap();
            assert!(read > 0, "it ended before `{text}`: {all}");
            bytes.extend_from_slice(&piece[..read]);
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for its end; returns what was shown since, and the exit code.
    pub(crate) fn end(mut self) -> (String, u8) {
        let mut rest = std::mem::take(&mut self.seen).into_bytes();
        self.screen.read_to_end(&mut rest).unwrap();
        self.child.wait().unwrap();
        let shown = String::from_utf8_lossy(&rest).into_owned();
        let code = shown.rsplit_once(ENDED).map(|(_, code)| code.trim());
        let code = code.and_then(|code| code.parse().ok());
        (shown.clone(), code.unwrap_or_else(|| panic!("{shown}")))
    }
}
