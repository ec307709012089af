//! Published npm clients, installed once from a lockfile of this repository.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

/// A folder of `tests/clients`, with what its lockfile names installed in the cache. `None`, said
/// loudly, where there is no node or npm.
pub(crate) fn project(name: &str) -> Option<PathBuf> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|error| error.into_inner());
    for program in ["node", "npm"] {
        let found = Command::new(program).arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            let line = format!(
                "\n!!! SKIPPED: no `{program}` here, so tests/clients/{name} did not run\n"
            );
            // Past the capture of the test's output, so that everybody sees it.
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/clients")
        .join(name);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let lock = fs::read(source.join("package-lock.json")).unwrap();
    let sum = lock.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let root = cache.join("bowline/npm");
    fs::create_dir_all(&root).unwrap();
    let guard = fs::File::create(root.join(format!("{name}.lock"))).unwrap();
    guard.lock().unwrap();
    let target = root.join(format!("{name}-{sum:016x}"));
    if !target.join("installed").exists() {
        fs::create_dir_all(&target).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(source.join(file), target.join(file)).unwrap();
        }
        let install = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&target)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&install.stderr);
        assert!(
            install.status.success(),
            "npm ci for {name} failed: {words}"
        );
        fs::write(target.join("installed"), "").unwrap();
    }
    // Tests have to lie beside what they import.
    let run = target.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(&run).unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        if entry
            .path()
            .extension()
            .is_some_and(|it| it == "js" || it == "mjs")
        {
            fs::copy(entry.path(), run.join(entry.file_name())).unwrap();
        }
    }
    Some(run)
}
