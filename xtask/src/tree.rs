//! The text files of the repository, read once.

use std::fs;
use std::path::Path;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &[".git", ".bowline", "target", "node_modules"];

/// Files larger than this are data, not text of ours.
const LARGEST: u64 = 2 * 1024 * 1024;

/// One text file.
#[derive(Debug)]
pub(crate) struct File {
    /// Path from the root, with `/` between its parts.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl File {
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The folder's path, without a slash at its end; empty for the root.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The name without folder.
    pub(crate) fn name(&self) -> &str {
        self.path
            .rsplit_once('/')
            .map_or(&self.path, |(_, name)| name)
    }

    /// The name without folder and `.rs`, when it is Rust.
    pub(crate) fn rust_stem(&self) -> Option<&str> {
        self.name().strip_suffix(".rs")
    }

    /// The target folder of a crate (`crates/store/src`, `xtask/tests/it`) that a Rust file is part of.
    pub(crate) fn is_in(&self, part: &str) -> bool {
        let mut parts = self.path.split('/');
        match parts.next() {
            Some("crates") => parts.nth(1) == Some(part),
            Some("xtask") => parts.next() == Some(part),
            Some(_) | None => false,
        }
    }
}

/// Every text file below `root`, sorted by path.
pub(crate) fn read(root: &Path) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    collect(root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<(), String> {
    let fault = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(fault)?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else if kind.is_file() && entry.metadata().map_err(fault)?.len() <= LARGEST {
            // What is not UTF-8 is not text.
            if let Ok(text) = String::from_utf8(fs::read(entry.path()).map_err(fault)?) {
                files.push(File { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_knows_the_part_of_the_crate_it_is_in() {
        let file = File::new("crates/store/src/sqlite/writer.rs", "");
        assert!(file.is_in("src"));
        assert!(!file.is_in("tests"));
        assert_eq!(file.folder(), "crates/store/src/sqlite");
        assert_eq!(file.rust_stem(), Some("writer"));
        assert!(File::new("xtask/src/main.rs", "").is_in("src"));
        assert!(!File::new("examples/a/src/main.rs", "").is_in("src"));
    }

    #[test]
    fn the_repository_is_found_and_its_build_output_skipped() {
        let files = read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(files.iter().any(|f| f.path == "src/tree.rs"));
        assert!(files.iter().all(|f| !f.path.starts_with("target/")));
    }
}
