//! The published clients, unchanged, against a real `bowline serve`.
//!
//! They are installed once, by the lockfile in `tests/clients`, into the cache of whoever runs the tests.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// What decides what is installed.
const PACKAGE: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];
/// Where Debian puts the browser.
const CHROMIUM: &str = "/usr/bin/chromium";

#[test]
fn the_flue_client_works_unchanged() {
    run("flue.test.mjs");
}

#[test]
fn the_agents_client_works_unchanged() {
    run("agents.test.mjs");
}

#[test]
fn a_react_page_in_a_browser_works_unchanged() {
    if has_browser() {
        run("react.test.mjs");
    }
}

/// Whether there is a browser; said loudly when there is none.
pub(crate) fn has_browser() -> bool {
    let found = Path::new(CHROMIUM).exists();
    if !found {
        eprintln!("SKIPPED: {CHROMIUM} is not there (apt-get install chromium)");
    }
    found
}

fn run(file: &str) {
    run_with(file, &[]);
}

/// Runs one file of tests with node, which sees these variables besides.
pub(crate) fn run_with(file: &str, variables: &[(&str, &str)]) {
    let Some(modules) = modules() else {
        eprintln!("SKIPPED: node and npm are not there");
        return;
    };
    // Modules are looked for beside the file that asks for them.
    let folder = tempfile::TempDir::new().unwrap();
    for entry in fs::read_dir(clients()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_file() {
            fs::copy(&path, folder.path().join(name)).unwrap();
        }
    }
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
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

pub(crate) fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients")
}

/// The folder with the packages; `None` without node and npm.
pub(crate) fn modules() -> Option<PathBuf> {
    static MODULES: OnceLock<Option<PathBuf>> = OnceLock::new();
    MODULES.get_or_init(install).clone()
}

fn install() -> Option<PathBuf> {
    let works = |program: &str| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    if !works("node") || !works("npm") {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    for name in PACKAGE {
        fs::read(clients().join(name)).unwrap().hash(&mut hasher);
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.unwrap_or_else(env::temp_dir).join("bowline/clients");
    let place = cache.join(format!("{:016x}", hasher.finish()));
    let modules = place.join("node_modules");
    if modules.is_dir() {
        return Some(modules);
    }
    fs::create_dir_all(&cache).unwrap();
    // Beside it and then moved, so that it is there whole or not at all.
    let fresh = tempfile::TempDir::new_in(&cache).unwrap();
    for name in PACKAGE {
        fs::copy(clients().join(name), fresh.path().join(name)).unwrap();
    }
    let output = Command::new("npm")
        .args(["ci", "--no-progress", "--loglevel=error"])
        .current_dir(fresh.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm ci: {err}");
    if fs::rename(fresh.path(), &place).is_err() {
        // Somebody else was faster.
        assert!(modules.is_dir());
    }
    Some(modules)
}
