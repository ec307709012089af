//! Names say what a thing is for.

use crate::finding::Finding;
use crate::source::Source;
use crate::tree::File;

/// Names of crates and modules that say nothing about what is inside.
const EMPTY: &[&str] = &[
    "types", "common", "core", "util", "utils", "manager", "helper", "helpers", "v2",
];

const NEXT: &str = "name it after what it decides";

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let crate_name = file
            .path
            .strip_prefix("crates/")
            .and_then(|p| p.strip_suffix("/Cargo.toml"));
        if let Some(name) = crate_name.filter(|name| EMPTY.contains(name)) {
            findings.push(Finding::new(
                &file.path,
                format!("a crate named `{name}`"),
                NEXT,
            ));
        }
        let ours = file.is_in("src") || file.is_in("tests");
        if file.rust_stem().is_none() || !ours {
            continue;
        }
        for (name, _) in Source::new(&file.text).modules() {
            if EMPTY.contains(&name) {
                findings.push(Finding::new(
                    &file.path,
                    format!("a module named `{name}`"),
                    NEXT,
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
    fn empty_names_of_modules_and_crates_are_reported() {
        let files = [
            File::new(
                "crates/store/src/lib.rs",
                "pub mod utils;\nmod log;\nmod common { }\n",
            ),
            File::new("crates/core/Cargo.toml", ""),
            File::new("crates/store/Cargo.toml", ""),
        ];
        assert_eq!(check(&files).len(), 3);
    }

    #[test]
    fn names_in_comments_and_elsewhere_are_fine() {
        let files = [
            File::new(
                "crates/store/src/lib.rs",
                "// mod utils;\nuse std::core::x;\n",
            ),
            File::new("examples/a/lib.rs", "mod utils;"),
        ];
        assert_eq!(check(&files), []);
    }
}
