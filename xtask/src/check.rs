//! The rules, one module each. Every rule is a function from files to findings.

mod edges;
mod error_pages;
mod lock;
mod modules;
mod names;
mod size;
mod words;

pub(crate) use error_pages::{INDEX, is_page};

use crate::finding::Finding;
use crate::tree;
use std::path::Path;

/// How many rules [`all`] checks.
pub(crate) const COUNT: usize = 7;

/// Every problem of the repository at `root`, sorted.
pub(crate) fn all(root: &Path) -> Result<Vec<Finding>, String> {
    let files = tree::read(root)?;
    let packages = edges::packages(root)?;
    let mut findings: Vec<Finding> = [
        edges::check(&packages),
        error_pages::check(&files),
        lock::check(&files),
        modules::check(&files),
        names::check(&files),
        size::check(&files),
        words::check(&files),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.sort();
    Ok(findings)
}
