//! Files stay small enough to be read.

use crate::finding::Finding;
use crate::tree::File;

/// Lines of a Rust file, source or test.
const FILE: usize = 800;

/// Lines of a crate's `lib.rs`: a tour of the layout and re-exports, nothing else.
const LIB: usize = 150;

/// Lines of `AGENTS.md`: rules only.
const RULES: usize = 120;

/// Files that may be longer: path, lines, reason.
const EXCEPTIONS: &[(&str, usize, &str)] = &[];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        .filter_map(|file| too_long(file, EXCEPTIONS))
        .collect()
}

fn too_long(file: &File, exceptions: &[(&str, usize, &str)]) -> Option<Finding> {
    let (limit, next) = limit(file)?;
    let allowed = exceptions
        .iter()
        .find(|(path, _, _)| *path == file.path)
        .map_or(limit, |(_, lines, _)| *lines);
    let lines = file.text.lines().count();
    (lines > allowed).then(|| {
        Finding::new(
            &file.path,
            format!("{lines} lines, at most {allowed} are allowed"),
            next,
        )
    })
}

fn limit(file: &File) -> Option<(usize, &'static str)> {
    if file.path == "AGENTS.md" {
        return Some((
            RULES,
            "keep rules only; explanations go to ARCHITECTURE.md or docs/",
        ));
    }
    file.rust_stem()?;
    if file.is_in("src") && file.folder().ends_with("/src") && file.name() == "lib.rs" {
        return Some((
            LIB,
            "move code into modules; lib.rs is a tour and re-exports",
        ));
    }
    ["src", "tests", "benches"]
        .iter()
        .any(|part| file.is_in(part))
        .then_some((FILE, "split it where a reader would"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, lines: usize) -> File {
        File::new(path, &"x\n".repeat(lines))
    }

    #[test]
    fn a_file_over_its_limit_is_reported() {
        let files = [
            file("crates/store/src/log.rs", 801),
            file("crates/store/src/lib.rs", 151),
            file("crates/store/tests/it/log.rs", 801),
            file("AGENTS.md", 121),
        ];
        assert_eq!(check(&files).len(), 4);
    }

    #[test]
    fn a_file_at_its_limit_or_not_ours_is_fine() {
        let files = [
            file("crates/store/src/log.rs", 800),
            file("crates/store/src/lib.rs", 150),
            file("crates/store/src/log/lib.rs", 151),
            file("docs/guide.md", 2_000),
        ];
        assert_eq!(check(&files), []);
    }

    #[test]
    fn an_exception_raises_the_limit_only_to_its_number() {
        let exceptions = [("crates/store/src/log.rs", 900, "one uniform table")];
        assert_eq!(
            too_long(&file("crates/store/src/log.rs", 900), &exceptions),
            None
        );
        assert!(too_long(&file("crates/store/src/log.rs", 901), &exceptions).is_some());
    }
}
