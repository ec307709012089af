//! The list of error pages, written from the pages themselves.

use crate::check::{INDEX, is_page};
use crate::tree::{self, File};
use std::path::Path;
use std::process::ExitCode;

const BEGIN: &str = "<!-- begin pages -->\n";
const END: &str = "<!-- end pages -->\n";

/// Rewrites the list in `docs/errors/README.md`.
pub(crate) fn write(root: &Path) -> Result<ExitCode, String> {
    let files = tree::read(root)?;
    let index = files
        .iter()
        .find(|file| file.path == INDEX)
        .ok_or_else(|| {
            format!("{INDEX} is missing: create it with a `begin pages` and an `end pages` mark")
        })?;
    let pages: Vec<&File> = files.iter().filter(|file| is_page(file)).collect();
    let text = with_list(&index.text, &pages)?;
    std::fs::write(root.join(INDEX), text).map_err(|e| format!("cannot write {INDEX}: {e}"))?;
    Ok(ExitCode::SUCCESS)
}

fn with_list(index: &str, pages: &[&File]) -> Result<String, String> {
    let parts = index
        .split_once(BEGIN)
        .and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) =
        parts.ok_or_else(|| format!("{INDEX} has no `begin pages` and `end pages` marks"))?;
    let lines: String = pages.iter().map(|page| line(page)).collect();
    Ok(format!("{head}{BEGIN}{lines}{END}{tail}"))
}

/// The page's name, with the first sentence under its title.
fn line(page: &File) -> String {
    let name = page.name().trim_end_matches(".md");
    let summary = page
        .text
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty() || line.starts_with('#'))
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let end = summary.find(". ").map_or(summary.len(), |at| at + 1);
    format!("- [`{name}`]({name}.md): {}\n", &summary[..end])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_list_is_replaced_and_the_rest_kept() {
        let page = File::new(
            "docs/errors/store_full.md",
            "# `store_full`\n\nThe disk\nis full. More.\n\n## Why\n",
        );
        let old = format!("# Errors\n{BEGIN}- stale\n{END}after\n");
        let new = with_list(&old, &[&page]).unwrap();
        let list = "- [`store_full`](store_full.md): The disk is full.\n";
        assert_eq!(new, format!("# Errors\n{BEGIN}{list}{END}after\n"));
        assert_eq!(with_list(&new, &[&page]).unwrap(), new);
    }

    #[test]
    fn an_index_without_marks_is_left_alone() {
        assert!(with_list("# Errors\n", &[]).is_err());
    }
}
