//! Every Rust file is compiled and every test is run.
//!
//! A file that no `mod` names is not compiled, and nothing says so. Integration tests of a crate are
//! one binary, `tests/it/main.rs`, so that they link once; tests in `src` would be a second one, and hold
//! on to what is private.

use crate::finding::Finding;
use crate::source::Source;
use crate::tree::File;
use std::collections::BTreeMap;

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let rust: BTreeMap<&str, &File> = files
        .iter()
        .filter(|file| file.rust_stem().is_some())
        .map(|file| (file.path.as_str(), file))
        .collect();
    rust.values()
        .filter_map(|file| {
            if file.is_in("tests") {
                in_tests(file, &rust)
            } else if file.is_in("src") {
                in_module_tree(file, "src", &rust).or_else(|| tests_in_source(file))
            } else {
                None
            }
        })
        .collect()
}

/// A test in the source of a crate. The crate of these checks has nothing but a program, and no such rule.
fn tests_in_source(file: &File) -> Option<Finding> {
    const MARKS: [&str; 5] = ["cfg(test", "(any(test", "(all(test", "#[test]", "::test]"];
    let source = Source::new(&file.text);
    let at = MARKS.iter().filter_map(|mark| source.code.find(mark)).min();
    let at = at.filter(|_| file.path.starts_with("crates/"))?;
    Some(Finding::new(
        format!("{}:{}", file.path, source.line(at)),
        "a test in the source",
        "move it to tests/it/, where it uses what is public",
    ))
}

fn in_tests(file: &File, rust: &BTreeMap<&str, &File>) -> Option<Finding> {
    if file.folder().ends_with("/tests") {
        return Some(Finding::new(
            &file.path,
            "a test binary of its own",
            "move it to tests/it/ and name it in tests/it/main.rs",
        ));
    }
    in_module_tree(file, "tests/it", rust)
}

/// Whether a file is named by its parent module; `root` is the folder of `main.rs` or `lib.rs`.
fn in_module_tree(file: &File, root: &str, rust: &BTreeMap<&str, &File>) -> Option<Finding> {
    let stem = file.rust_stem()?;
    let folder = file.folder();
    let at_root = |folder: &str| folder.ends_with(&format!("/{root}"));
    // Each file in src/bin is a program of its own.
    if (at_root(folder) && matches!(stem, "main" | "lib")) || folder.ends_with("/src/bin") {
        return None;
    }
    let (module, parent) = match (stem, folder.rsplit_once('/')) {
        ("mod", Some((above, name))) => (name, above),
        _ => (stem, folder),
    };
    let parents = if at_root(parent) {
        vec![format!("{parent}/lib.rs"), format!("{parent}/main.rs")]
    } else {
        vec![format!("{parent}.rs"), format!("{parent}/mod.rs")]
    };
    let named = parents
        .iter()
        .filter_map(|path| rust.get(path.as_str()))
        .any(|parent| {
            Source::new(&parent.text)
                .modules()
                .contains(&(module, true))
        });
    let owner = parents
        .iter()
        .find(|path| rust.contains_key(path.as_str()))
        .or(parents.last())?;
    (!named).then(|| {
        Finding::new(
            &file.path,
            "no module names this file, so it is never compiled",
            format!("add `mod {module};` to {owner}, or delete the file"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_file_is_reported_with_its_parent() {
        let files = [
            File::new("crates/a/src/lib.rs", "mod used;\n// mod forgotten;\n"),
            File::new("crates/a/src/used.rs", "mod deep;"),
            File::new("crates/a/src/used/deep.rs", ""),
            File::new("crates/a/src/used/lost.rs", ""),
            File::new("crates/a/src/forgotten.rs", ""),
            File::new("crates/a/tests/it/main.rs", "mod log;\nmod group;"),
            File::new("crates/a/tests/it/log.rs", ""),
            File::new("crates/a/tests/it/group/mod.rs", "mod one;"),
            File::new("crates/a/tests/it/group/one.rs", ""),
            File::new("crates/a/tests/it/orphan.rs", ""),
        ];
        let found: Vec<String> = check(&files).into_iter().map(|f| f.place).collect();
        assert_eq!(
            found,
            [
                "crates/a/src/forgotten.rs",
                "crates/a/src/used/lost.rs",
                "crates/a/tests/it/orphan.rs"
            ]
        );
    }

    #[test]
    fn a_second_test_binary_is_reported() {
        let found = check(&[File::new("crates/a/tests/extra.rs", "")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].next.contains("tests/it/main.rs"));
    }

    #[test]
    fn a_test_in_the_source_is_reported_with_its_line() {
        let found = check(&[
            File::new(
                "crates/a/src/lib.rs",
                "fn f() {}\n// #[cfg(test)]\n#[cfg(test)]\nmod tests {}",
            ),
            File::new("crates/b/src/lib.rs", "#[tokio::test]\nasync fn f() {}"),
            File::new("crates/b/tests/it/main.rs", "#[test]\nfn f() {}"),
            File::new("xtask/src/main.rs", "#[cfg(test)]\nmod tests {}"),
        ]);
        let places: Vec<String> = found.into_iter().map(|f| f.place).collect();
        assert_eq!(places, ["crates/a/src/lib.rs:3", "crates/b/src/lib.rs:1"]);
    }

    #[test]
    fn programs_are_roots() {
        let files = [
            File::new("crates/a/src/main.rs", ""),
            File::new("crates/a/src/bin/b.rs", ""),
        ];
        assert_eq!(check(&files), []);
    }
}
