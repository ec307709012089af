//! Every error that a user can meet has its page.
//!
//! The convention: the stable name of an error, its `type`, is a string literal in a function named
//! `code`, where nothing else is a string literal, or the first argument of one of [`MAKERS`].
//! `docs/errors/<type>.md` explains it.

use crate::finding::Finding;
use crate::source::Source;
use crate::tree::File;
use std::collections::{BTreeMap, BTreeSet};

const FOLDER: &str = "docs/errors";

/// The index of all pages.
pub(crate) const INDEX: &str = "docs/errors/README.md";

/// What makes an error out of its type, a message and a hint.
const MAKERS: [&str; 3] = ["Failure::new(", "Error::failure(", "Error::usage("];

/// How types begin that are put together while the program runs: `limit_` and the name of the limit
/// in `agent.md`. No literal holds such a type, so nothing here can tell whether its page is needed.
const COMPOSED: [&str; 1] = ["limit_"];

/// Whether a file is the page of an error.
pub(crate) fn is_page(file: &File) -> bool {
    file.folder() == FOLDER && file.path != INDEX && file.name().ends_with(".md")
}

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut declared: BTreeMap<&str, String> = BTreeMap::new();
    for file in files.iter().filter(|file| declares(file)) {
        for (place, name) in named(file) {
            if is_type(name) {
                declared.entry(name).or_insert(place);
            } else {
                findings.push(Finding::new(
                    &place,
                    format!("`{name}` is not an error type"),
                    "a type is in snake_case; rename the type, or the function if it is no `code`",
                ));
            }
        }
    }
    let pages: BTreeSet<&str> = files
        .iter()
        .filter(|file| is_page(file))
        .filter_map(|file| file.name().strip_suffix(".md"))
        .collect();
    for (name, place) in declared.iter().filter(|(name, _)| !pages.contains(*name)) {
        findings.push(Finding::new(
            place,
            format!("the error `{name}` has no page"),
            format!("write {FOLDER}/{name}.md from the template in {INDEX}"),
        ));
    }
    let composed = |page: &str| COMPOSED.iter().any(|begin| page.starts_with(begin));
    for page in pages
        .iter()
        .filter(|page| !declared.contains_key(*page) && !composed(page))
    {
        findings.push(Finding::new(
            format!("{FOLDER}/{page}.md"),
            "no error has this type",
            "delete the page, or name the error so where it is made",
        ));
    }
    let index = files
        .iter()
        .find(|file| file.path == INDEX)
        .map_or("", |file| &file.text);
    for page in pages
        .iter()
        .filter(|page| !index.contains(&format!("({page}.md)")))
    {
        findings.push(Finding::new(
            INDEX,
            format!("{page}.md is not in the list"),
            "run `cargo xtask index`",
        ));
    }
    findings
}

/// The types that a file names, each with its place.
fn named(file: &File) -> Vec<(String, &str)> {
    let source = Source::new(&file.text);
    let bodies = source.bodies("code");
    let in_code = bodies.iter().flat_map(|body| {
        let strings = source.strings_in(body).into_iter();
        strings.map(|name| (body.start, name))
    });
    let made = MAKERS
        .iter()
        .flat_map(|maker| source.first_arguments(maker));
    in_code
        .chain(made)
        .map(|(at, name)| (format!("{}:{}", file.path, source.line(at)), name))
        .collect()
}

fn declares(file: &File) -> bool {
    file.rust_stem().is_some()
        && file.is_in("src")
        && file.path.starts_with("crates/")
        && !file.path.starts_with("crates/testkit/")
}

fn is_type(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: &str = "impl E { fn code(&self) -> &'static str { match self {
        E::A => \"store_full\", E::B(x) => x.code() } } }";

    #[test]
    fn an_error_with_its_page_in_the_index_is_fine() {
        let files = [
            File::new("crates/store/src/error.rs", ERROR),
            File::new("docs/errors/store_full.md", ""),
            File::new(INDEX, "- [store_full](store_full.md)"),
        ];
        assert_eq!(check(&files), []);
    }

    #[test]
    fn a_missing_page_an_orphan_and_a_gap_in_the_index_are_reported() {
        let files = [
            File::new("crates/store/src/error.rs", ERROR),
            File::new("docs/errors/store_gone.md", ""),
        ];
        let found: Vec<String> = check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 3);
        assert!(
            found[0].starts_with("crates/store/src/error.rs:1: the error `store_full` has no page")
        );
        assert!(found[1].starts_with("docs/errors/store_gone.md: no error has this type"));
        assert!(found[2].starts_with("docs/errors/README.md: store_gone.md is not in the list"));
    }

    #[test]
    fn an_error_that_is_named_where_it_is_made_needs_its_page() {
        let text = "fn f() { Failure::new(\"store_full\", m, h); Error::usage(\"id_bad\", m, h);
            Error::failure(\n\"tail_cut\", m, h); Error::failure(error.code(), \"m\", h) }";
        let files = [
            File::new("crates/a/src/b.rs", text),
            File::new("docs/errors/store_full.md", ""),
            File::new(INDEX, "- [store_full](store_full.md)"),
        ];
        let found: Vec<String> = check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("crates/a/src/b.rs:1: the error `id_bad` has no page"));
        assert!(found[1].starts_with("crates/a/src/b.rs:2: the error `tail_cut` has no page"));
    }

    #[test]
    fn the_page_of_a_type_that_is_put_together_is_no_orphan() {
        let files = [
            File::new("docs/errors/limit_turns.md", ""),
            File::new(INDEX, "- [limit_turns](limit_turns.md)"),
        ];
        assert_eq!(check(&files), []);
    }

    #[test]
    fn a_string_that_is_no_type_is_reported() {
        let text = "fn code() -> String { format!(\"{}-x\", 1) }";
        assert_eq!(check(&[File::new("crates/a/src/b.rs", text)]).len(), 1);
    }
}
