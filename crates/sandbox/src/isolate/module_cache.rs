//! The compiled guest on disk, so that a process starts in milliseconds.
//!
//! A compiled module is machine code. It is read only from a folder that belongs to this user and that
//! nobody else may enter, and never from the store. A checksum beside it shows a file that a failing disk
//! or a loss of power damaged: that is compiled again.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use wasmtime::{Engine, Module};

use super::IsolateError;

/// The guest compiled for `engine`: from `folder` when it is there, else compiled and kept there.
/// Without a folder it is compiled each time.
pub(super) fn module(
    engine: &Engine,
    image: &[u8],
    hash: &str,
    folder: Option<&Path>,
) -> Result<Module, IsolateError> {
    let Some(folder) = folder else {
        return compile(engine, image);
    };
    // A folder that cannot be used costs time, not the run.
    let Ok(path) = private(folder).map(|()| path(engine, hash, folder)) else {
        return compile(engine, image);
    };
    if let Some(module) = load(engine, &path) {
        return Ok(module);
    }
    let module = compile(engine, image)?;
    if let Ok(code) = module.serialize() {
        keep(&path, &code);
    }
    Ok(module)
}

fn compile(engine: &Engine, image: &[u8]) -> Result<Module, IsolateError> {
    Module::new(engine, image).map_err(|error| IsolateError::Engine(format!("{error:#}")))
}

/// The name holds what the code depends on: the guest, and wasmtime's version, settings and the
/// features of the CPU.
fn path(engine: &Engine, hash: &str, folder: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    folder.join(format!(
        "guest-{}-{:016x}.cwasm",
        &hash[..16],
        hasher.finish()
    ))
}

/// Makes the folder, or refuses one that others may read or that is not ours.
fn private(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let meta = fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.mode() & 0o077 != 0 || !ours(&meta) {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

fn ours(meta: &fs::Metadata) -> bool {
    meta.uid() == rustix::process::geteuid().as_raw()
}

#[allow(unsafe_code)]
fn load(engine: &Engine, path: &Path) -> Option<Module> {
    let meta = fs::symlink_metadata(path).ok()?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 || !ours(&meta) {
        return None;
    }
    let code = fs::read(path).ok()?;
    if fs::read(sum_of(path)).ok()? != crc32fast::hash(&code).to_le_bytes() {
        return None;
    }
    // SAFETY: the file is machine code, which wasmtime maps and runs as it is. It was written by
    // `keep` below, whole (by a rename), in a folder that only this user may enter, under a name that
    // holds the hash of the guest and wasmtime's own compatibility hash; wasmtime compares version and
    // CPU features again. Who can write there can already run code as this user.
    unsafe { Module::deserialize_file(engine, path) }.ok()
}

/// Where the checksum of a file is.
fn sum_of(path: &Path) -> PathBuf {
    path.with_extension("sum")
}

/// Writes each file under another name first: a reader sees all of it or nothing.
fn keep(path: &Path, code: &[u8]) {
    let written =
        put(path, code).and_then(|()| put(&sum_of(path), &crc32fast::hash(code).to_le_bytes()));
    if let Err(error) = written {
        tracing::debug!(%error, path = %path.display(), "the compiled guest is not kept");
    }
}

fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let part = PathBuf::from(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| {
            std::io::Write::write_all(&mut file, bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}
