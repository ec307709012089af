//! Published npm packages, installed once by a lockfile of this repository into the cache of whoever runs
//! the tests.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// The folder whose packages are the published clients; others lie below it.
pub(crate) const CLIENTS: &str = "";
/// What decides what is installed.
const PACKAGE: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];

/// A folder of `tests/clients`.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/clients")
        .join(name)
}

/// A place below the cache of whoever runs the tests, for what is installed by these bytes.
pub(crate) fn cache(kind: &str, pinned: &[Vec<u8>]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    pinned.hash(&mut hasher);
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache = cache.unwrap_or_else(env::temp_dir).join("bowline");
    cache.join(kind).join(format!("{:016x}", hasher.finish()))
}

/// Installs into a place of [`cache`] unless that was done before, also by another process.
pub(crate) fn once(place: &Path, install: impl FnOnce(&Path)) {
    fs::create_dir_all(place).unwrap();
    let guard = fs::File::create(place.with_extension("lock")).unwrap();
    guard.lock().unwrap();
    let done = place.join("installed");
    if !done.exists() {
        install(place);
        fs::write(done, "").unwrap();
    }
}

/// Says that something was not tested, past the capture of the test's output, so that everybody sees it.
pub(crate) fn skipped(why: &str) {
    let _ = std::io::stderr().write_all(format!("\n!!! SKIPPED: {why}\n").as_bytes());
}

/// Where the packages of a folder are, in `node_modules`. `None`, said loudly, without node or npm.
pub(crate) fn packages(name: &str) -> Option<PathBuf> {
    for program in ["node", "npm"] {
        let found = Command::new(program).arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            skipped(&format!(
                "no `{program}` here, so tests/clients/{name} did not run"
            ));
            return None;
        }
    }
    let files = PACKAGE.map(|file| (file, fs::read(source(name).join(file)).unwrap_or_default()));
    let place = cache("npm", &files.clone().map(|(_, content)| content));
    once(&place, |place| {
        for (file, content) in files {
            fs::write(place.join(file), content).unwrap();
        }
        let output = Command::new("npm")
            .args([
                "ci",
                "--no-progress",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ])
            .current_dir(place)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "npm ci for {name}: {words}");
    });
    Some(place)
}

/// A fresh copy of the files of a folder, where they find their packages. `None` as [`packages`].
pub(crate) fn project(name: &str) -> Option<TempDir> {
    // Modules are looked for beside the file that asks for them, and above it.
    let run = TempDir::with_prefix_in("run-", packages(name)?).unwrap();
    for entry in fs::read_dir(source(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, run.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    Some(run)
}
