//! The number of packages stays small.

use crate::finding::Finding;
use crate::tree::File;

/// Packages in `Cargo.lock`. The product that this leaves room for is one binary with a database, a
/// virtual shell, a WebAssembly runtime, a TypeScript front end, an HTTP server and MCP, which is
/// about 550 packages; each package more is build time and trust. Raise it only on purpose, and say
/// here what for.
const LIMIT: usize = 600;

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let count = files
        .iter()
        .filter(|file| file.path == "Cargo.lock")
        .flat_map(|file| file.text.lines())
        .filter(|line| *line == "[[package]]")
        .count();
    if count <= LIMIT {
        return Vec::new();
    }
    vec![Finding::new(
        "Cargo.lock",
        format!("{count} packages, at most {LIMIT} are allowed"),
        "drop a dependency or its features (cargo tree -d), or raise LIMIT in xtask/src/check/lock.rs with its reason",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted() {
        let lock = |n| {
            [File::new(
                "Cargo.lock",
                &"[[package]]\nname = \"a\"\n".repeat(n),
            )]
        };
        assert_eq!(check(&lock(LIMIT)), []);
        assert_eq!(check(&lock(LIMIT + 1)).len(), 1);
    }
}
