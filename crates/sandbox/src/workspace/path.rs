//! Paths: how text becomes names.

use super::{WorkspaceError, WorkspaceLimits};

/// The directory that relative paths start from, and the working directory of the model.
pub const WORKING_DIRECTORY: &str = "/workspace";

/// The components of a path, `..` kept, relative paths below [`WORKING_DIRECTORY`].
pub(crate) fn split(path: &str, limits: &WorkspaceLimits) -> Result<Vec<String>, WorkspaceError> {
    if path.is_empty() {
        return Err(WorkspaceError::Invalid("the path is empty".into()));
    }
    if path.contains('\0') {
        return Err(WorkspaceError::Invalid("the path has a null byte".into()));
    }
    if path.len() > limits.path_length {
        return Err(WorkspaceError::NameTooLong(excerpt(path)));
    }
    let mut names = Vec::new();
    if !path.starts_with('/') {
        names.extend(
            WORKING_DIRECTORY
                .split('/')
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        );
    }
    push(&mut names, path, limits)?;
    Ok(names)
}

/// The components of a symbolic link's target.
pub(crate) fn split_target(
    target: &str,
    limits: &WorkspaceLimits,
) -> Result<Vec<String>, WorkspaceError> {
    let mut names = Vec::new();
    push(&mut names, target, limits)?;
    Ok(names)
}

fn push(
    names: &mut Vec<String>,
    path: &str,
    limits: &WorkspaceLimits,
) -> Result<(), WorkspaceError> {
    for name in path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
    {
        if name.len() > limits.name_length {
            return Err(WorkspaceError::NameTooLong(excerpt(path)));
        }
        names.push(name.to_owned());
    }
    Ok(())
}

/// An absolute path without `.`, `..` or doubled slashes, by text alone (links are not looked at).
/// `base` is where a relative path starts.
pub fn absolute(path: &str, base: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { base };
    for name in start.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// `directory` and `name` as one path.
pub(crate) fn join(directory: &str, name: &str) -> String {
    let mut path = String::with_capacity(directory.len() + name.len() + 1);
    if directory != "/" {
        path.push_str(directory);
    }
    path.push('/');
    path.push_str(name);
    path
}

/// The beginning of a long path, for messages.
fn excerpt(path: &str) -> String {
    let end = path
        .char_indices()
        .map(|(at, _)| at)
        .nth(60)
        .unwrap_or(path.len());
    let dots = if end < path.len() { "…" } else { "" };
    format!("{}{dots}", path.get(..end).unwrap_or(path))
}
