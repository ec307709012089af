//! A conversation on a terminal: `script` of util-linux is the terminal.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::world::World;

/// What is written when the prompt is ready for a line.
const READY: &str = "\u{1b}[?2004h";
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    seen: String,
}

impl Terminal {
    /// `None`, said loudly, where there is no such program.
    fn start(world: &World, args: &str) -> Option<Self> {
        let said = Command::new("script").arg("--version").output();
        if !said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("util-linux")) {
            eprintln!(
                "SKIPPED: no `script` of util-linux here, so nothing was typed on a terminal"
            );
            return None;
        }
        let bowline = env!("CARGO_BIN_EXE_bowline");
        let mut child = Command::new("script")
            .args(["-qec", &format!("stty cols 60 rows 24; {bowline} {args}")])
            .arg("/dev/null")
            .current_dir(world.path())
            .env_clear()
            .envs([
                ("TERM", "xterm"),
                ("PATH", "/usr/bin:/bin"),
                ("NO_COLOR", "1"),
            ])
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
    fn until(&mut self, text: &str) -> String {
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

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for its end; returns what was shown since, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = self.seen.into_bytes();
        self.screen.read_to_end(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        (String::from_utf8_lossy(&rest).into_owned(), code)
    }
}

#[test]
fn each_answer_of_a_conversation_is_shown_once() {
    let world = World::with_script("turns: [{text: \"An answer.\"}]");
    let Some(mut terminal) = Terminal::start(&world, "run demo --id t") else {
        return;
    };
    for _ in 0..2 {
        terminal.until(READY);
        terminal.press("again\r");
        let shown = terminal.until("completed");
        assert_eq!(shown.matches("An answer.").count(), 1, "{shown}");
    }
    terminal.until(READY);
    terminal.press(CTRL_D);
    let (shown, code) = terminal.end();
    assert!(
        shown.contains("to go on: bowline run demo --id t"),
        "{shown}"
    );
    assert_eq!(code, Some(0), "{shown}");
}

#[test]
fn a_call_that_waits_for_consent_is_asked_about_and_shown_under_its_name() {
    let world = World::with_script(
        "turns: [{tools: [{name: bash, input: {command: echo made}}]}, {text: Thanks.}]",
    );
    world.write(
        "agents/demo/agent.md",
        "---\nmodel: scripted/demo.yaml\napprovals: {bash: required}\n---\nAnswer.\n",
    );
    let Some(mut terminal) = Terminal::start(&world, "run demo --id t -m go") else {
        return;
    };
    terminal.until("Approve this call? [y]es, [n]o, [l]ater: ");
    terminal.press(CTRL_C);
    let (shown, code) = terminal.end();
    // It is asked again by the same line, and the call is still named when it was answered elsewhere.
    assert_eq!(code, Some(130), "{shown}");
    let mut terminal = Terminal::start(&world, "run demo --id t -m go").unwrap();
    terminal.until("Approve this call? [y]es, [n]o, [l]ater: ");
    terminal.press("y\r");
    let shown = terminal.until("Thanks.");
    assert!(shown.contains("✓ bash echo made"), "{shown}");
    assert_eq!(terminal.end().1, Some(0));
}
