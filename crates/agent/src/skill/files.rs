//! Which files a skill may have.

use std::fs::{self, FileType};
use std::io::Read as _;
use std::path::Path;

use super::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, SkillFile};
use crate::definition::{DefinitionError, DefinitionErrorKind};

/// How much of a file is searched for a private key, in bytes.
const SNIFF: u64 = 4 * 1024;

/// The entries of a folder by name; none when there is no such folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, FileType)>, DefinitionError> {
    Ok(crate::definition::entries(folder)?.unwrap_or_default())
}

/// The files below `dir`, `SKILL.md` and hidden ones apart, by path.
pub(super) fn list(dir: &Path) -> Result<Vec<SkillFile>, DefinitionError> {
    let mut found = Vec::new();
    let mut total = 0_u64;
    let mut pending = vec![(String::new(), 0_usize)];
    while let Some((prefix, depth)) = pending.pop() {
        for (name, kind) in entries(&dir.join(&prefix))? {
            let path = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            let full = dir.join(&path);
            if looks_secret(&name) {
                return Err(secret(&full));
            }
            if name.starts_with('.') || path == "SKILL.md" {
                continue;
            }
            if kind.is_symlink() {
                return Err(link(&full));
            }
            if kind.is_dir() {
                if depth + 1 > MAX_DEPTH {
                    return Err(too_large(&full, "folders nested deeper than 8"));
                }
                pending.push((path, depth + 1));
                continue;
            }
            let size = check(&full, kind)?;
            total += size;
            found.push(SkillFile { path, size });
            if found.len() > MAX_FILES {
                return Err(too_large(dir, "more than 500 files"));
            }
            if total > MAX_TOTAL_BYTES {
                return Err(too_large(dir, "files of more than 10 MiB together"));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The size of a file that a skill may have.
fn check(path: &Path, kind: FileType) -> Result<u64, DefinitionError> {
    let unreadable = |error: std::io::Error| DefinitionError::unreadable(path, &error);
    if !kind.is_file() {
        return Err(DefinitionError::new(
            DefinitionErrorKind::SkillUnsafe,
            "is neither a file nor a folder",
            "remove it from the skill",
        )
        .in_file(path));
    }
    let size = fs::symlink_metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        return Err(too_large(path, "a file of more than 1 MiB"));
    }
    let mut start = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(SNIFF).read_to_end(&mut start))
        .map_err(unreadable)?;
    let start = String::from_utf8_lossy(&start);
    if start.contains("-----BEGIN ") && start.contains("PRIVATE KEY-----") {
        return Err(secret(path));
    }
    Ok(size)
}

/// Refuses a symbolic link: it could lead anywhere.
pub(super) fn refuse_link(path: &Path) -> Result<(), DefinitionError> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_symlink() => Err(link(path)),
        Ok(_) => Ok(()),
        Err(error) => Err(DefinitionError::unreadable(path, &error)),
    }
}

/// Whether a file of this name usually holds keys or passwords.
fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if let Some(rest) = name.strip_prefix(".env") {
        let harmless = ["example", "sample", "template"];
        return rest.is_empty()
            || rest
                .strip_prefix('.')
                .is_some_and(|kind| !harmless.contains(&kind));
    }
    const NAMES: [&str; 10] = [
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
        ".netrc",
        ".npmrc",
        ".pypirc",
        ".pgpass",
        ".git-credentials",
        "secrets.toml",
    ];
    const ENDS: [&str; 8] = [
        ".pem",
        ".key",
        ".p12",
        ".pfx",
        ".jks",
        ".keystore",
        ".kdbx",
        ".ppk",
    ];
    NAMES.contains(&name.as_str()) || ENDS.iter().any(|end| name.ends_with(end))
}

fn secret(path: &Path) -> DefinitionError {
    DefinitionError::new(
        DefinitionErrorKind::SkillUnsafe,
        "looks like a secret, and the model can read every file of a skill",
        "remove it; keys belong into the environment or the secrets file",
    )
    .in_file(path)
}

fn link(path: &Path) -> DefinitionError {
    DefinitionError::new(
        DefinitionErrorKind::SkillUnsafe,
        "is a symbolic link",
        "put the file itself into the skill",
    )
    .in_file(path)
}

fn too_large(path: &Path, what: &str) -> DefinitionError {
    DefinitionError::new(
        DefinitionErrorKind::SkillTooLarge,
        format!("{what}: more than a skill may have"),
        "move large data into the workspace or leave it out",
    )
    .in_file(path)
}
