//! Nothing unfinished is left behind, and `unsafe` stays where it is justified.

use crate::finding::Finding;
use crate::source::Source;
use crate::tree::File;

/// Marks of unfinished work, written in two parts so that this file does not carry them.
const MARKS: &[&str] = &[
    concat!("TO", "DO("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// The only folder whose code may lift the lint against `unsafe`, line by line.
const UNSAFE: &str = "crates/sandbox/src/isolate/";
/// How the lint is named when it is lifted.
const LINT: &str = "unsafe_code";

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.path != "Cargo.lock")
        .flat_map(in_file)
        .collect()
}

fn in_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for mark in MARKS {
            if line.contains(mark) {
                findings.push(Finding::new(
                    format!("{}:{}", file.path, number + 1),
                    format!("`{mark}` marks unfinished work"),
                    "finish it, or leave it out and say so where users look",
                ));
            }
        }
    }
    if file.rust_stem().is_some() {
        let source = Source::new(&file.text);
        for (at, _) in source.code.match_indices("#[ignore]") {
            findings.push(Finding::new(
                format!("{}:{}", file.path, source.line(at)),
                "a test is ignored without a reason",
                "write #[ignore = \"why\"], or run it",
            ));
        }
        if !file.path.starts_with(UNSAFE) && !file.path.starts_with("xtask/") {
            for (at, _) in source.code.match_indices(LINT) {
                findings.push(Finding::new(
                    format!("{}:{}", file.path, source.line(at)),
                    format!("`{LINT}` is lifted outside {UNSAFE}"),
                    "do without `unsafe`",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_unfinished_work_are_reported_in_any_text() {
        let text = format!("one\n// {} later\n", MARKS[1]);
        let findings = check(&[File::new("docs/guide.md", &text)]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, "docs/guide.md:2");
    }

    #[test]
    fn the_lint_against_unsafe_is_lifted_in_isolates_only() {
        let text = "#[allow(unsafe_code)]\nfn x() {}\n";
        let inside = File::new("crates/sandbox/src/isolate/cache.rs", text);
        let outside = File::new("crates/sandbox/src/shell.rs", text);
        assert_eq!(check(&[inside]), []);
        assert_eq!(check(&[outside]).len(), 1);
    }

    #[test]
    fn an_ignored_test_needs_a_reason() {
        let bare = File::new("crates/a/src/b.rs", "#[test]\n#[ignore]\nfn x() {}\n");
        assert_eq!(check(&[bare]).len(), 1);
        let reason = "// #[ignore]\n#[ignore = \"needs a key\"]\nfn x() {}\n";
        assert_eq!(check(&[File::new("crates/a/src/b.rs", reason)]), []);
    }
}
