//! The published clients, unchanged, against a real `bowline serve`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::npm;

/// Where Debian puts the browser.
const CHROMIUM: &str = "/usr/bin/chromium";

#[test]
fn the_flue_client_works_unchanged() {
    run("flue.test.mjs", &[]);
}

#[test]
fn the_agents_client_works_unchanged() {
    run("agents.test.mjs", &[]);
}

#[test]
fn a_react_page_in_a_browser_works_unchanged() {
    if has_browser() {
        run("react.test.mjs", &[]);
    }
}

/// Whether there is a browser; said loudly when there is none.
pub(crate) fn has_browser() -> bool {
    let found = Path::new(CHROMIUM).exists();
    if !found {
        npm::skipped(&format!(
            "{CHROMIUM} is not there (apt-get install chromium)"
        ));
    }
    found
}

/// Runs one file of tests with node, which sees these variables besides.
pub(crate) fn run(file: &str, variables: &[(&str, &str)]) {
    let Some(folder) = npm::project(npm::CLIENTS) else {
        return;
    };
    let output = Command::new("node")
        .args(["--test", "--test-force-exit", "--test-reporter=spec", file])
        .current_dir(folder.path())
        .env("BOWLINE", env!("CARGO_BIN_EXE_bowline"))
        .env("BOWLINE_TMP", folder.path())
        .env("CHROMIUM", CHROMIUM)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
}
