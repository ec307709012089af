//! The files that Amazon's own tools keep keys in: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Only what stands in them is read: an access key and a region. A profile that is signed in to in a
//! browser, takes a role or asks a program has none, and its keys have to be exported.

use std::path::PathBuf;

use crate::resolve::KeyLookup;
use crate::secret::Secret;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// An access key.
pub(super) struct Keys {
    pub(super) id: Secret,
    pub(super) secret: Secret,
    pub(super) session: Option<Secret>,
}

/// The profile that is asked for: that of `AWS_PROFILE`, else `default`.
pub(super) fn name(env: &KeyLookup) -> String {
    let named = env("AWS_PROFILE").filter(|name| !name.is_empty());
    named.map_or_else(|| "default".to_owned(), |name| name.expose().to_owned())
}

/// The access key of the profile, if it has one.
pub(super) fn keys(env: &KeyLookup) -> Option<Keys> {
    let text = read(env, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let profile = name(env);
    let get = |key: &str| value(&text, &profile, key).map(Secret::new);
    Some(Keys {
        id: get("aws_access_key_id")?,
        secret: get("aws_secret_access_key")?,
        session: get("aws_session_token"),
    })
}

/// The region of the profile, if it has one.
pub(super) fn region(env: &KeyLookup) -> Option<String> {
    let text = read(env, "AWS_CONFIG_FILE", "config")?;
    let profile = name(env);
    let section = match profile.as_str() {
        "default" => profile,
        other => format!("profile {other}"),
    };
    let plain = |ch: char| ch.is_ascii_alphanumeric() || ch == '-';
    let region = value(&text, &section, "region")?;
    region.chars().all(plain).then(|| region.to_owned())
}

fn read(env: &KeyLookup, var: &str, file: &str) -> Option<String> {
    let get = |var: &str| env(var).filter(|path| !path.is_empty());
    let path = match get(var) {
        Some(path) => PathBuf::from(path.expose()),
        None => PathBuf::from(get("HOME")?.expose()).join(".aws").join(file),
    };
    let found = std::fs::metadata(&path).ok()?;
    if !found.is_file() || found.len() > MAX_FILE {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

/// The value of a key in a section. Lines that are indented belong to the value above them, and are
/// none of ours.
fn value<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with(['#', ';', ' ', '\t']) {
            continue;
        }
        if let Some(head) = line.trim_end().strip_prefix('[') {
            let head = head.split(']').next().unwrap_or_default();
            inside = head.split_whitespace().eq(section.split_whitespace());
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
            && name.trim().eq_ignore_ascii_case(key)
        {
            return Some(value.trim()).filter(|value| !value.is_empty());
        }
    }
    None
}
